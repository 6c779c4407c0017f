"""The memory that a worker's tasks may have unless an operator says: of the machine, or of the container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.config.machine import RESERVE_MIB, memory_mib, tasks_memory_mib

MIB = 1 << 20
MACHINE_MIB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {}, MACHINE_MIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "max"}, MACHINE_MIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": str(100 * MIB)}, 100),
        ("0::/a/b\n", {"a/b/memory.max": str(70 * MIB), "a/memory.max": str(100 * MIB)}, 70),
        ("0::/../elsewhere\n", {"memory.max": str(80 * MIB)}, 80),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": str(90 * MIB)}, 90),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": str((1 << 63) - 4096)}, MACHINE_MIB),
        ("4:memory:/outside\n", {"memory/memory.limit_in_bytes": str(90 * MIB)}, 90),
    ],
)
def test_lowest_limit_of_the_cgroups_counts(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    """Of cgroup v2 and v1, one's own and those above it; without a limit it is the machine's."""
    proc, mounts = tmp_path / "proc", tmp_path / "cgroup"
    for path, text in {proc / "self/cgroup": own, **{mounts / name: text for name, text in files.items()}}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert expected == memory_mib(proc, mounts)


def test_default_leaves_the_workers_their_own_and_runs_each_task_alone() -> None:
    """Half of a small machine at most is kept back, and a task under any policy can run."""
    assert 100 == tasks_memory_mib(100, 512)
    whole = memory_mib()
    assert whole - min(RESERVE_MIB, whole // 2) == tasks_memory_mib(None, 64)
    assert tasks_memory_mib(None, 64, workers=4) <= whole // 4
    assert whole == tasks_memory_mib(None, whole, workers=64)
