"""``python -m engine.dev.bench.sleeper``: a worker as any other, but that its runs sleep instead of having a sandbox.

So several workers on one machine stand for workers on machines of their own: what they share is the service, and not
the processors that sandboxes need. Nothing of a task is executed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, cast

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from engine.cli.shared import load_with_servers
from engine.config.settings import Settings
from engine.model.versions import engine_version
from engine.policies.policies import Policies
from engine.telemetry.audit import AuditLog
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.worker import Worker
from sandbox import ExitReason, Isolation, Limits, Logs, Policy, Pool, PoolStats, Result, Usage

SLEEP_S = 0.1


class SleepingPool:
    """In place of a ``sandbox.Pool``: each run takes ``SLEEP_S`` and succeeds."""

    isolation = Isolation(profile="none: it sleeps", start="warm", layers={})

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def stats(self) -> PoolStats:
        """None is ready, none is wanted."""
        return PoolStats(ready=0, wanted=0, running=0, spawned=0, zygote_restarts=0, zygote_rotations=0)

    async def run(self, request: bytes, *, limits: Limits, **_: Any) -> Result:  # noqa: ARG002  as Pool.run has it
        """Sleep, and answer ``true``."""
        await asyncio.sleep(SLEEP_S)
        return Result(
            exit_reason=ExitReason.OK,
            message="It slept.",
            value=msgspec.Raw(b"true"),
            usage=Usage(wall_s=SLEEP_S),
            logs=Logs(),
            isolation=self.isolation,
            policy=self._policy.name,
            policy_digest=self._policy.digest,
            limits=limits,
        )


async def run_sleeping_worker(settings: Settings) -> None:
    """Run one until SIGTERM. It has the policy of scripts alone."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    policies = Policies.load(settings)
    policy = policies.default("custom_script")
    pools = cast(dict[str, Pool], {policy.name: SleepingPool(policy)})
    metrics = WorkerMetrics(
        CollectorRegistry(),
        version=engine_version(),
        slots=settings.max_concurrent_tasks,
        policies={policy.name: policy.task_type},
    )
    with contextlib.closing(AuditLog(settings.audit_log)) as audit:
        await Worker(settings, policies, pools, audit, metrics).run(stop)


if __name__ == "__main__":
    uvloop.run(run_sleeping_worker(load_with_servers()))
