"""One worker, two, four: what the service path gains by each, and the tasks per second at which PostgreSQL bends.

Each worker stands for a machine of its own (see ``sleeper``): what they have in common is one API, one PostgreSQL and
one Redis, which share this machine's processors with them and with the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx

from engine.config.settings import PROJECT_DIR
from engine.dev.bench.scale import live_once
from engine.dev.bench.service import Load, part_seconds, post
from engine.dev.bench.sleeper import SLEEP_S
from engine.dev.demo import free_port
from engine.dev.embedded import Embedded, die_with
from engine.store.store import Store

MACHINES = (1, 2, 4)
SLOTS = 4
LOAD_S = 10.0
START_S = 60.0
LOOK_S = 0.1
WARM_UP = 20
LIVES = 2000
CONNECTIONS = (1, 2, 4, 8, 16, 32)


class StoreLives(NamedTuple):
    """Whole lives of tasks in the store: submit, claim, finish."""

    rate_s: float
    seconds: list[float]
    postgres_ms: float
    """Processor time of PostgreSQL for each."""


async def measure_machines(task: bytes, say: Callable[[str], None]) -> dict[int, Load]:
    """Number of workers → a load of ``POST /execute?wait`` that would keep all their slots busy.

    Raises:
        RuntimeError: a task did not end well, or the service did not start.
    """
    loads = {}
    for machines in MACHINES:
        say(f"tasks that sleep, on simulated machines: {machines}")
        async with _service(machines) as url:
            at_once = 2 * SLOTS * machines
            await post(url, task, at_once, 5 * at_once)  # what is slow only once
            loads[machines] = await post(url, task, at_once, int(machines * SLOTS / SLEEP_S * LOAD_S))
    return loads


@contextlib.asynccontextmanager
async def _service(machines: int) -> AsyncIterator[str]:
    """An API and so many workers that sleep; yields the API's URL once every worker has said that it is there."""
    with Embedded(None) as servers, contextlib.ExitStack() as parts:
        port = free_port()
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        environ = os.environ | {
            "DATABASE_URL": str(servers.urls.database),
            "REDIS_URL": str(servers.urls.redis),
            "ENVIRONMENT": "development",
            "LOG_LEVEL": "ERROR",
            "AUDIT_LOG": str(folder / "audit.log"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "MAX_CONCURRENT_TASKS": str(SLOTS),
        }
        for program in (["engine", "api"], *[["engine.dev.bench.sleeper"]] * machines):
            parts.enter_context(_running(program, environ))
        await _until_there(url := f"http://127.0.0.1:{port}", machines)
        yield url


@contextlib.contextmanager
def _running(program: list[str], environ: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", *program],
        cwd=PROJECT_DIR,
        env=environ,
        preexec_fn=die_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509  no thread of ours holds a lock
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def _until_there(url: str, machines: int) -> None:
    """Wait until the service knows of so many workers.

    Raises:
        TimeoutError: it does not.
    """
    async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if len((await client.get("/health")).json()["workers"]) == machines:
                    return
            await asyncio.sleep(LOOK_S)


async def measure_postgres(say: Callable[[str], None]) -> dict[int, StoreLives]:
    """Number of connections, each in use all the time → whole lives of tasks, straight in the store."""
    found = {}
    with Embedded(None, redis=False) as servers:
        for connections in CONNECTIONS:
            say(f"whole lives in the store, connections: {connections}")
            store = Store(str(servers.urls.database), connections=connections)
            await store.open()
            try:
                await _live(store, connections, WARM_UP * connections)
                before = part_seconds()["postgres"]
                began_s = time.perf_counter()
                seconds = await _live(store, connections, LIVES)
                took_s = time.perf_counter() - began_s
                spent_ms = (part_seconds()["postgres"] - before) * 1e3 / len(seconds)
                found[connections] = StoreLives(len(seconds) / took_s, seconds, spent_ms)
            finally:
                await store.close()
    return found


def bend(found: dict[int, StoreLives]) -> int:
    """The number of connections beyond which more of them give less than a tenth more."""
    for few, more in pairwise(found):
        if found[more].rate_s < found[few].rate_s * 1.1:
            return few
    return max(found)


async def _live(store: Store, at_once: int, count: int) -> list[float]:
    """Seconds of each life; ``at_once`` clients live theirs one after another."""
    worker, seconds = uuid4(), []

    async def live(share: int) -> None:
        for _ in range(share):
            seconds.append(sum((await live_once(store, worker)).values()))  # noqa: PERF401 one after another

    await asyncio.gather(*(live(count // at_once) for _ in range(at_once)))
    return seconds
