"""``python -m tests.growth``: 100,000 tasks and a day's sweeps, then large bodies that come at once.

Exit code 1 if anything grew, or took more memory than is stated.
"""

from __future__ import annotations

import argparse
import functools
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.growth.memory import Peak, beyond, send_at_once
from tests.growth.page import BODY_MIB, CHECK_MIB, HEADS, page
from tests.growth.run import MEASURES, Outcome, Plan, run
from tests.support.stack import Stack, open_folder


def measure(plan: Plan) -> Outcome:
    """Start a service of its own and run all of it."""
    with open_folder() as folder:
        # A task is kept for a minute, so that clean-ups have as much to delete as there is.
        stack = Stack(
            folder, RESULT_TTL="60", CLEANUP_INTERVAL="5", N8N_WEBHOOK_URL="http://127.0.0.1:9/", LOG_LEVEL="warning"
        )
        try:
            return run(stack, folder, plan, functools.partial(print, flush=True))
        finally:
            stack.close()


def send_bodies() -> list[Peak]:
    """Send eight bodies of each kind at once to a service of its own."""
    with open_folder() as folder:
        stack = Stack(folder, MAX_BODY_MIB=str(BODY_MIB), CHECK_MEMORY_MIB=str(CHECK_MIB))
        try:
            return send_at_once(stack, BODY_MIB)
        finally:
            stack.close()


def main() -> int:
    """Print progress and a table; write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.growth", description=__doc__)
    parser.add_argument("--tasks", type=int, default=Plan().tasks)
    parser.add_argument("--sweeps", type=int, default=Plan().sweeps)
    parser.add_argument("--report", type=Path, help="file that gets the figures")
    options = parser.parse_args()
    outcome = measure(Plan(options.tasks, options.sweeps))
    table = Table(*HEADS, title=f"{options.tasks:,} tasks, {outcome.counts.sweeps:,} sweeps")
    for one in MEASURES:
        table.add_row(*outcome.row(one))
    Console(width=120).print(table)
    print(f"sends eight bodies of {BODY_MIB} MiB at once, of each kind", flush=True)
    peaks = send_bodies()
    faults = [f"{one}: grew" for one in outcome.grown] + beyond(peaks, BODY_MIB, CHECK_MIB)
    if options.report:
        options.report.write_text(page(outcome, peaks, f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")
    print("\n".join(faults) or "nothing grew, and all memory is as stated")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
