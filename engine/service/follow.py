"""Follows a task from where it stands to its end: its status from PostgreSQL, and in between its live events."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple

import msgspec

from engine.model.errors import EngineError, StoreUnavailableError
from engine.model.principal import Principal
from engine.model.status import Status
from engine.model.task import StoredTask
from engine.queue.events import LAST_NUMBER, READ_AT_ONCE, Event, EventId, EventReader, ReceivedEvent
from engine.service.service import Service
from engine.service.waiting import Waiters
from engine.store.patience import renew_patience

LOOK_S = 5.0
"""Between two looks at PostgreSQL when nobody says that there is something to see. News say it."""
LOOK_DEAF_S = 0.5
"""The same while nobody could say it."""
SAY_FOLLOWED_S = 5.0
STORE_PATIENCE_S = 30.0
LONGEST_S = 3600.0
"""Then the client comes again, to wherever the load balancer sends it, with whatever its key still opens."""
RETRY_S = 1.0


class TooManyFollowersError(EngineError):
    """As many clients follow tasks through this process as may, or as many of one tenant's."""

    status = 503
    retry_after_s = 5.0

    def __init__(self) -> None:
        super().__init__(
            "As many clients follow tasks here as may (EVENT_FOLLOWERS), or as many of one tenant "
            "(EVENT_FOLLOWERS_PER_TENANT). Try again after Retry-After seconds."
        )


class NewStatus(msgspec.Struct, frozen=True):
    """Where the task stands now."""

    status: Status
    attempt: int
    """The one that runs or ran last; 0 before the first."""


class Gap(msgspec.Struct, frozen=True):
    """Live events that are lost. The final result has the whole logs."""

    missing: int


class FinalTask(msgspec.Struct, frozen=True):
    """The last item of a stream: the final task."""

    task: StoredTask


class BrokenOff(msgspec.Struct, frozen=True):
    """The last item of a stream that does not reach the end of its task."""

    status: int
    """As HTTP would have it."""
    detail: str
    retry_s: float | None = RETRY_S
    """When to come again, with the id of the last event; ``None``: not at all."""


class StreamItem(NamedTuple):
    """One item of a follower's stream, and the id from which the stream can be resumed."""

    what: NewStatus | Event | Gap | FinalTask | BrokenOff
    event_id: EventId | None = None
    """From which to go on."""


