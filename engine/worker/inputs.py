"""Reads what a task names: the named script and the uploaded files."""

from __future__ import annotations

from engine.config.scripts import ScriptError
from engine.model.errors import EngineError
from engine.model.result import NoRun, TaskResult
from engine.model.task import Claim
from sandbox import (
    ExitReason,
    RunError,
)


class UnknownFileError(EngineError):
    """Uploaded files that a task names are not there any more."""


def _without_files(claim: Claim, error: UnknownFileError) -> TaskResult:
    """Files that the task names have gone since it was accepted."""
    message = f"Uploaded files that the task names are gone: {error}"
    fault = RunError(type="UnknownFileError", message=message, code="unknown_file")
    return TaskResult(run=NoRun(exit_reason=ExitReason.ERROR, message=message, error=fault), queue_s=claim.queue_s)


def _unreadable(claim: Claim, error: ScriptError) -> TaskResult:
    """The named script has gone since the task was accepted, or cannot be read on this worker."""
    message = f"The named script could not be read: {error}"
    fault = RunError(type="ScriptError", message=str(error), code="script_unavailable")
    return TaskResult(run=NoRun(exit_reason=ExitReason.ERROR, message=message, error=fault), queue_s=claim.queue_s)
