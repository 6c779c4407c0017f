"""Makes known what an attempt has led to: to those who wait for the task, to its tenant's held tasks, to the outbox."""

from __future__ import annotations

import contextlib

from engine.model.errors import QueueUnavailableError, StoreUnavailableError
from engine.model.task import Claim, QueueItem
from engine.queue.events import EventWriter
from engine.queue.queue import Queue
from engine.store.store import Store
from engine.worker.callbacks import CallbackSender


class HeldTasks:
    """Releases the tasks that are held because their tenant has as many running as it may."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue

    async def release(self, tenant: str | None = None) -> None:
        """Queue those that may run now, of every tenant or of this one.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
            QueueUnavailableError: Redis is unreachable.
        """
        if items := await self._store.waiting.release_held(tenant):
            await self._queue.put(items)

    async def try_release(self, tenant: str) -> None:
        """Release the held tasks of a tenant if both servers answer; otherwise the sweeper does it within seconds."""
        with contextlib.suppress(StoreUnavailableError, QueueUnavailableError):
            await self.release(tenant)


class Announcer:
    """Reports the tasks of this worker that are final, or queued again."""

    def __init__(self, queue: Queue, events: EventWriter, held: HeldTasks, callbacks: CallbackSender) -> None:
        self._queue = queue
        self._events = events
        self._held = held
        self._callbacks = callbacks

    async def announce_final(self, claim: Claim) -> None:
        """A task has ended: wake its clients, release what its tenant has held, send its callback."""
        await self._queue.announce(claim.task_id)
        if claim.concurrent_limit is not None:
            await self._held.try_release(claim.tenant)
        if claim.request.callback_url is not None:
            self._callbacks.wake()

    async def release_held(self, tenant: str) -> None:
        """A task of this tenant was held: queue it at once if it may run already."""
        await self._held.try_release(tenant)

    async def queue_again(self, claim: Claim, *, had_turn: bool) -> None:
        """A task was given back: queue it, in front if it had its turn, and have its followers look."""
        item = QueueItem(claim.task_id, claim.tenant, claim.request.priority, had_turn, claim.memory_limit_mib)
        with contextlib.suppress(QueueUnavailableError):  # then the sweeper does it
            await self._queue.put([item])
        await self._events.announce_change(claim.task_id)
