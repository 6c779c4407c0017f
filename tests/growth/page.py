"""The page of figures that ``make growth-test`` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from engine.config.machine import api_memory_mib
from tests.growth.memory import Peak
from tests.growth.run import MEASURES, Outcome

HEADS = ("what", "first", "second quarter", "last quarter", "so it")


BODY_MIB, CHECK_MIB = 64, 2048
LINE = 118
BODY_HEADS = ("eight at once", "answers", "API at most, MiB", "a checker at most, MiB")


def page(outcome: Outcome, peaks: Sequence[Peak], on: str) -> str:
    """The figures of a run, in Markdown."""
    counts, plan = outcome.counts, outcome.plan
    outbox = f", looked into the outbox {counts.outbox:,} times" if counts.outbox else ""
    begun = (
        f"Written by `make growth-test` on {on}: {plan.tasks:,} tasks through one API and one worker in "
        f"{outcome.seconds:,.0f} s, while the worker swept {counts.sweeps:,} times (one a second makes 86,400 a day)"
        f"{outbox} and cleaned up {counts.clean_ups:,} times; {outcome.stored:,} tasks were still stored at the end. "
        f"{plan.steps} samples, each when no task was under way; the table has the medians of a quarter of them. "
        "[The tests' page](../README.md#growth) says how, and when something counts as grown."
    )
    then = (
        f"Then eight bodies of {BODY_MIB} MiB at once, kind after kind. The table has the most that the kernel saw by "
        f"then (`VmHWM`). Stated are {api_memory_mib(BODY_MIB)} MiB for the API, and for each checker "
        f"`CHECK_MEMORY_MIB`, here {CHECK_MIB}."
    )
    lines = [
        "# What many tasks and a day's sweeps leave behind",
        "",
        *textwrap.wrap(begun, LINE),
        "",
        *markdown(HEADS, [outcome.row(measure) for measure in MEASURES]),
        "",
        *textwrap.wrap(then, LINE),
        "",
        *markdown(BODY_HEADS, [_row(peak) for peak in peaks]),
        "",
    ]
    return "\n".join(lines)


def _row(peak: Peak) -> tuple[str, ...]:
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(peak.answers.items()))
    return (peak.kind, answers, f"{peak.api_mib:.0f}", f"{peak.check_mib:.0f}")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
