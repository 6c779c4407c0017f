"""The worker: starts its parts, takes tasks from the queue until it is told to stop, then drains.

Order matters at the start: the host is probed, the policies are read and the pools that can be ready are up before the
first connection to PostgreSQL or Redis exists. A zygote that comes later, because it was slow, failed at first, died or
was replaced, inherits no socket and no secret either: each is a fresh program with an environment and descriptors of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal
from uuid import uuid4

from prometheus_client import CollectorRegistry

from engine.config.machine import read_confinement, tasks_memory_mib
from engine.config.settings import Settings
from engine.model.cancel import end_tasks
from engine.model.errors import QueueUnavailableError, StoreUnavailableError
from engine.model.versions import engine_version, versions
from engine.model.worker_state import WorkerState
from engine.policies.policies import Policies, largest_memory_mib
from engine.queue.events import EventWriter
from engine.queue.memory import MemoryBudget
from engine.queue.queue import Queue, QueueWorker
from engine.store.store import Store
from engine.telemetry.audit import AuditLog
from engine.telemetry.logs import get_logger
from engine.telemetry.loops import Loop, Loops
from engine.telemetry.metrics import WorkerMetrics, serve_metrics
from engine.telemetry.tracing import NO_TRACES, Traces, open_traces
from engine.worker.announce import Announcer, HeldTasks
from engine.worker.attempt import Attempts
from engine.worker.callbacks import CallbackSender
from engine.worker.execute import execute
from engine.worker.failing import FailingPolicies, Retries
from engine.worker.leases import Leases
from engine.worker.pools import ServingPools, open_serving_pools, probe
from engine.worker.record import AttemptRecords
from engine.worker.results import ResultWriter
from engine.worker.running import DatabaseOutage, RunningAttempts
from engine.worker.sweep import Sweeper
from sandbox import Isolation, Pool, PoolStats, SplitPool

KILL_S = 5.0


async def run_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        PolicyError: a policy file is invalid.
        HostError: this host lacks a layer that a policy requires.
        SandboxError: the zygote of no policy came up.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    if settings.debug_stall_s is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, _stall, settings.debug_stall_s)
    policies = Policies.load(settings)
    host = probe(settings)
    async with open_serving_pools(settings, host, policies.all, ready=settings.pool_ready) as pools:
        metrics = WorkerMetrics(
            CollectorRegistry(),
            version=engine_version(),
            slots=settings.max_concurrent_tasks,
            policies={policy.name: policy.task_type for policy in policies.all},
        )
        metrics.watch_pools({name: partial(_stats_of, pools, name) for name in pools})
        async with open_traces(settings, "worker") as traces:
            with (
                contextlib.closing(AuditLog(settings.audit_log)) as audit,
                serve_metrics(settings, metrics) as address,
            ):
                audit.note(
                    "worker started",
                    {
                        "version": engine_version(),
                        "policies": policies.digests,
                        "isolation": host.profile,
                        "layers": {layer.name: layer.version for layer in host.layers if layer.available},
                    },
                )
                worker = Worker(
                    settings, policies, pools, audit, metrics,
                    not_ready=pools.not_ready, metrics_address=address, traces=traces,
                )  # fmt: skip
                await worker.run(stop)


def _stats_of(pools: ServingPools, name: str) -> PoolStats:
    """Of the pool that a policy has now: one that could not start was replaced."""
    return pools[name].stats()


def _stall(seconds: float) -> None:
    """Stop this process' event loop and all its threads, as C code does that holds the interpreter's lock."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


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
        not_ready: Mapping[str, str] = MappingProxyType({}),
        metrics_address: str | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        database_url, redis_url = settings.servers
        self.worker_id = uuid4()
        self._settings = settings
        self._policies = policies
        self._pools, self._not_ready = pools, not_ready
        self._metrics_address = metrics_address
        self._versions = versions()
        self._confinement = read_confinement()
        self._draining = asyncio.Event()
        self._loops = Loops(metrics.loop_failed)
        self._running = RunningAttempts()
        self._failing = FailingPolicies(pools, not_ready)
        self._store = Store(database_url, connections=settings.database_connections)
        self._queue = Queue(redis_url, settings.queue_name)
        self._events = EventWriter(redis_url, settings.queue_name)
        self._callbacks = CallbackSender(settings, self._store, metrics.called_back, traces)
        self._memory = _memory_budget(settings, policies)
        held, outage = HeldTasks(self._store, self._queue), DatabaseOutage()
        self._leases = Leases(
            self.worker_id, settings, self._store, self._running, outage, metrics=metrics, state=self._state
        )
        self._sweeper = Sweeper(
            settings, self._store, self._queue, events=self._events, held=held, outage=outage, metrics=metrics
        )
        attempts = self._make_attempts(held, metrics, traces, audit)
        self._entries = QueueWorker(
            redis_url,
            settings.queue_name,
            attempts.run_task,
            slots=settings.max_concurrent_tasks,
            memory=self._memory,
        )
        metrics.count_running(lambda: len(self._running))
        metrics.watch_memory(self._memory.whole_mib, lambda: self._memory.taken_mib, lambda: self._memory.is_short)
        metrics.watch_loops(lambda: self._loops.dead(stall_s=settings.worker_stall_s))
        self._log = get_logger(worker_id=str(self.worker_id))

    def _make_attempts(self, held: HeldTasks, metrics: WorkerMetrics, traces: Traces, audit: AuditLog) -> Attempts:
        """The main path of this worker, over its parts."""
        files, claims = self._store.files, self._store.claims
        announcer = Announcer(self._queue, self._events, held, self._callbacks)
        return Attempts(
            self.worker_id,
            claims,
            lease_s=self._settings.lease_s,
            execute=partial(execute, self._settings, self._policies, self._pools, files=files, traces=traces),
            running=self._running,
            events=self._events,
            announcer=announcer,
            retries=Retries(claims, self._failing, announcer, metrics, self._draining),
            results=ResultWriter(claims, announcer, metrics, traces=traces),
            records=AttemptRecords(self.worker_id, metrics, traces, audit, queue_name=self._settings.queue_name),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, then drain and leave nothing behind."""
        self._log_start()
        stopped = asyncio.create_task(stop.wait())
        opening = asyncio.create_task(self._leases.open_store())
        try:
            async with self._loops.running(self._list_loops()):
                done, _ = await asyncio.wait([stopped, opening], return_when=asyncio.FIRST_COMPLETED)
                if opening in done:
                    opening.result()  # a schema that is not ours ends the worker
                    await stopped
                await self._drain()
        finally:
            await end_tasks(stopped, opening)
            await self._leave()

    def _list_loops(self) -> dict[str, Loop]:
        """List what runs beside the tasks; none of it ends by itself."""
        loops: dict[str, Loop] = {
            "queue": self._entries.main,
            "leases": self._leases.keep,
            "sweep": self._sweeper.sweep,
            "clean-up": self._sweeper.clean_up,
            "callbacks": self._callbacks.run,
            "cancellations": partial(self._queue.listen, "cancel", self._leases.hear_cancel, lambda: None),
            "events": self._events.listen,
        }
        return {name: partial(self._once_open, loop) for name, loop in loops.items()}

    async def _once_open(self, loop: Loop) -> None:
        """Begin a loop once PostgreSQL can say what the tasks are."""
        await self._store.opened.wait()
        await loop()

    async def _drain(self) -> None:
        """Take nothing more; let what runs go on for ``DRAIN_S``; then kill it and give it back."""
        self._draining.set()
        await self._loops.stop("queue")
        self._log.info("draining", running=len(self._running), drain_s=self._settings.drain_s)
        if not await self._idle_within(self._settings.drain_s):
            self._running.stop_all()
            await self._idle_within(KILL_S)

    async def _idle_within(self, seconds: float) -> bool:
        """Whether all tasks have ended within so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._entries.wait_until_idle()
                return True
        return False

    async def _leave(self) -> None:
        await self._leases.close()  # first: a heartbeat would bring the worker back
        with contextlib.suppress(StoreUnavailableError):
            await self._store.workers.forget(self.worker_id)
        await self._entries.disconnect()
        await self._events.close()
        await self._queue.close()
        await self._store.close()
        self._log.info("worker stopped")

    async def _state(self) -> WorkerState:
        """Describe this worker for its heartbeat; the keeper adds how late the event loop is."""
        return WorkerState(
            worker_id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            slots=self._settings.max_concurrent_tasks,
            running=len(self._running),
            memory_mib=self._memory.whole_mib,
            memory_taken_mib=self._memory.taken_mib,
            waits_for_memory=self._memory.is_short,
            ready={name: pool.stats().ready for name, pool in self._pools.items()},
            redis=await self._reach_redis(),
            failing=self._failing.names,
            not_ready=dict(self._not_ready),
            isolation=self._isolation(),
            confinement=self._confinement,
            state="draining" if self._draining.is_set() else "working",
            versions=self._versions,
            policies=self._policies.digests,
            metrics=self._metrics_address,
        )

    async def _reach_redis(self) -> Literal["ok", "away"]:
        try:
            await self._queue.ping()
        except QueueUnavailableError:
            return "away"
        return "ok"

    def _isolation(self) -> Isolation:
        return next(iter(self._pools.values())).isolation

    def _log_start(self) -> None:
        isolation = self._isolation()
        self._log.info(
            "worker started",
            profile=isolation.profile,
            asked=self._settings.isolation,
            layers=isolation.layers,
            policies=sorted(self._pools),
            slots=self._settings.max_concurrent_tasks,
            memory_mib=self._memory.whole_mib,
            metrics=self._metrics_address,
            egress_allow_private=[str(network) for network in self._settings.egress_allow_private],
        )


def _memory_budget(settings: Settings, policies: Policies) -> MemoryBudget:
    largest_mib = largest_memory_mib(policies, settings)
    return MemoryBudget(tasks_memory_mib(settings.worker_memory_mib, largest_mib), largest_mib)
