"""Queues again what lost workers or a forgetful Redis left behind, and deletes what is old."""

from __future__ import annotations

import asyncio
import contextlib
import random

from engine.config.settings import Settings
from engine.model.errors import QueueUnavailableError, StoreUnavailableError
from engine.model.result import LOST
from engine.model.status import Status
from engine.model.task import OLDEST, LostTask, QueueItem
from engine.model.worker_state import SHOWN_FOR_S
from engine.queue.events import EventWriter
from engine.queue.queue import Queue
from engine.store.store import Store
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.announce import HeldTasks
from engine.worker.running import DatabaseOutage

SWEEP_S = 1.0
OVERDUE_S = 2.0
OVERDUE_PAGE = 500
OVERDUE_PAGES = 5
"""Of one sweep, beyond the oldest: of 50,000 tasks that wait, each is looked at every 20 seconds."""


class Sweeper:
    """Every worker sweeps, in turns that chance gives; PostgreSQL lets no two do the same."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: Queue,
        *,
        events: EventWriter,
        held: HeldTasks,
        outage: DatabaseOutage,
        metrics: WorkerMetrics,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._events = events
        self._held = held
        self._outage = outage
        self._metrics = metrics
        self._overdue_after = OLDEST
        """Where the next sweep goes on looking for what Redis has lost."""
        self._log = get_logger()

    async def sweep(self) -> None:
        """Sweep about once a second, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S * random.uniform(0.8, 1.2))  # noqa: S311  only so that workers take turns
            try:
                # A lease that ran out means a lost worker, but not just after an outage: nobody could renew then, and
                # those who are alive get half a lease to do so.
                if not self._outage.was_within(self._settings.lease_s / 2):
                    await self._sweep_lost()
                await self._held.release()
                await self._sweep_overdue()
            except StoreUnavailableError:
                self._outage.note()
            except QueueUnavailableError:
                continue

    async def clean_up(self) -> None:
        """Delete what is old, every ``CLEANUP_INTERVAL`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.cleanup_interval_s * random.uniform(0.9, 1.0))  # noqa: S311  as above
            with contextlib.suppress(StoreUnavailableError):
                await self._store.workers.forget_lost(SHOWN_FOR_S)
                deleted = await self._store.tasks.delete_old(self._settings.result_ttl_s)
                files = await self._store.files.delete_old()
                self._log.info("clean-up done", tasks_deleted=deleted, files_deleted=files)

    async def _sweep_lost(self) -> None:
        """Take the tasks of lost workers back, announce those that are final, queue the others."""
        lost = await self._store.claims.sweep_lost(LOST)
        for task in lost:
            self._metrics.lease_lost(task.task_type, task.policy, task.status)
            self._log.warning("worker lost", task_id=str(task.task_id), status=task.status.value)
            if task.status.final:
                await self._queue.announce(task.task_id)
        if again := [task for task in lost if task.status is Status.QUEUED]:
            await self._queue.put(_item(task) for task in again)
            for task in again:
                await self._events.announce_change(task.task_id)

    async def _sweep_overdue(self) -> None:
        """Queue the tasks that should be in the queue and are not: the oldest, then some of all others in turn."""
        async for page in self._store.waiting.overdue(OVERDUE_S, OVERDUE_PAGE):
            if not await self._put_missing(page.items):
                break  # Redis has not lost everything
        if page.after == OLDEST:
            return
        pages = 0
        async for page in self._store.waiting.overdue(OVERDUE_S, OVERDUE_PAGE, self._overdue_after):
            await self._put_missing(page.items)
            self._overdue_after = page.after
            pages += 1
            if pages == OVERDUE_PAGES:
                break

    async def _put_missing(self, items: list[QueueItem]) -> bool:
        if not items or not (missing := await self._queue.missing(items)):
            return False
        await self._queue.put(missing)
        self._log.warning("tasks queued again", count=len(missing))
        return True


def _item(task: LostTask) -> QueueItem:
    return QueueItem(task.task_id, task.tenant, task.priority, had_turn=True, memory_mib=task.memory_limit_mib)
