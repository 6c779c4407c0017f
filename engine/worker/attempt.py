"""One attempt at one task: claim it, run it, store how it ended, announce that. The main path of the worker."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol
from uuid import UUID

import msgspec

from engine.model.errors import StoreUnavailableError
from engine.model.result import TaskResult, status_after
from engine.model.status import Status
from engine.model.task import Claim, ClaimRefused
from engine.queue.events import EventWriter
from engine.queue.memory import MemoryShare
from engine.store.claims import Claims
from engine.telemetry.logs import get_logger
from engine.worker.announce import Announcer
from engine.worker.failing import Retries
from engine.worker.record import AttemptRecords
from engine.worker.results import ResultWriter
from engine.worker.running import Attempt, RunningAttempts
from sandbox import OnOutput, OnProgress, Result, SandboxError

CLAIM_PAUSE_S = 1.0


class Execute(Protocol):
    """``engine.worker.execute.execute`` with the policies and sandboxes of this worker."""

    async def __call__(
        self,
        claim: Claim,
        *,
        memory: MemoryShare,
        cancel: asyncio.Event,
        on_output: OnOutput,
        on_progress: OnProgress,
    ) -> TaskResult:
        """How the attempt ended; raises ``SandboxError`` for our own failure."""


def reason_of_failure(result: TaskResult | None) -> str | None:
    """The exit reason of an attempt that failed; ``None`` for one that succeeded or that a client cancelled."""
    if result is None:
        return "sandbox_failed"
    reason = result.run.exit_reason
    return None if status_after(reason) in (Status.SUCCEEDED, Status.CANCELLED) else reason.value


class Attempts:
    """Makes the attempts of one worker."""

    def __init__(
        self,
        worker_id: UUID,
        claims: Claims,
        *,
        lease_s: float,
        execute: Execute,
        running: RunningAttempts,
        events: EventWriter,
        announcer: Announcer,
        retries: Retries,
        results: ResultWriter,
        records: AttemptRecords,
    ) -> None:
        """
        Args:
            worker_id: who claims.
            claims: what is claimed.
            lease_s: for how long, seconds.
            execute: runs an attempt in a sandbox.
            running: the attempts under way.
            events: pass on what an attempt prints and reports to those who follow its task.
            announcer: makes known what has become of a task.
            retries: queue a task again after our own failure.
            results: store how an attempt ended.
            records: metrics, traces and logs.
        """
        self._worker_id = worker_id
        self._claims = claims
        self._lease_s = lease_s
        self._execute_claim = execute
        self._running = running
        self._events = events
        self._announcer = announcer
        self._retries = retries
        self._results = results
        self._records = records
        self._log = get_logger(worker_id=str(worker_id))

    async def run_task(self, task_id: UUID, memory: MemoryShare) -> None:
        """Make one attempt at a task, if it can be claimed, with so much memory until its limit is known."""
        claimed_at_ns = time.time_ns()
        claim = await self._claim(task_id)
        if claim is None:
            return
        with (
            self._records.attempt(claim, claimed_at_ns) as span,
            self._events.attempt(claim) as events,
            self._running.add(claim, events, memory) as attempt,
        ):
            result = await self._run(attempt)
            if (reason := reason_of_failure(result)) is not None:
                span.fail(reason)
            is_final = result is not None and await self._results.store(attempt, result)
        if is_final:
            await self._announcer.announce_final(claim)

    async def _claim(self, task_id: UUID) -> Claim | None:
        """Take the task; ``None`` when another worker has it, or its tenant has as many running as it may."""
        try:
            claim = await self._claims.claim(task_id, self._worker_id, self._lease_s)
        except StoreUnavailableError as error:
            self._log.warning("task not claimed", task_id=str(task_id), reason=str(error))
            # PostgreSQL has the task as queued, and the sweeper puts it into the queue again. The pause keeps the slot,
            # so that this worker does not empty the queue for nothing.
            await asyncio.sleep(CLAIM_PAUSE_S)
            return None
        if isinstance(claim, ClaimRefused):
            await self._check_held(claim.tenant)
            return None
        return claim

    async def _check_held(self, tenant: str) -> None:
        """Make sure that a task that was just held is released in time.

        A task of the tenant that runs here releases it when it ends. One that ran elsewhere may have ended in the very
        moment when this task was held, so it is checked now.
        """
        if all(attempt.claim.tenant != tenant for attempt in self._running):
            await self._announcer.release_held(tenant)

    async def _run(self, attempt: Attempt) -> TaskResult | None:
        """How an attempt ended; ``None`` when it ended by our own failure and the task is queued again."""
        try:
            result = await self._execute(attempt)
        except SandboxError as error:
            failure = error
        except Exception as error:  # a fault in our own code must not cost the task its lease's time
            self._log.exception("attempt failed")
            failure = SandboxError("worker", f"{type(error).__name__}: {error}")
        else:
            self._records.ended(attempt.claim, result)
            return result
        finally:
            attempt.ended = True
        self._records.failed(attempt.claim, failure.stage)
        return await self._retries.try_again(attempt.claim, failure)

    async def _execute(self, attempt: Attempt) -> TaskResult:
        """Run an attempt in a sandbox of its policy, and pass on what it prints and reports.

        Raises:
            SandboxError: our own failure; the task may be tried again.
        """
        events = attempt.events
        result = await self._execute_claim(
            attempt.claim,
            memory=attempt.memory,
            cancel=attempt.stop,
            on_output=events.on_output,
            on_progress=events.on_progress,
        )
        if isinstance(result.run, Result):
            result = msgspec.structs.replace(result, events=await events.end())
            self._retries.note_success(attempt.claim.policy)
        return result
