"""The short form of ``make chaos``: workers die all the time while Redis and PostgreSQL come and go (JOB-19)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.record import Attempt, Record, faults
from tests.chaos.storm import MAX_ATTEMPTS, Plan, blow
from tests.support.stack import Stack

WEATHER = ("redis flushed", "postgres crashes", "redis away", "worker frozen", "API killed")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack for a storm: short leases, and attempts enough for many deaths."""
    tmp_path.chmod(0o755)
    found = Stack(tmp_path, max_attempts=MAX_ATTEMPTS, LEASE_S="3", DRAIN_S="1", MAX_CONCURRENT_TASKS="4")
    yield found
    found.close()


def test_no_promise_is_broken_in_a_storm(stack: Stack) -> None:
    """JOB-19: every accepted task ends once, with its own nonce, whatever dies."""
    outcome = blow(stack, Plan(tasks=30, seconds=12, weather=WEATHER, longest_s=1.0, seed=7))
    assert [] == outcome.faults
    assert set(WEATHER) == set(outcome.weather)
    assert outcome.kills
    assert {"succeeded"} == {record.status for record in outcome.records.values()}


GOOD: dict[str, Any] = {
    "task_id": "t", "status": "succeeded", "exit_reason": "ok", "attempts": 1, "max_attempts": 3, "result": "nonce",
    "changes": [("queued", "running"), ("running", "succeeded")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "running"}, "not final"),
        ({"changes": [*GOOD["changes"], ("succeeded", "queued")]}, "changed after its end"),
        ({"changes": [*GOOD["changes"], ("succeeded", "succeeded")]}, "entered a final state 2 times"),
        ({"attempts": 2}, "has the attempts"),
        ({"result": "another's"}, "another's"),
        ({"max_attempts": 4}, "was given 1 attempts"),
        ({"exit_reason": "worker_lost", "status": "failed"}, "was lost after 1 of 3"),
    ],
)
def test_the_checker_sees_what_is_broken(change: dict[str, object], said: str) -> None:
    """A checker that finds nothing must be one that could."""
    now = datetime.now(UTC)
    good = GOOD | {"history": [Attempt(1, "w", now, now, "finished")]}
    assert [] == faults({"t": Record(**good)}, {"t": "nonce"}, max_attempts=3)
    assert said in " ".join(faults({"t": Record(**good | change)}, {"t": "nonce"}, max_attempts=3))
    assert ["t: accepted and gone"] == faults({}, {"t": "nonce"}, max_attempts=3)
