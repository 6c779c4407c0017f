"""Keeps the leases of this worker's tasks, reports that it is alive, and hears which of its tasks are to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

from engine.model.errors import StoreUnavailableError
from engine.model.worker_state import BEAT_S, WorkerState
from engine.store.store import Store
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.running import DatabaseOutage, RunningAttempts

OUTAGE_PAUSE_S = 1.0


class Leases:
    """The leases of one worker."""

    def __init__(
        self,
        worker_id: UUID,
        store: Store,
        running: RunningAttempts,
        outage: DatabaseOutage,
        metrics: WorkerMetrics,
        *,
        lease_s: float,
        state: Callable[[float], Awaitable[WorkerState]],
    ) -> None:
        """
        Args:
            worker_id: whose leases.
            store: has them.
            running: the attempts that hold them.
            outage: is told when PostgreSQL is unreachable.
            metrics: are told how late the event loop was.
            lease_s: how long a lease lasts, seconds.
            state: what the worker reports of itself, given how late its event loop was, in seconds.
        """
        self._worker_id = worker_id
        self._store = store
        self._running = running
        self._outage = outage
        self._metrics = metrics
        self._lease_s = lease_s
        self._state = state
        self._log = get_logger(worker_id=str(worker_id))

    async def keep(self) -> None:
        """Renew the leases and send a heartbeat, well before either would be doubted. Runs until cancelled."""
        lag_s = 0.0
        while True:
            try:
                await self._store.open()
                await self._renew()
                await self._store.workers.beat(await self._state(lag_s))
            except StoreUnavailableError as error:
                self._log.warning("PostgreSQL is unreachable", reason=str(error))
                self._outage.note()
                await asyncio.sleep(OUTAGE_PAUSE_S)
                continue
            lag_s = await _sleep_and_measure(min(self._lease_s / 4, BEAT_S))
            self._metrics.lagged(lag_s)

    async def _renew(self) -> None:
        task_ids = [attempt.claim.task_id for attempt in self._running]
        if not task_ids:
            return
        kept = await self._store.claims.renew(self._worker_id, task_ids, self._lease_s)
        for task_id, cancel_asked in kept.items():
            if cancel_asked:
                self._running.cancel(task_id)
        for task_id in set(task_ids) - kept.keys():
            attempt = self._running.get(task_id)
            # One that has ended has lost its lease by storing its result.
            if attempt and not attempt.ended:
                self._log.warning("lease lost", task_id=str(task_id), attempt=attempt.claim.attempt)
                attempt.stop.set()

    def hear_cancel(self, task_id: str) -> None:
        """A client asks for a task's end. Every worker hears that, and at most one runs the task.

        Args:
            task_id: as it came over Redis, which may be any text.
        """
        with contextlib.suppress(ValueError):
            self._running.cancel(UUID(task_id))


async def _sleep_and_measure(seconds: float) -> float:
    """Sleep, and return how many seconds late the event loop was at the end of it."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + seconds
    await asyncio.sleep(seconds)
    return max(0.0, loop.time() - due_s)
