"""The mark of functions that meet untrusted bytes where all runs of a worker, or all clients of the API, would wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Answer = TypeVar("_Answer")


def meets_untrusted(function: Callable[_Parameters, _Answer]) -> Callable[_Parameters, _Answer]:
    """Mark a function that reads bytes of a client, a run or a remote host on an event loop or in the supervisor.

    Returns the function itself: the mark costs nothing at run time. ``tests/unit/test_work_grows_with_length.py`` finds
    the marks in the source, and fails for a function that it does not feed with the worst shapes.
    """
    return function
