"""What a load test says of the answers that it got."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cli.load_report import TimedAnswer, answer_of, histogram, lines, report

TASK = {
    "status": "succeeded",
    "exit_reason": "ok",
    "created_at": "2026-11-29T10:00:00.000Z",
    "started_at": "2026-11-29T10:00:00.250Z",
    "finished_at": "2026-11-29T10:00:00.350Z",
}


def answers(count: int, ended: str = "ok", **more: Any) -> list[TimedAnswer]:
    return [TimedAnswer(total_s=number / 1000, ended=ended, **more) for number in range(1, count + 1)]


def test_answer_has_the_parts_that_the_service_says() -> None:
    """How long it waited and ran, by the service's clock; all of it by ours."""
    found = answer_of(TASK, 0.4)
    assert ("ok", 0.4) == (found.ended, found.total_s)
    assert (0.25, 0.1) == pytest.approx((found.queued_s, found.running_s), abs=1e-6)


def test_task_that_has_not_ended_has_a_status_and_no_running_time() -> None:
    """The same answer would come later."""
    found = answer_of({**TASK, "status": "running", "exit_reason": None, "finished_at": None}, 30.0)
    assert ("running", None) == (found.ended, found.running_s)


def test_times_are_ranks_and_only_what_ended_well_counts_as_a_task() -> None:
    """A hundred from 1 to 100 ms, and ten refusals."""
    found = report(answers(100) + answers(10, "refused 429"), seconds=2.0, not_sent=0, own_cpu=0.1)
    assert (110, 50.0, {"ok": 100, "refused 429": 10}) == (found.sent, found.rate_s, found.ended)
    assert (45.0, 89.0, 99.0, 100.0) == (found.p50_ms, found.p90_ms, found.p99_ms, found.worst_ms)


def test_histogram_has_every_answer_once_and_no_bin_is_left_out() -> None:
    """Two bins for each doubling; an empty one between two others is shown."""
    found = histogram([0.001, 0.004, 0.004, 0.0041])
    assert [(1, 1), (1.41, 0), (2, 0), (2.83, 0), (4, 2), (5.66, 1)] == found


@pytest.mark.parametrize(
    ("given", "beginning"),
    [
        (answers(9, queued_s=1.0, running_s=0.001), "Tasks wait 1000 ms for a slot"),
        (answers(9, queued_s=0.0, running_s=1.0), "Running takes the largest part"),
        (answers(9, queued_s=0.0, running_s=0.0), "Accepting and answering takes most, 5 ms"),
        (answers(9, "refused 429"), "The key's limits refused some (429)"),
        (answers(9, "refused 503"), "The service gave no answer to some"),
        (answers(9, "unreachable"), "The service gave no answer to some"),
    ],
)
def test_what_limits_is_named_with_its_fix(given: list[TimedAnswer], beginning: str) -> None:
    """One sentence for each cause."""
    (step,) = report(given, seconds=1.0, not_sent=0, own_cpu=0.1).next_steps
    assert step.startswith(beginning)


def test_load_that_could_not_be_sent_is_said() -> None:
    """Not the service alone may be what limits: the program that asks, and the rate."""
    steps = report(answers(9), seconds=1.0, not_sent=3, own_cpu=0.95).next_steps
    assert ["This program used 95% of a core", "3 were not sent"] == [step[: len(start)] for step, start in zip(
        steps, ("This program used 95% of a core", "3 were not sent"), strict=True)]  # fmt: skip


def test_lines_have_a_bar_for_each_bin() -> None:
    """The fullest is the longest."""
    shown = report(answers(100, queued_s=0.001, running_s=0.01), seconds=1.0, not_sent=0, own_cpu=0.1)
    bars = [line.count("█") for line in lines(shown) if "≤" in line]
    assert len(shown.histogram) == len(bars)
    assert max(bars) == bars[[count for _, count in shown.histogram].index(max(count for _, count in shown.histogram))]
