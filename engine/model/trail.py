"""Who ran what, under which grant, and what was denied, as types: what an auditor asks of the store."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta

from engine.model.request import SubmitRequest
from engine.model.result import TaskResult
from engine.model.task import ListedTask, TaskFilter
from sandbox import ExitReason, Result, Violation

NOT_DENIED = frozenset({"allowed", "dns_failed", "connect_failed", "bad_response", "timeout", "run_ended"})
"""Decisions of the egress proxy that no policy makes: about hosts that are granted and did not answer."""


class DeniedHost(msgspec.Struct, frozen=True, kw_only=True):
    """Connections to one host that the egress proxy refused or cut off."""

    host: str
    """As the run asked for it; empty when that cannot be read."""
    port: int
    decision: str
    """Why, in a word or two."""
    connections: int


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt was denied."""

    calls: tuple[Violation, ...] = ()
    hosts: tuple[DeniedHost, ...] = ()


class Submitter(msgspec.Struct, frozen=True, kw_only=True):
    """Who submitted a task, and the digests of what was submitted."""

    key_id: str | None
    """The API key; ``None`` where there are no keys."""
    request_id: str | None
    client_address: str | None
    """Where the request came from, as the API saw it: behind a proxy, the proxy's."""
    policy: str
    """The one that the task runs under."""
    script_name: str | None
    source_sha256: str | None
    """Of the script, in hex. Of a named one it is known once it has run."""
    parameters_sha256: str | None
    """Of the parameters' JSON text, as it was sent, in hex."""
    file_ids: tuple[str, ...]
    """The uploaded files that the parameters name."""


class SubmittedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task's request, as it was stored; its policy is the one that the task runs under."""

    request: SubmitRequest


class AttemptFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a task that has ended."""

    attempt: Annotated[int, Meta(description="1 for the first.")]
    worker_id: UUID
    started_at: datetime
    ended_at: datetime
    ended: Annotated[
        Literal["finished", "worker_lost", "sandbox_failed", "released"],
        Meta(
            description="finished: `exit_reason` says how. worker_lost: its lease ran out. sandbox_failed: our own "
            "failure. released: its worker was told to stop and gave it back."
        ),
    ]
    exit_reason: ExitReason | None
    message: str | None
    policy_digest: Annotated[str | None, Meta(description="SHA-256 of the policy file that was in force.")]


class AttemptRecord(NamedTuple):
    """An attempt, and what it was denied."""

    facts: AttemptFacts
    denied: Denied | None


class AuditedTask(ListedTask, frozen=True, kw_only=True):
    """A task as a list shows it to an auditor."""

    tenant: str
    key_id: str | None
    request_id: str | None
    client_address: str | None
    script_name: str | None
    source_sha256: str | None
    parameters_sha256: str | None


class TrailFilter(TaskFilter, frozen=True, kw_only=True):
    """Which tasks an auditor asks for. What is empty or ``None`` leaves none out."""

    tenant: str | None = None
    policy: str | None = None
    only_denied: bool = False
    """Only those whose attempts were denied something."""


class TrailItem(NamedTuple):
    """A task for an auditor: under which grant it ran last, and what its attempts were denied."""

    task: AuditedTask
    policy_digest: str | None
    denied: tuple[Denied, ...]


class TrailPage(NamedTuple):
    """Some of the tasks that a filter lets through, and where the next page begins."""

    items: list[TrailItem]
    end: tuple[datetime, UUID] | None
    """``None`` when there are no more. A page may be short, or empty, and yet have a next one."""
    has_all_tenants: bool = True
    """Whether the tasks of all tenants were looked at that were asked for."""


class Tenants(NamedTuple):
    """The tenants that a question is about."""

    names: list[str]
    are_all: bool = True
    """False: there are more, and these are the first ones by name."""


class Denial(NamedTuple):
    """What an attempt under a policy was denied, and when it ended."""

    task_id: UUID
    attempt: int
    tenant: str
    denied_at: datetime
    denied: Denied


class TenantLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has that waits, runs and is stored."""

    tenant: str
    queued: int
    held: int
    """Of those queued: they wait because the tenant has as many running as it may."""
    running: int
    oldest_wait_s: float
    stored_bytes: int
    dead_callbacks: int


class EndedMinute(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of one tenant, or of all, that ended within one minute.

    Each pair of times is their median and their 95th percentile.
    """

    minute: datetime
    ended: int = 0
    failed: int = 0
    cancelled: int = 0
    took_s: tuple[float, ...] = ()
    """From being accepted to the end."""
    waited_s: tuple[float, ...] = ()
    """From being accepted to the start."""


def denied_by(result: TaskResult) -> Denied | None:
    """What the attempt behind a result was denied; ``None`` where that is nothing."""
    if not isinstance(result.run, Result):
        return None
    hosts = tuple(
        DeniedHost(host=row.host, port=row.port, decision=row.decision, connections=row.connections)
        for row in result.run.usage.egress
        if row.decision not in NOT_DENIED
    )
    found = Denied(calls=result.run.violations, hosts=hosts)
    return found if found != Denied() else None
