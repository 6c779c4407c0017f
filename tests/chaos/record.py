"""PostgreSQL's record of every task, and the invariants that must hold whatever went wrong meanwhile.

A trigger of our own writes down every change of a task's status, so that a final state that was left again would show,
which the tables alone do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from tests.support.stack import ask

WATCH = """
CREATE TABLE changes (
    number bigserial, task_id uuid, old task_status, new task_status, attempt integer,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (task_id, old, new, attempt) VALUES (NEW.task_id, OLD.status, NEW.status, NEW.attempts);
    RETURN NULL;
END $$;
CREATE TRIGGER note_change AFTER UPDATE ON tasks FOR EACH ROW
WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.finished_at IS NOT NULL) EXECUTE FUNCTION note_change();
"""
FINAL = ("succeeded", "failed", "cancelled")
FREE = ("released", "sandbox_failed", "worker_lost")
"""Ends of an attempt that may cost none: the last one only where the task was lost beside others."""


class Attempt(NamedTuple):
    """A row of ``attempts``."""

    number: int
    worker_id: str
    started_at: datetime
    ended_at: datetime
    ended: str


class Record(NamedTuple):
    """All that is known of a task."""

    task_id: str
    status: str
    exit_reason: str | None
    attempts: int
    max_attempts: int
    result: Any
    history: list[Attempt]
    changes: list[tuple[str, str]]
    """Each change of status: from, to."""


def watch(dsn: str) -> None:
    """Note every change of status from now on."""
    ask(dsn, WATCH)


def read(dsn: str) -> dict[str, Record]:
    """Task id → its record."""
    tasks = ask(dsn, "SELECT task_id, status, exit_reason, attempts, max_attempts, outcome FROM tasks")
    history: dict[str, list[Attempt]] = {}
    columns = "task_id, attempt, worker_id::text, started_at, ended_at, ended::text"
    for row in ask(dsn, f"SELECT {columns} FROM attempts ORDER BY task_id, attempt"):
        history.setdefault(str(row["task_id"]), []).append(Attempt(*tuple(row)[1:]))
    changes: dict[str, list[tuple[str, str]]] = {}
    for row in ask(dsn, "SELECT task_id, old::text, new::text FROM changes ORDER BY number"):
        changes.setdefault(str(row["task_id"]), []).append((row["old"], row["new"]))
    return {
        str(row["task_id"]): Record(
            task_id=str(row["task_id"]),
            status=row["status"],
            exit_reason=row["exit_reason"],
            attempts=row["attempts"],
            max_attempts=row["max_attempts"],
            result=msgspec.json.decode(row["outcome"])["result"] if row["outcome"] else None,
            history=history.get(str(row["task_id"]), []),
            changes=changes.get(str(row["task_id"]), []),
        )
        for row in tasks
    }


def faults(records: Mapping[str, Record], accepted: Mapping[str, Any], *, max_attempts: int) -> list[str]:
    """Every promise that was broken, a sentence each; none when all were kept.

    Args:
        records: as ``read`` gives them.
        accepted: id that was given out → the result that this task must have.
        max_attempts: what each task was given.
    """
    found = [f"{task_id}: accepted and gone" for task_id in accepted if task_id not in records]
    for record in records.values():
        found += [f"{record.task_id}: {fault}" for fault in _faults(record, max_attempts)]
        expected = accepted.get(record.task_id)
        if record.task_id in accepted and record.status == "succeeded" and record.result != expected:
            found.append(f"{record.task_id}: has the result {record.result!r} instead of {expected!r}")
    return found


def _faults(record: Record, max_attempts: int) -> list[str]:
    numbers = [attempt.number for attempt in record.history]
    finished = [attempt.number for attempt in record.history if attempt.ended == "finished"]
    unspent = record.max_attempts - max_attempts
    spent = len(numbers) - unspent
    given_back = [attempt for attempt in record.history if attempt.ended in FREE]
    into_final = [change for change in record.changes if change[1] in FINAL]
    out_of_final = [change for change in record.changes if change[0] in FINAL]
    overlaps = [
        later.number
        for earlier, later in zip(record.history, record.history[1:], strict=False)
        if later.started_at < earlier.ended_at
    ]
    checks = {
        f"is {record.status}, which is not final": record.status in FINAL,
        f"entered a final state {len(into_final)} times": len(into_final) == 1,
        f"changed after its end: {out_of_final}": not out_of_final,
        f"has the attempts {numbers} of {record.attempts}": numbers == list(range(1, record.attempts + 1)),
        f"attempts {finished} stored a result": finished in ([], [record.attempts]),
        f"ended as {record.exit_reason} without a stored result": bool(finished)
        or record.exit_reason in ("worker_lost", "cancelled"),
        f"attempts {overlaps} began before the one before had ended": not overlaps,
        f"was given {unspent} attempts for {len(given_back)} that were given back": 0 <= unspent <= len(given_back),
        f"was lost after {spent} of {max_attempts} attempts": record.exit_reason != "worker_lost"
        or spent == max_attempts,
    }
    return [fault for fault, holds in checks.items() if not holds]
