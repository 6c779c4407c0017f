"""Measures what the sandbox and the service take, always beside a baseline taken in the same run.

Nothing here decides pass or fail: a machine that is busy prints worse numbers, and the ratio says how much of that is
ours. ``python -m engine bench`` prints the table, ``--json`` the rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from engine.config.settings import Settings
from engine.dev.bench import data as bench_data
from engine.dev.bench import egress as bench_egress
from engine.dev.bench import lives as bench_lives
from engine.dev.bench import quiet
from engine.dev.bench import scale as bench_scale
from engine.dev.bench import service as bench_service
from engine.dev.bench import workers as bench_workers
from engine.dev.bench.parts import pss_mib
from engine.dev.bench.report import write_report
from engine.dev.bench.rows import Row, in_starts, make_row
from engine.policies.policies import Policies
from engine.worker.pools import template
from sandbox import ExitReason, Policy, Pool, Template, probe_host

Progress = Callable[[str], None]
_TRIVIAL = "result = 1"
_TURNS, _STARTS_A_TURN = 5, 3
_CORRELATION = """
import pandas
result = pandas.DataFrame(args).corr()
"""
_ROWS = [{"x": number, "y": number * number} for number in range(20)]


# -- baselines


def _time_commands(command: list[str], count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)  # noqa: S603 ours
        seconds.append(time.perf_counter() - started)
    return seconds


def _bwrap(interpreter: list[str]) -> list[str]:
    return ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", *interpreter]


def measure_baselines(progress: Progress) -> dict[str, Row]:
    """Plain ``python`` and, where it is installed, ``bwrap`` + ``python``, each bare and with pandas imported."""
    rows = {}
    for name, count in (("", 30), (" + import pandas", 7)):
        progress(f"plain python{name}")
        rows["python" + name] = make_row(f"python -I{name}", _time_commands(_python(name), count))
        if shutil.which("bwrap"):
            progress(f"bwrap + python{name}")
            rows["bwrap" + name] = make_row(f"bwrap + python -I{name}", _time_commands(_bwrap(_python(name)), count))
    return rows


def _python(name: str) -> list[str]:
    return [sys.executable, "-I", "-c", name.removeprefix(" + ") or "pass"]


class Beside:
    """A baseline that takes turns with what is compared with it, so that a machine's moods affect both alike."""

    def __init__(self, name: str = "", *, isolated: bool) -> None:
        """
        Args:
            name: of the baseline, without its interpreter.
            isolated: in ``bwrap``, where that is installed.
        """
        with_bwrap = isolated and shutil.which("bwrap") is not None
        self._command = _bwrap(_python(name)) if with_bwrap else _python(name)
        self._what = f"{'bwrap + ' if with_bwrap else ''}python -I{name}"
        self._seconds: list[float] = []

    def take_turn(self) -> None:
        """Start it a few times; the first pays for what the other side has left in the caches, and does not count."""
        self._seconds += _time_commands(self._command, _STARTS_A_TURN + 1)[1:]

    @property
    def row(self) -> Row:
        """All turns so far."""
        return make_row(self._what, self._seconds)


# -- the sandbox


def _request(script: str, args: object = None) -> bytes:
    return json.dumps({"task_type": "custom_script", "parameters": {"script": script, "args": args}}).encode()


async def _run_once(pool: Pool, request: bytes) -> float:
    started = time.perf_counter()
    result = await pool.run(request)
    seconds = time.perf_counter() - started
    if result.exit_reason is not ExitReason.OK:
        raise RuntimeError(f"a benchmark run ended with {result.exit_reason}: {result.message}")
    return seconds


async def _until_full(pool: Pool) -> None:
    while (stats := pool.stats()).ready < stats.wanted:  # noqa: ASYNC110 the pool has no event for it but this
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.01)  # let the refill's last traces pass


