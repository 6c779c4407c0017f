"""The short form of ``make chaos``: each fault of the table once, and a client outside asks for all it can (JOB-19)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import ALL, FAULTS
from tests.chaos.storm import Outcome, Plan, blow, sentences
from tests.support.stack import open_folder

OUTSIDE = Path(__file__).resolve().parent / "outside"
LEAST = 40
KINDS = (
    "kill", "stop", "cut", "refuse", "hang", "slow", "full", "read-only", "garbage",
)  # fmt: skip
"""What a table of faults must have, as words of their names."""
PARTS = {
    "API", "worker", "Redis", "PostgreSQL", "client-API", "API-PostgreSQL", "worker-PostgreSQL", "API-Redis",
    "worker-Redis", "worker-receiver",
}  # fmt: skip
BELOW = ("checker", "zygote", "child", "keeper")


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """One storm of about a minute."""
    with open_folder() as folder:
        yield blow(folder, Plan())


@pytest.mark.slow("85 faults befall a service, each for about a second, three at a time")
def test_no_promise_is_broken_in_a_storm(outcome: Outcome) -> None:
    """JOB-19: what a client was told holds, whatever is killed, stopped, cut, refused, hung, slow, full or garbled."""
    assert "" == sentences(outcome.broken)


@pytest.mark.slow("it is the storm of the test above")
@pytest.mark.parametrize("name", FAULTS)
def test_the_storm_blew_each_fault(outcome: Outcome, name: str) -> None:
    """Each line of the table befell the service once."""
    assert 1 == outcome.blown[name]


@pytest.mark.slow("it is the storm of the test above")
def test_no_part_logs_what_nobody_foresaw(outcome: Outcome) -> None:
    """What the storm does to servers and lines is foreseen: no exception is logged as one that is our own fault."""
    assert [] == outcome.complaints


def test_the_client_asked_for_all_it_can(outcome: Outcome) -> None:
    """A storm without tasks, followers, cancels and callbacks would break no promise, either."""
    history = outcome.history
    calls = {ask["call"] for ask, _ in history.exchanges}
    ended = {end["status"] for end in history.ends.values()}
    refused = {answer.get("status") for _, answer in history.exchanges}
    assert {"execute", "batch", "get", "cancel", "follow", "list", "health", "live"} <= calls
    assert ({"succeeded", "failed", "cancelled"}, True) == (ended, bool(history.of("callback")))
    assert {503, None} <= refused


def test_the_table_has_every_kind_of_fault_for_every_part() -> None:
    """At least forty, under names of their own, from kill to garbage, from the API to the lines in between."""
    assert len(ALL) == len(FAULTS) >= LEAST
    assert PARTS == {fault.part for fault in ALL}
    assert [] == [kind for kind in KINDS if not any(kind in fault.name for fault in ALL)]
    assert [] == [part for part in BELOW if not any(fault.name.startswith(part) for fault in ALL)]
    assert all(fault.what and fault.undone for fault in ALL)


@pytest.mark.parametrize("name", ["client.py", "promises.py"])
def test_what_judges_from_outside_knows_nothing_of_the_code(name: str) -> None:
    """It imports the standard library, and httpx to ask with: no word of the engine, sandbox, handlers or tests."""
    imported = set()
    for node in ast.walk(ast.parse((OUTSIDE / name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names | {"httpx"}
