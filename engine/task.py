"""The words of the engine as types: a task, its attempts, and how they end. Nothing here does anything."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

from engine.auth import Quotas
from engine.versions import Versions
from sandbox import ExitReason, Isolation, Limits, Logs, RefusedArtifact, Result, RunError, Usage, Violation

TASK_TYPES = (
    "data_processing",
    "ml_inference",
    "web_scraping",
    "document_processing",
    "image_processing",
    "custom_script",
)

NULL = msgspec.Raw(b"null")


class Status(enum.StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    """Accepted and stored; waits for a worker."""
    RUNNING = "running"
    """An attempt is under way on a worker that renews its lease."""
    SUCCEEDED = "succeeded"
    """Final: ``exit_reason`` is ``ok`` and ``result`` holds the answer."""
    FAILED = "failed"
    """Final: ``exit_reason`` says why."""
    CANCELLED = "cancelled"
    """Final: somebody asked for it."""

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (Status.QUEUED, Status.RUNNING)


class Priority(enum.StrEnum):
    """How urgent a task is among its tenant's own."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was checked and is about to be stored."""

    task_id: UUID
    task_type: str
    parameters: bytes | memoryview
    """The client's own JSON text; it is never decoded again outside a sandbox."""
    policy: str
    timeout_s: float | None
    labels: dict[str, str]
    script_name: str | None
    """Name of the file in the scripts folder, when the script is a name and not source."""
    max_attempts: int
    file_ids: tuple[str, ...] = ()
    """The uploaded files that its parameters name."""
    memory_mib: int | None = None
    """What the client asks for; ``None`` leaves it to the policy. So does ``timeout_s``."""
    tenant: str
    priority: Priority = Priority.NORMAL
    callback_url: str | None = None
    idempotency_key: str | None = None
    request_sha256: bytes | None = None
    """Of the request that the key stands for; given with the key."""
    quotas: Quotas = Quotas()
    """Of the key that it came with."""
    traceparent: str | None = None
    """The trace that it belongs to."""


class Waiting(NamedTuple):
    """A task that is to stand in line: whose it is and how urgent it is say where."""

    task_id: UUID
    tenant: str
    priority: Priority
    had_turn: bool = False
    """It has come up before and could not run, by no fault of its own: it goes to the front."""


class Overdue(NamedTuple):
    """Some of the tasks that have waited for long, and where to go on."""

    tasks: list[Waiting]
    after: tuple[datetime, UUID]
    """``OLDEST`` where these were the last."""


OLDEST = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class Pace(NamedTuple):
    """How fast the line moves."""

    slot_s: float | None
    """For how long a task keeps a slot, of late; ``None`` when none has ended."""
    slots: int
    """Of all workers that are at work."""


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a client uploads."""

    file_id: str
    tenant: str
    name: str
    media_type: str
    sha256: str
    content: bytes


class ArtifactFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's answer says of an artifact; its bytes are to be had at ``/task/{task_id}/artifacts/{name}``."""

    name: str
    size_bytes: int
    sha256: str
    """In hex."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that this worker may make. ``attempt`` is the fencing token: only its holder can store a result."""

    task_id: UUID
    attempt: int
    tenant: str
    priority: Priority
    task_type: str
    policy: str
    parameters: bytes
    timeout_s: float | None
    script_name: str | None
    file_ids: tuple[str, ...] = ()
    memory_mib: int | None = None
    callback_url: str | None = None
    concurrent_limit: int | None = None
    """How many of its tenant's tasks may run at the same time."""
    queue_s: float
    """How long the task waited for this attempt, since it was accepted or given back."""
    age_s: float
    """How long ago the task was accepted."""
    traceparent: str | None = None
    """The trace that it belongs to."""


