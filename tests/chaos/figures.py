"""What a storm did, in numbers: a table of figures, a table of faults, and a page of Markdown with both."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.chaos.faults import FAULTS
from tests.chaos.outside.promises import PROMISES, Exchange, History, lateness
from tests.chaos.storm import Outcome, Plan

AFTER_S = 1.0
"""For so long after a fault what happens counts as its doing, too."""
HEADS = ("fault", "what it does", "times", "answered", "503", "connection lost", "latest 503")


class Calm(NamedTuple):
    """A measure in calm weather: seconds, and the most that each may be."""

    what: str
    values: Sequence[float]
    bar_s: float

    @property
    def kept(self) -> bool:
        """Whether the worst is within the bar."""
        return max(self.values) <= self.bar_s


def figures(outcome: Outcome, plan: Plan) -> list[tuple[str, str]]:
    """What was asked, what came of it, and what was broken."""
    history = outcome.history
    attempts = Counter(end.get("attempts", 0) for end in history.ends.values())
    states = Counter(end["status"] for end in history.ends.values())
    callbacks = [fact["message_id"] for fact in history.of("callback")]
    streams = [ask for ask, _ in history.exchanges if ask["call"] == "follow"]
    gaps = [fact for fact in history.of("heard") if fact["name"] == "gap"]
    statuses = Counter(answer.get("status") for _, answer in history.exchanges)
    controls = [exchange.lasted_s for exchange in history.exchanges if exchange.ask["call"] == "live"]
    late = [late_s for _, late_s in lateness(history)]
    return [
        ("faults", f"{outcome.blown.total()} of {len(outcome.blown)} kinds, up to {plan.at_once} at once"),
        ("requests", f"{len(history.exchanges)}: {statuses[503]} refused with 503, {statuses[None]} without an answer"),
        ("tasks accepted", f"{len(history.accepted)}: {_counted(states)}"),
        ("attempts", ", ".join(f"{count} tasks with {number}" for number, count in sorted(attempts.items()))),
        (
            "streams",
            f"{len(streams)}, {sum(bool(ask['after']) for ask in streams)} taken up again, {len(gaps)} gaps told",
        ),
        ("callbacks", f"{len(callbacks)} for {len(set(callbacks))} tasks"),
        ("503, seconds beyond what was asked and what the machine took", _spread(late)),
        ("the control, seconds", _spread(controls)),
        ("cancel, seconds from its acceptance until its end was seen", _spread(cancels(history))),
        ("promises", f"{len(PROMISES) + 1}, and PostgreSQL's record of each task"),
        ("broken", "; ".join(f"{name}: {count}" for name, count in _broken(outcome).items()) or "none"),
    ]


def cancels(history: History) -> list[float]:
    """Seconds from each cancel that was accepted until the client saw the task's end."""
    found = []
    for ask, answer in history.exchanges:
        if ask["call"] == "cancel" and answer.get("status") in (200, 202):
            ends = [seen.heard_at for seen in history.seen[ask["task_id"]] if seen.is_final]
            found += [max(0.0, min(ends) - answer["at"])] if ends else []
    return found


def fault_rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """A line for each fault: how often it came, and what a client saw while it lasted."""
    seen: dict[str, list[Exchange]] = defaultdict(list)
    late: dict[str, float] = defaultdict(float)
    windows = list(_windows(outcome))
    behind = {id(exchange.ask): late_s for exchange, late_s in lateness(outcome.history)}
    for exchange in outcome.history.exchanges:
        for name, begun, ended in windows:
            if exchange.ask["at"] < ended and exchange.answer["at"] > begun:
                seen[name].append(exchange)
                late[name] = max(late[name], behind.get(id(exchange.ask), 0.0))
    rows = []
    for name, fault in FAULTS.items():
        statuses = Counter(exchange.answer.get("status") for exchange in seen[name])
        lost, refused = statuses[None], statuses[503]
        answered = len(seen[name]) - lost - refused
        latest = f"{late[name]:.1f} s" if refused else ""
        rows.append((name, fault.what, *map(str, (outcome.blown[name], answered, refused, lost)), latest))
    return rows


def page(outcome: Outcome, plan: Plan, calm: Sequence[Calm], on: str) -> str:
    """The page that ``make chaos`` writes."""
    lines = [
        "# What a storm did",
        "",
        f"Written by `make chaos` on {on}: {plan.seconds:g} s, {plan.workers} workers, {plan.rate:g} requests a",
        f"second, seed {plan.seed}. [The tests' page](../README.md#chaos) says what blows, and what must hold.",
        "",
        *_markdown(("figure", "found"), figures(outcome, plan)),
        "",
        "In calm weather, median and worst:",
        "",
        *_markdown(("what", "found", "at most"), [calm_row(one) for one in calm]),
        "",
        "What the client saw while each fault lasted, and a second longer. Others lasted at the same time.",
        "",
        *_markdown(HEADS, fault_rows(outcome)),
        "",
    ]
    return "\n".join(lines)


def calm_row(one: Calm) -> tuple[str, str, str]:
    """A measure in words."""
    return (one.what, f"{statistics.median(one.values):.1f}, {max(one.values):.1f} s", f"{one.bar_s:g} s")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _windows(outcome: Outcome) -> Iterator[tuple[str, float, float]]:
    """Each time that a fault lasted: its name, when it began, when it was over."""
    open_: dict[str, float] = {}
    for fact in outcome.history.of("fault"):
        if fact["phase"] == "begins":
            open_[fact["name"]] = fact["at"]
        else:
            yield fact["name"], open_.pop(fact["name"]), fact["at"] + AFTER_S


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


def _broken(outcome: Outcome) -> Counter[str]:
    return Counter(one.promise for one in outcome.broken)


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "none"
    p99 = statistics.quantiles(values, n=100)[98]
    return f"median {statistics.median(values):.2f}, p99 {p99:.2f}, worst {max(values):.2f}"
