"""``python -m tests.chaos``: a storm of half an hour, and what it did. Exit code 1 if a promise was broken.

First, in calm weather and with the lease as it is delivered, how soon a killed worker's tasks run again; and how soon a
client hears that PostgreSQL hangs, whether or not it asked to wait. Then the storm.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.chaos.figures import HEADS, Calm, calm_row, fault_rows, figures, page
from tests.chaos.record import read, watch
from tests.chaos.storm import Plan, blow, sentences
from tests.support.stack import Stack, frozen, open_folder, task, until

LONG = "import time\ntime.sleep(8)\nresult = args"
LONGER = "import time\ntime.sleep(30)"
RERUN_BAR_S, AWAY_BAR_S = 20.0, 2.0
WAIT_S = 3.0
REFUSED_WITHIN_S = 2.5
"""In the storm: what the documentation says, and what a machine takes that the storm, client and service share."""
TOLD_EVERY_S = 30.0


def reruns(stack: Stack) -> tuple[list[float], list[float]]:
    """Seconds from the kill of a worker with five tasks until each is known as lost, and until the first runs again.

    The others follow it one at a time, because nobody knows which of them the worker was lost by.
    """
    dsn = stack.environ["DATABASE_URL"]
    watch(dsn)
    first = stack.worker()
    ids = [stack.submit(LONG)["task_id"] for _ in range(5)]
    until(lambda: all(stack.get(task_id)["status"] == "running" for task_id in ids), "five tasks run")
    stack.worker()
    first.stop(signal.SIGKILL)
    killed_at = time.time()
    until(lambda: all(stack.get(task_id)["status"] == "succeeded" for task_id in ids), "they ran again", timeout_s=180)
    records = read(dsn)
    lost = [records[task_id].history[0].ended_at.timestamp() - killed_at for task_id in ids]
    return lost, [min(records[task_id].history[1].started_at.timestamp() for task_id in ids) - killed_at]


def answers_of_a_hung_postgres(stack: Stack) -> tuple[list[float], list[float]]:
    """Seconds until each of forty requests was told that PostgreSQL is unreachable: without, and beyond, a wait.

    Those that wait began before PostgreSQL hung, for a task that still runs.
    """
    assert stack.servers.database
    running = stack.submit(LONGER)["task_id"]
    until(lambda: stack.get(running)["status"] == "running", "the task runs")
    with ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(stack.client.get, f"/task/{running}", params={"wait": WAIT_S}) for _ in range(20)]
        time.sleep(1)
        with frozen(stack.servers.database.pid):
            asked = [threads.submit(stack.client.post, "/execute", json=task("result = 1")) for _ in range(20)]
            told, told_late = _refusals(asked, 0.0), _refusals(waiting, WAIT_S)
    return told, told_late


def _refusals(asked: Sequence[Future[httpx.Response]], wait_s: float) -> list[float]:
    answers = [question.result() for question in asked]
    assert {503} == {answer.status_code for answer in answers}
    return [max(0.0, answer.elapsed.total_seconds() - wait_s) for answer in answers]


def measure_calm() -> list[Calm]:
    """What is measured before the storm."""
    with open_folder() as folder:
        stack = Stack(folder, DRAIN_S="1")
        try:
            lost, again = reruns(stack)
            told, told_late = answers_of_a_hung_postgres(stack)
            return [
                Calm("a killed worker's tasks are known as lost after", lost, RERUN_BAR_S),
                Calm("the first of them runs again after", again, RERUN_BAR_S),
                Calm("503 of a PostgreSQL that hangs after", told, AWAY_BAR_S),
                Calm("the same, beyond ?wait=3, after", told_late, AWAY_BAR_S),
            ]
        finally:
            stack.close()


class Progress:
    """Says now and then how far the storm is."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._begun_s, self._told_s, self._count = seconds, time.monotonic(), 0.0, 0

    def __call__(self, fault: str) -> None:
        """A fault begins."""
        self._count += 1
        passed_s = time.monotonic() - self._begun_s
        if passed_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = passed_s
            print(f"{passed_s:.0f} of {self._seconds:.0f} s: {self._count} faults, now {fault}", flush=True)


@contextlib.contextmanager
def kept_folder(folder: Path) -> Iterator[Path]:
    """A folder that stays."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    yield folder


def show(console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title)
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> int:
    """Measure, blow, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long the storm lasts at least")
    parser.add_argument("--rate", type=float, default=6.0, help="requests each second")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    parser.add_argument("--report", type=Path, help="file that gets the figures as a page of Markdown")
    parser.add_argument("--keep", type=Path, help="new folder that keeps the logs of all parts, and the history")
    options = parser.parse_args()
    plan = Plan(
        seconds=options.seconds, workers=options.workers, rate=options.rate, longest_s=2.0, pause_s=0.5,
        seed=options.seed,
    )  # fmt: skip
    console = Console(width=160)
    calm = measure_calm()
    show(console, "calm", ("what", "found (median, worst)", "at most"), [calm_row(one) for one in calm])
    with open_folder() if options.keep is None else kept_folder(options.keep) as folder:
        outcome = blow(folder, plan, refused_within_s=REFUSED_WITHIN_S, tell=Progress(plan.seconds))
    show(console, "what the client saw while each fault lasted", HEADS, fault_rows(outcome))
    show(console, f"a storm of {plan.seconds:g} s, seed {plan.seed}", ("what", "found"), figures(outcome, plan))
    for line in (sentences(outcome.broken), *outcome.complaints[:5]):
        if line:
            print(line)
    if options.report:
        options.report.write_text(page(outcome, plan, calm, f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")
    return int(bool(outcome.broken or outcome.complaints) or not all(one.kept for one in calm))


if __name__ == "__main__":
    sys.exit(main())
