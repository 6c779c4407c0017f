"""How the attempt that ended a task is remembered."""

from __future__ import annotations

import msgspec

from engine.model.status import NULL, Status
from sandbox import ExitReason, Isolation, Limits, Logs, RefusedArtifact, Result, RunError, Usage, Violation


class ArtifactFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's answer says of an artifact; its bytes are to be had at ``/task/{task_id}/artifacts/{name}``."""

    name: str
    size_bytes: int
    sha256: str
    """In hex."""


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


CANCELLED = Outcome(exit_reason=ExitReason.CANCELLED, message="It was cancelled while it did not run.")


LOST = Outcome(
    exit_reason=ExitReason.WORKER_LOST,
    message="Each worker that ran this task was lost before it could store a result, and no attempt is left.",
)


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
