"""Which policies fail here by our own fault, and which task is the suspect."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID


class Failing(NamedTuple):
    """A policy whose sandbox has failed here by our own fault and has not worked since."""

    suspect: UUID
    """The task with which it began. It may be the cause, so each failure of it costs it an attempt; others pay none."""
    failures: int
