"""The worker: takes tasks from the queue and runs each in a sandbox of its policy.

Order matters at the start: the host is probed, the policies are read and every pool with its zygote is up before the
first connection to PostgreSQL or Redis exists, so that no socket and no secret can be inherited by what runs scripts.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Literal
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry

from engine.config.scripts import NamedScript, ScriptError, read_script
from engine.config.settings import Settings
from engine.model.errors import QueueUnavailableError, StoreUnavailableError
from engine.model.result import LOST, NoRun, TaskResult
from engine.model.status import Status
from engine.model.task import OLDEST, Claim, ClaimRefused, QueueItem
from engine.model.versions import engine_version, versions
from engine.model.worker_state import BEAT_S, SHOWN_FOR_S, WorkerState
from engine.policies.policies import Policies, effective_limits
from engine.queue.events import AttemptEvents, EventWriter
from engine.queue.queue import Queue, QueueWorker
from engine.store.store import Store
from engine.telemetry.logs import get_logger, lines_with
from engine.telemetry.metrics import WorkerMetrics, serve_metrics
from engine.telemetry.tracing import NO_TRACES, Traces, open_traces
from engine.worker.attempt import Attempt
from engine.worker.audit import AuditLog
from engine.worker.callbacks import Callbacks
from engine.worker.failing import Failing
from engine.worker.inputs import UnknownFileError, _unreadable, _without_files
from engine.worker.pools import open_pools, probe
from engine.worker.request import build_request
from sandbox import (
    ExitReason,
    Isolation,
    Pool,
    Result,
    SandboxError,
    SplitPool,
)

SWEEP_S = 1.0
OVERDUE_S = 2.0
OVERDUE_PAGE = 500
OVERDUE_PAGES = 5
"""That a sweep looks at: of 50,000 tasks that wait, each is looked at every 20 seconds."""
RETRY_DELAY_S = 1.0
MAX_REST_S = 5.0
CLAIM_PAUSE_S = 1.0
AWAY_PAUSE_S = 1.0
STORE_PAUSE_S = (0.1, 2.0)
STORE_PATIENCE_S = 60.0
KILL_S = 5.0
REMEMBER_CANCEL_S = 10.0


async def run_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        PolicyError: a policy file that cannot be.
        HostError: this host lacks a layer that a policy requires.
        SandboxError: a zygote did not come up.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    policies = Policies.load(settings)
    host = probe(settings)
    async with open_pools(settings, host, policies.all, ready=settings.pool_ready) as pools:
        metrics = WorkerMetrics(
            CollectorRegistry(),
            version=engine_version(),
            slots=settings.max_concurrent_tasks,
            policies={policy.name: policy.task_type for policy in policies.all},
        )
        metrics.watch_pools({name: pool.stats for name, pool in pools.items()})
        async with open_traces(settings, "worker") as traces:
            with (
                contextlib.closing(AuditLog(settings.audit_log)) as audit,
                serve_metrics(settings, metrics) as address,
            ):
                worker = Worker(settings, policies, pools, audit, metrics, metrics_address=address, traces=traces)
                await worker.run(stop)


class Worker:
    """Runs the tasks of the queue, ``MAX_CONCURRENT_TASKS`` at a time."""

    def __init__(
        self,
        settings: Settings,
        policies: Policies,
        pools: Mapping[str, Pool | SplitPool],
        audit: AuditLog,
        metrics: WorkerMetrics,
        *,
        metrics_address: str | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        database_url, redis_url = settings.servers
        self.worker_id = uuid4()
        self._settings = settings
        self._policies = policies
        self._pools = pools
        self._audit = audit
        self._metrics = metrics
        self._metrics_address = metrics_address
        self._traces = traces
        self._versions = versions()
        self._lag_s = 0.0
        self._store = Store(database_url, connections=settings.database_connections)
        self._queue = Queue(redis_url, settings.queue_name)
        self._entries = QueueWorker(redis_url, settings.queue_name, self.run_task, slots=settings.max_concurrent_tasks)
        self._events = EventWriter(redis_url, settings.queue_name)
        self._callbacks = Callbacks(settings, self._store, metrics.called_back)
        self._attempts: dict[UUID, Attempt] = {}
        self._failing: dict[str, Failing] = {}
        self._database_away_s = -math.inf
        """When PostgreSQL was last found away, on the event loop's clock."""
        self._overdue_after = OLDEST
        """Where the next sweep goes on looking for what Redis has lost."""
        self._draining = asyncio.Event()
        self._to_cancel: dict[UUID, float] = {}
        """Tasks whose end was asked for → when, on the event loop's clock; kept for a claim that is on its way."""
        metrics.count_running(lambda: len(self._attempts))
        self._log = get_logger(worker_id=str(self.worker_id))

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, then drain and leave nothing behind."""
        work = (
            self._take(), self._beat(), self._sweep(), self._clean_up(), self._callbacks.run(),
            self._queue.listen("cancel", self._hear_cancel, lambda: None),
            self._events.listen(),
        )  # fmt: skip
        loops = [asyncio.create_task(loop) for loop in work]
        isolation = self._isolation()
        self._log.info(
            "worker started",
            profile=isolation.profile,
            asked=self._settings.isolation,
            layers=isolation.layers,
            policies=sorted(self._pools),
            slots=self._settings.max_concurrent_tasks,
            metrics=self._metrics_address,
            egress_allow_private=[str(network) for network in self._settings.egress_allow_private],
        )
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
            for loop in done - {stopped}:
                loop.result()  # a loop never ends by itself: raise what ended it
            await self._drain(loops[0])
        finally:
            for task in (stopped, *loops):
                task.cancel()
            await asyncio.gather(stopped, *loops, return_exceptions=True)
            await self._leave()

    async def run_task(self, task_id: UUID) -> None:
        """One attempt at one task: claim, run, store, tell."""
        claimed_at_ns = time.time_ns()
        claim = await self._claim(task_id)
        if claim is None:
            return
        self._metrics.claimed(claim.request.task_type, claim.queue_s)
        with (
            self._told(claim, claimed_at_ns),
            self._events.attempt(claim) as events,
            self._attempt(claim, events) as attempt,
        ):
            ended = await self._end(attempt)
            if ended is None or not await self._conclude(attempt, ended):
                return
        await self._tell(claim)

    async def _tell(self, claim: Claim) -> None:
        await self._queue.announce(claim.task_id)
        if claim.concurrent_limit is not None:
            await self._let_go_soon(claim.tenant)
        if claim.request.callback_url is not None:
            self._callbacks.wake()

    def _facts(self, claim: Claim) -> dict[str, Any]:
        """What the audit log says of an attempt, however it ends."""
        return {
            "task_id": str(claim.task_id),
            "attempt": claim.attempt,
            "tenant": claim.tenant,
            "task_type": claim.request.task_type,
            "policy": claim.policy,
            "worker_id": str(self.worker_id),
        }

    async def _take(self) -> None:
        """Take tasks from the queue, once PostgreSQL can be asked what they are."""
        await self._store.opened.wait()
        await self._entries.main()

    async def _claim(self, task_id: UUID) -> Claim | None:
        try:
            claimed = await self._store.claims.claim(task_id, self.worker_id, self._settings.lease_s)
        except StoreUnavailableError as error:
            self._log.warning("task not claimed", task_id=str(task_id), reason=str(error))
            await asyncio.sleep(CLAIM_PAUSE_S)  # keeps the slot, so that we do not empty the queue for nothing
            return None  # it is still queued, and the sweeper puts it in line again
        if isinstance(claimed, ClaimRefused):
            await self._check_held(claimed)
            return None
        return claimed

    async def _check_held(self, held: ClaimRefused) -> None:
        """What ran elsewhere may have ended in the very moment when this was held; what runs here has yet to end, and
        lets go then."""
        if all(attempt.claim.tenant != held.tenant for attempt in self._attempts.values()):
            await self._let_go_soon(held.tenant)

    @contextlib.contextmanager
    def _told(self, claim: Claim, claimed_at_ns: int) -> Iterator[None]:
        """What an attempt does is told as its own: in its trace, and with its ids on each line of the log."""
        ids: dict[str, str | int] = {"task_id": str(claim.task_id), "attempt": claim.attempt}
        with (
            self._traces.attempt(
                claim.traceparent,
                queue_s=claim.queue_s,
                claimed_at_ns=claimed_at_ns,
                task_type=claim.request.task_type,
                policy=claim.policy,
                tenant=claim.tenant,
                worker_id=str(self.worker_id),
                **ids,
            ) as span,
            lines_with(**ids, trace_id=span.trace_id),
        ):
            yield

    @contextlib.contextmanager
    def _attempt(self, claim: Claim, events: AttemptEvents) -> Iterator[Attempt]:
        attempt = Attempt(claim=claim, events=events, stop=asyncio.Event(), claimed_at=time.monotonic())
        if older := self._attempts.get(claim.task_id):  # its lease was lost while we slept, and we are next
            older.stop.set()
        self._attempts[claim.task_id] = attempt
        if claim.task_id in self._to_cancel:
            self._cancel(attempt)
        try:
            yield attempt
        finally:
            if self._attempts[claim.task_id] is attempt:
                del self._attempts[claim.task_id]

    async def _end(self, attempt: Attempt) -> TaskResult | None:
        """How an attempt ended; ``None`` when it ended by our own fault and the task is queued again."""
        try:
            ended = await self._execute(attempt)
        except SandboxError as error:
            failure = error
        except Exception as error:  # a fault in our own code must not cost the task its lease's time
            self._log.exception("attempt broken off")
            failure = SandboxError("worker", f"{type(error).__name__}: {error}")
        else:
            self._metrics.ran(attempt.claim.request.task_type, ended)
            self._audit.attempt_ended(self._facts(attempt.claim), ended)  # whether or not it can be stored
            return ended
        finally:
            attempt.ended = True
        self._metrics.attempt_failed(attempt.claim.policy)
        self._audit.attempt_failed(self._facts(attempt.claim), failure.stage)
        return await self._try_again(attempt.claim, failure)

    async def _execute(self, attempt: Attempt) -> TaskResult:
        """Run an attempt in its sandbox and say how it ended.

        Raises:
            SandboxError: our own failure; the task may be tried again.
        """
        claim = attempt.claim
        policy = self._policies.named(claim.policy)
        if policy is None:
            raise SandboxError("policy", f"this worker has no policy {claim.policy}")
        try:
            script = self._read_script(claim)
            inputs = await self._read_files(claim)
        except ScriptError as error:
            return _unreadable(claim, error)
        except UnknownFileError as error:
            return _without_files(claim, error)
        limits = effective_limits(policy, self._settings, claim.request.timeout_s, claim.request.memory_mib)
        request = build_request(claim, script)
        events = attempt.events
        with self._traces.span("sandbox run") as span:
            result = await self._pools[policy.name].run(
                request, inputs=inputs, limits=limits, cancel=attempt.stop,
                on_output=events.on_output, on_progress=events.on_progress,
            )  # fmt: skip
            span.note(exit_reason=result.exit_reason.value, wall_s=result.usage.wall_s, cpu_s=result.usage.cpu_s)
        await events.end()
        self._failing.pop(policy.name, None)
        self._log_result(claim, result)
        return TaskResult.of_run(result, queue_s=claim.queue_s, script=script.script if script else None)

    def _read_script(self, claim: Claim) -> NamedScript | None:
        name = claim.request.script_name
        return read_script(self._settings.scripts_dir, name) if name else None

    async def _read_files(self, claim: Claim) -> dict[str, bytes]:
        """The uploaded files that a task names.

        Raises:
            UnknownFileError: one of them is no longer there.
            SandboxError: PostgreSQL cannot be asked; the task may be tried again.
        """
        if not claim.request.file_ids:
            return {}
        try:
            files = await self._store.files.read(claim.request.file_ids, claim.tenant)
        except StoreUnavailableError as error:
            raise SandboxError("read_files", str(error)) from error
        if missing := sorted(set(claim.request.file_ids) - set(files)):
            raise UnknownFileError(", ".join(missing))
        return files

    async def _try_again(self, claim: Claim, error: SandboxError) -> TaskResult | None:
        """Queue a task again after our own failure; the outcome that it fails with when no attempt is left."""
        self._log.error("sandbox failed", stage=error.stage, reason=error.message)
        failing = self._note_failure(claim)
        counts = failing.suspect == claim.task_id
        try:
            again = await self._store.claims.retry(claim, str(error), delay_s=RETRY_DELAY_S, counts=counts)
        except StoreUnavailableError:
            return None  # the lease runs out, which comes to the same
        if again is Status.CANCELLED:
            self._metrics.finished(claim.request.task_type, claim.policy, ExitReason.CANCELLED, None)
            await self._tell(claim)
            return None
        if again is None:
            message = f"The sandbox failed and no attempt is left: {error}"
            return TaskResult(run=NoRun(exit_reason=ExitReason.WORKER_LOST, message=message))
        await self._rest(RETRY_DELAY_S)
        await self._put_again(claim, had_turn=False)  # in front, a sandbox that always fails would keep all others away
        await self._rest(min(RETRY_DELAY_S * (failing.failures - 1), MAX_REST_S))
        return None

    async def _put_again(self, claim: Claim, *, had_turn: bool) -> None:
        with contextlib.suppress(QueueUnavailableError):  # then the sweeper does it
            await self._queue.put([QueueItem(claim.task_id, claim.tenant, claim.request.priority, had_turn)])
        await self._events.say_changed(claim.task_id)

    def _note_failure(self, claim: Claim) -> Failing:
        """A worker that is sick, e.g. out of descriptors, must not spend the attempts of every task that it meets."""
        known = self._failing.get(claim.policy, Failing(claim.task_id, 0))
        failing = known._replace(failures=known.failures + 1)
        if claim.policy in self._pools:
            self._failing[claim.policy] = failing
        return failing

    async def _rest(self, seconds: float) -> None:
        """Keep the slot, so that a sandbox that fails is not asked any faster. Over when this worker stops."""
        await _within(seconds, self._draining.wait())

    async def _conclude(self, attempt: Attempt, ended: TaskResult) -> bool:
        """Store an outcome, patiently, or give the task back when we were the ones who stopped it."""
        claim, pause, unsure = attempt.claim, STORE_PAUSE_S[0], False
        stopped_by_us = attempt.stop.is_set() and not attempt.cancelled and ended.exit_reason is ExitReason.CANCELLED
        deadline = asyncio.get_running_loop().time() + STORE_PATIENCE_S
        while True:
            try:
                if stopped_by_us:
                    given_back = await self._store.claims.release(claim)
                    if given_back is Status.QUEUED:
                        await self._put_again(claim, had_turn=True)
                    if given_back is Status.CANCELLED:
                        self._count_finished(attempt, ended)
                    return given_back is Status.CANCELLED
                with self._traces.span("store result"):
                    stored = await self._store.claims.finish(claim, ended)
            except StoreUnavailableError as error:
                unsure = True  # it may have been stored, and only the answer lost
                self._log.warning("result not stored yet", reason=str(error), retry_s=pause)
                if asyncio.get_running_loop().time() > deadline:
                    return False  # the lease runs out and the task runs again
            else:
                if stored:
                    self._count_finished(attempt, ended)
                elif not unsure:
                    self._log.warning("result not stored: the lease was lost")
                return stored or unsure
            await asyncio.sleep(pause)
            pause = min(pause * 2, STORE_PAUSE_S[1])

    def _count_finished(self, attempt: Attempt, outcome: TaskResult) -> None:
        claim = attempt.claim
        total_s = claim.age_s + time.monotonic() - attempt.claimed_at
        self._metrics.finished(claim.request.task_type, claim.policy, outcome.exit_reason, total_s)

    def _log_result(self, claim: Claim, result: Result) -> None:
        self._log.info(
            "attempt ended",
            task_type=claim.request.task_type,
            policy=claim.policy,
            exit_reason=result.exit_reason.value,
            exit_code=result.exit_code,
            signal=result.signal,
            queue_s=round(claim.queue_s, 4),
            wall_s=round(result.usage.wall_s, 4),
            cpu_s=round(result.usage.cpu_s, 4),
            memory_peak_mib=round(result.usage.memory_peak_mib, 1),
            violations=len(result.violations),
            error_type=result.error.type if result.error else None,
        )

    async def _beat(self) -> None:
        """Renew the leases and say that we are alive, well before either would be doubted."""
        while True:
            try:
                await self._store.open()
                await self._renew()
                await self._store.workers.beat(await self._state())
            except StoreUnavailableError as error:
                self._log.warning("database away", reason=str(error))
                self._note_database_away()
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            self._lag_s = await _sleep_and_measure(min(self._settings.lease_s / 4, BEAT_S))
            self._metrics.lagged(self._lag_s)

    async def _renew(self) -> None:
        held = list(self._attempts)
        if not held:
            return
        kept = await self._store.claims.renew(self.worker_id, held, self._settings.lease_s)
        for task_id in (task_id for task_id, cancel_asked in kept.items() if cancel_asked):
            self._hear_cancel(str(task_id))
        for task_id in set(held) - kept.keys():
            attempt = self._attempts.get(task_id)
            if attempt and not attempt.ended:
                self._log.warning("lease lost", task_id=str(task_id), attempt=attempt.claim.attempt)
                attempt.stop.set()

    def _hear_cancel(self, task_id: str) -> None:
        """Somebody asks for a task's end; every worker hears it, and at most one runs the task."""
        now = asyncio.get_running_loop().time()
        self._to_cancel = {known: heard for known, heard in self._to_cancel.items() if now - heard < REMEMBER_CANCEL_S}
        with contextlib.suppress(ValueError):  # whoever can write to Redis can say anything
            key = UUID(task_id)
            self._to_cancel[key] = now
            if attempt := self._attempts.get(key):
                self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if not attempt.ended:
            attempt.cancelled = True
            attempt.stop.set()

    async def _sweep(self) -> None:
        """Queue again what lost workers or a forgetful Redis left behind."""
        while True:
            await asyncio.sleep(SWEEP_S * random.uniform(0.8, 1.2))  # noqa: S311  only so that workers take turns
            try:
                if self._leases_tell():
                    await self._sweep_lost()
                await self._let_go()
                await self._sweep_overdue()
            except StoreUnavailableError:
                self._note_database_away()
            except QueueUnavailableError:
                continue

    def _leases_tell(self) -> bool:
        """Whether a lease that ran out means a lost worker. Not just after PostgreSQL was away: nobody could renew."""
        return asyncio.get_running_loop().time() - self._database_away_s > self._settings.lease_s / 2

    def _note_database_away(self) -> None:
        self._database_away_s = asyncio.get_running_loop().time()

    async def _sweep_lost(self) -> None:
        swept = await self._store.claims.sweep_lost(LOST)
        for task in swept:
            self._metrics.lease_lost(task.task_type, task.policy, task.status)
            self._log.warning("worker lost", task_id=str(task.task_id), status=task.status.value)
            if task.status.final:
                await self._queue.announce(task.task_id)
        if again := [task for task in swept if task.status is Status.QUEUED]:
            await self._queue.put(QueueItem(task.task_id, task.tenant, task.priority, had_turn=True) for task in again)
            for task in again:
                await self._events.say_changed(task.task_id)

    async def _let_go(self, tenant: str | None = None) -> None:
        """Let tasks into the line that were held because their tenant had as many running as it may."""
        if waiting := await self._store.waiting.release_held(tenant):
            await self._queue.put(waiting)

    async def _let_go_soon(self, tenant: str) -> None:
        with contextlib.suppress(StoreUnavailableError, QueueUnavailableError):  # then the sweeper does it
            await self._let_go(tenant)

    async def _sweep_overdue(self) -> None:
        """Put in line what should stand there and does not."""
        async for found in self._store.waiting.overdue(OVERDUE_S, OVERDUE_PAGE):
            if not await self._put_missing(found.items):
                break  # Redis has not lost everything
        if found.after == OLDEST:
            return
        pages = 0
        async for found in self._store.waiting.overdue(OVERDUE_S, OVERDUE_PAGE, self._overdue_after):
            await self._put_missing(found.items)
            self._overdue_after = found.after
            pages += 1
            if pages == OVERDUE_PAGES:
                break

    async def _put_missing(self, tasks: list[QueueItem]) -> bool:
        if not tasks or not (missing := await self._queue.missing(tasks)):
            return False
        await self._queue.put(missing)
        self._log.warning("tasks queued again", count=len(missing))
        return True

    async def _clean_up(self) -> None:
        while True:
            await asyncio.sleep(self._settings.cleanup_interval_s * random.uniform(0.9, 1.0))  # noqa: S311  as above
            with contextlib.suppress(StoreUnavailableError):
                await self._store.workers.forget_lost(SHOWN_FOR_S)
                deleted = await self._store.tasks.delete_old(self._settings.result_ttl_s)
                files = await self._store.files.delete_old()
                self._log.info("clean-up done", tasks_deleted=deleted, files_deleted=files)

    async def _drain(self, picking: asyncio.Task[None]) -> None:
        """Take nothing more; let what runs go on for ``DRAIN_S``; then kill it and give it back."""
        self._draining.set()
        picking.cancel()
        self._log.info("draining", running=len(self._attempts), drain_s=self._settings.drain_s)
        if await _within(self._settings.drain_s, self._entries.idle()):
            return
        for attempt in self._attempts.values():
            attempt.stop.set()
        await _within(KILL_S, self._entries.idle())

    async def _leave(self) -> None:
        with contextlib.suppress(StoreUnavailableError):
            await self._store.workers.forget(self.worker_id)
        await self._entries.disconnect()
        await self._events.close()
        await self._queue.close()
        await self._store.close()
        self._log.info("worker stopped")

    def _isolation(self) -> Isolation:
        return next(iter(self._pools.values())).isolation

    async def _ask_redis(self) -> Literal["ok", "away"]:
        try:
            await self._queue.ping()
        except QueueUnavailableError:
            return "away"
        return "ok"

    async def _state(self) -> WorkerState:
        return WorkerState(
            worker_id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=self._settings.max_concurrent_tasks,
            running=len(self._attempts),
            ready={name: pool.stats().ready for name, pool in self._pools.items()},
            redis=await self._ask_redis(),
            failing=tuple(sorted(self._failing)),
            isolation=self._isolation(),
            state="draining" if self._draining.is_set() else "working",
            versions=self._versions,
            policies=self._policies.digests,
            lag_s=self._lag_s,
            metrics=self._metrics_address,
        )


async def _sleep_and_measure(seconds: float) -> float:
    """Sleep, and return how many seconds late the event loop was at the end of it."""
    due = time.monotonic() + seconds
    await asyncio.sleep(seconds)
    return max(0.0, time.monotonic() - due)


async def _within(seconds: float, awaitable: Awaitable[Any]) -> bool:
    """Whether it ended in time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(awaitable, seconds)
        return True
    return False
