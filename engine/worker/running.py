"""The attempts under way in this worker: the small registry that its parts share."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator
from uuid import UUID

import msgspec

from engine.model.task import Claim
from engine.queue.events import AttemptEvents
from engine.queue.memory import MemoryShare

REMEMBER_CANCEL_S = 10.0


class Attempt(msgspec.Struct, kw_only=True):
    """An attempt under way here."""

    claim: Claim
    events: AttemptEvents
    stop: asyncio.Event
    """Set to have the run killed: it was cancelled, its lease was lost, or this worker stops."""
    memory: MemoryShare
    """What was taken for it of its worker's memory."""
    claimed_at_s: float
    """On the event loop's clock, seconds."""
    cancelled: bool = False
    """Its client wants it to end: it is not given back."""
    ended: bool = False
    """The run is over: its result is being stored, or has been, so that a lost lease is no surprise."""

    @property
    def stopped_by_us(self) -> bool:
        """Whether its run was killed for a reason of ours, and not because its client wants it to end."""
        return self.stop.is_set() and not self.cancelled

    def cancel(self) -> None:
        """End it because its client wants that; one that has ended stays as it is."""
        if not self.ended:
            self.cancelled = True
            self.stop.set()


class RunningAttempts:
    """The attempts that this worker makes just now, by task."""

    def __init__(self) -> None:
        self._attempts: dict[UUID, Attempt] = {}
        self._cancel_asked: dict[UUID, float] = {}
        """Task whose client asked for its end → when, on the event loop's clock."""

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(tuple(self._attempts.values()))

    def get(self, task_id: UUID) -> Attempt | None:
        """The attempt at a task, if one is under way here."""
        return self._attempts.get(task_id)

    @contextlib.contextmanager
    def add(self, claim: Claim, events: AttemptEvents, memory: MemoryShare) -> Iterator[Attempt]:
        """An attempt, which is in the registry while this context is open."""
        now_s = asyncio.get_running_loop().time()
        attempt = Attempt(claim=claim, events=events, stop=asyncio.Event(), memory=memory, claimed_at_s=now_s)
        # The same worker may be given a task's next attempt while it still runs the one before, whose lease ran out
        # while the process slept. The older one can store nothing any more: stop it, and let it leave the registry to
        # the newer one, below.
        if older := self._attempts.get(claim.task_id):
            older.stop.set()
        self._attempts[claim.task_id] = attempt
        if claim.task_id in self._cancel_asked:  # it was cancelled while the claim was on its way
            attempt.cancel()
        try:
            yield attempt
        finally:
            if self._attempts.get(claim.task_id) is attempt:  # the newer one may have ended before
                del self._attempts[claim.task_id]

    def cancel(self, task_id: UUID) -> None:
        """Cancel the attempt at a task, now or, if it is claimed here within a few seconds, then."""
        now_s = asyncio.get_running_loop().time()
        asked = self._cancel_asked
        self._cancel_asked = {known: at_s for known, at_s in asked.items() if now_s - at_s < REMEMBER_CANCEL_S}
        self._cancel_asked[task_id] = now_s
        if attempt := self._attempts.get(task_id):
            attempt.cancel()

    def stop_all(self) -> None:
        """Kill every run, because this worker stops."""
        for attempt in self:
            attempt.stop.set()


class DatabaseOutage:
    """When PostgreSQL was last found unreachable by this worker."""

    def __init__(self) -> None:
        self._last_s = -math.inf

    def note(self) -> None:
        """PostgreSQL is unreachable just now."""
        self._last_s = asyncio.get_running_loop().time()

    def was_within(self, seconds: float) -> bool:
        """Whether PostgreSQL was unreachable at some moment of the last ``seconds``."""
        return asyncio.get_running_loop().time() - self._last_s <= seconds
