"""Reports of progress: how far a task has come, for clients that follow its events.

A report is the task's own word, and nothing is decided by it. It costs next to nothing: most are held back here, so
that a loop over a million rows may report each of them. Outside of a sandbox reports go nowhere.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from handlers.text import clean_text, encode_json

MAX_MESSAGE_CHARACTERS = 200
MAX_NAMES, MAX_NAME_CHARACTERS = 8, 40
"""Of what a work's end waits for: as many, each so long at most."""
FREE_REPORTS = 10
"""Reports that are passed on however fast they come; for later ones the two bounds below hold."""
INTERVAL_S = 0.1
SHARE_OF_TIME = 80
"""Two reports are at least this fraction of the run apart: so many a run makes at most, times a logarithm."""
_CLOSING_S = 1.0

T = TypeVar("T")


class Reporter:
    """Passes on the reports of one task. Threads may share it."""

    def __init__(self, write: Callable[[bytes], None] | None) -> None:
        """
        Args:
            write: is given the JSON of one report, an object of ``fraction`` and ``message``; ``None`` drops reports.
        """
        self._write = write
        self._writing = threading.Lock()
        self._started_s = time.monotonic()
        self._next_s = 0.0
        self._reports = 0
        self._complained = False

    def report(self, fraction: float | None = None, message: str | None = None, *more: object, **named: object) -> None:
        """Report how far the work has come. A report that comes too soon after the last one is dropped.

        Whatever it is given, it never ends the work: what is wrong is said once, on stderr.

        Args:
            fraction: of the whole, 0 to 1; ``None`` if that is not known. What lies outside is moved to the nearer end.
            message: a few words for people; what is beyond 200 characters is cut off.
            more, named: nothing that it knows.
        """
        if (now_s := time.monotonic()) < self._next_s:
            return
        try:
            if more or named:
                self._complain("takes a fraction and a message, no more")
            if isinstance(fraction, str):
                self._complain(f"the fraction is a number from 0 to 1, not {fraction[:80]!r}; a text is the message")
                fraction, message = None, fraction if message is None else message
            self._report(fraction, message, now_s)
        except Exception as error:
            self._complain(f"{type(error).__name__}: {error}")

    def _complain(self, fault: str) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(Exception):
                sys.stderr.write(f"report_progress: {fault}\n")

    def wait_for(self, names: list[str]) -> None:
        """Say that the work is over, and what its end still waits for."""
        if self._writing.acquire(timeout=_CLOSING_S):
            try:
                if self._write is not None:
                    shown = [clean_text(name[:MAX_NAME_CHARACTERS]) for name in names[:MAX_NAMES]]
                    self._write(encode_json({"waits_for": shown}))
            finally:
                self._writing.release()

    def _report(self, fraction: float | None, message: str | None, now_s: float) -> None:
        # not waiting for another thread's report: this one would come too soon after it
        if not self._writing.acquire(blocking=False):
            return
        try:
            if self._write is not None:
                self._reports += 1
                if self._reports >= FREE_REPORTS:
                    self._next_s = now_s + max(INTERVAL_S, (now_s - self._started_s) / SHARE_OF_TIME)
                self._write(encode_json({"fraction": _fraction(fraction), "message": _message(message)}))
        finally:
            self._writing.release()

    def close(self) -> None:
        """Report nothing from here on: the answer comes next, over the same pipe."""
        # in a process that was forked while a thread reported, nothing ever releases the lock
        held = self._writing.acquire(timeout=_CLOSING_S)
        self._write = None
        if held:
            self._writing.release()


def _fraction(given: float | None) -> float | None:
    if given is None:
        return None
    given = float(given)  # whatever number it is
    if math.isnan(given):
        return None
    return min(max(given, 0.0), 1.0)


def _message(given: str | None) -> str | None:
    return None if given is None else clean_text(str(given)[:MAX_MESSAGE_CHARACTERS])


_REPORTER: ContextVar[Reporter] = ContextVar("reporter")
"""The reporter of the task that this context works on."""


def use(reporter: Reporter) -> None:
    """Make a reporter the one of this context."""
    _REPORTER.set(reporter)


def current() -> Reporter:
    """The reporter of this context; where there is none, one that drops reports."""
    return _REPORTER.get(None) or Reporter(None)


def through(things: Iterable[T], total: int, name: str) -> Iterator[T]:
    """Iterate over things, with a report after each that was worked through.

    Args:
        things: what is worked through.
        total: how many they are.
        name: the plural of what they are.
    """
    reporter = current()
    for number, thing in enumerate(things, 1):
        yield thing
        reporter.report(number / total, f"{number} of {total} {name}")
