"""The worker's reaction when its own sandbox fails: which policies fail, which task is suspect, when to try again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container, Iterable
from typing import NamedTuple
from uuid import UUID

from engine.model.errors import StoreUnavailableError
from engine.model.result import NoRun, TaskResult
from engine.model.status import Status
from engine.model.task import Claim
from engine.store.claims import Claims
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.announce import Announcer
from sandbox import ExitReason, SandboxError

RETRY_DELAY_S = 1.0
MAX_REST_S = 5.0


class FailingPolicy(NamedTuple):
    """A policy whose sandbox has failed here by our own fault and has not worked since."""

    suspect: UUID
    """The task with which it began. It may be the cause, so each failure of it costs it an attempt; others pay none."""
    failures: int


class FailingPolicies:
    """The policies that fail on this worker.

    A worker that is sick, e.g. out of descriptors, must not spend the attempts of every task that it takes.
    """

    def __init__(self, policies: Iterable[str], not_ready: Container[str] = ()) -> None:
        """
        Args:
            policies: the names of those that have sandboxes here.
            not_ready: those of them whose sandboxes have not stood yet, now.
        """
        self._known = frozenset(policies)
        self._not_ready = not_ready
        self._failing: dict[str, FailingPolicy] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The policies that fail, in alphabetical order."""
        return tuple(sorted(self._failing))

    def note_failure(self, claim: Claim) -> FailingPolicy:
        """An attempt under its policy failed by our own fault."""
        known = self._failing.get(claim.policy, FailingPolicy(claim.task_id, 0))
        failing = known._replace(failures=known.failures + 1)
        if claim.policy in self._known:
            self._failing[claim.policy] = failing
        return failing

    def costs_an_attempt(self, claim: Claim, failing: FailingPolicy) -> bool:
        """Whether a failure may be of the task's making: not where no sandbox has stood that it could have broken."""
        return failing.suspect == claim.task_id and claim.policy not in self._not_ready

    def note_success(self, policy: str) -> None:
        """The sandbox of a policy has answered."""
        self._failing.pop(policy, None)


class Retries:
    """Queues a task again after our own failure."""

    def __init__(
        self,
        claims: Claims,
        failing: FailingPolicies,
        announcer: Announcer,
        metrics: WorkerMetrics,
        draining: asyncio.Event,
    ) -> None:
        """
        Args:
            claims: give the task back.
            failing: says which task pays for a failure.
            announcer: reports what became of the task.
            metrics: count it.
            draining: set when this worker stops: then no slot is kept back any longer.
        """
        self._claims = claims
        self._failing = failing
        self._announcer = announcer
        self._metrics = metrics
        self._draining = draining
        self._log = get_logger()

    def note_success(self, policy: str) -> None:
        """The sandbox of a policy has answered: it does not fail any more."""
        self._failing.note_success(policy)

    async def try_again(self, claim: Claim, error: SandboxError) -> TaskResult | None:
        """Queue a task again; the result that it fails with when no attempt is left."""
        failing = self._failing.note_failure(claim)
        counts = self._failing.costs_an_attempt(claim, failing)
        self._log.error("sandbox failed", stage=error.stage, reason=error.message)
        try:
            status = await self._claims.retry(claim, str(error), delay_s=RETRY_DELAY_S, counts=counts)
        except StoreUnavailableError:
            return None  # the lease runs out, and any worker queues the task again
        if status is None:
            message = f"The sandbox failed and no attempt is left: {error}"
            return TaskResult(run=NoRun(exit_reason=ExitReason.WORKER_LOST, message=message))
        if status is Status.CANCELLED:
            self._metrics.finished(claim.request.task_type, claim.policy, ExitReason.CANCELLED, None)
            await self._announcer.announce_final(claim)
            return None
        await self._rest(RETRY_DELAY_S)
        # Not in front: a task whose sandbox always fails would keep all others from running.
        await self._announcer.queue_again(claim, had_turn=False)
        await self._rest(min(RETRY_DELAY_S * (failing.failures - 1), MAX_REST_S))
        return None

    async def _rest(self, seconds: float) -> None:
        """Keep the slot, so that a sandbox that fails is not asked any faster. Ends when this worker stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()
