"""A task as the API answers it. A callback reports the same object."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from engine.model.callback import Callback
from engine.model.result import ArtifactFacts, Script, TaskUsage
from engine.model.status import NULL, Priority, Status
from engine.model.task import StoredTask
from sandbox import ExitReason, Isolation, Limits, Logs, RefusedArtifact, RunError, Violation


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as it stands. What is not known yet is null."""

    task_id: UUID
    task_type: str
    status: Annotated[Status, Meta(description="queued → running → succeeded, failed or cancelled.")]
    exit_reason: Annotated[
        ExitReason | None, Meta(description="Why the last attempt ended: only what the supervisor can prove.")
    ] = None
    result: Annotated[msgspec.Raw, Meta(description="The answer: any JSON.")] = msgspec.field(
        default_factory=lambda: NULL
    )
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
    libraries_digest: Annotated[
        str | None,
        Meta(description="Digest of the set of libraries that it could import; `GET /libraries` has it, too."),
    ] = None
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
    callback: Annotated[Callback | None, Meta(description="How the delivery of the callback stands.")] = None
    created_at: datetime
    started_at: Annotated[datetime | None, Meta(description="Start of the last attempt.")] = None
    finished_at: datetime | None = None


def task_answer(task: StoredTask) -> Task:
    """A task as clients see it."""
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
        **(task.result.flatten() if task.result else {}),
    )
