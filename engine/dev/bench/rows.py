"""One measurement as the benchmarks print it."""

from __future__ import annotations

import statistics

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. ``ratio`` is the baseline's p50 over this p50: how many times faster this is."""

    what: str
    samples: int
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    worst_ms: float = 0.0
    rate_s: float | None = None
    baseline: str | None = None
    ratio: float | None = None
    value: float | None = None
    """The measured value, if it is not a time, in ``unit``."""
    unit: str = ""
    note: str = ""


def make_row(what: str, seconds: list[float], baseline: Row | None = None, *, rate_s: float | None = None) -> Row:
    """A row of what was timed.

    Args:
        what: was measured.
        seconds: that each sample took.
        baseline: what to compare with.
        rate_s: samples for each second, when several were under way at the same time.
    """
    ordered = sorted(seconds)
    p50_ms = statistics.median(ordered) * 1e3
    p95_ms, p99_ms = (ordered[min(len(ordered) - 1, round(len(ordered) * share))] * 1e3 for share in (0.95, 0.99))
    return Row(
        what=what,
        samples=len(ordered),
        p50_ms=round(p50_ms, 3),
        p95_ms=round(p95_ms, 3),
        p99_ms=round(p99_ms, 3),
        worst_ms=round(ordered[-1] * 1e3, 3),
        rate_s=None if rate_s is None else round(rate_s, 1),
        baseline=baseline.what if baseline else None,
        ratio=round(baseline.p50_ms / p50_ms, 2) if baseline else None,
    )


def in_starts(row: Row, start: Row) -> Row:
    """The same row with its rate as so many starts of plain Python: what does not depend on how fast the machine is."""
    starts = (row.rate_s or 0) * start.p50_ms / 1e3
    note = f"{starts:.2f} times the rate of python starts" + (f"; {row.note}" if row.note else "")
    return msgspec.structs.replace(row, value=starts, unit="starts", note=note)