async def _time_ready(pool: Pool, request: bytes, count: int, beside: Beside) -> list[float]:
    seconds = []
    for number in range(count):
        if number % (count // _TURNS) == 0:
            await asyncio.to_thread(beside.take_turn)
        await _until_full(pool)
        seconds.append(await _run_once(pool, request))
    return seconds


async def _time_turnover(pool: Pool, concurrency: int, count: int, beside: Beside) -> tuple[list[float], float]:
    """Latencies and rate of whole lives, fork to reap, with no child kept ready."""
    request, seconds = _request(_TRIVIAL), []

    async def work(share: int) -> None:
        for _ in range(share):
            seconds.append(await _run_once(pool, request))  # noqa: PERF401 each must wait for the one before

    # before it and after it, and not within: where lives begin and where they run out, a processor is idle
    for _ in range(2):
        await asyncio.to_thread(beside.take_turn)
    started = time.perf_counter()
    await asyncio.gather(*(work(count // concurrency) for _ in range(concurrency)))
    wall_s = time.perf_counter() - started
    for _ in range(2):
        await asyncio.to_thread(beside.take_turn)
    return seconds, len(seconds) / wall_s


async def measure_sandbox(policy: Policy, template: Template, progress: Progress) -> list[Row]:
    """Latency of a ready child, of whole lives, and what an idle child weighs."""
    host = await asyncio.to_thread(probe_host, template.uid, template.gid)
    baselines = await asyncio.to_thread(measure_baselines, progress)
    bare = baselines.get("bwrap", baselines["python"])
    rows = list(baselines.values())
    light = msgspec.structs.replace(policy, preload=("handlers.custom_script",))
    for name, chosen in (("light zygote", light), ("pandas zygote", policy)):
        async with Pool(chosen, host, template, ready=2) as pool:
            progress(f"ready child, {name}")
            beside = Beside(isolated=True)
            seconds = await _time_ready(pool, _request(_TRIVIAL), 300, beside)
            rows.append(make_row(f"ready child, trivial script, {name}", seconds, beside.row))
            if chosen is policy:
                beside = Beside(" + import pandas", isolated=True)
                seconds = await _time_ready(pool, _request(_CORRELATION, _ROWS), 100, beside)
                rows.append(make_row("ready child, import pandas + correlation", seconds, beside.row))
        async with Pool(chosen, host, template, ready=10) as pool:
            rows.append(_weigh(pool, name))
        progress(f"whole lives beside bare forks, {name}")
        rows.append(_compare_lives(await bench_lives.measure(chosen, host, template, _run_trivial), name))
        async with Pool(chosen, host, template, ready=0) as pool:
            for concurrency in (1, 2, 4, 8):
                progress(f"turnover, {name}, {concurrency} at once")
                starts = Beside(isolated=False)
                seconds, rate_s = await _time_turnover(pool, concurrency, 400, starts)
                what = f"fork + lock down + run + reap, {name}, {concurrency} at once"
                rows.append(in_starts(make_row(what, seconds, bare, rate_s=rate_s), starts.row))
    return [*rows, *await bench_scale.measure_sandbox(light, host, template, progress)]


async def _run_trivial(pool: Pool) -> float:
    return await _run_once(pool, _request(_TRIVIAL))


def _compare_lives(lives: bench_lives.Lives, name: str) -> Row:
    note = (
        f"cpu ms: life {lives.life_ms:.2f}, bare fork + exit {lives.bare_ms:.2f}, beside it the worker "
        f"{lives.worker_ms:.2f}"
    )
    times = lives.life_ms / lives.bare_ms
    what = f"whole life of a child against a bare fork, {name}"
    return Row(what=what, samples=bench_lives.BLOCKS * bench_lives.LIVES, value=times, unit="times", note=note)


def _weigh(pool: Pool, name: str) -> Row:
    """Proportional set size of the idle children."""
    sizes_mib = [pss_mib(pid) for pid in pool.ready_pids()]
    mean_mib = statistics.mean(sizes_mib)
    note = f"PSS {mean_mib:.1f} MiB an idle child, with {len(sizes_mib)} ready"
    return Row(what=f"memory of a ready child, {name}", samples=len(sizes_mib), value=mean_mib, unit="MiB", note=note)


# -- the egress proxy


async def measure_egress(policy: Policy, template: Template, progress: Progress) -> list[Row]:
    """Fetches through the proxy against the same fetches without it."""
    host = await asyncio.to_thread(probe_host, template.uid, template.gid)
    progress("fetches, directly and through the egress proxy")
    direct, proxied = await bench_egress.measure(policy, host, template)
    rows: list[Row] = []
    for name, fetched in (("directly", direct), ("through the proxy", proxied)):
        baseline = rows[:2] if rows else [None, None]
        rows.append(make_row(f"small fetch {name}", fetched.small_s, baseline[0]))
        seconds = [seconds for _, seconds in fetched.big]
        row = make_row(f"{bench_egress.BIG_MIB} MiB {name}", seconds, baseline[1])
        speed = f"{bench_egress.BIG_MIB * 1e3 / row.p50_ms:.0f} MiB/s"
        rows.append(msgspec.structs.replace(row, note=speed))
    added_ms = rows[2].p50_ms - rows[0].p50_ms
    rows[2] = msgspec.structs.replace(rows[2], note=f"{added_ms:.2f} ms more")
    return rows


# -- the service


async def profile_service(folder: Path, progress: Progress) -> None:
    """Make flame graphs of the service's processes under sixteen clients at once."""
    await bench_service.measure(_request(_TRIVIAL), {16: 1600}, workers=1, say=progress, profile=folder)
    progress(f"flame graphs are in {folder}")


async def measure_service(progress: Progress) -> list[Row]:
    """``POST /execute?wait`` end to end: HTTP, PostgreSQL, Redis, sandbox and back."""
    progress("plain python")
    bare = make_row("python -I", await asyncio.to_thread(_time_commands, [sys.executable, "-I", "-c", "pass"], 30))
    rows, body = [bare], _request(_TRIVIAL)
    for workers, concurrencies in ((1, {1: 1000, 16: 1600}), (2, {16: 1600})):
        loads, rest = await bench_service.measure(body, concurrencies, workers=workers, say=progress)
        for concurrency, load in zip(concurrencies, loads, strict=True):
            noun = "worker" if workers == 1 else "workers"
            what = f"POST /execute?wait, {concurrency} at once, {workers} {noun}"
            row = make_row(what, load.seconds, bare, rate_s=load.rate_s)
            rows.append(in_starts(msgspec.structs.replace(row, note=bench_service.in_words(load.cpu_ms)), bare))
        if workers == 1:
            note = f"{rest.idle_percent:.2f} % of a core, zygotes and ready children included"
            rows.append(Row(what="idle worker", samples=1, value=rest.idle_percent, unit="%", note=note))
            rows.append(_weigh_service(rest.pss_mib))
    return rows


def _weigh_service(pss_mib: dict[str, float]) -> Row:
    whole = sum(pss_mib.values())
    parts = ", ".join(f"{part} {size:.0f}" for part, size in sorted(pss_mib.items(), key=lambda one: -one[1]))
    what = "memory of the whole service at rest"
    return Row(what=what, samples=1, value=whole, unit="MiB", note=f"PSS {whole:.0f} MiB: {parts}")


async def measure_payloads(progress: Progress) -> list[Row]:
    """Bodies of 16 MiB of small objects, the first after the start and those that follow."""
    first, later = await bench_service.measure_payloads(progress)
    row = make_row("16 MiB of small objects accepted, the first body", [first])
    return [row, make_row("16 MiB of small objects accepted, later bodies", later, row)]


async def measure_backlog(progress: Progress) -> list[Row]:
    """Submission and an urgent task, before and behind 50,000 waiting tasks."""
    backlog = await bench_service.measure_backlog(_request(_TRIVIAL), progress)
    submitted = make_row("POST /execute, nothing waiting", backlog.submitted_empty)
    urgent = make_row("urgent task through busy workers, nothing waiting", backlog.urgent_empty)
    deep = make_row("POST /execute, 50,000 waiting", backlog.submitted_deep, submitted)
    note = f"p95 {deep.p95_ms / submitted.p95_ms:.2f} times that of an empty queue"
    return [
        submitted,
        msgspec.structs.replace(deep, note=note, value=deep.p95_ms / submitted.p95_ms, unit="times"),
        urgent,
        make_row("urgent task through busy workers, 50,000 waiting", backlog.urgent_deep, urgent),
    ]


async def measure_data(progress: Progress) -> list[Row]:
    """A million rows through the service, against the same work in one process."""
    million = await bench_data.measure(progress)
    by_hand = make_row("json.loads + DataFrame + DuckDB, 1,000,000 rows, in process", million.by_hand)
    handler = make_row("our handler, 1,000,000 rows, in process", million.handler)
    row = make_row("data_processing statistics 1,000,000 rows", million.service, by_hand)
    times = row.p50_ms / handler.p50_ms
    note = f"{times:.1f} times as long as our handler alone"
    return [by_hand, handler, msgspec.structs.replace(row, note=note, value=times, unit="times")]


async def measure_workers(progress: Progress) -> list[Row]:
    """One to four workers on simulated machines, and PostgreSQL under more and more connections."""
    rows: list[Row] = []
    for machines, load in (await bench_workers.measure_machines(_request(_TRIVIAL), progress)).items():
        row = make_row(f"tasks that sleep 0.1 s, simulated machines: {machines}", load.seconds, rate_s=load.rate_s)
        times = (row.rate_s or 0) / ((rows[0].rate_s if rows else row.rate_s) or 1)
        note = f"{times:.2f} times the rate of one; {bench_service.in_words(load.cpu_ms)}"
        rows.append(msgspec.structs.replace(row, value=times, unit="times one", note=note))
    found = await bench_workers.measure_postgres(progress)
    for connections, lives in found.items():
        row = make_row(f"whole lives in the store, connections: {connections}", lives.seconds, rate_s=lives.rate_s)
        rows.append(msgspec.structs.replace(row, note=f"cpu ms a life: postgres {lives.postgres_ms:.2f}"))
    bend = bench_workers.bend(found)
    note = f"tasks a second, over {bend} connections; more of them give less than a tenth more"
    rate_s = found[bend].rate_s
    return [*rows, Row(what="submit, claim, finish: where PostgreSQL bends", samples=1, rate_s=rate_s, note=note)]


# -- the table


def show(rows: list[Row], console: Console) -> None:
    """Print the rows for people."""
    table = Table(title=f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, Linux {os.uname().release}")
    for name in ("what", "n", "p50 ms", "p95 ms", "per s", "times faster than"):
        table.add_column(name, justify="left" if name in ("what", "times faster than") else "right")
    for row in rows:
        ratio = f"{row.ratio:g} x {row.baseline}" if row.ratio is not None else ""
        times = ", ".join(part for part in (ratio, row.note) if part)
        numbers = (f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}") if row.p50_ms else ("", "")
        table.add_row(row.what, str(row.samples), *numbers, f"{row.rate_s:.0f}" if row.rate_s else "", times)
    console.print(table)


async def measure(parts: list[str], settings: Settings, progress: Progress) -> list[Row]:
    """All rows of the parts asked for, of ``sandbox``, ``egress``, ``service``, ``store`` and ``workers``."""
    rows: list[Row] = []
    policy = Policies.load(settings).default("custom_script").loaded_with(1)  # pandas
    if "sandbox" in parts:
        rows += await measure_sandbox(policy, template(settings), progress)
    if "egress" in parts:
        rows += await measure_egress(policy, template(settings), progress)
    if "service" in parts:
        rows += await measure_service(progress)
        rows += await measure_payloads(progress)
        rows += await measure_backlog(progress)
        rows += await measure_data(progress)
    if "store" in parts:
        rows += await bench_scale.measure_store(progress)
    if "workers" in parts:
        rows += await measure_workers(progress)
    return rows


def run(
    settings: Settings, parts: list[str], *, json: bool, report: Path | None = None, profile: Path | None = None
) -> list[Row]:
    """Measure with a progress line on stderr, and show the table unless it is to be JSON."""
    # a line each, no spinner: what moves on the screen takes processor time from what is measured
    console = Console(stderr=True)
    console.print(busy := quiet.in_words(quiet.busy_share()), style="bold", end="\n" if busy else "")
    # on the loop that a worker runs on
    rows = uvloop.run(measure(parts, settings, lambda what: console.print(f"measuring: {what}", style="dim")))
    if profile is not None:
        uvloop.run(profile_service(profile, lambda what: console.print(what, style="dim")))
    if report is not None:
        write_report(rows, report, busy=busy)
    if not json:
        show(rows, Console(width=None if sys.stdout.isatty() else 150))
    return rows
