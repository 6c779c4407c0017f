"""Stores how an attempt ended, patiently, or gives the task back when this worker was the one to stop its run."""

from __future__ import annotations

import asyncio

from engine.model.errors import StoreUnavailableError
from engine.model.result import TaskResult
from engine.model.status import Status
from engine.store.claims import Claims
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import WorkerMetrics
from engine.telemetry.tracing import Traces
from engine.worker.announce import Announcer
from engine.worker.running import Attempt
from sandbox import ExitReason

STORE_PAUSE_S = (0.1, 2.0)
STORE_PATIENCE_S = 60.0


class ResultWriter:
    """Writes results to PostgreSQL, and tries again while it is unreachable."""

    def __init__(self, claims: Claims, announcer: Announcer, metrics: WorkerMetrics, *, traces: Traces) -> None:
        self._claims = claims
        self._announcer = announcer
        self._metrics = metrics
        self._traces = traces
        self._log = get_logger()

    async def store(self, attempt: Attempt, result: TaskResult) -> bool:
        """Store a result, or give the task back; whether the task is final now.

        While PostgreSQL is unreachable this tries again for ``STORE_PATIENCE_S``. After that the lease runs out, and
        the task runs again.
        """
        deadline, pause_s, unsure = self._now_s() + STORE_PATIENCE_S, STORE_PAUSE_S[0], False
        while True:
            try:
                if attempt.stopped_by_us and result.exit_reason is ExitReason.CANCELLED:
                    return await self._give_back(attempt, result)
                return await self._finish(attempt, result, unsure=unsure)
            except StoreUnavailableError as error:
                unsure = True
                self._log.warning("result not stored yet", reason=str(error), retry_s=pause_s)
            if self._now_s() > deadline:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, STORE_PAUSE_S[1])

    async def _finish(self, attempt: Attempt, result: TaskResult, *, unsure: bool) -> bool:
        """Store a result.

        Args:
            attempt: the attempt.
            result: how it ended.
            unsure: an earlier try had no answer. It may have stored the result all the same, and then this one finds
                no lease: that is no reason to keep the result from those who wait for it.
        """
        with self._traces.span("store result"):
            stored = await self._claims.finish(attempt.claim, result)
        if stored:
            self._count(attempt, result)
        elif not unsure:
            self._log.warning("result not stored: the lease was lost")
        return stored or unsure

    async def _give_back(self, attempt: Attempt, result: TaskResult) -> bool:
        """Queue a task again whose run this worker stopped; ``True`` when its client cancelled it meanwhile."""
        status = await self._claims.release(attempt.claim)
        if status is Status.QUEUED:
            await self._announcer.queue_again(attempt.claim, had_turn=True)
        if status is Status.CANCELLED:
            self._count(attempt, result)
        return status is Status.CANCELLED

    def _count(self, attempt: Attempt, result: TaskResult) -> None:
        claim = attempt.claim
        total_s = claim.age_s + self._now_s() - attempt.claimed_at_s
        self._metrics.finished(claim.request.task_type, claim.policy, result.exit_reason, total_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
