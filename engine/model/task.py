"""The words of the engine as types: a task, its attempts, and how they end. Nothing here does anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from engine.model.callback import Callback
from engine.model.outcome import Outcome
from engine.model.principal import Quotas
from engine.model.request import SubmitRequest
from engine.model.status import Priority, Status
from sandbox import ExitReason


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was accepted and is about to be stored: the request, and what was decided about it.

    Where a field of the request stands here too, the value here counts and is stored.
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
    request_sha256: bytes | None = None
    """Of the request that its idempotency key stands for; ``None`` without a key."""
    quotas: Quotas = Quotas()
    """Of the key that it came with."""
    traceparent: str | None = None
    """The trace that it belongs to, as the value of a W3C ``traceparent`` header."""


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


class Accepted(NamedTuple):
    """A task that was accepted, now or, under the same idempotency key, before."""

    task: StoredTask
    is_replay: bool = False


class KeptFile(NamedTuple):
    """An uploaded file, and until when it is kept."""

    file: NewFile
    expires_at: datetime
