"""Runs the tests while every core is kept busy: ``python -m tests.programs.busy [pytest options]`` (make busy-test).

A test that waits for a state passes however slow its machine is; one that compares times, or gives up too soon, fails
here first. As many processes as there are cores do nothing but count, at the same priority as the tests, so that the
tests get about half of each core, and often have to wait for it. The tiers run one after another, all of them, also
when one fails. Without options all tiers run; a path among the options runs only that.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.programs.suite import LANES, compile_all, files_of, temporary_files

ROOT = Path(__file__).resolve().parents[2]
TIERS = tuple(part[1:] for lane in LANES for part in lane if part[0] == "pytest")
"""Folders and files of tests that one process runs, as the suite names them."""
BURN = "while True: pass"


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Every core has something else to do meanwhile."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def main(options: list[str]) -> int:
    """Run the tiers; the number of those that failed."""
    given = any((ROOT / option.partition("::")[0]).exists() for option in options)
    failed = []
    compile_all()
    with busy_cores(), temporary_files():
        for tier in [()] if given else TIERS:
            started_s = time.monotonic()
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "--durations=10",
                *(file for place in tier for file in files_of(place)),
                *options,
            ]
            code = subprocess.call(command, cwd=ROOT)
            what = " ".join(tier or options)
            print(f"{what}: exit code {code} after {time.monotonic() - started_s:.0f} s, all cores busy", flush=True)
            failed += [what] if code else []
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
