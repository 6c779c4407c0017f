"""``python -m tests.chaos``: a storm of a few minutes, and what it did. Exit code 1 if a promise was broken.

First, in calm weather and with the lease as it is delivered, how soon a killed worker's tasks run again; and how soon a
client hears that PostgreSQL hangs. Then the storm.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.chaos.record import read, watch
from tests.chaos.storm import MAX_ATTEMPTS, WEATHER, Outcome, Plan, blow
from tests.support.stack import Stack, frozen, open_folder, task, until

LONG = "import time\ntime.sleep(8)\nresult = args"
RERUN_BAR_S, AWAY_BAR_S = 20.0, 2.0


def reruns(stack: Stack) -> list[float]:
    """Seconds from the kill of a worker with five tasks until each of them runs again on another."""
    dsn = stack.environ["DATABASE_URL"]
    watch(dsn)
    first = stack.worker()
    ids = [stack.submit(LONG)["task_id"] for _ in range(5)]
    until(lambda: all(stack.get(task_id)["status"] == "running" for task_id in ids), "five tasks run")
    stack.worker()
    first.stop(signal.SIGKILL)
    killed_at = time.time()
    until(lambda: all(stack.get(task_id)["status"] == "succeeded" for task_id in ids), "they ran again", timeout_s=60)
    records = read(dsn)
    again = [attempt for task_id in ids for attempt in records[task_id].history[1:2]]
    return [attempt.started_at.timestamp() - killed_at for attempt in again]


def answers_of_a_hung_postgres(stack: Stack) -> list[float]:
    """Seconds until each of forty requests, twenty at a time, was told that PostgreSQL is unreachable."""
    assert stack.servers.database
    with frozen(stack.servers.database.pid), ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(stack.client.post, "/execute", json=task("result = 1")) for _ in range(40)]
        answers = [question.result() for question in asked]
    assert {503} == {answer.status_code for answer in answers}
    return [answer.elapsed.total_seconds() for answer in answers]


def row(table: Table, what: str, values: list[float], bar_s: float) -> bool:
    """A line with median and worst; whether the worst is within the bar."""
    worst = max(values)
    table.add_row(what, f"{statistics.median(values):.1f}, {worst:.1f} s", f"at most {bar_s:g} s")
    return worst <= bar_s


def show(table: Table, outcome: Outcome) -> None:
    """The lines of a storm."""
    states = Counter(
        record.status if record.status == "succeeded" else f"{record.status}, {record.exit_reason}"
        for record in outcome.records.values()
    )
    attempts = Counter(record.attempts for record in outcome.records.values())
    noticed = [noticed for noticed, _ in outcome.reruns] or [0.0]
    again = [again for _, again in outcome.reruns] or [0.0]
    table.add_row("tasks accepted", str(len(outcome.accepted)), "all that were sent")
    table.add_row("requests refused, and sent again", str(outcome.refused), "")
    table.add_row("workers killed", str(len(outcome.kills)), "")
    table.add_row("weather", ", ".join(f"{name} {count}" for name, count in sorted(outcome.weather.items())), "")
    table.add_row("final states", ", ".join(f"{name} {count}" for name, count in states.items()), "each task one")
    table.add_row("attempts", ", ".join(f"{number}: {count}" for number, count in sorted(attempts.items())), "")
    table.add_row("in the storm, from kill to noticed", f"{statistics.median(noticed):.1f}, {max(noticed):.1f} s", "")
    table.add_row("in the storm, from kill to next attempt", f"{statistics.median(again):.1f}, {max(again):.1f} s", "")
    table.add_row("broken promises", "\n".join(outcome.faults[:20]) or "none", "none")


def main() -> int:
    """Measure, blow, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long the storm lasts")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    options = parser.parse_args()
    table = Table(title=f"{options.tasks} tasks, a storm of {options.seconds:g} s, seed {options.seed}")
    for head in ("what", "found (median, worst)", "expected"):
        table.add_column(head)
    with open_folder() as folder:
        stack = Stack(folder, DRAIN_S="1")
        try:
            kept = row(table, "calm: a killed worker's tasks run again after", reruns(stack), RERUN_BAR_S)
            hung = answers_of_a_hung_postgres(stack)
            kept &= row(table, "calm: 503 of a PostgreSQL that hangs after", hung, AWAY_BAR_S)
        finally:
            stack.close()
    with open_folder() as folder:
        stack = Stack(folder, max_attempts=MAX_ATTEMPTS, LEASE_S="3", DRAIN_S="1", MAX_CONCURRENT_TASKS="4")
        try:
            weather = tuple(name for name in WEATHER for _ in range(max(1, int(options.seconds // 90))))
            outcome = blow(stack, Plan(options.tasks, options.seconds, weather, workers=3, seed=options.seed))
        finally:
            stack.close()
    show(table, outcome)
    Console(width=140).print(table)
    return int(bool(outcome.faults) or not kept)


if __name__ == "__main__":
    sys.exit(main())
