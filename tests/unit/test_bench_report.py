"""The report says what was reached, what was missed and why, and what was not measured."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.dev.bench.quiet import in_words
from engine.dev.bench.report import BARS, HISTORY, read_history, write_report
from engine.dev.bench.rows import Row, make_row
from engine.dev.bench.workers import StoreLives, bend

QUICK = {
    "ready child, trivial script, light": Row(what="", samples=1, p50_ms=1, p95_ms=1.5, ratio=20, baseline="bwrap"),
    "ready child, import pandas": Row(what="", samples=1, p50_ms=2, p95_ms=3, ratio=150, baseline="bwrap"),
    "fork + lock down + run + reap, light": Row(what="", samples=1, rate_s=480, value=4.8, unit="starts"),
    "fork + lock down + run + reap, pandas": Row(what="", samples=1, rate_s=320, value=3.2, unit="starts"),
    "whole life of a child against a bare fork": Row(what="", samples=1, value=2.2, unit="times"),
    "POST /execute?wait, 16 at once": Row(what="", samples=1, rate_s=270, value=2.7, unit="starts"),
    "POST /execute?wait, 1 at once": Row(what="", samples=1, p50_ms=4, p99_ms=8, ratio=2.25, baseline="start"),
    "claim behind": Row(what="", samples=1, p50_ms=1),
    "list over 1,000,000": Row(what="", samples=1, p50_ms=5),
    "result of 170,000": Row(what="", samples=1, value=120, unit="ms"),
    "16 MiB of small objects accepted": Row(what="", samples=1, p50_ms=1000),
    "data_processing statistics 1,000,000": Row(what="", samples=1, value=1.5, unit="times"),
    "POST /execute, 50,000 waiting": Row(what="", samples=1, value=2, unit="times"),
    "urgent task through busy workers, 50,000": Row(what="", samples=1, ratio=0.5, baseline="nothing waiting"),
    "memory of a ready child": Row(what="", samples=1, value=1.5, unit="MiB"),
    "memory of the whole service": Row(what="", samples=1, value=600, unit="MiB"),
    "1,000 sleeping runs": Row(what="", samples=1, rate_s=250),
    "watching a sleeping run": Row(what="", samples=1, value=0.02, unit="%"),
    "life in the store, beside retention": Row(what="", samples=1, value=1.3, worst_ms=100, note="in words"),
    "over 1,000,000": Row(what="", samples=1, value=1.5, unit="times"),
    "tasks that sleep": Row(what="", samples=1, rate_s=140, value=3.5, unit="times one"),
    "idle worker": Row(what="", samples=1, value=1, unit="%"),
}
MORE_IS_BETTER = ("starts", "times one")
SLOW = {
    name: Row(
        what="",
        samples=1,
        p50_ms=row.p50_ms * 1.1,
        p95_ms=row.p95_ms * 1.1,
        p99_ms=row.p99_ms * 1.2,
        worst_ms=row.worst_ms * 1.1,
        note=row.note,
        rate_s=row.rate_s and row.rate_s * 0.9,
        ratio=row.ratio and row.ratio * 0.9,
        baseline=row.baseline,
        value=row.value and row.value * (0.9 if row.unit in MORE_IS_BETTER else 1.1),
        unit=row.unit,
    )
    for name, row in QUICK.items()
}


def report(folder: Path, rows: dict[str, Row]) -> str:
    named = [msgspec.structs.replace(row, what=f"{name}, here") for name, row in rows.items()]
    write_report(named, folder / "report.md")
    return (folder / "report.md").read_text(encoding="utf-8")


def test_every_bar_is_measured_by_some_row() -> None:
    """No bar without a row, and no row of this test without a bar."""
    assert {bar.begins for bar in BARS} == QUICK.keys()


@pytest.mark.parametrize("name", QUICK)
def test_bar_that_is_just_reached_is_said_so(tmp_path: Path, name: str) -> None:
    """The number itself still counts."""
    text = report(tmp_path, {name: QUICK[name]})
    assert (1, 0) == (text.count("| reached |"), text.count("**missed**"))
    assert len(BARS) - 1 == text.count("not measured in this run")


@pytest.mark.parametrize("name", SLOW)
def test_bar_that_is_missed_is_said_so_with_its_reason(tmp_path: Path, name: str) -> None:
    """Ten per cent worse is not reached, and there is a sentence for it."""
    text = report(tmp_path, {name: SLOW[name]})
    assert (0, 1) == (text.count("| reached |"), text.count("**missed**"))
    (bar,) = [bar for bar in BARS if bar.begins == name]
    assert f"- **{bar.what}**: " in text


def test_row_of_times_has_its_median_and_its_slow_end() -> None:
    """p95 is the ninety-fifth of a hundred, the ratio that of the medians."""
    baseline = make_row("baseline", [0.01])
    row = make_row("row", [number / 1000 for number in range(1, 101)], baseline)
    assert (50.5, 96, 0.2) == (row.p50_ms, row.p95_ms, row.ratio)


def test_history_keeps_the_last_versions_and_a_row_of_each(tmp_path: Path) -> None:
    """What an earlier report said stays; the oldest goes."""
    path = tmp_path / "report.md"
    for number in range(HISTORY + 2):
        write_report([Row(what="row, here", samples=1, rate_s=float(number + 1))], path, busy="It was busy.")
    kept = read_history(path.read_text(encoding="utf-8"))
    assert [float(number + 1) for number in range(2, HISTORY + 2)] == [one["rows"]["row, here"] for one in kept]
    assert all(one["busy"] and one["version"] for one in kept)
    assert "It was busy." in path.read_text(encoding="utf-8")


def test_busy_machine_is_said_to_be_one() -> None:
    """Above a tenth of the cores the times are not to be believed."""
    assert "" == in_words(0.1)
    assert "used 50% of its cores" in in_words(0.5)


@pytest.mark.parametrize(
    ("rates", "at"), [((100, 200, 210, 400), 2), ((100, 200, 400, 800), 8), ((100, 90, 80, 70), 1)]
)
def test_postgres_bends_where_more_connections_gain_little(rates: tuple[float, ...], at: int) -> None:
    """Before the first step that gives less than a tenth; at the last number where none does."""
    found = {1 << step: StoreLives(rate_s, [1.0], 1.0) for step, rate_s in enumerate(rates)}
    assert at == bend(found)
