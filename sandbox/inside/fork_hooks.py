"""Leaves out of a zygote what the standard library registers for a fork and has nothing to do there.

``logging``, ``threading`` and ``concurrent.futures`` set their locks and lists of threads right, in case another thread
was at work as the fork came. A zygote has one thread, which holds none of these locks as it forks, so they are right;
and zygote and child are both pid 1, each of its own namespace, so that even the number of their thread is the same.
``random`` takes another seed, and a child does that by itself (``sandbox.inside.randomness``). In a child these
functions are the first Python to run: to do nothing costs it a copy of a hundred pages, a tenth of a short life. What
any other library registers is kept, and runs.

Sources: https://docs.python.org/3/library/os.html on register_at_fork; Lib/logging/__init__.py, Lib/threading.py,
Lib/concurrent/futures/thread.py and Lib/random.py of CPython 3.11 to 3.13.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from sandbox.inside.plan import Plan

_WITHOUT_NEED = frozenset({"concurrent.futures.thread", "logging", "random", "threading"})


def are_idle(plan: Plan) -> bool:
    """Whether they have nothing to do: with pid namespaces, and where a run cannot fork itself."""
    return plan.profile == "full" and not plan.may_fork


@contextlib.contextmanager
def left_out() -> Iterator[list[str]]:
    """Leave them out of what the block imports; yields the list of modules that have registered something else."""
    register, others = os.register_at_fork, list[str]()

    def register_others(**functions: Any) -> None:
        name = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001 who registers
        if name not in _WITHOUT_NEED:
            others.append(name)
            register(**functions)

    os.register_at_fork = register_others
    try:
        yield others
    finally:
        os.register_at_fork = register
