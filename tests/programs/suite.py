"""Runs every test in four lanes at the same time: ``python -m tests.programs.suite [pytest options]`` (make test).

Most tests of the service wait, for leases, processes and servers; most tests of the sandbox compute. So both go on at
the same time, and two cores are enough for four lanes. What a lane runs, and in which order, never changes: nothing is
dealt out by chance. Tests share nothing but the host: each lane is a pytest process of its own, with servers, ports,
folders and processes of its own, and what a test counts (descriptors, processes, mounts) it counts below itself.

The last lane ends with the second pass, as an ordinary user (``tests.programs.as_user``). Of each part that fails the
whole output is printed; at the end come the slowest thirty tests and what took how long.

A few tests that fail run once more by themselves, when the lanes have ended and the machine is quiet, as CPython's own
suite does (``python -m test --rerun``). One that passes then is named as *unsteady*: it has a race, which somebody has
to fix, but it does not hide all other results. A test that fails for a fault of the code fails both times. More than
five failures are no coincidence: then nothing runs again.
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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30
SLOWEST = 30
SHOWN = 8
"""So many words of a part name it."""
AGAIN_MOST = 5
"""So many tests may fail, in all lanes together, for them to run again alone."""
SHARED = (
    "batch", "callbacks", "client", "connections", "console", "cors", "docs", "events", "execute", "files", "health",
    "http", "idempotency", "libraries", "list", "metrics", "policies", "projects", "readme_examples", "record",
    "refusals", "request_ids", "script_files", "scripts", "surroundings", "task_commands",
)  # fmt: skip
"""Of ``tests/service``: those that ask one whole service, in one process, for starting it takes twenty seconds."""
APART = (
    "acceptance", "audit_processes", "backup", "beginners_faults", "body_checker", "broken_lines", "cancel",
    "command_line", "doctor", "embedded", "fairness", "faults", "installation", "keys", "large_bodies", "mcp",
    "models_command", "new_field", "plans", "policy_commands", "queue", "quotas", "receipts", "recipes",
    "schemathesis", "screens", "slow_start", "store", "stored_bytes", "traces", "uncaught", "upgrade", "who_did_what",
    "worker", "worker_memory",
)  # fmt: skip
"""The others, which start what they need, but for ``neighbours``, which stands with the storms."""
LANES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("pytest", *(f"tests/service/test_{name}.py" for name in SHARED)),
        ("pytest", "tests/differential"),
        ("pytest", "tests/chaos", "tests/service/test_neighbours.py"),
    ),
    (("pytest", *(f"tests/service/test_{name}.py" for name in APART)),),
    (("pytest", "tests/attacks/test_attacks.py", "tests/sandbox"),),
    (
        ("pytest", "tests/unit", "tests/handlers", "tests/peers", "tests/quality", "tests/image"),
        ("pytest", "tests/attacks/test_hostile_*.py"),
        ("tests.programs.as_user",),
    ),
)
"""Lane → its parts, one after the other: a module and its arguments. One with a ``*`` is every file of that name."""
TESTS_FAILED = 1
"""pytest's exit code when tests failed, and nothing else went wrong."""
_DURATION = re.compile(r"^([\d.]+)s (setup|call|teardown) +(\S.*)$", re.MULTILINE)


class Ended(NamedTuple):
    """How a part ended."""

    part: tuple[str, ...]
    code: int
    seconds: float
    output: str
    failed: tuple[str, ...]
    """The ids of the tests that failed; empty also where the part broke before it could say so."""

    @property
    def name(self) -> str:
        """The part as a reader knows it."""
        shown, others = self.part[:SHOWN], len(self.part) - SHOWN
        return " ".join(shown) + (f" and {others} more" if others > 0 else "")

    @property
    def last_line(self) -> str:
        """The last line of pytest: how many tests passed and failed."""
        lines = [line for line in self.output.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
        return lines[-1].strip("= ") if lines else "no test ran"


def files_of(place: str) -> list[str]:
    """What pytest is given for an argument of a part: the files that a pattern means; anything else as it is.

    Raises:
        ValueError: no file has such a name.
    """
    if "*" not in place:
        return [place]
    found = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(place))
    if not found:
        raise ValueError(f"{place}: there is no such file of tests")
    return found


