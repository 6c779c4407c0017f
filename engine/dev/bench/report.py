"""BENCHMARKS.md: what was measured against what we set out to reach, with the reason where a bar is missed."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.dev.bench.rows import Row
from engine.model.versions import find_version

Rows = list[Row]
LINE = 118
HISTORY_HEAD, HISTORY = "## History", 8
"""The section, and how many versions it keeps."""
UNEXPLAINED = "No reason is known. If the machine was busy, measure again with nothing else running."


class Goal(NamedTuple):
    """One number to reach."""

    what: str
    bar: str
    begins: str
    """How the names of the rows begin that it is about."""
    reached: Callable[[Rows], tuple[str, bool]]
    """Says in words which value was reached, and whether that is enough."""
    why: str
    """The reason, when it is not."""


def _ready(rows: Rows) -> tuple[str, bool]:
    row = rows[0]
    words = f"p50 {row.p50_ms:.2f} ms, p95 {row.p95_ms:.2f} ms, {row.ratio:g} x {row.baseline}"
    return words, (row.ratio or 0) >= 20 and row.p95_ms <= 1.5 * row.p50_ms


def _ratio(least: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"{rows[0].ratio:g} x {rows[0].baseline}", (rows[0].ratio or 0) >= least)


def _starts(least: float) -> Callable[[Rows], tuple[str, bool]]:
    def reached(rows: Rows) -> tuple[str, bool]:
        best = max(rows, key=lambda row: row.value or 0)
        words = f"{best.value or 0:.2f} x ({best.rate_s:.0f}/s, {best.what.partition(', ')[2]})"
        return words, (best.value or 0) >= least

    return reached


def _rate(least: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"{rows[0].rate_s:.0f}/s", (rows[0].rate_s or 0) >= least)


def _p50(most_ms: float) -> Callable[[Rows], tuple[str, bool]]:
    def reached(rows: Rows) -> tuple[str, bool]:
        slowest = max(rows, key=lambda row: row.p50_ms)
        return f"p50 {slowest.p50_ms:.2f} ms ({slowest.what})", slowest.p50_ms <= most_ms

    return reached


def _one_at_a_time(rows: Rows) -> tuple[str, bool]:
    row = rows[0]
    starts = 1 / (row.ratio or 1)
    words = f"{starts:.2f} starts, p50 {row.p50_ms:.2f} ms, p95 {row.p95_ms:.2f} ms, p99 {row.p99_ms:.2f} ms"
    return words, starts <= 0.45 and row.p99_ms <= 2 * row.p50_ms


def _value(most: float, *, most_pandas: float | None = None) -> Callable[[Rows], tuple[str, bool]]:
    """At most so much; rows about a zygote that has pandas loaded may have another bar."""

    def reached(rows: Rows) -> tuple[str, bool]:
        words = ", ".join(f"{_short(row.value or 0)} {row.unit} ({row.what.rpartition(', ')[2]})" for row in rows)
        bars = [most_pandas if most_pandas is not None and "pandas" in row.what else most for row in rows]
        return words, all((row.value or 0) <= bar for row, bar in zip(rows, bars, strict=True))

    return reached


def _last_times(least: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"{rows[-1].value or 0:.2f} x ({rows[-1].rate_s:.0f}/s)", (rows[-1].value or 0) >= least)


def _short(value: float) -> str:
    """Three digits that count, and all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _retention(rows: Rows) -> tuple[str, bool]:
    row = rows[0]
    return row.note, (row.value or 0) <= 1.3 and row.worst_ms <= 100


