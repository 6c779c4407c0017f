"""The machine, or the container, in which this process runs: how much memory it has, and what holds the process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from engine.model.worker_state import OuterConfinement

MIB = 1 << 20
RESERVE_MIB = 1536
"""For a worker itself: its zygotes and ready sandboxes, all policies together, need about 1.4 GiB."""


def memory_mib(proc: Path = Path("/proc"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory in MiB: the machine's, or the lowest limit of this process' cgroup and of those above it.

    Args:
        proc: where procfs is mounted: proc_pid_cgroup(5).
        mounts: where cgroup v2 is mounted, or v1's folder of controllers.
    """
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _limit_files(proc, mounts) if (limit := _read_limit(path)) is not None]
    return min([whole, *limits]) // MIB


def tasks_memory_mib(asked_mib: int | None, largest_mib: int, *, workers: int = 1) -> int:
    """MiB that all running tasks of one worker may have together.

    Args:
        asked_mib: ``WORKER_MEMORY_MIB``; ``None`` for a share of the machine without what the workers themselves need.
        largest_mib: most that one task may have. The share is never less: each task can run, if only alone.
        workers: how many workers share this machine.
    """
    if asked_mib is not None:
        return asked_mib
    whole = memory_mib()
    return max((whole - min(RESERVE_MIB * workers, whole // 2)) // workers, largest_mib)


def _limit_files(proc: Path, mounts: Path) -> list[Path]:
    """The files that may limit this process: of cgroup v2 (``0::/path``) and of v1's memory controller."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, own = line.split(":", 2)
            if number == "0":
                found += _upwards(mounts, own, "memory.max")
            elif "memory" in controllers.split(","):
                found += _upwards(mounts / "memory", own, "memory.limit_in_bytes")
    return found


def _upwards(mount: Path, own: str, name: str) -> list[Path]:
    """The file of a cgroup and of each one above it. A container may see its own cgroup as the mount's root."""
    folder = Path(own.lstrip("/"))
    return [mount / above / name for above in (folder, *folder.parents)]


def _read_limit(path: Path) -> int | None:
    """Bytes; ``None`` where there is no such file or no limit (``max``)."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None


def read_confinement(proc: Path = Path("/proc/self")) -> OuterConfinement:
    """What holds this process.

    Args:
        proc: where the kernel says it.
    """
    status = _read(proc / "status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    modes: dict[str, Literal["none", "strict", "filter"]] = {"0": "none", "1": "strict", "2": "filter"}
    filters = fields.get("Seccomp_filters", "")
    return OuterConfinement(
        seccomp=modes.get(fields.get("Seccomp", ""), "unknown"),
        seccomp_filters=int(filters) if filters.isdecimal() else None,
        security_label=_read(proc / "attr" / "current").rstrip("\0\n") or None,
    )


def _read(path: Path) -> str:
    """The text of a file; empty where the kernel has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