class Held(NamedTuple):
    """A task that came up while its tenant has as many running as it may; it is let go when one of them ends."""

    tenant: str


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Which named script ran."""

    name: str
    sha256: str
    """Of the very bytes that ran, in hex."""


class TaskUsage(Usage, frozen=True, kw_only=True):
    """What the last attempt used."""

    queue_s: float = 0.0
    """How long the task waited for a worker before that."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of the attempt that ended a task. Stored as one JSON document of bytes."""

    exit_reason: ExitReason
    message: str
    result: msgspec.Raw = NULL
    """JSON text, or ``null`` when there is none."""
    error: RunError | None = None
    exit_code: int | None = None
    signal: str | None = None
    logs: Logs | None = None
    usage: TaskUsage | None = None
    isolation: Isolation | None = None
    violations: tuple[Violation, ...] = ()
    policy_digest: str | None = None
    limits: Limits | None = None
    script: Script | None = None
    artifacts: tuple[ArtifactFacts, ...] = ()
    artifacts_refused: tuple[RefusedArtifact, ...] = ()

    @property
    def status(self) -> Status:
        """The final status that follows from ``exit_reason``."""
        if self.exit_reason is ExitReason.OK:
            return Status.SUCCEEDED
        return Status.CANCELLED if self.exit_reason is ExitReason.CANCELLED else Status.FAILED


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """Whether whoever wanted to be told of a task's end has been told."""

    url: str
    state: Literal["waiting", "due", "delivered", "dead"]
    """waiting: the task is not final. dead: it was tried for ``CALLBACK_GIVE_UP_S``, or there is no sense in trying."""
    attempts: int = 0
    due_at: datetime | None = None
    """Not to be tried before."""
    ended_at: datetime | None = None
    last_status: int | None = None
    """What the last attempt was answered with; ``None`` when it was not answered."""
    last_error: str | None = None


class StoredTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as PostgreSQL has it."""

    task_id: UUID
    tenant: str
    task_type: str
    status: Status
    policy: str
    priority: Priority
    labels: dict[str, str]
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: Outcome | None
    callback: Callback | None = None
    queue_position: int | None = None
    """1 for the task that is taken next."""
    estimated_wait_s: float | None = None


class ListedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as a list shows it, without what it answered."""

    task_id: UUID
    task_type: str
    status: Status
    exit_reason: ExitReason | None
    policy: str
    priority: Priority
    labels: dict[str, str]
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a list is to show. What is empty or ``None`` leaves none out."""

    statuses: tuple[Status, ...] = ()
    task_type: str | None = None
    exit_reasons: tuple[ExitReason, ...] = ()
    labels: dict[str, str] = {}
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: tuple[datetime, UUID] | None = None
    """Go on after the task that was made then and has this id."""
    limit: int = 50


class OwedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that this worker may try to deliver. ``attempts`` is its fencing token."""

    task: StoredTask
    url: str
    attempts: int
    age_s: float
    """How long it has been owed."""


CANCELLED = Outcome(exit_reason=ExitReason.CANCELLED, message="It was cancelled while it did not run.")
LOST = Outcome(
    exit_reason=ExitReason.WORKER_LOST,
    message="Each worker that ran this task was lost before it could store a result, and no attempt is left.",
)


class Cancelled(NamedTuple):
    """A task whose end was asked for, and where it stands now: ``CANCELLED``, or ``RUNNING`` until its worker hears."""

    status: Status
    task_type: str
    policy: str


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose worker was lost, and where it stands now."""

    task_id: UUID
    tenant: str
    priority: Priority
    task_type: str
    policy: str
    status: Status


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself every few seconds."""

    worker_id: UUID
    host: str
    pid: int
    slots: int
    """Tasks that it can run at the same time."""
    running: int
    ready: dict[str, int]
    """Policy → sandboxes that stand ready."""
    redis: Literal["ok", "away"] = "ok"
    """Whether it reaches Redis, without which it takes no tasks."""
    failing: tuple[str, ...] = ()
    """Policies whose sandbox failed there by our own fault, and has not worked since."""
    isolation: Isolation
    state: Literal["working", "draining"]
    versions: Versions = Versions()
    policies: dict[str, str] | None = None
    """Policy → digest of the file; ``None`` from a worker that is too old to say."""
    lag_s: float = 0.0
    """How late its event loop was at this beat."""
    metrics: str | None = None
    """Address and port where it serves its metrics."""

    @property
    def works(self) -> bool:
        """Whether it can run tasks, of at least one policy."""
        return self.redis == "ok" and not set(self.ready) <= set(self.failing)


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker last said of itself, and how long ago."""

    state: WorkerState
    age_s: float


def outcome_of(result: Result, *, queue_s: float, script: Script | None) -> Outcome:
    """The part of a sandbox's answer that is one document; the bytes of artifacts are kept beside it."""
    return Outcome(
        exit_reason=result.exit_reason,
        message=result.message,
        result=NULL if result.value is None else result.value,
        error=result.error,
        exit_code=result.exit_code,
        signal=result.signal,
        logs=result.logs,
        usage=TaskUsage(queue_s=queue_s, **msgspec.structs.asdict(result.usage)),
        isolation=result.isolation,
        violations=result.violations,
        policy_digest=result.policy_digest,
        limits=result.limits,
        script=script,
        artifacts=tuple(
            ArtifactFacts(name=artifact.name, size_bytes=artifact.size_bytes, sha256=artifact.sha256)
            for artifact in result.artifacts
        ),
        artifacts_refused=result.artifacts_refused,
    )