_PAGES = (
    "A child is a copy of its zygote, and copies each page that it writes to when it first does: some 520, of which "
    "CPython's counts of references make nearly all, at 1.7 us each in the kernel. `sandbox/README.md`, \"What a child "
    'costs", has the steps.'
)
_ALL_COMPUTE = (
    "The note of the row has what each part computes for a task: half of it is the child's life. On two cores their "
    "sum bounds the rate, and the time of one task, too, for a client that asks again at once."
)
BARS = (
    Goal(
        "ready sandbox, trivial script, all layers on",
        "≥ 20 x bwrap + python, p95 ≤ 1.5 x p50",
        "ready child, trivial script, light",
        _ready,
        "Half of it is the child's own Python between request and answer. The same code takes 0.03 ms where it runs "
        "again and again, and 0.5 ms in a process that has slept: nothing of it is in the processor's caches any more, "
        "and some 40 pages are copied still. A third is the worker's, which has slept, too.",
    ),
    Goal(
        "script that imports pandas",
        "≥ 150 x bwrap + cold pandas",
        "ready child, import pandas",
        _ratio(150),
        "To import what is loaded takes 0.1 ms more than a trivial script. The rest is pandas' own: the frame from "
        "records 0.7 ms, the correlation 0.2, its JSON 0.3, and its CSV, for a table is kept as an artifact, 0.5.",
    ),
    Goal(
        "turnover, light zygote", "≥ 4.8 x python starts", "fork + lock down + run + reap, light", _starts(4.8), _PAGES
    ),
    Goal(
        "turnover, pandas loaded",
        "≥ 3.2 x python starts",
        "fork + lock down + run + reap, pandas",
        _starts(3.2),
        _PAGES,
    ),
    Goal(
        "whole life of a child, processor time",
        "≤ 2.2 (light) and 1.6 (pandas) x a bare fork + exit",
        "whole life of a child against a bare fork",
        _value(2.2, most_pandas=1.6),
        _PAGES,
    ),
    Goal(
        "`POST /execute?wait`, 16 at once",
        "≥ 2.7 x python starts",
        "POST /execute?wait, 16 at once",
        _starts(2.7),
        _ALL_COMPUTE,
    ),
    Goal(
        "`POST /execute?wait`, one at a time",
        "≤ 0.45 starts, p99 ≤ 2 x p50",
        "POST /execute?wait, 1 at once",
        _one_at_a_time,
        _ALL_COMPUTE,
    ),
    Goal("`claim_task`, 200,000 queued, statistics stale", "≤ 1 ms", "claim behind", _p50(1), ""),
    Goal("`GET /tasks` by each filter, 1,000,000 finished tasks", "≤ 5 ms", "list over 1,000,000", _p50(5), ""),
    Goal(
        "result of 170,000 small objects",
        "≤ 120 ms of processor time",
        "result of 170,000",
        _value(120),
        "A quarter of it is the script's own making of the objects.",
    ),
    Goal("payload of 16 MiB of small objects, accepted", "≤ 1 s", "16 MiB of small objects accepted", _p50(1000), ""),
    Goal(
        "`data_processing` statistics on 1,000,000 rows",
        "≤ 1.5 x the handler alone",
        "data_processing statistics 1,000,000",
        _value(1.5),
        "The text of 38 MB crosses HTTP, PostgreSQL twice and two pipes. Two readers parse it, for neither trusts the "
        "other: the API, which must refuse an invalid request before it answers 202, and the sandbox.",
    ),
    Goal(
        "accepting a task with 50,000 waiting",
        "p95 ≤ 2 x an empty queue",
        "POST /execute, 50,000 waiting",
        _value(2),
        "The workers take tasks from the queue meanwhile, and share the two cores with the submitting client.",
    ),
    Goal(
        "pick-up with 50,000 tasks waiting",
        "an urgent task ≥ 0.5 x as fast",
        "urgent task through busy workers, 50,000",
        _ratio(0.5),
        "The task waits for a slot in both cases; the queue adds the rest.",
    ),
    Goal(
        "memory of an idle ready child, ten ready",
        "PSS ≤ 1.5 (light) and 4 MiB (pandas)",
        "memory of a ready child",
        _value(1.5, most_pandas=4),
        "Two of the ten have rehearsed, and hold 3 MiB of their own, 9 with pandas. Of the other eight each holds half "
        "a MiB of its own; the rest, 1 MiB and 5.5, is its share of what eleven processes share: the zygote's memory.",
    ),
    Goal(
        "memory of the whole service at rest",
        "PSS ≤ 600 MiB",
        "memory of the whole service",
        _value(600),
        "Each of the two policies with models has a zygote of its own, with spaCy and weights of its share; one zygote "
        "for both would save some 170 MiB.",
    ),
    Goal("1,000 sleeping runs, from none to all", "≥ 250/s", "1,000 sleeping runs", _rate(250), _PAGES),
    Goal("watching a sleeping run", "≤ 0.02 % of a core", "watching a sleeping run", _value(0.02), ""),
    Goal(
        "a task's life in the store beside retention of 500,000 tasks",
        "p50 ≤ 1.3 x, worst ≤ 100 ms",
        "life in the store, beside retention",
        _retention,
        "",
    ),
    Goal(
        "submit, claim, finish: 10,000 → 1,000,000 finished tasks",
        "≤ 1.5 x as long",
        "over 1,000,000",
        _value(1.5),
        "",
    ),
    Goal(
        "1 → 4 workers on simulated machines",
        "≥ 3.5 x the tasks",
        "tasks that sleep",
        _last_times(3.5),
        "Four workers, the API, PostgreSQL, Redis and the client share two cores.",
    ),
    Goal("idle worker", "≤ 1 % of a core", "idle worker", _value(1), ""),
)


