"""Reads what a task names: the named script and the uploaded files. Says how a task ends that cannot start."""

from __future__ import annotations

from engine.config.scripts import NamedScript, ScriptError, read_script
from engine.config.settings import Settings
from engine.model.errors import EngineError, StoreUnavailableError
from engine.model.result import NoRun, TaskResult
from engine.model.task import Claim
from engine.store.files import Files
from sandbox import ExitReason, RunError, SandboxError


class UnknownFileError(EngineError):
    """Uploaded files that a task names have been deleted since it was accepted."""


def read_named_script(settings: Settings, claim: Claim) -> NamedScript | None:
    """The named script of a task; ``None`` when it names none.

    Raises:
        ScriptError: it was deleted since the task was accepted, or cannot be read here.
    """
    name = claim.request.script_name
    return read_script(settings.scripts_dir, name) if name else None


async def read_uploaded_files(files: Files | None, claim: Claim) -> dict[str, bytes]:
    """The uploaded files of a task, by id.

    Args:
        files: where they are; ``None`` where there is no service and so no upload.
        claim: names them.

    Raises:
        UnknownFileError: one of them does not exist any more.
        SandboxError: PostgreSQL is unreachable; the task may be tried again.
    """
    wanted = claim.request.file_ids
    if not wanted:
        return {}
    try:
        found = await files.read(wanted, claim.tenant) if files else {}
    except StoreUnavailableError as error:
        raise SandboxError("read_files", str(error)) from error
    if missing := sorted(set(wanted) - set(found)):
        raise UnknownFileError(", ".join(missing))
    return found


def result_without_inputs(claim: Claim, error: ScriptError | UnknownFileError) -> TaskResult:
    """How a task ends whose script or files cannot be read."""
    if isinstance(error, ScriptError):
        message, code, text = f"The named script could not be read: {error}", "script_unavailable", str(error)
    else:
        message = text = f"Uploaded files that the task names are gone: {error}"
        code = "unknown_file"
    fault = RunError(type=type(error).__name__, message=text, code=code)
    return TaskResult(run=NoRun(exit_reason=ExitReason.ERROR, message=message, error=fault), queue_s=claim.queue_s)


def result_without_memory(claim: Claim, wanted_mib: int, whole_mib: int) -> TaskResult:
    """How a task ends whose limit is higher than what all tasks of its worker may have together.

    An API with the same settings would have refused it.
    """
    message = (
        f"The task did not start: it may have {wanted_mib} MiB, and all tasks of this worker together may have "
        f"{whole_mib} MiB (WORKER_MEMORY_MIB). Submit it with a memory_mib of at most {whole_mib}."
    )
    fault = RunError(type="WorkerTooSmall", message=message, code="worker_too_small")
    return TaskResult(run=NoRun(exit_reason=ExitReason.ERROR, message=message, error=fault), queue_s=claim.queue_s)
