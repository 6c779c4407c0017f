"""The API's answers, one Struct for each kind of answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from engine.config.libraries import LibrarySetFacts
from engine.config.scripts import ScriptFacts
from engine.config.settings import Settings
from engine.model.callback import Callback
from engine.model.task import ListedTask, StoredFile
from engine.model.versions import Versions
from engine.model.worker_state import OuterConfinement
from engine.policies.lock import LockStanding, LockState
from engine.policies.policies import effective_limits
from engine.policies.show import show
from engine.service.health import DependencyCheck, Health, WorkerFound
from handlers.parameters.script import RULE
from sandbox import Isolation, LibrarySet, Limits, Policy, PolicyFile

CALLBACK_STATES = ("dead", "due", "delivered")
"""Those of callbacks that are in the outbox."""


class TasksAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of tasks, the newest first."""

    tasks: tuple[ListedTask, ...]
    next_cursor: Annotated[
        str | None, Meta(description="Give it as `cursor` for the next page; null when there is none.")
    ] = None


class ScriptsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The named scripts that custom_script runs."""

    scripts: tuple[ScriptFacts, ...]
    rule: Annotated[
        tuple[str, ...], Meta(description="How a script begins and ends, whether it is named or sent, a sentence each.")
    ] = RULE


class LibrariesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The sets of libraries that scripts and handlers may import."""

    sets: tuple[LibrarySetFacts, ...]


class PolicyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, for who audits it."""

    name: str
    task_type: str
    description: str
    digest: Annotated[str, Meta(description="SHA-256 of the file; it is in every result.")]
    libraries_digest: Annotated[
        str | None,
        Meta(
            description="Digest of its set of libraries, which is in every result; null if the set is not on this host."
        ),
    ]
    policy: Annotated[Policy, Meta(description="The whole file.")]
    effective_limits: Annotated[Limits, Meta(description="Its limits, lowered by the operator's ceilings.")]
    lock: Annotated[
        LockState,
        Meta(description="Whether this file is the one that was signed off, by `policies.lock`; see `policies lock`."),
    ]
    locked_digest: Annotated[str | None, Meta(description="The digest that was signed off; null where none was.")]
    text: Annotated[str, Meta(description="The grant in plain words, as `python -m engine policies show` prints it.")]


class PoliciesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All policies that tasks can run under."""

    policies: tuple[PolicyAnswer, ...]


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was uploaded."""

    file_id: Annotated[str, Meta(description='Name it in a task by `{"file_id": …}`.')]
    name: str
    media_type: str
    size_bytes: int
    sha256: Annotated[str, Meta(description="In hex.")]
    expires_at: Annotated[datetime, Meta(description="When it is forgotten, unless a task waits for it.")]


class FilesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's uploaded files, the newest first, and how much it has stored."""

    files: tuple[FileAnswer, ...]
    stored_bytes: Annotated[
        int,
        Meta(description="Of files, artifacts and tasks. A task counts parameters, labels, outcome and one KiB."),
    ]
    stored_mib: Annotated[int | None, Meta(description="How many MiB it may store; null for no limit.")]


class OwedCallbackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A callback and the task that it tells of."""

    task_id: UUID
    callback: Callback


class CallbacksAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks in one state, the newest first."""

    callbacks: tuple[OwedCallbackAnswer, ...]


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, as it last said of itself."""

    worker_id: UUID
    host: str
    pid: int
    state: Annotated[
        Literal["working", "draining", "silent"],
        Meta(description="draining: it takes nothing more. silent: not heard of for longer than 7 s."),
    ]
    heartbeat_age_s: Annotated[float, Meta(description="How long ago it said so; it does every 2 s.")]
    lag_ms: Annotated[float, Meta(description="How late its event loop was then; a slow worker has a high one.")]
    slots: Annotated[int, Meta(description="Tasks that it can run at the same time.")]
    running: int
    memory_mib: Annotated[int, Meta(description="Memory that all its running tasks may have together.")] = 0
    memory_taken_mib: Annotated[int, Meta(description="The sum of the memory limits of the tasks that run.")] = 0
    waits_for_memory: Annotated[
        bool, Meta(description="Tasks wait for which it has a free slot, and not enough memory.")
    ] = False
    ready: Annotated[dict[str, int], Meta(description="Policy → sandboxes that stand ready.")]
    redis: Annotated[Literal["ok", "away"], Meta(description="Whether it reaches Redis; else it takes no tasks.")]
    failing: Annotated[
        tuple[str, ...], Meta(description="Policies whose sandbox failed there by our fault, and has not worked since.")
    ] = ()
    not_ready: Annotated[
        dict[str, str],
        Meta(description="Policy whose sandboxes do not stand there yet → why. Its tasks wait, and spend no attempt."),
    ] = {}
    isolation: Annotated[Isolation, Meta(description="The layers that hold every run there.")]
    confinement: Annotated[
        OuterConfinement | None,
        Meta(description="What holds the worker itself: its container's seccomp filter and AppArmor profile."),
    ] = None
    versions: Versions
    policies: Annotated[dict[str, str] | None, Meta(description="Policy → digest of the file that it has.")]
    policies_differ: Annotated[tuple[str, ...], Meta(description="Policies that it does not have as this API has.")]
    metrics: Annotated[str | None, Meta(description="Address and port where it serves its metrics.")]


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the service needs."""

    status: Literal["ok", "away"]
    latency_ms: Annotated[float, Meta(description="How long its answer took, or how long we waited in vain.")]
    detail: str | None = None


class QueueHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that are not final yet; null while PostgreSQL is unreachable."""

    queued: int | None
    running: int | None
    oldest_wait_s: float | None
    free_slots: int


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How the service is."""

    status: Annotated[
        Literal["ok", "degraded", "down"],
        Meta(description="ok: tasks are accepted and run. degraded: see `reasons`. down: they are not accepted."),
    ]
    reasons: Annotated[tuple[str, ...], Meta(description="Why it is not ok, one sentence each.")]
    database: Dependency
    redis: Dependency
    queue: QueueHealth
    workers: tuple[WorkerHealth, ...]
    versions: Annotated[Versions, Meta(description="Of this API.")]
    policies: Annotated[dict[str, str], Meta(description="Policy → digest of the file that this API has.")]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Whether tasks are accepted here and run."""

    status: Literal["ready", "not_ready"]
    reasons: Annotated[tuple[str, ...], Meta(description="Why not, one sentence each.")]


class MetricsTargets(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses that Prometheus should scrape, in the form of its `http_sd_configs`."""

    targets: Annotated[tuple[str, ...], Meta(description="Address and port of each worker that serves metrics.")]
    labels: dict[str, str]


def policy_answer(
    file: PolicyFile, settings: Settings, sets: Mapping[str, LibrarySet], lock: LockStanding
) -> PolicyAnswer:
    """A policy as auditors see it."""
    policy = file.policy
    return PolicyAnswer(
        name=policy.name,
        task_type=policy.task_type,
        description=policy.description,
        digest=policy.digest,
        libraries_digest=sets[policy.libraries].digest if policy.libraries in sets else None,
        policy=policy,
        effective_limits=effective_limits(policy, settings),
        lock=lock.state,
        locked_digest=lock.digest,
        text=show(file),
    )


def file_answer(kept: StoredFile) -> FileAnswer:
    """An uploaded file as clients see it."""
    file = kept.file
    return FileAnswer(
        file_id=file.file_id,
        name=file.name,
        media_type=file.media_type,
        size_bytes=len(file.content),
        sha256=file.sha256,
        expires_at=kept.expires_at,
    )


def health_answer(health: Health) -> HealthAnswer:
    """The service's health as operators see it."""
    return HealthAnswer(
        status=health.status,
        reasons=(*health.hindrances, *health.warnings),
        database=_dependency(health.database),
        redis=_dependency(health.redis),
        queue=QueueHealth(
            queued=health.queued,
            running=health.running,
            oldest_wait_s=health.oldest_wait_s,
            free_slots=health.free_slots,
        ),
        workers=tuple(_worker(worker) for worker in health.workers),
        versions=health.versions,
        policies=health.policies,
    )


def ready_answer(health: Health) -> Ready:
    """The answer of ``GET /health/ready``: whether tasks are accepted and run, and why not."""
    return Ready(status="ready" if health.serves else "not_ready", reasons=health.hindrances)


def targets_answer(health: Health) -> tuple[MetricsTargets, ...]:
    """Where the workers serve their metrics."""
    addresses = [worker.heartbeat.state.metrics for worker in health.workers]
    found = tuple(sorted(address for address in addresses if address))
    return (MetricsTargets(targets=found, labels={}),)


def _worker(worker: WorkerFound) -> WorkerHealth:
    at = worker.heartbeat.state
    return WorkerHealth(
        worker_id=at.worker_id,
        host=at.host,
        pid=at.pid,
        state=worker.state,
        heartbeat_age_s=round(worker.heartbeat.age_s, 3),
        lag_ms=round(at.lag_s * 1000, 2),
        slots=at.slots,
        running=at.running,
        memory_mib=at.memory_mib,
        memory_taken_mib=at.memory_taken_mib,
        waits_for_memory=at.waits_for_memory,
        ready=at.ready,
        redis=at.redis,
        failing=at.failing,
        not_ready=at.not_ready,
        isolation=at.isolation,
        confinement=at.confinement,
        versions=at.versions,
        policies=at.policies,
        policies_differ=worker.policies_differ,
        metrics=at.metrics,
    )


def _dependency(check: DependencyCheck) -> Dependency:
    latency_ms = round(check.latency_s * 1000, 2)
    if check.fault is None:
        return Dependency(status="ok", latency_ms=latency_ms)
    return Dependency(status="away", latency_ms=latency_ms, detail=check.fault)
