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
UNEXPLAINED = "It is reached on a quiet machine; measure again with nothing else running."


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
    return words, row.p50_ms <= 1 and row.p95_ms <= 2 and (row.ratio or 0) >= 15


def _ratio(least: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"{rows[0].ratio:g} x {rows[0].baseline}", (rows[0].ratio or 0) >= least)


def _times_as_long(most: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"{1 / (rows[0].ratio or 1):.1f} times as long", (rows[0].ratio or 0) >= 1 / most)


def _rate(least: float) -> Callable[[Rows], tuple[str, bool]]:
    def reached(rows: Rows) -> tuple[str, bool]:
        best = max(rows, key=lambda row: row.rate_s or 0)
        return f"{best.rate_s:.0f}/s ({best.what.partition(', ')[2]})", (best.rate_s or 0) >= least

    return reached


def _p50(most_ms: float) -> Callable[[Rows], tuple[str, bool]]:
    return lambda rows: (f"p50 {rows[0].p50_ms:.2f} ms, p95 {rows[0].p95_ms:.2f} ms", rows[0].p50_ms <= most_ms)


def _value(most: float) -> Callable[[Rows], tuple[str, bool]]:
    def reached(rows: Rows) -> tuple[str, bool]:
        words = ", ".join(f"{row.value:.2g} {row.unit} ({row.what.rpartition(', ')[2]})" for row in rows)
        return words, all((row.value or 0) <= most for row in rows)

    return reached


def _lives(rows: Rows) -> tuple[str, bool]:
    words = ", ".join(f"{row.value:.2f} x ({row.what.rpartition(', ')[2]})" for row in rows)
    return words, all((row.value or 0) <= (1.6 if "pandas" in row.what else 2.2) for row in rows)


BARS = (
    Goal(
        "ready sandbox, trivial script, all layers on",
        "p50 ≤ 1 ms, p95 ≤ 2 ms, ≥ 15 x bwrap + python",
        "ready child, trivial script, light",
        _ready,
        "The slowest of twenty runs meets the refill of the run before it, on two cores that the measuring program "
        "shares.",
    ),
    Goal("script that imports pandas", "≥ 100 x bwrap + cold pandas", "ready child, import pandas", _ratio(100), ""),
    Goal(
        "turnover, light zygote",
        "≥ 250/s",
        "fork + lock down + run + reap, light",
        _rate(250),
        "Each child needs namespaces and a tmpfs, which the kernel makes and removes; any other program lowers the "
        "rate.",
    ),
    Goal(
        "turnover, pandas loaded",
        "≥ 150/s",
        "fork + lock down + run + reap, pandas",
        _rate(150),
        "Copying the page tables of pandas takes most of the time.",
    ),
    Goal("`POST /execute?wait`, one at a time", "p50 ≤ 10 ms", "POST /execute?wait, 1 at once", _p50(10), ""),
    Goal(
        "end-to-end throughput, 16 at once",
        "≥ 200 tasks/s",
        "POST /execute?wait, 16 at once",
        _rate(200),
        "On two cores the sandbox's turnover takes the largest share; the servers and the measuring program take the "
        "rest. The row below says how much each.",
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
        "`data_processing` statistics on 1,000,000 rows",
        "≤ 2 x decode + DuckDB in process",
        "data_processing statistics 1,000,000",
        _times_as_long(2),
        "The text crosses HTTP, PostgreSQL twice and a pipe. Two readers parse it: the API, which must refuse an "
        "invalid request before it answers 202, and the sandbox.",
    ),
    Goal(
        "memory of an idle ready child",
        "≤ 6 MiB PSS",
        "memory of a ready child",
        _value(6),
        "A child with pandas has about 3 MiB of its own. The rest is its share of the memory that all children of its "
        "zygote share; it falls with their number.",
    ),
    Goal(
        "whole life of a child, processor time",
        "≤ 2.2 (light) and 1.6 (pandas) x a bare fork + exit",
        "whole life of a child against a bare fork",
        _lives,
        "Nearly half of it is the copying of pages that a child touches: CPython counts references in the objects "
        "themselves.",
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
        "with a baseline of the same run, so that a busy or slow machine affects both sides. Repeat it with nothing",
        "else running: on two cores every other program shows. `make soak` proves that 10,000 runs leave nothing",
        "behind.",
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
