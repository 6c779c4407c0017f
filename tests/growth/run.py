"""Many tasks and a day's sweeps through one API and one worker, looked at in even steps."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import psutil
import redis

from engine.dev.bench.service import post
from tests.growth.clock import Counts, read_counts
from tests.growth.memory import below, status_kib
from tests.support.stack import Part, Stack, ask, until

SCRIPT = "result = args"
CLIENTS = 12
DAY = 86_400
"""Sweeps of a day: one a second (``engine.worker.sweep.SWEEP_S``)."""
CLEAN_UPS_OF_A_DAY = 24
PAUSE_S = 0.002
STEPS = 40
SWEPT_WITHIN_S = 1800.0


class Plan(NamedTuple):
    """What a run does."""

    tasks: int = 100_000
    sweeps: int = DAY
    steps: int = STEPS


class Sample(NamedTuple):
    """Sizes at the end of a step, when no task is under way."""

    api_kib: int
    check_kib: int
    worker_kib: int
    keeper_kib: int
    api_descriptors: int
    worker_descriptors: int
    worker_processes: int
    redis_kib: int
    redis_keys: int
    connections: int


class Measure(NamedTuple):
    """One of the sizes: its name for readers, and by how much it may differ without having grown."""

    field: str
    about: str
    slack: float


MEASURES = (
    Measure("api_kib", "API, anonymous memory, KiB", 2048),
    Measure("check_kib", "its body checker, anonymous memory, KiB", 1024),
    Measure("worker_kib", "worker, anonymous memory, KiB", 2048),
    Measure("keeper_kib", "its keeper of leases, anonymous memory, KiB", 1024),
    Measure("api_descriptors", "API, descriptors", 2),
    Measure("worker_descriptors", "worker, descriptors", 4),
    Measure("worker_processes", "processes below the worker", 4),
    Measure("redis_kib", "Redis, memory in use, KiB", 512),
    Measure("redis_keys", "Redis, keys", 8),
    Measure("connections", "PostgreSQL, connections", 2),
)
"""2 MiB in half of 100,000 tasks are 41 bytes a task: a list of all tasks would take more. The numbers of processes,
descriptors and connections rise and fall by a few with the sandboxes that are being made ready."""


class Outcome(NamedTuple):
    """What a run came to."""

    plan: Plan
    samples: list[Sample]
    counts: Counts
    stored: int
    """Tasks that PostgreSQL had at the end: the others had been cleaned up."""
    seconds: float

    def row(self, measure: Measure) -> tuple[str, str, str, str, str]:
        """A measure in words: first sample, second quarter, last quarter, and what follows from these."""
        values = [getattr(sample, measure.field) for sample in self.samples]
        second, last = quarters(values)
        what = "grew" if grew(values, measure.slack) else "is flat"
        return (measure.about, f"{values[0]:,}", f"{second:,.0f}", f"{last:,.0f}", what)

    @property
    def grown(self) -> list[str]:
        """The names of what was more at the end."""
        found = (measure for measure in MEASURES if self.row(measure)[-1] == "grew")
        return [measure.about for measure in found]


def quarters(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the second and of the last quarter: the first is still warming up."""
    length = max(1, len(values) // 4)
    return statistics.median(values[length : 2 * length] or values), statistics.median(values[-length:])


def grew(values: Sequence[float], slack: float) -> bool:
    """Whether the last quarter has more than the second, by more than ``slack``."""
    second, last = quarters(values)
    return last - second > slack


def run(stack: Stack, folder: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Do all of it.

    Args:
        stack: an API that runs.
        folder: of the file with the counts.
        plan: how much.
        say: is told how far it is.
    """
    counts = folder / "sweeps"
    worker = stack.start("worker", module="tests.growth.clock", SWEEP_PAUSE_S=str(PAUSE_S), SWEEP_COUNTS=str(counts))
    until(lambda: worker.pid in stack.worker_pids(), f"worker {worker.pid} is at work; see {worker.log}")
    body = json.dumps({"task_type": "custom_script", "parameters": {"script": SCRIPT, "args": "x" * 200}}).encode()
    samples, begun_s = [], time.monotonic()
    for step in range(1, plan.steps + 1):
        share = plan.tasks * step // plan.steps - plan.tasks * (step - 1) // plan.steps
        asyncio.run(post(f"http://127.0.0.1:{stack.port}", body, CLIENTS, share))
        due = plan.sweeps * step // plan.steps
        until(lambda due=due: read_counts(counts).sweeps >= due, "the sweeps keep up", SWEPT_WITHIN_S)  # type: ignore[misc]
        samples.append(sample(stack, worker))
        say(_line(plan, step, read_counts(counts), samples[-1], time.monotonic() - begun_s))
    stored = ask(stack.environ["DATABASE_URL"], "SELECT count(*) FROM tasks")[0][0]
    return Outcome(plan, samples, read_counts(counts), stored, time.monotonic() - begun_s)


def sample(stack: Stack, worker: Part) -> Sample:
    """What there is now."""
    until(lambda: stack.get_worker()["running"] == 0, "no task is under way")
    api, its = psutil.Process(stack.api.pid), psutil.Process(worker.pid)
    with redis.Redis.from_url(stack.environ["REDIS_URL"]) as client:
        memory, keys = cast(dict[str, int], client.info("memory")), cast(int, client.dbsize())
    sessions = ask(
        stack.environ["DATABASE_URL"], "SELECT count(*) - 1 FROM pg_stat_activity WHERE client_port IS NOT NULL"
    )
    return Sample(
        api_kib=status_kib(api.pid, "RssAnon"),
        check_kib=sum(status_kib(pid, "RssAnon") for pid in below(api.pid, "engine.api.body.check")),
        worker_kib=status_kib(its.pid, "RssAnon"),
        keeper_kib=sum(status_kib(pid, "RssAnon") for pid in below(its.pid, "engine.worker.keeper")),
        api_descriptors=api.num_fds(),
        worker_descriptors=its.num_fds(),
        worker_processes=len(its.children(recursive=True)),
        redis_kib=memory["used_memory"] >> 10,
        redis_keys=keys,
        connections=sessions[0][0],
    )


def _line(plan: Plan, step: int, counts: Counts, now: Sample, seconds: float) -> str:
    tasks = plan.tasks * step // plan.steps
    return (
        f"{tasks:>8,} tasks  {tasks / seconds:6.1f}/s  {counts.sweeps:>7,} sweeps  API {now.api_kib:,} KiB  "
        f"worker {now.worker_kib:,} KiB  Redis {now.redis_kib:,} KiB"
    )
