"""Measures the whole service, from HTTP through the queue and a sandbox back to HTTP, and where the time goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from engine.dev.bench.parts import PARTS, processes, pss_mib
from engine.dev.bench.profile import flame_graphs
from engine.dev.demo import own_service

TIMEOUT_S = 60.0
SUBMIT = "/execute"
DEEP, PAGE = 50_000, 1000
PAYLOAD_OBJECTS = 1_120_000
WARM_UP = 5
SETTLE_S = 3.0
IDLE_S = 10.0


class Load(NamedTuple):
    """The times that a load of posts took."""

    seconds: list[float]
    """Of each post, from its first byte to the last of its answer."""
    rate_s: float
    cpu_ms: dict[str, float]
    """Processor time for each task, by part of the service. The kernel's own work after a run is in none of them."""


class Rest(NamedTuple):
    """The service at rest."""

    idle_percent: float
    """Of a core, that the workers and their sandboxes use."""
    pss_mib: dict[str, float]
    """Proportional set size by part."""


async def measure(
    body: bytes,
    concurrencies: dict[int, int],
    *,
    workers: int,
    say: Callable[[str], None],
    profile: Path | None = None,
) -> tuple[list[Load], Rest]:
    """Loads of ``POST /execute?wait`` on a service of its own.

    Args:
        body: of each post.
        concurrencies: how many clients at once → how many posts in all.
        workers: worker processes.
        say: is told what is being measured.
        profile: folder of the flame graphs that are to be made of the loads; their times then are not to be believed.

    Returns:
        The loads, and what the service then took while nothing was asked of it.

    Raises:
        RuntimeError: a task did not end well.
    """
    loads = []
    with own_service(workers=workers) as url:
        for concurrency, count in concurrencies.items():
            say(f"POST /execute?wait, {concurrency} at once, workers: {workers}")
            await post(url, body, concurrency, WARM_UP * concurrency)  # what is slow only once
            with flame_graphs(profile):
                loads.append(await post(url, body, concurrency, count))
        say(f"the service at rest, workers: {workers}")
        idle_percent = await _idle_percent()
        return loads, Rest(idle_percent, _pss_mib())


async def measure_payloads(say: Callable[[str], None]) -> tuple[float, list[float]]:
    """Seconds until a body of 16 MiB of small objects is accepted: the first after a start, and those after it."""
    objects = b"[" + b",".join(b'{"a":%d}' % number for number in range(PAYLOAD_OBJECTS)) + b"]"
    body = b'{"task_type":"custom_script","parameters":{"script":"result = len(args)","args":' + objects + b"}}"
    with own_service() as url:
        say(f"bodies of {len(body) >> 20} MiB of small objects")
        first = (await post(url, body, 1, 1, path=SUBMIT, ends="queued")).seconds
        later = (await post(url, body, 1, 5, path=SUBMIT, ends="queued")).seconds
        await post(url, body, 1, 1)  # they have been run by then
    return first[0], later


class Backlog(NamedTuple):
    """Seconds of each post, before and behind a deep line."""

    submitted_empty: list[float]
    submitted_deep: list[float]
    urgent_empty: list[float]
    """From the post of an urgent task to its result, while others keep every slot busy."""
    urgent_deep: list[float]


async def measure_backlog(task: bytes, say: Callable[[str], None]) -> Backlog:
    """Measure how a queue of ``DEEP`` waiting tasks slows a submission and an urgent task.

    Raises:
        RuntimeError: a task did not end well.
    """
    urgent = task[:-1] + b',"priority":"high"}'
    with own_service() as url:
        say("submission and urgent tasks, nothing waiting")
        await post(url, task, 4, 40)
        submitted_empty = (await post(url, task, 4, 400, path=SUBMIT, ends="queued")).seconds
        await post(url, task, 1, 1)  # they have been run by then: it stands behind them
        busy = asyncio.create_task(post(url, task, 12, 1200))
        urgent_empty = (await post(url, urgent, 1, 60)).seconds
        await busy
        say(f"submission and urgent tasks, {DEEP:,} waiting")
        page = b"[" + b",".join([task[:-1] + b',"priority":"low"}'] * PAGE) + b"]"
        await post(url, page, 2, DEEP // PAGE, path="/execute/batch", ends="")
        submitted_deep = (await post(url, task, 4, 400, path=SUBMIT, ends="queued")).seconds
        urgent_deep = (await post(url, urgent, 1, 60)).seconds
    return Backlog(submitted_empty, submitted_deep, urgent_empty, urgent_deep)


async def post(
    url: str, body: bytes, concurrency: int, count: int, *, path: str = "/execute?wait=30", ends: str = "ok"
) -> Load:
    """``count`` posts over ``concurrency`` connections, each of which sends its next when it has its answer.

    Each answer must have ``ends`` as its exit reason or status; an empty one is not looked at.

    Written on bare streams: an HTTP library would take as much of the two cores as the API that is measured.
    """
    parts = urlsplit(url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    message, seconds = head.encode() + body, []

    async def work(share: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for _ in range(share):
            started = time.perf_counter()
            writer.write(message)
            async with asyncio.timeout(TIMEOUT_S):
                answer = await _answer(reader)
            seconds.append(time.perf_counter() - started)
            if ends and ends not in (json.loads(answer).get("exit_reason"), json.loads(answer).get("status")):
                raise RuntimeError(f"a benchmark task ended with {answer.decode()}")
        writer.close()

    before, started = part_seconds(), time.perf_counter()
    await asyncio.gather(*(work(count // concurrency) for _ in range(concurrency)))
    took_s, after = time.perf_counter() - started, part_seconds()
    cpu_ms = {part: (after[part] - before[part]) * 1e3 / len(seconds) for part in PARTS}
    return Load(seconds, len(seconds) / took_s, cpu_ms)


def in_words(cpu_ms: dict[str, float]) -> str:
    """Processor time by part, the largest first."""
    largest = sorted(cpu_ms.items(), key=lambda item: -item[1])
    return "cpu ms a task: " + ", ".join(f"{part} {spent:.2f}" for part, spent in largest)


async def _idle_percent() -> float:
    await asyncio.sleep(SETTLE_S)
    before = part_seconds()
    await asyncio.sleep(IDLE_S)
    after = part_seconds()
    return sum(after[part] - before[part] for part in ("worker", "keeper", "sandbox")) / IDLE_S * 100


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length))


def part_seconds() -> dict[str, float]:
    """Seconds of processor time that each part has used."""
    spent = dict.fromkeys(PARTS, 0.0)
    for part, process in processes():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            spent[part] = spent.get(part, 0.0) + times.user + times.system
            if part in ("sandbox", "worker"):  # runs that have ended, and zygotes that were replaced
                spent["sandbox"] += times.children_user + times.children_system
    return spent


def _pss_mib() -> dict[str, float]:
    """Proportional set size of the service by part."""
    found: dict[str, float] = {}
    for part, process in processes():
        with contextlib.suppress(OSError):
            found[part] = found.get(part, 0.0) + pss_mib(process.pid)
    del found["client"]
    return found
