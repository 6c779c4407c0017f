"""How the attempt that ended a task ended."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.model.status import NULL, Status
from sandbox import Artifact, ExitReason, RefusedArtifact, Result, RunError, Usage

NO_ROOM = "the tenant has stored as much as it may (stored_mib)"


class ArtifactFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as a task's answer lists it. ``GET /task/{task_id}/artifacts/{name}`` serves its bytes."""

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
    """The resources that the last attempt used."""

    queue_s: float = 0.0
    """How long the task waited for a worker before that, seconds."""


class NoRun(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task ended without the answer of a sandbox, e.g. cancelled while it was queued."""

    exit_reason: ExitReason
    message: str
    """One sentence for people."""
    error: RunError | None = None


def status_after(reason: ExitReason) -> Status:
    """The final status of a task whose last attempt ended for this reason."""
    if reason is ExitReason.OK:
        return Status.SUCCEEDED
    return Status.CANCELLED if reason is ExitReason.CANCELLED else Status.FAILED


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the attempt that ended a task ended: the sandbox's own answer, and what the engine adds to it."""

    run: Result | NoRun
    """Of a task that was read from the store it has no artifacts: their bytes are stored beside it."""
    queue_s: float | None = None
    """How long the task waited for its last attempt, seconds; ``None`` when no worker came to that."""
    script: Script | None = None
    artifacts: tuple[ArtifactFacts, ...] = ()
    events: int | None = None
    """How many live events the last attempt had, followed or not; ``None`` where that is unknown."""

    @classmethod
    def of_run(cls, run: Result, *, queue_s: float, script: Script | None) -> TaskResult:
        """Build it from a sandbox's result, for a task that had waited for ``queue_s`` seconds."""
        artifacts = tuple(
            ArtifactFacts(name=artifact.name, size_bytes=artifact.size_bytes, sha256=artifact.sha256)
            for artifact in run.artifacts
        )
        return cls(run=run, queue_s=queue_s, script=script, artifacts=artifacts)

    @property
    def exit_reason(self) -> ExitReason:
        """Why the attempt ended."""
        return self.run.exit_reason

    @property
    def status(self) -> Status:
        """The final status that follows from ``exit_reason``."""
        return status_after(self.exit_reason)

    @property
    def files(self) -> tuple[Artifact, ...]:
        """The artifacts with their bytes, as the run left them."""
        return self.run.artifacts if isinstance(self.run, Result) else ()

    def within(self, room_bytes: int) -> TaskResult:
        """The result without the artifacts for which its tenant has no room, each of which it names as refused."""
        kept: list[Artifact] = []
        refused: list[RefusedArtifact] = []
        for artifact in self.files:
            if artifact.size_bytes <= room_bytes:
                kept.append(artifact)
                room_bytes -= artifact.size_bytes
            else:
                refused.append(RefusedArtifact(name=artifact.name, reason=NO_ROOM))
        if not refused or not isinstance(self.run, Result):
            return self
        names = {artifact.name for artifact in kept}
        run = msgspec.structs.replace(
            self.run, artifacts=tuple(kept), artifacts_refused=(*self.run.artifacts_refused, *refused)
        )
        facts = tuple(facts for facts in self.artifacts if facts.name in names)
        return msgspec.structs.replace(self, run=run, artifacts=facts)

    def flatten(self) -> dict[str, Any]:
        """All of it on one level, under the names of the API: so it is answered, and so it is stored."""
        fields = msgspec.structs.asdict(self.run)
        used: Usage | None = fields.pop("usage", None if self.queue_s is None else Usage())
        value = fields.pop("value", None)
        fields.pop("policy", None)  # the task has it
        return fields | {
            "result": NULL if value is None else value,
            "usage": used and TaskUsage(queue_s=self.queue_s or 0.0, **msgspec.structs.asdict(used)),
            "script": self.script,
            "artifacts": self.artifacts,
        }


CANCELLED = TaskResult(run=NoRun(exit_reason=ExitReason.CANCELLED, message="It was cancelled while it did not run."))
LOST = TaskResult(
    run=NoRun(
        exit_reason=ExitReason.WORKER_LOST,
        message="Each worker that ran this task was lost before it could store a result, and no attempt is left.",
    )
)