def write_report(rows: Rows, path: Path, *, busy: str = "") -> None:
    """Write the report, with what it said of earlier versions.

    Args:
        rows: what was measured.
        path: of the report, which may be there.
        busy: a sentence, if the machine was.
    """
    earlier = read_history(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [*earlier, _summary(rows, busy=bool(busy))][-HISTORY:]
    lines = [*_head(busy), *_bars(rows), *_all(rows), *_history(kept)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_history(report: str) -> list[dict[str, Any]]:
    """What a report says of the versions before, the oldest first: one JSON object a line, below ``## History``."""
    _, _, section = report.partition(f"{HISTORY_HEAD}\n")
    return [msgspec.json.decode(line) for line in section.splitlines() if line.startswith("{")]


def _summary(rows: Rows, *, busy: bool) -> dict[str, Any]:
    """One measurement: name of a row → the number that counts there."""
    numbers = {row.what: row.rate_s or row.value or row.p50_ms for row in rows}
    version = find_version()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": version.number + (f" ({version.note})" if version.note else ""),
        "kernel": os.uname().release,
        "busy": busy,
        "rows": {name: round(number, 3) for name, number in numbers.items()},
    }


def _history(kept: list[dict[str, Any]]) -> list[str]:
    about = (
        "One line of JSON for each of the last versions that were measured, the oldest first: the rate where a row has "
        "one, else its value, else its p50 in milliseconds."
    )
    return ["", HISTORY_HEAD, "", *textwrap.wrap(about, LINE), "", "```json", *map(_one_line, kept), "```"]


def _one_line(summary: dict[str, Any]) -> str:
    return msgspec.json.encode(summary).decode()


def _head(busy: str) -> list[str]:
    machine = f"{os.cpu_count()} cores ({_processor()}), Linux {os.uname().release}, Python {platform.python_version()}"
    return [
        "# Benchmarks",
        "",
        "`make bench` measures everything and writes this page; nothing here is written by hand. A ratio compares",
        "with a baseline of the same run, so that a busy or slow machine affects both sides; ready children and",
        "turnover take turns with theirs. Repeat it with nothing else running: on two cores every other program shows.",
        "`make soak` proves that 10,000 runs leave nothing behind.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}",
        *(["", *textwrap.wrap(busy, LINE)] if busy else []),
        "",
    ]


def _bars(rows: Rows) -> list[str]:
    lines = ["## What we set out to reach", "", "| what | bar | measured | |", "| --- | --- | --- | --- |"]
    missed = []
    for bar in BARS:
        found = [row for row in rows if row.what.startswith(bar.begins)]
        if not found:
            lines.append(f"| {bar.what} | {bar.bar} | not measured in this run | |")
            continue
        words, enough = bar.reached(found)
        lines.append(f"| {bar.what} | {bar.bar} | {words} | {'reached' if enough else '**missed**'} |")
        if not enough:
            reason = f"- **{bar.what}**: {bar.why or UNEXPLAINED}"
            missed += textwrap.wrap(
                reason, LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
    return [*lines, "", *([*missed, ""] if missed else [])]


def _all(rows: Rows) -> list[str]:
    lines = [
        "## Every row",
        "",
        "| what | n | p50 ms | p95 ms | per s | times faster than | |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        times = (f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}") if row.p50_ms else ("", "")
        rate = f"{row.rate_s:.0f}" if row.rate_s else ""
        ratio = f"{row.ratio:g} x {row.baseline}" if row.ratio is not None else ""
        lines.append(f"| {row.what} | {row.samples} | {times[0]} | {times[1]} | {rate} | {ratio} | {row.note} |")
    return lines


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
