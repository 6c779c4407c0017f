"""How long one request waits for PostgreSQL in all, however many statements it sends, one after another or at once.

Each statement has a limit of its own (``Database.answer_s``). A request that sends three would be told only after three
times as long that PostgreSQL is too slow; with one patience for all of them it is told in the time of one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar


class StorePatience:
    """The time that a request may still wait for PostgreSQL."""

    def __init__(self, whole_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            whole_s: how long in all.
            clock: what time is read from, seconds.
        """
        self._whole_s = self._left_s = whole_s
        self._clock = clock
        self._asking = 0
        self._since_s = 0.0
        """Since when something is asked."""

    @property
    def left_s(self) -> float:
        """Seconds; at least 0."""
        spent_s = self._clock() - self._since_s if self._asking else 0.0
        return max(0.0, self._left_s - spent_s)

    def renew(self) -> None:
        """Begin anew: the client is told nothing for another reason, and wants it so."""
        self._left_s, self._since_s = self._whole_s, self._clock()

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Time passes while something is asked; while two things are, it passes once."""
        if not self._asking:
            self._since_s = self._clock()
        self._asking += 1
        try:
            yield
        finally:
            left_s = self.left_s
            self._asking -= 1
            if not self._asking:
                self._left_s = left_s


_PATIENCE: ContextVar[StorePatience | None] = ContextVar("patience", default=None)
"""Of the request that is answered; ``None`` where nobody waits."""


@contextlib.contextmanager
def one_patience(whole_s: float) -> Iterator[None]:
    """All that is asked in this context has so many seconds together."""
    token = _PATIENCE.set(StorePatience(whole_s))
    try:
        yield
    finally:
        _PATIENCE.reset(token)


def renew_patience() -> None:
    """Begin anew, after the client has waited for something else than PostgreSQL."""
    if (patience := _PATIENCE.get()) is not None:
        patience.renew()


@contextlib.contextmanager
def spending(most_s: float) -> Iterator[float]:
    """How long something may be waited for: at most so many seconds, and no longer than this request's patience."""
    patience = _PATIENCE.get()
    if patience is None:
        yield most_s
        return
    with patience.spending():
        yield min(most_s, patience.left_s)
