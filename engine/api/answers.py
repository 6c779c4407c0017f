"""What the API answers, one Struct for each sort of answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from engine.config.scripts import ScriptFacts
from engine.config.settings import Settings
from engine.model.callback import Callback
from engine.model.outcome import ArtifactFacts, Script, TaskUsage
from engine.model.status import NULL, Priority, Status
from engine.model.task import KeptFile, ListedTask, StoredTask
from engine.model.versions import Versions
from engine.policies.policies import effective_limits
from engine.policies.show import show
from engine.service.health import Asked, Health, WorkerFound
from sandbox import ExitReason, Isolation, Limits, Logs, Policy, PolicyFile, RefusedArtifact, RunError, Violation

CALLBACK_STATES = ("dead", "due", "delivered")
"""Those of callbacks that are in the outbox."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands. What is not known yet is null."""

    task_id: UUID
    task_type: str
    status: Annotated[Status, Meta(description="queued → running → succeeded, failed or cancelled.")]
    exit_reason: Annotated[
        ExitReason | None, Meta(description="Why the last attempt ended: only what the supervisor can prove.")
    ] = None
    result: Annotated[msgspec.Raw, Meta(description="The answer: any JSON.")] = NULL
    error: Annotated[
        RunError | None, Meta(description="The exception that the handler or script raised, in sandbox paths.")
    ] = None
    message: Annotated[str | None, Meta(description="How the last attempt ended, in one sentence.")] = None
    exit_code: int | None = None
    signal: Annotated[str | None, Meta(description="Name of the signal that ended it.", examples=["SIGSEGV"])] = None
    logs: Annotated[Logs | None, Meta(description="What it printed.")] = None
    usage: Annotated[TaskUsage | None, Meta(description="What it used; units are in the names.")] = None
    isolation: Annotated[Isolation | None, Meta(description="The layers that held the run.")] = None
    violations: Annotated[tuple[Violation, ...], Meta(description="System calls that were denied.")] = ()
    policy: Annotated[str, Meta(description="Name of the policy that it runs under.")]
    priority: Annotated[Priority, Meta(description="How urgent it is among its tenant's own tasks.")]
    policy_digest: Annotated[str | None, Meta(description="SHA-256 of the policy file that was in force.")] = None
    limits: Annotated[Limits | None, Meta(description="The limits that were in force.")] = None
    attempts: Annotated[int, Meta(description="How often it was started.")]
    labels: dict[str, str]
    script: Annotated[Script | None, Meta(description="The named script that ran, with the hash of its bytes.")] = None
    artifacts: Annotated[
        tuple[ArtifactFacts, ...],
        Meta(description="Files that it left in `artifacts/`; each is at `/task/{task_id}/artifacts/{name}`."),
    ] = ()
    artifacts_refused: Annotated[
        tuple[RefusedArtifact, ...], Meta(description="What lay there and was not taken, and why.")
    ] = ()
    queue_position: Annotated[
        int | None,
        Meta(
            description="1 for the task that is taken next; null unless it stands in line: not while it is held "
            "because its tenant has as many running as it may (`concurrent_tasks`)."
        ),
    ] = None
    estimated_wait_s: Annotated[
        float | None,
        Meta(
            description="By its position, the slots of all workers, and how long tasks kept one of late; null when "
            "none ended in ten minutes, or nobody works."
        ),
    ] = None
    callback: Annotated[Callback | None, Meta(description="Whether the `callback_url` was told.")] = None
    created_at: datetime
    started_at: Annotated[datetime | None, Meta(description="Start of the last attempt.")] = None
    finished_at: datetime | None = None


class TasksAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of tasks, the newest first."""

    tasks: tuple[ListedTask, ...]
    next_cursor: Annotated[
        str | None, Meta(description="Give it as `cursor` for the next page; null when there is none.")
    ] = None


class ScriptsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The named scripts that custom_script runs."""

    scripts: tuple[ScriptFacts, ...]


class PolicyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, for who audits it."""

    name: str
    task_type: str
    description: str
    digest: Annotated[str, Meta(description="SHA-256 of the file; it is in every result.")]
    policy: Annotated[Policy, Meta(description="The whole file.")]
    effective_limits: Annotated[Limits, Meta(description="Its limits, lowered by the operator's ceilings.")]
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
    ready: Annotated[dict[str, int], Meta(description="Policy → sandboxes that stand ready.")]
    redis: Annotated[Literal["ok", "away"], Meta(description="Whether it reaches Redis; else it takes no tasks.")]
    failing: Annotated[
        tuple[str, ...], Meta(description="Policies whose sandbox failed there by our fault, and has not worked since.")
    ] = ()
    isolation: Annotated[Isolation, Meta(description="The layers that hold every run there.")]
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
    """The tasks that are not final yet; null while PostgreSQL is away."""

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
    """What Prometheus should scrape, in the form of its `http_sd_configs`."""

    targets: Annotated[tuple[str, ...], Meta(description="Address and port of each worker that serves metrics.")]
    labels: dict[str, str]


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


def task_answer(task: StoredTask) -> Task:
    """A task as clients see it."""
    outcome = task.outcome
    ended = {name: getattr(outcome, name) for name in outcome.__struct_fields__} if outcome else {}
    return Task(
        task_id=task.task_id,
        task_type=task.task_type,
        status=task.status,
        policy=task.policy,
        priority=task.priority,
        attempts=task.attempts,
        labels=task.labels,
        callback=task.callback,
        queue_position=task.queue_position,
        estimated_wait_s=task.estimated_wait_s,
        created_at=task.created_at,
        started_at=task.started_at,
        finished_at=task.finished_at,
        **ended,
    )


def policy_answer(file: PolicyFile, settings: Settings) -> PolicyAnswer:
    """A policy as auditors see it."""
    policy = file.policy
    return PolicyAnswer(
        name=policy.name,
        task_type=policy.task_type,
        description=policy.description,
        digest=policy.digest,
        policy=policy,
        effective_limits=effective_limits(policy, settings),
        text=show(file),
    )


def file_answer(kept: KeptFile) -> FileAnswer:
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
    """The same in a word, for whoever sends requests here."""
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
        ready=at.ready,
        redis=at.redis,
        failing=at.failing,
        isolation=at.isolation,
        versions=at.versions,
        policies=at.policies,
        policies_differ=worker.policies_differ,
        metrics=at.metrics,
    )


def _dependency(asked: Asked) -> Dependency:
    latency_ms = round(asked.latency_s * 1000, 2)
    if asked.fault is None:
        return Dependency(status="ok", latency_ms=latency_ms)
    return Dependency(status="away", latency_ms=latency_ms, detail=asked.fault)
