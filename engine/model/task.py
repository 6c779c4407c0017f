"""A task, its attempts, and where it waits, as types. Nothing here does anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from engine.model.callback import Callback
from engine.model.request import SubmitRequest
from engine.model.result import TaskResult
from engine.model.status import Priority, Status
from sandbox import ExitReason


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was accepted and is about to be stored: the request, and what was decided about it.

    Each field, here and in the request, is a column of ``tasks``. Where a field of the request stands here too, the
    value here counts and is stored.
    """

    task_id: UUID
    tenant: str
    request: SubmitRequest
    """As the client sent it."""
    policy: str
    """The policy that it runs under, whether or not the request names one."""
    max_attempts: int
    callback_url: str | None = None
    """The request's, in the one form in which it is dialled."""
    concurrent_limit: int | None = None
    """How many of its tenant's tasks may run at the same time; ``None`` for as many as there are slots."""
    traceparent: str | None = None
    """The trace that it belongs to, as the value of a W3C ``traceparent`` header."""
    key_id: str | None = None
    """The key that submitted it; ``None`` where there are no keys."""
    request_id: str | None = None
    """The request that submitted it, as its answer and the log name it."""
    client_address: str | None = None
    """Where that request came from, as the API saw it: behind a proxy, the proxy's."""
    stored_bytes_limit: int | None = None
    """How many bytes its tenant may store: artifacts beyond that are refused."""
    memory_limit_mib: int | None = None
    """The most memory that it may have, MiB; ``None`` for a task of an older version."""


class AcceptedTask(NamedTuple):
    """A task that was accepted, now or, under the same idempotency key, before."""

    task: StoredTask
    is_replay: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that a worker may make. Only who names this worker and this attempt can store a result."""

    task_id: UUID
    worker_id: UUID
    attempt: int
    tenant: str
    request: SubmitRequest
    """As it was stored."""
    policy: str
    """The policy that it runs under."""
    concurrent_limit: int | None = None
    """How many of its tenant's tasks may run at the same time; ``None`` for as many as there are slots."""
    queue_s: float
    """How long the task waited for this attempt, since it was accepted or given back, seconds."""
    age_s: float
    """How long ago the task was accepted, seconds."""
    traceparent: str | None = None
    """The trace that it belongs to."""
    key_id: str | None = None
    """The key that submitted it; ``None`` where there are no keys."""
    request_id: str | None = None
    """The request that submitted it, as its answer and the log name it."""
    client_address: str | None = None
    """Where that request came from, as the API saw it: behind a proxy, the proxy's."""
    stored_bytes_limit: int | None = None
    """How many bytes its tenant may store: artifacts beyond that are refused."""
    memory_limit_mib: int | None = None
    """The most memory that it may have, as it was accepted, MiB; ``None`` for a task of an older version."""


class ClaimRefused(NamedTuple):
    """A task that is held: its tenant has as many running as it may. It is queued again when one of them ends."""

    tenant: str


class LostTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose worker was lost, and its status since then."""

    task_id: UUID
    tenant: str
    priority: Priority
    task_type: str
    policy: str
    status: Status
    memory_limit_mib: int | None = None


class Cancellation(NamedTuple):
    """A task that its client cancelled: ``CANCELLED`` now, or ``RUNNING`` until its worker hears of it."""

    status: Status
    task_type: str
    policy: str


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


class StoredTask(ListedTask, frozen=True, kw_only=True):
    """A task as PostgreSQL has it, with its place in the queue as Redis has it."""

    tenant: str
    result: TaskResult | None = None
    """``None`` while it is not final."""
    callback: Callback | None = None
    queue_position: int | None = None
    """1 for the task that is taken next."""
    estimated_wait_s: float | None = None


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a list is to show. What is empty or ``None`` leaves none out."""

    statuses: tuple[Status, ...] = ()
    task_type: str | None = None
    exit_reasons: tuple[ExitReason, ...] = ()
    labels: dict[str, str] = {}
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: tuple[datetime, UUID] | None = None
    """Go on after the task that was made then and has this id."""
    ids: tuple[UUID, UUID] | None = None
    """Only tasks whose id lies between these two, both included."""
    key_id: str | None = None
    source: tuple[str, str] | None = None
    """Only tasks whose source has a hash between these two, both included."""
    limit: int = 50


class QueueItem(NamedTuple):
    """A task for the queue: its tenant and its priority decide its place."""

    task_id: UUID
    tenant: str
    priority: Priority
    had_turn: bool = False
    """It has come up before and could not run, by no fault of its own: it goes to the front."""
    memory_mib: int | None = None
    """The most memory that it may have: a worker takes it when so much is free. ``None``: not known."""


CONFLICT = 409
"""The status (RFC 9110, section 15.5.10) of a receiver that is at work on a message, or done with it."""
OLDEST = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class OverduePage(NamedTuple):
    """Some of the tasks that have waited for long, and where the next page begins."""

    items: list[QueueItem]
    after: tuple[datetime, UUID]
    """``OLDEST`` where these were the last."""


class Throughput(NamedTuple):
    """How fast tasks are taken from the queue."""

    slot_s: float | None
    """How long a task has kept a slot lately, seconds; ``None`` when no task has ended."""
    slots: int
    """Of all workers that are at work."""


class QueueDepth(NamedTuple):
    """The tasks that are not final."""

    queued: int
    oldest_wait_s: float
    running: int


class OwedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that this worker may try to deliver. ``attempts`` is its fencing token."""

    task: StoredTask
    url: str
    attempts: int
    age_s: float
    """How long it has been due, seconds."""
    last_status: int | None = None
    """How the attempt before was answered; ``None`` when it had no answer, or there was none."""
    traceparent: str | None = None
    """The trace of its task."""

    @property
    def may_have_arrived(self) -> bool:
        """Whether an earlier attempt may have been acted on: it had no answer, or the receiver was at work."""
        return self.attempts > 1 and self.last_status in (None, CONFLICT)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a client uploads."""

    file_id: str
    tenant: str
    name: str
    media_type: str
    sha256: str
    content: bytes


class ListedFile(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file as a list shows it."""

    file_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    expires_at: datetime


class StoredFile(NamedTuple):
    """An uploaded file, and until when it is kept."""

    file: NewFile
    expires_at: datetime
