"""``python -m tests.programs.cgroup_layer``: the cgroup layer on a kernel that has it, as root. ``make cgroup-test``.

It makes a cgroup of its own, says as systemd would that it is delegated, enters it, and runs what no other layer sees:
memory that is held and not mapped, buffers of sockets, tasks, and the end of a whole group. For each it compares what
the result says with what the kernel has counted; at the end by the table of ``memory_truth``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from sandbox import Host, Policy, Pool, Result, Template
from tests.programs import memory_truth
from tests.support.synchronous import request

ROOT = Path(__file__).resolve().parents[2]
MOUNT = Path("/sys/fs/cgroup")
HOLD, SOCKETS = (f"{script}result = 1" for script in (memory_truth.HOLD_UNMAPPED, memory_truth.SOCKETS))
PRIVATE = "kept = [bytearray(b'x' * (1 << 20)) for _ in range(args)]\nresult = 1"
WORKSPACE = "open('big', 'wb').write(bytes(args << 20))\nresult = 1"
CASES: dict[str, tuple[str, int, Callable[[Result, float], bool]]] = {
    "private memory": (PRIVATE, 60, lambda one, rest: one.usage.memory_peak_mib - rest >= 54),
    "shared memory, not mapped": (HOLD, 60, lambda one, rest: one.usage.memory_peak_mib - rest >= 54),
    "workspace": (WORKSPACE, 40, lambda one, rest: one.usage.memory_peak_mib - rest >= 36),
    "buffers of sockets": (SOCKETS, 40, lambda one, rest: one.usage.memory_peak_mib - rest >= 8),
    "too much private memory": (PRIVATE, 200, lambda one, _: one.exit_reason == "memory_limit"),
    "too much shared memory": (HOLD, 200, lambda one, _: one.exit_reason == "memory_limit"),
}


async def try_processors(policy: Policy, host: Host, template: Template) -> list[str]:
    """A run that may have a fifth of a processor: for so much of its time it computes, and waits for the rest."""
    limits = msgspec.structs.replace(policy.limits, processors=0.2)
    async with Pool(msgspec.structs.replace(policy, limits=limits), host, template) as pool:
        usage = (await pool.run(request("import time\nwhile time.process_time() < 0.6: pass\nresult = 1"))).usage
    holds = usage.cpu_s < 0.4 * usage.wall_s
    print("held" if holds else "FAILED", "processors", usage.cpu_s, "of", usage.wall_s)
    return [] if holds else ["processors"]


def enter_delegated() -> None:
    """Be alone in a cgroup that says it is delegated."""
    folder = MOUNT / f"unityai-test-{os.getpid()}"
    (MOUNT / "cgroup.subtree_control").write_text("+memory +pids +cpu", encoding="ascii")
    folder.mkdir()
    os.setxattr(folder, "trusted.delegate", b"1")
    (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


async def try_all(policy: Policy, host: Host, template: Template) -> list[str]:
    """Run every case; the names of those that failed."""
    failed = []
    async with Pool(policy, host, template) as pool:
        rest = (await pool.run(request("result = 1"))).usage.memory_peak_mib
        for name, (script, mib, holds) in CASES.items():
            result = await pool.run(request(script, mib))
            right = holds(result, rest)
            print("held" if right else "FAILED", name, result.exit_reason, result.usage.memory_peak_mib, "rest", rest)
            failed += [] if right else [name]
        print(pool.isolation)
    left = [folder.name for folder in (host.cgroup or MOUNT).glob("unityai-run-*")]
    print("groups left:", left)
    return failed + left


def main() -> int:
    """Exit code 0 when all held."""
    enter_delegated()
    delivered, host, template = memory_truth.open_box()
    print(next(layer for layer in host.layers if layer.name == "cgroup"))
    light = msgspec.structs.replace(delivered, require=(*delivered.require, "cgroup"))
    policy = msgspec.structs.replace(
        light, limits=msgspec.structs.replace(light.limits, memory_mib=128, workspace_mib=64)
    )
    failed = asyncio.run(try_all(policy, host, template)) + asyncio.run(try_processors(policy, host, template))
    return 1 if memory_truth.compare(light, host, template, layer=True) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
