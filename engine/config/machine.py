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

BODY_PLACES = 4
"""Large bodies that an API has in memory at the same time."""
API_REST_MIB, BODY_COPIES = 128, 2
"""An API at rest has about 85 MiB. Of each body there is what has arrived, and at times a copy on its way."""
CHECK_REST_MIB, CHECK_COPIES, MOST_CHECK_MIB = 64, 6, 3072
"""A checking process at rest has 24 MiB. A long text takes three times its length, six times where a character is
beyond U+FFFF, since Python gives each four bytes then; the smallest objects of JSON take more than twenty times."""


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


def api_memory_mib(max_body_mib: int) -> int:
    """MiB that an API process itself needs at most: at rest, and for as many large bodies as it reads at once.

    Args:
        max_body_mib: ``MAX_BODY_MIB``.
    """
    return API_REST_MIB + BODY_COPIES * BODY_PLACES * max_body_mib


def check_memory_mib(asked_mib: int | None, max_body_mib: int) -> int:
    """MiB that each of the processes may take that check large bodies for an API.

    Args:
        asked_mib: ``CHECK_MEMORY_MIB``; ``None`` for a third of what the API leaves: a third is for the files that
            clients upload, which may lie in memory, too.
        max_body_mib: ``MAX_BODY_MIB``. A long text always fits.
    """
    if asked_mib is not None:
        return asked_mib
    left = (memory_mib() - api_memory_mib(max_body_mib)) // 3
    return max(min(left, MOST_CHECK_MIB), CHECK_REST_MIB + CHECK_COPIES * max_body_mib)


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
