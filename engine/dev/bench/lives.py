"""The processor time of a child's whole life, beside a bare fork and exit of what its zygote has loaded.

Blocks of both take turns in the same run, and only processor time counts: so a busy machine shows in both alike. Run as
a program (``python -m engine.dev.bench.lives``) it is what is forked bare.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import psutil

from engine.config.settings import PROJECT_DIR
from sandbox import Host, Policy, Pool, Template
from sandbox.inside import zygote
from sandbox.inside.orders import DESCRIPTORS
from sandbox.inside.plan import Plan
from sandbox.isolation import namespaces
from sandbox.isolation.prepared import Later
from sandbox.pool.make_plan import compile_filters, make_plan

BLOCKS, LIVES, FORKS = 5, 60, 60
BOTH = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Lives(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the blocks, in milliseconds of processor time."""

    life_ms: float
    """Of zygote and child, from the fork to the reaped child."""
    bare_ms: float
    worker_ms: float
    """Of the worker's side: pool and supervisor."""


async def measure(
    policy: Policy, host: Host, template: Template, run_once: Callable[[Pool], Coroutine[Any, Any, object]]
) -> Lives:
    """Let blocks of lives and of bare forks take turns.

    Args:
        policy: whose zygote is measured.
        host: what ``probe_host`` found.
        template: what zygotes are made of.
        run_once: runs one request in a pool.
    """
    found: list[tuple[float, float, float]] = []
    with _bare_process(policy, host, template) as bare:
        async with Pool(policy, host, template, ready=0, rotate_after=1_000_000) as pool:
            for _ in range(BLOCKS + 1):
                before, own_s = _zygotes_s(), _spent_s(resource.RUSAGE_SELF)
                for _ in range(LIVES):
                    await run_once(pool)
                lives_s, worker_s = _zygotes_s() - before, _spent_s(resource.RUSAGE_SELF) - own_s
                found.append((lives_s / LIVES, _ask(bare), worker_s / LIVES))
        bare.stdin.close()  # type: ignore[union-attr]
    life, forks, worker = (statistics.median(column) * 1e3 for column in zip(*found[1:], strict=True))
    return Lives(life_ms=life, bare_ms=forks, worker_ms=worker)


def _zygotes_s() -> float:
    """Processor time of the zygotes below this process and of all children that they have reaped."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "zygote.serve" in " ".join(process.cmdline()):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def _bare_process(policy: Policy, host: Host, template: Template) -> subprocess.Popen[bytes]:
    """A process that has loaded what a zygote does, without a sandbox around it."""
    outside = msgspec.structs.replace(host, profile="unprivileged")
    plan = make_plan(policy, outside, template, compile_filters(policy, outside))
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.dev.bench.lives"],
        cwd=PROJECT_DIR,
        env=plan.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(plan.encode() + b"\n")  # type: ignore[union-attr]
    return process


def _ask(bare: subprocess.Popen[bytes]) -> float:
    bare.stdin.write(b"again\n")  # type: ignore[union-attr]
    bare.stdin.flush()  # type: ignore[union-attr]
    return float(bare.stdout.readline())  # type: ignore[union-attr]


def main() -> None:
    """Load what the plan says, then fork and exit as often as asked; print the seconds of each fork."""
    # of their own: a zygote makes its standard streams anew
    asked, answer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    zygote.prepare(Plan.decode(asked.readline()), namespaces.open_proc(), [Later()] * DESCRIPTORS, os.getpid())
    for _ in asked:
        before = _spent_s(*BOTH)
        for _ in range(FORKS):
            if (pid := os.fork()) == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        print((_spent_s(*BOTH) - before) / FORKS, file=answer, flush=True)


def _spent_s(*whose: int) -> float:
    """Processor time so far: getrusage(2)."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


if __name__ == "__main__":
    main()
