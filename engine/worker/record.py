"""Records what attempts do: in metrics, traces, the log and the audit log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from engine.model.result import TaskResult
from engine.model.task import Claim
from engine.telemetry.audit import AuditLog
from engine.telemetry.logs import get_logger, lines_with
from engine.telemetry.metrics import WorkerMetrics
from engine.telemetry.tracing import Span, Traces
from sandbox import Result


class AttemptRecords:
    """The records of one worker's attempts."""

    def __init__(
        self, worker_id: UUID, metrics: WorkerMetrics, traces: Traces, audit: AuditLog, *, queue_name: str
    ) -> None:
        self._queue_name = queue_name
        self._worker_id = worker_id
        self._metrics = metrics
        self._traces = traces
        self._audit = audit
        self._log = get_logger(worker_id=str(worker_id))

    @contextlib.contextmanager
    def attempt(self, claim: Claim, claimed_at_ns: int) -> Iterator[Span]:
        """Record what is done meanwhile as this attempt's: in its trace, and with its ids on each line of the log.

        Args:
            claim: the attempt.
            claimed_at_ns: when the claim began, by the wall clock.
        """
        self._metrics.claimed(claim.request.task_type, claim.queue_s)
        ids: dict[str, str | int] = {"task_id": str(claim.task_id), "attempt": claim.attempt}
        span = self._traces.attempt(
            claim.traceparent,
            queue_s=claim.queue_s,
            claimed_at_ns=claimed_at_ns,
            task_type=claim.request.task_type,
            policy=claim.policy,
            tenant=claim.tenant,
            worker_id=str(self._worker_id),
            destination=self._queue_name,
            message_id=str(claim.task_id),
            **ids,
        )
        with span as recorded, lines_with(**ids, trace_id=recorded.trace_id):
            yield recorded

    def ended(self, claim: Claim, result: TaskResult) -> None:
        """An attempt ended, whether or not its result can be stored."""
        self._metrics.ran(claim.request.task_type, result)
        self._audit.attempt_ended(self._facts(claim), result)
        if isinstance(result.run, Result):
            self._log_run(claim, result.run)

    def failed(self, claim: Claim, stage: str) -> None:
        """An attempt ended by our own failure, at this stage."""
        self._metrics.attempt_failed(claim.policy)
        self._audit.attempt_failed(self._facts(claim), stage)

    def _facts(self, claim: Claim) -> dict[str, Any]:
        """Collect the facts that the audit log's line of every attempt has."""
        return {
            "task_id": str(claim.task_id),
            "attempt": claim.attempt,
            "tenant": claim.tenant,
            "task_type": claim.request.task_type,
            "policy": claim.policy,
            "worker_id": str(self._worker_id),
            "key_id": claim.key_id,
            "request_id": claim.request_id,
            "client": claim.client_address,
            "source_sha256": claim.request.source_sha256,
            "parameters_sha256": claim.request.parameters_sha256,
        }

    def _log_run(self, claim: Claim, run: Result) -> None:
        self._log.info(
            "attempt ended",
            task_type=claim.request.task_type,
            policy=claim.policy,
            exit_reason=run.exit_reason.value,
            exit_code=run.exit_code,
            signal=run.signal,
            queue_s=round(claim.queue_s, 4),
            wall_s=round(run.usage.wall_s, 4),
            cpu_s=round(run.usage.cpu_s, 4),
            memory_peak_mib=round(run.usage.memory_peak_mib, 1),
            violations=len(run.violations),
            error_type=run.error.type if run.error else None,
        )
