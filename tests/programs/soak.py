"""Many runs through one pool; afterwards nothing may be more than before.

``python -m tests.programs.soak --runs 10000``

Four tasks are under way at any time, of several sorts: quick ones, ones that raise, print, leave files, start threads,
try what is denied, are killed by a limit, or crash. Every thousand runs a line is printed; at the end a table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

import sandbox
from tests.support.libraries import library_sets
from tests.support.synchronous import (
    Sandbox,
    as_before,
    descendants,
    eventually,
    inventory,
    parents,
    request,
    status_of,
)

LOAD = 4
STEP = 1000
THREADS = """
import threading
threads = [threading.Thread(target=int) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
TASKS: list[tuple[str, sandbox.ExitReason]] = [
    ("result = args", sandbox.ExitReason.OK),
    ("print('x' * 1000)\nresult = sum(range(1000))", sandbox.ExitReason.OK),
    ("1 / 0", sandbox.ExitReason.ERROR),
    ("for i in range(5): open(f'artifacts/{i}', 'w').write('x' * 1000)", sandbox.ExitReason.OK),
    (THREADS, sandbox.ExitReason.OK),
    ("import os, socket\nfor act in (os.fork, socket.socket):\n    try: act()\n    except OSError: pass",
     sandbox.ExitReason.OK),
    ("import os; os._exit(3)", sandbox.ExitReason.NONZERO_EXIT),
    ("import os\nos.symlink('/', 'artifacts/link')\nos.makedirs('a/b/c/d')", sandbox.ExitReason.OK),
    ("result = 'x' * 200_000", sandbox.ExitReason.OK),
    ("result = bytes(1 << 20).decode()\nimport os; os.abort()", sandbox.ExitReason.SIGNALED),
]  # fmt: skip
"""In turn. Once in a hundred runs one is killed for its wall time instead."""
KILLED = "while True: pass"


class Sample(NamedTuple):
    """Sizes at one moment, KiB of anonymous memory."""

    runs: int
    worker_kib: int
    zygote_kib: int
    seconds: float


def anonymous_kib(pid: int | str) -> int:
    """RssAnon of proc_pid_status(5)."""
    return int(status_of(pid)["RssAnon"].split()[0])  # type: ignore[arg-type]


def zombies() -> int:
    """Dead children, of this process and all below it, that nobody has waited for."""
    found = 0
    for pid in descendants():
        try:
            found += status_of(pid)["State"].startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def one(box: Sandbox, number: int) -> str:
    """One run; an empty text, or what is wrong with it."""
    script, expected = TASKS[number % len(TASKS)]
    limits = box.policy.limits
    if number % 100 == 99:
        script, expected = KILLED, sandbox.ExitReason.WALL_LIMIT
        limits = limits.narrowed(timeout_s=0.05)
    try:
        result = await box.pool.run(request(script, number), limits=limits)
    except sandbox.SandboxError as error:
        return f"our failure: {error}"
    return "" if result.exit_reason == expected else f"{result.exit_reason} instead of {expected}: {result.message}"


async def many(box: Sandbox, numbers: range) -> Counter[str]:
    """So many runs, ``LOAD`` at a time."""
    left = iter(numbers)
    wrong: Counter[str] = Counter()

    async def work() -> None:
        for number in left:
            if fault := await one(box, number):
                wrong[fault] += 1

    await asyncio.gather(*(work() for _ in range(LOAD)))
    return wrong


def full(box: Sandbox) -> bool:
    """Whether the pool is at rest and no replaced zygote waits any more; uses up the children of those that do."""
    if box.pool._zygotes.retiring:
        box.run("result = 1")
    return box.at_rest()


def sample(box: Sandbox, runs: int, started_s: float) -> Sample:
    """Count what worker and zygote hold now."""
    gc.collect()
    zygote = box.zygote_pids()[1]
    return Sample(runs, anonymous_kib("self"), anonymous_kib(zygote), time.monotonic() - started_s)


def slope(samples: list[Sample], field: str) -> float:
    """KiB per thousand runs: least squares over all samples but the first, which is still warming up."""
    points = [(one.runs / 1000, getattr(one, field)) for one in samples[1:]]
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread


def make_box(rotate_after: int) -> Sandbox:
    """A pool of the policy as it is delivered, with little loaded beforehand."""
    import msgspec  # noqa: PLC0415 of the sandbox's own imports, so surely there

    root = Path(__file__).resolve().parents[2]
    policy = sandbox.load_policies(root / "policies")["custom_script"]
    policy = msgspec.structs.replace(policy, preload=("handlers.custom_script",))
    places = {"scripts": root / "scripts"}
    template = sandbox.Template(
        code=root, entry="handlers.entry:main", libraries=library_sets(), places=places, uid=60999, gid=60999
    )
    return Sandbox(policy, sandbox.probe_host(), template, ready=LOAD, rotate_after=rotate_after)


def soak(runs: int, rotate_after: int) -> tuple[list[Sample], dict[str, Any], Counter[str]]:
    """All runs; the samples, what is left, and the runs that ended otherwise than they should."""
    outermost, known = inventory(), parents().keys()
    box = make_box(rotate_after)
    wrong: Counter[str] = Counter()
    left: dict[str, Any] = {}
    try:
        box.do(many(box, range(200)))  # caches, lazy imports, threads of the harvest
        assert eventually(lambda: full(box), within_s=60)
        before, started_s = inventory(), time.monotonic()
        samples = [sample(box, 0, started_s)]
        for first in itertools.count(0, STEP):
            if first >= runs:
                break
            wrong += box.do(many(box, range(first, min(first + STEP, runs))))
            samples.append(sample(box, min(first + STEP, runs), started_s))
            now = samples[-1]
            print(
                f"{now.runs:>8} runs  {now.runs / now.seconds:6.1f}/s  worker {now.worker_kib} KiB  zygote "
                f"{now.zygote_kib} KiB", flush=True,
            )  # fmt: skip
        assert eventually(lambda: full(box), within_s=60)
        left |= {f"{name}, pool at rest": number for name, number in as_before(before, within_s=5).items()}
        if (dead := zombies()) and not eventually(lambda: zombies() == 0):
            left["zombies"] = dead
        print(f"pool: {box.pool.stats()}")
    finally:
        box.close()
    left |= {f"{name}, pool closed": number for name, number in as_before(outermost, within_s=5).items()}
    strangers = {pid for pid, parent in parents().items() if parent == 1} - set(known)
    if mine := [pid for pid in strangers if _is_ours(pid)]:
        left["orphans"] = mine
    return samples, left, wrong


def _is_ours(pid: int) -> bool:
    """Whether a process that init has inherited is a zygote or a run."""
    try:
        return b"sandbox import zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def main() -> int:
    """Print the table; exit code 1 if anything is left or a run ended otherwise than it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rotate-after", type=int, default=10**9, help="zygotes live for ever unless said otherwise")
    options = parser.parse_args()
    samples, left, wrong = soak(options.runs, options.rotate_after)
    table = Table(title=f"{options.runs} runs, {LOAD} at a time")
    for head in ("what", "found", "expected"):
        table.add_column(head)
    table.add_row("more descriptors, processes, mounts", str(left or "none"), "none")
    table.add_row("runs that ended otherwise", str(dict(wrong.most_common(5)) or "none"), "none")
    table.add_row("worker, KiB per 1,000 runs", f"{slope(samples, 'worker_kib'):+.1f}", "about 0")
    table.add_row("zygote, KiB per 1,000 runs", f"{slope(samples, 'zygote_kib'):+.1f}", "about 0")
    table.add_row("worker, KiB, first and last", f"{samples[0].worker_kib}, {samples[-1].worker_kib}", "")
    table.add_row("zygote, KiB, first and last", f"{samples[0].zygote_kib}, {samples[-1].zygote_kib}", "")
    table.add_row("runs per second", f"{samples[-1].runs / max(samples[-1].seconds, 1e-9):.1f}", "")
    Console(width=120).print(table)
    return int(bool(left) or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
