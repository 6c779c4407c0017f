"""Runs one attempt in a sandbox of its policy: the one execution of the worker and of ``python -m engine run``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from engine.config.scripts import ScriptError
from engine.config.settings import Settings
from engine.model.result import TaskResult
from engine.model.task import Claim
from engine.policies.denials import with_denials
from engine.policies.next_steps import with_next_step
from engine.policies.policies import Policies, effective_limits
from engine.queue.memory import MemoryShare
from engine.store.files import Files
from engine.telemetry.tracing import NO_TRACES, Traces
from engine.worker.inputs import (
    UnknownFileError,
    read_named_script,
    read_uploaded_files,
    result_without_inputs,
    result_without_memory,
)
from engine.worker.request import build_request
from sandbox import OnOutput, OnProgress, Pool, SandboxError, SplitPool


async def execute(
    settings: Settings,
    policies: Policies,
    pools: Mapping[str, Pool | SplitPool],
    claim: Claim,
    *,
    files: Files | None = None,
    memory: MemoryShare | None = None,
    cancel: asyncio.Event | None = None,
    on_output: OnOutput | None = None,
    on_progress: OnProgress | None = None,
    traces: Traces = NO_TRACES,
) -> TaskResult:
    """Read what the task names, run it under the limits in force, and say how it ended.

    Args:
        settings: have the operator's ceilings and the scripts' folder.
        policies: those of this process.
        pools: policy → its sandboxes.
        claim: the attempt.
        files: the uploaded files; ``None`` where there is no service.
        memory: what was taken of the worker's memory, which becomes the limit in force; ``None`` outside a worker.
        cancel: set to have the run killed.
        on_output: called with what the run prints, as it prints it.
        on_progress: called with what the run reports of its progress.
        traces: record the sandbox's part as a span.

    Raises:
        SandboxError: our own failure; the task may be tried again.
    """
    policy = policies.named(claim.policy)
    if policy is None:
        raise SandboxError("policy", f"this worker has no policy {claim.policy}")
    try:
        script = read_named_script(settings, claim)
        inputs = await read_uploaded_files(files, claim)
    except (ScriptError, UnknownFileError) as error:
        return result_without_inputs(claim, error)
    limits = effective_limits(policy, settings, claim.request.timeout_s, claim.request.memory_mib)
    if memory is not None and not await memory.become(limits.memory_mib):
        return result_without_memory(claim, limits.memory_mib, memory.whole_mib)
    request = build_request(claim, script)
    with traces.span("sandbox run") as span:
        run = await pools[policy.name].run(
            request, inputs=inputs, limits=limits, cancel=cancel, on_output=on_output, on_progress=on_progress
        )
        span.note(exit_reason=run.exit_reason.value, wall_s=run.usage.wall_s, cpu_s=run.usage.cpu_s)
    run = with_denials(run, policy, policies.all)
    run = with_next_step(run, policy, limits, effective_limits(policy, settings))
    return TaskResult.of_run(run, queue_s=claim.queue_s, script=script.script if script else None)
