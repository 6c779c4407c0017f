"""Decides why a run ended, from facts alone: no clock, no process, no file."""

from __future__ import annotations

import os
import signal

from sandbox.policy.policy import Limits
from sandbox.result import ExitReason
from sandbox.run import response

_REFUSED_BY_KERNEL = {
    "memory_limit": ExitReason.MEMORY_LIMIT,
    "workspace_limit": ExitReason.WORKSPACE_LIMIT,
    "process_limit": ExitReason.PROCESS_LIMIT,
}
"""``code`` of an error that a handler gives when what it met is the kernel's refusal → the limit behind it."""
_CPU_MARGIN_S = 0.1
"""RLIMIT_CPU counts whole seconds and rounds down what was used: getrlimit(2)."""
KILLED_BY_ANOTHER = (
    "the run was killed (SIGKILL) by neither this worker nor itself: by the host's out-of-memory killer, most likely, "
    "or by an operator"
)
WITH_ERROR = (ExitReason.ERROR, ExitReason.INVALID_RESULT, *_REFUSED_BY_KERNEL.values())
"""The reasons beside which a result shows the error that the handler gave."""


def exit_code_of(status: int) -> int:
    """Exit code of a wait status (wait(2)), negative for the signal that ended the process.

    The child chooses the status, so every number of 16 bits has an answer; ``os.waitstatus_to_exitcode`` raises for
    some of them.
    """
    return status >> 8 & 0xFF if os.WIFEXITED(status) else -(status & 0x7F)


def signal_name(number: int) -> str:
    """Name of a signal, for any number that a wait status can hold: signal(7) on the real-time ones.

    The child chooses the number, so this never raises: Python's ``signal.Signals`` knows no real-time signal but the
    first and the last.
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        is_real_time = signal.SIGRTMIN < number < signal.SIGRTMAX
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if is_real_time else f"signal {number}"


def decide(
    exit_code: int,
    ended_by: ExitReason | None,
    answer: response.Response | None,
    cpu_s: float,
    limits: Limits,
    *,
    workspace_full: bool = False,
    by_itself: bool = False,
) -> tuple[ExitReason, str]:
    """The reason why a run ended, and a sentence for people.

    Args:
        exit_code: as ``os.waitstatus_to_exitcode`` gives it, negative for a signal.
        ended_by: the reason for which we killed it, if we did.
        answer: what it wrote.
        cpu_s: what it used.
        limits: what was in force.
        workspace_full: whether its workspace has no byte or no inode left.
        by_itself: whether it sent the signal that ended it to itself.
    """
    if exit_code < 0:
        if by_itself:
            return ExitReason.SIGNALED, f"ended by {signal_name(-exit_code)}, which it sent to itself"
        return _decide_killed(-exit_code, ended_by, cpu_s, limits)
    if ended_by is ExitReason.OUTPUT_LIMIT:  # it left by itself in the moment in which we killed it
        return ended_by, _limit_message(ended_by, limits)
    if answer is None:
        return _decide_silent(exit_code)
    return _decide_answered(exit_code, answer, limits, workspace_full=workspace_full)


def was_killed_by_another(
    exit_code: int, ended_by: ExitReason | None, cpu_s: float, limits: Limits, *, by_itself: bool
) -> bool:
    """Whether a run was killed by neither itself nor us, nor by the kernel for a limit. Arguments as of ``decide``.

    A run that kills itself is seen to do so: the filter holds every call that sends a signal.
    """
    is_ours = ended_by is not None or by_itself
    return exit_code == -signal.SIGKILL and not is_ours and cpu_s < limits.cpu_s - _CPU_MARGIN_S


def _decide_answered(
    exit_code: int, answer: response.Response, limits: Limits, *, workspace_full: bool
) -> tuple[ExitReason, str]:
    if answer.kind == "invalid":
        return ExitReason.INVALID_RESULT, answer.fault or "the result cannot be given as JSON"
    if answer.kind == "error" and answer.error is not None and exit_code == 1:
        limit = _REFUSED_BY_KERNEL.get(answer.error.code or "")
        if limit is not None and (limit is not ExitReason.WORKSPACE_LIMIT or workspace_full):
            return limit, _limit_message(limit, limits)
        return ExitReason.ERROR, f"{answer.error.type}: {answer.error.message}"[:500]
    if exit_code != 0:
        return ExitReason.NONZERO_EXIT, f"it left with exit code {exit_code}"
    if answer.kind == "error":
        return ExitReason.INVALID_RESULT, "it reported an error and then left with exit code 0"
    return ExitReason.OK, "done"


def _decide_silent(exit_code: int) -> tuple[ExitReason, str]:
    if exit_code == 0:
        return ExitReason.NO_RESULT, "it left with exit code 0 without giving a result"
    return ExitReason.NONZERO_EXIT, f"it left with exit code {exit_code} without giving a result"


def _decide_killed(number: int, ended_by: ExitReason | None, cpu_s: float, limits: Limits) -> tuple[ExitReason, str]:
    if number == signal.SIGKILL and ended_by is not None:
        return ended_by, _limit_message(ended_by, limits)
    if number in (signal.SIGKILL, signal.SIGXCPU) and cpu_s >= limits.cpu_s - _CPU_MARGIN_S:
        return ExitReason.CPU_LIMIT, _limit_message(ExitReason.CPU_LIMIT, limits)
    hints: dict[int, str] = {
        signal.SIGSEGV: " (a crash in native code, or a stack overflow)",
        signal.SIGSYS: " (a system call in another architecture's convention)",
    }
    return ExitReason.SIGNALED, f"ended by {signal_name(number)}{hints.get(number, '')}"


def _limit_message(reason: ExitReason, limits: Limits) -> str:
    return {
        ExitReason.WALL_LIMIT: f"ran longer than {limits.wall_s:g} s (wall_s) and was killed",
        ExitReason.CPU_LIMIT: f"used more than {limits.cpu_s:g} s of processor time (cpu_s) and was killed",
        ExitReason.MEMORY_LIMIT: f"wanted more than {limits.memory_mib} MiB of memory (memory_mib)",
        ExitReason.OUTPUT_LIMIT: f"printed more than {limits.output_kib} KiB (output_kib) and was killed",
        ExitReason.WORKSPACE_LIMIT: f"filled its workspace: {limits.workspace_mib} MiB (workspace_mib) or "
        f"{limits.workspace_files} files (workspace_files)",
        ExitReason.PROCESS_LIMIT: f"wanted more than {limits.threads} threads (threads) and {limits.processes} further "
        "processes (processes)",
        ExitReason.INVALID_RESULT: f"the result is larger than {limits.result_kib} KiB (result_kib)",
        ExitReason.CANCELLED: "cancelled on request",
    }[reason]