def compile_all() -> None:
    """Compile our own modules, which some thousand processes of a run import.

    Python does so by itself, unless the environment forbids it (``PYTHONDONTWRITEBYTECODE``, as in many containers and
    CI systems): then each of them would compile every module anew.
    """
    folders = [str(ROOT / name) for name in ("engine", "handlers", "sandbox", "scripts", "tests")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j0", *folders], check=True)


@contextlib.contextmanager
def temporary_files(place: Path = IN_MEMORY) -> Iterator[None]:
    """Have the tests' temporary files in memory, unless there is too little room or nothing there may be executed.

    Tests make and delete some hundred thousand files. ext4 gives the number of a deleted one to no other for some
    seconds, and so looks longer for each new one, the more were deleted (``recently_deleted`` in fs/ext4/ialloc.c):
    tests of the service take a third less processor time without it.

    Args:
        place: a folder of tmpfs(5).
    """
    try:
        found = os.statvfs(place)
    except OSError:
        found = None
    if found is None or found.f_bavail * found.f_frsize < ROOM_BYTES or found.f_flag & os.ST_NOEXEC:
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="tests-", dir=place, ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, TMPDIR=folder),
    ):
        os.chmod(folder, 0o1777)  # as /tmp is: tests become other users
        yield


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
        return [self.run_part(part) for part in parts if not self._stopped.is_set()]

    def run_part(self, part: tuple[str, ...]) -> Ended:
        """Run one part, print its output if it fails, and its last line in any case."""
        module, *places = part
        given = [file for place in places for file in files_of(place)]
        command = [sys.executable, "-m", module, *given, "-q", f"--durations={SLOWEST}", "--color=no", *self._options]
        started_s = time.monotonic()
        with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as failed:
            os.fchmod(failed.fileno(), 0o666)  # the second pass writes to it as an ordinary user
            command.append(f"--failed-to={failed.name}")
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
            text = os.pread(output.fileno(), 1 << 30, 0).decode(errors="replace")
            ids = tuple(Path(failed.name).read_text(encoding="utf-8").splitlines())
        ended = Ended(part, code, time.monotonic() - started_s, text, ids)
        if code:
            print(text, flush=True)
        print(f"{ended.name}: {ended.last_line}", flush=True)
        return ended

    def _stop(self) -> None:
        self._stopped.set()
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)


def run_again(suite: Suite, parts: list[Ended]) -> tuple[list[Ended], list[str]]:
    """Run the few tests that failed once more, alone.

    Returns:
        the parts that stay failed, and the ids of the tests that passed this time.
    """
    broken = [part for part in parts if part.code]
    tests_failed = all(part.code == TESTS_FAILED and part.failed for part in broken)
    if not tests_failed or sum(len(part.failed) for part in broken) > AGAIN_MOST:
        return broken, []
    failed, unsteady = [], []
    for part in broken:
        again = suite.run_part((part.part[0], *part.failed))
        failed += [again] if again.code else []
        unsteady += [test for test in part.failed if test not in again.failed]
    return failed, unsteady


def slowest(parts: list[Ended]) -> list[str]:
    """The slowest of all parts, each a line."""
    found = [(float(took_s), phase, test) for part in parts for took_s, phase, test in _DURATION.findall(part.output)]
    return [f"{took_s:7.2f} s  {phase:8}  {test}" for took_s, phase, test in sorted(found, reverse=True)[:SLOWEST]]


def main(options: list[str]) -> int:
    """Run, and say what took how long; the number of parts that failed."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores SIGINT, and so would all below it
        signal.signal(signum, signal.default_int_handler)
    started_s = time.monotonic()
    compile_all()
    suite = Suite(options)
    with temporary_files():
        parts = suite.run()
        failed, unsteady = run_again(suite, parts)
    print(f"\nslowest {SLOWEST}:", *slowest(parts), "", sep="\n")
    for part in parts:
        print(f"{part.seconds:7.0f} s  {'failed' if part.code else 'passed'}  {part.name}")
    print(f"{time.monotonic() - started_s:7.0f} s  in all")
    for test in unsteady:
        print(f"UNSTEADY, failed beside the other lanes and passed alone; find its race: {test}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
