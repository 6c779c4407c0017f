"""The clients of this process that wait for the end of a task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from uuid import UUID

import msgspec


class Waiter(msgspec.Struct, frozen=True):
    """Somebody who waits for one task."""

    task_id: UUID
    ended: asyncio.Event
    """Set when the task may have ended, and never too late."""


class Waiters:
    """The clients of this process that wait, by the task's id."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.closing = False
        """Whether nobody should wait any longer, because this process stops."""

    @contextlib.contextmanager
    def waiting(self, task_id: UUID) -> Iterator[Waiter]:
        """A waiter for a task. Enter this before the task can end."""
        key, event = str(task_id), asyncio.Event()
        self._events.setdefault(key, set()).add(event)
        try:
            yield Waiter(task_id, event)
        finally:
            self._events[key].discard(event)
            if not self._events[key]:
                del self._events[key]

    def wake(self, task_id: str) -> None:
        """The task has ended."""
        for event in self._events.get(task_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Everybody looks again: something may have been missed."""
        for events in self._events.values():
            for event in events:
                event.set()

    def close(self) -> None:
        """Nobody waits any longer."""
        self.closing = True
        self.wake_all()