class Followers:
    """The clients that follow tasks through this process."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service = service
        self._news = Waiters()
        self._most, self._heartbeat_s = settings.event_followers, settings.event_heartbeat_s
        self._most_of_a_tenant = settings.event_followers_per_tenant or (self._most + 1) // 2
        self._taken: Counter[str] = Counter()
        self._reader = EventReader(settings.servers[1], settings.queue_name, self._news.wake, self._news.wake_all)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens for news of tasks while this context is open."""
        try:
            async with self._service.loops.running({"events": self._reader.listen}):
                yield
        finally:
            await self._reader.close()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for one more client of a tenant.

        Raises:
            TooManyFollowersError: there is none, or the tenant has as many as one may have.
        """
        if self._taken.total() >= self._most or self._taken[tenant] >= self._most_of_a_tenant:
            raise TooManyFollowersError
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            self._taken = +self._taken

    async def follow(
        self, principal: Principal, task: StoredTask, after: EventId | None
    ) -> AsyncGenerator[StreamItem | None, None]:
        """All that becomes known of a task, to its end; ``None`` when nothing did for a while.

        Ends with ``FinalTask`` or ``BrokenOff``. Reads on only when what was read is taken.

        Args:
            principal: who follows.
            task: as it was just found.
            after: the last event that the follower has.
        """
        key, position, view = str(task.task_id), StreamPosition(task, after), TaskView(self._service, principal, task)
        heartbeat, said, answered = Interval(self._heartbeat_s), Interval(SAY_FOLLOWED_S), self._reader.questions
        with (
            self._service.waiters.waiting(task.task_id) as waiter,
            self._news.waiting(task.task_id) as news,
        ):
            if not task.status.final:
                await self._reader.announce_follower(key, is_new=True)
                waiter.ended.set()  # it may have changed before we could hear of it
            while True:
                if waiter.ended.is_set() or view.age_s >= self._look_s():
                    waiter.ended.clear()
                    await view.renew()
                heard = news.ended.is_set()
                news.ended.clear()
                async for item in self._items(key, position, view.task):
                    heard = False
                    heartbeat.restart()
                    yield item
                if (last := self._last_word(view)) is not None:
                    yield last
                    return
                if said.is_over() or answered != self._reader.questions:
                    said.restart()
                    answered = self._reader.questions
                    await self._reader.announce_follower(key, is_new=False)
                if heard:  # of something that is no event: its status has changed
                    waiter.ended.set()
                    continue
                if heartbeat.is_over():
                    heartbeat.restart()
                    yield None
                await _either(waiter.ended, news.ended, min(self._look_s(), self._heartbeat_s))

    def _look_s(self) -> float:
        return LOOK_S if self._reader.listening else LOOK_DEAF_S

    async def _items(self, key: str, position: StreamPosition, task: StoredTask) -> AsyncIterator[StreamItem]:
        """The live events that there are, then where the task stands, as far as that is not known."""
        there_is_more = True
        while there_is_more and position.last_id < EventId(task.attempts, LAST_NUMBER):
            arrived = await self._reader.read(key, position.last_id, task.attempts)
            there_is_more = len(arrived) == READ_AT_ONCE
            for one in arrived:
                for item in position.pass_event(one):
                    yield item
        for item in position.reach(task):
            yield item

    def _last_word(self, view: TaskView) -> StreamItem | None:
        if view.task.status.final:
            return StreamItem(FinalTask(view.task))
        if view.gone:
            return StreamItem(BrokenOff(404, "The task was deleted.", None))
        if self._service.waiters.closing:
            return StreamItem(BrokenOff(503, "This process stops. Come again with the id of the last event."))
        if view.store_unreachable_s > STORE_PATIENCE_S:
            return StreamItem(BrokenOff(503, "PostgreSQL is unreachable. Come again with the id of the last event."))
        if view.watched_s > LONGEST_S:
            return StreamItem(BrokenOff(503, "This took long. Come again with the id of the last event."))
        return None


class StreamPosition:
    """How far a follower has read the stream of a task, so that no item is sent twice."""

    def __init__(self, task: StoredTask, after: EventId | None) -> None:
        """Without ``after``, what was before the attempt that runs now is passed by."""
        runs = task.status is Status.RUNNING
        if after is None or after.attempt > task.attempts:
            self.last_id = EventId(task.attempts, 0 if runs else LAST_NUMBER)
            self._started = task.attempts - 1 if runs else task.attempts
            self._queued: int | None = None
        else:
            self.last_id = after
            self._started = after.attempt
            self._queued = after.attempt if not after.attempt or after.number == LAST_NUMBER else None

    def pass_event(self, arrived: ReceivedEvent) -> Iterator[StreamItem]:
        """Move on to a live event, and yield the items that lead to it."""
        if arrived.event_id.attempt > self._started:
            yield self._start(arrived.event_id.attempt)
        missing = arrived.event_id.number - self.last_id.number - 1 + (arrived.event is None)
        self.last_id = arrived.event_id
        if missing > 0:
            yield StreamItem(Gap(missing))
        if arrived.event is not None:
            yield StreamItem(arrived.event, arrived.event_id)

    def reach(self, task: StoredTask) -> Iterator[StreamItem]:
        """Move on to where the task stands, after all live events before it, and yield the items that lead there."""
        if task.status is Status.QUEUED:
            if self._queued != task.attempts:
                self._queued = self._started = task.attempts
                self.last_id = EventId(task.attempts, LAST_NUMBER)
                yield StreamItem(NewStatus(task.status, task.attempts), self.last_id)
            return
        if task.attempts > self._started:
            yield self._start(task.attempts)
        if task.status.final:
            yield from self._lost_tail(task)
            yield StreamItem(NewStatus(task.status, task.attempts))

    def _lost_tail(self, task: StoredTask) -> Iterator[StreamItem]:
        """The last events of a task that has ended, if Redis never had them, or has them no more."""
        events = task.result.events if task.result is not None else None
        if events is not None and self.last_id.attempt == task.attempts and self.last_id.number < events:
            missing, self.last_id = events - self.last_id.number, EventId(task.attempts, events)
            yield StreamItem(Gap(missing))

    def _start(self, attempt: int) -> StreamItem:
        self._started, self.last_id = attempt, EventId(attempt, 0)
        return StreamItem(NewStatus(Status.RUNNING, attempt), self.last_id)


class TaskView:
    """A task as it was last seen."""

    def __init__(self, service: Service, principal: Principal, task: StoredTask) -> None:
        self.task = task
        self.gone = False
        self._service, self._principal = service, principal
        self._begun_s = self._asked_s = self._seen_s = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since PostgreSQL was last asked."""
        return time.monotonic() - self._asked_s

    @property
    def watched_s(self) -> float:
        """Seconds since the stream began."""
        return time.monotonic() - self._begun_s

    @property
    def store_unreachable_s(self) -> float:
        """For how long PostgreSQL has been unreachable, seconds."""
        return self._asked_s - self._seen_s

    async def renew(self) -> None:
        """Read the task from PostgreSQL again; keep the old one if PostgreSQL is unreachable."""
        renew_patience()
        try:
            found = await self._service.get(self._principal, self.task.task_id)
        except StoreUnavailableError:
            self._asked_s = time.monotonic()
            return
        self._asked_s = self._seen_s = time.monotonic()
        self.task, self.gone = found or self.task, found is None


class Interval:
    """A time that passes, and that can be started again."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self.restart()

    def restart(self) -> None:
        """Start the interval again from now."""
        self._over_s = time.monotonic() + self._length_s

    def is_over(self) -> bool:
        """Whether the interval has passed since it was last started."""
        return time.monotonic() >= self._over_s


async def _either(first: asyncio.Event, second: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of the two events is set, or until the timeout."""
    waits = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
