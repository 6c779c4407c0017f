"""The worker with a sandbox that fails on our side: the task is tried again and never blamed."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from engine.config.load import load_settings
from engine.dev.embedded import Embedded
from engine.model.status import Priority, Status
from engine.model.task import QueueItem, StoredTask
from engine.policies.policies import Policies
from engine.queue.queue import Queue
from engine.store.store import Store
from engine.telemetry.audit import AuditLog
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.worker import Worker
from sandbox import (
    ExitReason,
    Isolation,
    Limits,
    Logs,
    Pool,
    PoolStats,
    Result,
    SandboxError,
    Usage,
)
from tests.support.new_task import new_task

ISOLATION = Isolation(profile="full", start="warm", layers={})


class BrokenPool:
    """Stands in for a pool whose sandbox fails the given number of times before it works."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.isolation = ISOLATION

    def stats(self) -> PoolStats:
        return PoolStats(ready=1, wanted=1, running=0, spawned=0, zygote_restarts=0, zygote_rotations=0)

    async def run(self, _: bytes, *, limits: Limits, **__: Any) -> Result:
        if self.failures:
            raise self.failures.pop()
        return Result(
            exit_reason=ExitReason.OK,
            message="done",
            value=msgspec.Raw(b"1"),
            usage=Usage(),
            logs=Logs(),
            isolation=ISOLATION,
            policy="custom_script",
            policy_digest="sha256:0",
            limits=limits,
        )


def attempt(servers: Embedded, failures: list[Exception], script_name: str | None = None, **environ: str) -> StoredTask:
    """How a task ends on a worker whose sandbox fails so."""
    settings = load_settings(
        {
            "DATABASE_URL": str(servers.urls.database),
            "REDIS_URL": str(servers.urls.redis),
            "QUEUE_NAME": f"test:{uuid4().hex}",
            "MAX_ATTEMPTS": "2",
        }
        | environ
    )

    async def run() -> StoredTask:
        policies = Policies.load(settings)
        pools = {"custom_script": cast(Pool, BrokenPool(failures))}
        metrics = WorkerMetrics(CollectorRegistry(), version="test", slots=1, policies={})
        stop = asyncio.Event()
        working = asyncio.create_task(Worker(settings, policies, pools, AuditLog(None), metrics).run(stop))
        store, queue = Store(settings.servers[0], connections=2), Queue(settings.servers[1], settings.queue_name)
        task_id = uuid4()
        try:
            await store.open()
            await store.tasks.insert(new_task(task_id=task_id, script_name=script_name))
            await queue.put([QueueItem(task_id, "acme", Priority.NORMAL)])
            while not (found := await store.tasks.get(task_id, "acme")) or not found.status.final:
                assert not working.done(), working.exception()
                await asyncio.sleep(0.05)
            return found
        finally:
            stop.set()
            await working
            await queue.close()
            await store.close()

    return asyncio.run(run())


@pytest.mark.parametrize("failure", [SandboxError("spawn", "no memory"), RuntimeError("a fault of ours")])
def test_our_failure_is_tried_again(servers: Embedded, failure: Exception) -> None:
    """A sandbox that fails once costs an attempt, not the task."""
    task = attempt(servers, [failure])
    assert (Status.SUCCEEDED, 2) == (task.status, task.attempts)


def test_our_failure_is_never_the_tasks(servers: Embedded) -> None:
    """A sandbox that fails at each attempt ends as ``worker_lost``, with the stage in its message and no error."""
    task = attempt(servers, [SandboxError("spawn", "no memory")] * 2)
    result: Any = task.result
    assert (Status.FAILED, ExitReason.WORKER_LOST, None) == (task.status, result.exit_reason, result.run.error)
    assert "spawn: no memory" in result.run.message


def test_named_script_that_has_gone_is_said_so(servers: Embedded) -> None:
    """A script that is removed after its task was accepted ends the task with a word for programs."""
    task = attempt(servers, [], script_name="gone_meanwhile.py")
    result: Any = task.result
    assert (Status.FAILED, "script_unavailable") == (task.status, result.run.error.code)


def test_task_that_is_too_large_for_its_worker_is_told_so(servers: Embedded) -> None:
    """An API that knows another number has accepted it: it ends at once and says what would run."""
    task = attempt(servers, [], WORKER_MEMORY_MIB="256")
    result: Any = task.result
    assert (Status.FAILED, "worker_too_small", 1) == (task.status, result.run.error.code, task.attempts)
    assert "may have 512 MiB" in result.run.message
    assert "256 MiB (WORKER_MEMORY_MIB)" in result.run.message
