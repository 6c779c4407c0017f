"""Answers of a sandbox for tests of what the engine does with them."""

from __future__ import annotations

from typing import Any

from engine.model.result import TaskResult
from sandbox import ExitReason, Isolation, Limits, Logs, Result, Usage

LIMITS = Limits(
    wall_s=60,
    cpu_s=60,
    memory_mib=512,
    processes=0,
    threads=16,
    open_files=128,
    output_kib=1024,
    result_kib=8192,
    workspace_mib=64,
    workspace_files=4096,
    artifacts_mib=32,
)


def run_result(**changes: Any) -> Result:
    """The answer of a run that went well, but for the changes."""
    fields: dict[str, Any] = {
        "exit_reason": ExitReason.OK,
        "message": "done",
        "usage": Usage(),
        "logs": Logs(),
        "isolation": Isolation(profile="full", start="warm", layers={}),
        "policy": "custom_script",
        "policy_digest": "sha256:0",
        "limits": LIMITS,
    }
    return Result(**fields | changes)


def task_result(*, queue_s: float = 0.0, **changes: Any) -> TaskResult:
    """The result of a task whose run went well, but for the changes."""
    return TaskResult.of_run(run_result(**changes), queue_s=queue_s, script=None)
