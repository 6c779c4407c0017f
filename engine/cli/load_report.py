"""What a load test saw: times, refusals, a histogram, and what to change next."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

BAR = 40
"""Characters of the longest bar of the histogram."""
BINS_A_DOUBLING = 2
BUSY = 0.8
"""Share of a core from which on this program is itself what limits the load."""


class TimedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request."""

    total_s: float
    """From the moment at which it was to be sent to the last byte: what waits here counts, too."""
    ended: str
    """The task's exit reason; its status, if it has not ended; ``refused 429`` and the like; or ``unreachable``."""
    queued_s: float | None = None
    """From its acceptance to the start of its last attempt, by the service's clock."""
    running_s: float | None = None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole test in numbers; times in milliseconds."""

    sent: int
    seconds: float
    rate_s: float
    """Tasks that ended well, each second."""
    ended: dict[str, int]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    queued_p50_ms: float | None
    running_p50_ms: float | None
    not_sent: int
    """What an open load was to send, and did not, because too many were under way."""
    own_cpu: float
    """Share of a core that this program used."""
    histogram: list[tuple[float, int]]
    """(upper bound in milliseconds, answers) of each bin."""
    next_steps: list[str]


def answer_of(task: Mapping[str, Any], total_s: float) -> TimedAnswer:
    """An answer from a task as the service shows it."""
    created, started, finished = (_moment(task.get(name)) for name in ("created_at", "started_at", "finished_at"))
    return TimedAnswer(
        total_s=total_s,
        ended=str(task.get("exit_reason") or task.get("status")),
        queued_s=started - created if started is not None and created is not None else None,
        running_s=finished - started if finished is not None and started is not None else None,
    )


def _moment(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def report(answers: Sequence[TimedAnswer], *, seconds: float, not_sent: int, own_cpu: float) -> LoadReport:
    """Put it together. There must be an answer."""
    times = sorted(one.total_s for one in answers)
    ended = Counter(one.ended for one in answers)
    queued, running = (_median(getattr(one, name) for one in answers) for name in ("queued_s", "running_s"))
    return LoadReport(
        sent=len(answers),
        seconds=round(seconds, 3),
        rate_s=round(ended["ok"] / seconds, 1),
        ended=dict(ended.most_common()),
        p50_ms=_at(times, 0.5),
        p90_ms=_at(times, 0.9),
        p99_ms=_at(times, 0.99),
        worst_ms=_at(times, 1),
        queued_p50_ms=queued,
        running_p50_ms=running,
        not_sent=not_sent,
        own_cpu=round(own_cpu, 2),
        histogram=histogram(times),
        next_steps=next_steps(ended, _at(times, 0.5), queued, running, not_sent=not_sent, own_cpu=own_cpu),
    )


def _at(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)] * 1e3, 2)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known) * 1e3, 2) if known else None


def histogram(times_s: Iterable[float]) -> list[tuple[float, int]]:
    """Answers by their time: two bins for each doubling, from the first that holds one to the last."""
    bins = Counter(math.ceil(math.log2(max(time_s * 1e3, 0.01)) * BINS_A_DOUBLING) for time_s in times_s)
    return [(round(2 ** (number / BINS_A_DOUBLING), 2), bins[number]) for number in range(min(bins), max(bins) + 1)]


def next_steps(
    ended: Mapping[str, int],
    p50_ms: float,
    queued_ms: float | None,
    running_ms: float | None,
    *,
    not_sent: int,
    own_cpu: float,
) -> list[str]:
    """What limits, in sentences, and what to change."""
    found = []
    if own_cpu > BUSY:
        found.append(f"This program used {own_cpu:.0%} of a core: start it on another machine, or several of it.")
    if ended.get("refused 429"):
        found.append("The key's limits refused some (429): raise its requests_per_minute or concurrent_tasks.")
    if any(name.startswith("refused 5") or name == "unreachable" for name in ended):
        found.append("The service gave no answer to some: `engine doctor` says what is missing there.")
    if not_sent:
        found.append(f"{not_sent} were not sent, because too many were under way: the rate is above what it can do.")
    if queued_ms is not None and running_ms is not None and not found:
        found.append(_largest_part(p50_ms, queued_ms, running_ms))
    return found


def _largest_part(p50_ms: float, queued_ms: float, running_ms: float) -> str:
    rest_ms = max(p50_ms - queued_ms - running_ms, 0)
    if queued_ms >= max(running_ms, rest_ms):
        return (
            f"Tasks wait {queued_ms:.0f} ms for a slot: if cores are idle, raise MAX_CONCURRENT_TASKS; "
            "if not, add a worker on another machine."
        )
    if running_ms >= rest_ms:
        return (
            f"Running takes the largest part, {running_ms:.0f} ms. If the task alone takes less, children are missing: "
            "raise POOL_READY; or cores are: add a worker."
        )
    return f"Accepting and answering takes most, {rest_ms:.0f} ms: look at PostgreSQL's disk, and the API's core."


def lines(shown: LoadReport) -> list[str]:
    """For people."""
    ended = ", ".join(f"{name} {count}" for name, count in shown.ended.items())
    parts = [
        f"{name} {value:.1f}" for name, value in (("queued", shown.queued_p50_ms), ("running", shown.running_p50_ms))
        if value is not None
    ]  # fmt: skip
    most = max(count for _, count in shown.histogram)
    bars = [
        f"  ≤ {bound:>9.2f} ms {'█' * math.ceil(count / most * BAR):<{BAR}} {count}" for bound, count in shown.histogram
    ]
    return [
        f"{shown.sent} requests in {shown.seconds:.1f} s: {ended}",
        f"{shown.rate_s:g} tasks/s ended well",
        f"milliseconds: p50 {shown.p50_ms:.1f}, p90 {shown.p90_ms:.1f}, p99 {shown.p99_ms:.1f}, "
        f"worst {shown.worst_ms:.1f}" + (f"; of that, at the median, {' and '.join(parts)}" if parts else ""),
        *bars,
        *(f"next: {step}" for step in shown.next_steps),
    ]
