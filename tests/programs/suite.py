"""Runs every test in three lanes at the same time: ``python -m tests.programs.suite [pytest options]`` (make test).

Most tests of the service wait, for leases, processes and servers; most tests of the sandbox compute. So both go on at
the same time, and two cores are enough for three lanes. What a lane runs, and in which order, never changes: nothing is
dealt out by chance. Tests share nothing but the host: each lane is a pytest process of its own, with servers, ports,
folders and processes of its own, and what a test counts (descriptors, processes, mounts) it counts below itself.

The last lane ends with the second pass, as an ordinary user (``tests.programs.as_user``). Of each part that fails the
whole output is printed; at the end come the slowest thirty tests and what took how long.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SLOWEST = 30
LANES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("pytest", "tests/service"),),
    (("pytest", "tests/attacks", "tests/sandbox"), ("pytest", "tests/differential")),
    (
        ("pytest", "tests/unit", "tests/handlers", "tests/peers", "tests/image", "tests/chaos"),
        ("tests.programs.as_user",),
    ),
)
"""Lane → its parts, one after the other: a module and its arguments."""
_DURATION = re.compile(r"^([\d.]+)s (setup|call|teardown) +(\S.*)$", re.MULTILINE)


class Ended(NamedTuple):
    """How a part ended."""

    name: str
    code: int
    seconds: float
    output: str

    @property
    def last_line(self) -> str:
        """The last line of pytest: how many tests passed and failed."""
        lines = [line for line in self.output.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
        return lines[-1].strip("= ") if lines else "no test ran"


class Suite:
    """One run of all lanes."""

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()

    def run(self) -> list[Ended]:
        """Run the lanes; everything that was started has ended when this returns, or raises."""
        with ThreadPoolExecutor(len(LANES)) as threads:
            lanes = [threads.submit(self._run_lane, parts) for parts in LANES]
            try:
                return [ended for lane in lanes for ended in lane.result()]
            except BaseException:
                self._stop()
                raise

    def _run_lane(self, parts: tuple[tuple[str, ...], ...]) -> list[Ended]:
        return [self._run_part(part) for part in parts if not self._stopped.is_set()]

    def _run_part(self, part: tuple[str, ...]) -> Ended:
        command = [sys.executable, "-m", *part, "-q", f"--durations={SLOWEST}", "--color=no", *self._options]
        started_s = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
            text = os.pread(output.fileno(), 1 << 30, 0).decode(errors="replace")
        ended = Ended(" ".join(part), code, time.monotonic() - started_s, text)
        if code:
            print(text, flush=True)
        print(f"{ended.name}: {ended.last_line}", flush=True)
        return ended

    def _stop(self) -> None:
        self._stopped.set()
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)


def slowest(parts: list[Ended]) -> list[str]:
    """The slowest of all parts, each a line."""
    found = [(float(took_s), phase, test) for part in parts for took_s, phase, test in _DURATION.findall(part.output)]
    return [f"{took_s:7.2f} s  {phase:8}  {test}" for took_s, phase, test in sorted(found, reverse=True)[:SLOWEST]]


def main(options: list[str]) -> int:
    """Run, and say what took how long; the number of parts that failed."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT, and so would all below it
        signal.signal(signum, signal.default_int_handler)
    started_s = time.monotonic()
    parts = Suite(options).run()
    print(f"\nslowest {SLOWEST}:", *slowest(parts), "", sep="\n")
    for part in parts:
        print(f"{part.seconds:7.0f} s  {'failed' if part.code else 'passed'}  {part.name}")
    print(f"{time.monotonic() - started_s:7.0f} s  in all")
    return sum(part.code != 0 for part in parts)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
