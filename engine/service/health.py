"""How the service is, as one API finds it: its dependencies, the queue, and what each worker last said of itself.

A worker says every ``BEAT_S`` seconds that it is alive. Who has not said so for ``ALIVE_WITHIN_S`` is ``silent``:
killed, stopped, cut off from PostgreSQL, or too busy to run its own event loop. All of that shows within ten seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Literal

import msgspec

from engine.model.errors import QueueUnavailableError, StoreReadOnlyError, StoreUnavailableError
from engine.model.task import QueueDepth
from engine.model.versions import Versions
from engine.model.worker_state import SHOWN_FOR_S, Heartbeat
from engine.policies.policies import Policies
from engine.queue.queue import Queue
from engine.store.store import Store
from engine.telemetry.metrics import ServiceState

ALIVE_WITHIN_S = 7.0
SLOW_S = 1.0
"""A worker whose event loop was later than that at its last beat has too little processor time."""


class DependencyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a dependency answered."""

    fault: str | None
    """Why it did not; ``None`` when it did."""
    latency_s: float
    is_read_only: bool = False
    """It answers and takes no writes."""


class WorkerFound(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as an API sees it."""

    heartbeat: Heartbeat
    policies_differ: tuple[str, ...]
    """Policies that it has in another version than this API, or that only one of the two has."""

    @property
    def state(self) -> Literal["working", "draining", "silent"]:
        """``working``, ``draining``, or ``silent`` when it has not been heard of."""
        return self.heartbeat.state.state if self.heartbeat.age_s <= ALIVE_WITHIN_S else "silent"

    @property
    def free_slots(self) -> int:
        """Tasks that it could take at once."""
        at = self.heartbeat.state
        takes = self.state == "working" and at.works and not at.waits_for_memory
        return max(0, at.slots - at.running) if takes else 0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the service is, as found just now."""

    database: DependencyCheck
    redis: DependencyCheck
    workers: tuple[WorkerFound, ...]
    """Empty while PostgreSQL is unreachable."""
    queued: int | None
    running: int | None
    oldest_wait_s: float | None
    full: str | None = None
    """What of PostgreSQL is almost full."""
    policies: dict[str, str]
    """Policy → digest, as this API has them."""
    versions: Versions
    """Of this API."""

    @property
    def accepts(self) -> bool:
        """Tasks can be accepted: only PostgreSQL is needed for that, and room in it."""
        return self.database.fault is None and self.full is None

    @property
    def serves(self) -> bool:
        """Tasks are accepted and run."""
        return not self.hindrances

    @property
    def free_slots(self) -> int:
        """Tasks that workers could take at once."""
        return sum(worker.free_slots for worker in self.workers)

    @property
    def hindrances(self) -> tuple[str, ...]:
        """Why tasks are not accepted or not run; nothing in it that only operators may know."""
        found = []
        if self.database.is_read_only:
            found.append("PostgreSQL is read-only, as after a failover: tasks are not accepted")
        elif self.database.fault is not None:
            found.append("PostgreSQL is unreachable: tasks are not accepted")
        if self.full is not None:
            found.append("PostgreSQL is almost full: tasks and files are not accepted, until there is room")
        if self.redis.fault is not None:
            found.append("Redis is unreachable: tasks are accepted, and run when it is back")
        working = [worker for worker in self.workers if worker.state == "working"]
        if self.accepts and not working:
            found.append("no worker takes tasks: tasks are accepted, and run when one does")
        elif self.accepts and not any(worker.heartbeat.state.works for worker in working):
            found.append("no working worker can run tasks: tasks are accepted, and run when one can")
        return tuple(found)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Find the faults that exist although tasks are accepted and run."""
        found = [self.full] if self.full else []
        for worker in self.workers:
            name = f"worker {worker.heartbeat.state.worker_id} (pid {worker.heartbeat.state.pid})"
            if worker.state == "silent":
                found.append(f"{name} has been silent for {worker.heartbeat.age_s:.0f} s")
                continue  # what it said before is no news
            if worker.heartbeat.state.redis != "ok" and self.redis.fault is None:
                found.append(f"{name} cannot reach Redis, which this API reaches: it takes no tasks")
            if worker.heartbeat.state.failing:
                found.append(f"{name} fails by its own fault under: {', '.join(worker.heartbeat.state.failing)}")
            for policy, why in worker.heartbeat.state.not_ready.items():
                found.append(f"{name} is not ready for {policy}: {why}")
            if worker.heartbeat.state.lag_s > SLOW_S:
                found.append(f"{name} is slow: its event loop was {worker.heartbeat.state.lag_s:.1f} s late")
            if worker.policies_differ:
                differ = ", ".join(worker.policies_differ)
                found.append(f"{name} does not have the policies that this API has: {differ}")
        return tuple(found)

    @property
    def status(self) -> Literal["ok", "degraded", "down"]:
        """``ok``, ``degraded`` or ``down``."""
        if not self.accepts:
            return "down"
        return "ok" if self.serves and not self.warnings else "degraded"

    @property
    def service_state(self) -> ServiceState:
        """The part of it that metrics tell."""
        states = Counter(worker.state for worker in self.workers)
        known = self.database.fault is None
        return ServiceState(
            queued=self.queued,
            running=self.running,
            oldest_wait_s=self.oldest_wait_s,
            workers={name: states[name] for name in ("working", "draining", "silent")} if known else None,
            free_slots=self.free_slots if known else None,
            up={"database": known, "redis": self.redis.fault is None},
        )


async def ask_health(
    store: Store, queue: Queue, policies: Policies, *, full: str | None, own_versions: Versions
) -> Health:
    """Ask every dependency.

    Args:
        store: PostgreSQL.
        queue: Redis.
        policies: those of this API.
        full: what of PostgreSQL is almost full.
        own_versions: those of this API, which are read from a file: a process without descriptors cannot read it.
    """
    own = policies.digests
    database, redis = await asyncio.gather(_check(store.ping()), _check(queue.ping()))
    workers: tuple[WorkerFound, ...] = ()
    depth: QueueDepth | None = None
    if database.fault is None:
        try:
            heartbeats = await store.workers.heartbeats(SHOWN_FOR_S)
            depth = await store.waiting.depth()
        except StoreUnavailableError as error:
            database = msgspec.structs.replace(database, fault=str(error))
        else:
            workers = tuple(
                WorkerFound(heartbeat=heartbeat, policies_differ=_differences(own, heartbeat.state.policies))
                for heartbeat in heartbeats
            )
    return Health(
        database=database,
        redis=redis,
        workers=workers,
        queued=depth.queued if depth else None,
        oldest_wait_s=depth.oldest_wait_s if depth else None,
        running=depth.running if depth else None,
        full=full,
        policies=own,
        versions=own_versions,
    )


async def _check(question: Awaitable[None]) -> DependencyCheck:
    started, fault, is_read_only = time.perf_counter(), None, False
    try:
        await question
    except (StoreUnavailableError, QueueUnavailableError) as error:
        fault, is_read_only = str(error), isinstance(error, StoreReadOnlyError)
    return DependencyCheck(fault=fault, latency_s=time.perf_counter() - started, is_read_only=is_read_only)


def _differences(own: Mapping[str, str], other: Mapping[str, str] | None) -> tuple[str, ...]:
    if other is None:  # a worker of an older version, which does not say
        return ()
    return tuple(sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name)))
