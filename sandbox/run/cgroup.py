"""A cgroup of its own for each child, where the worker has a delegated subtree: the kernel then holds the whole sum.

Memory of every sort that a run causes is charged to its group: private and shared, mapped or not, the workspace,
buffers of sockets and pipes, page tables. Past ``memory.max`` the kernel ends the whole group, and says so in
``memory.events``.

A subtree is delegated if systemd says so (``Delegate=yes``: the attribute ``user.delegate``), if it is the root of a
cgroup namespace that can be written (a container), or if an ordinary user may write to it. A cgroup with processes in
it can have no controllers for others, so the worker first moves what is there into a leaf, ``unityai-service``.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroups(7), https://systemd.io/CGROUP_DELEGATION.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids")
PROCESSORS = "cpu"
"""The controller that a policy with ``limits.processors`` needs, too."""
_PERIOD_US = 100_000
LEAF = "unityai-service"
_RUN = "unityai-run-"
_LEAVE_TRIES, _LEAVE_PAUSE_S = 20, 0.001


class CgroupUnavailableError(Exception):
    """There is no subtree to use. Says why, for ``engine check``."""


def find_subtree(proc: Path = Path("/proc")) -> Path:
    """The folder of the delegated subtree in which this process lives, without a change to it.

    Raises:
        CgroupUnavailableError: there is none.
    """
    mount = _mount_of_v2((proc / "self/mountinfo").read_text(encoding="utf-8"))
    own = _path_of_v2((proc / "self/cgroup").read_text(encoding="utf-8"))
    if mount is None or own is None:
        raise CgroupUnavailableError("no cgroup v2 hierarchy is mounted")
    base = Path(mount[0], *Path(own).relative_to(mount[1]).parts) if own.startswith(mount[1]) else Path(mount[0])
    if base.name == LEAF:
        base = base.parent
    _require_controllers(base)
    _require_delegation(base)
    return base


def _mount_of_v2(mountinfo: str) -> tuple[str, str] | None:
    """Where cgroup v2 is mounted, and which cgroup is the root there: proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] == "cgroup2":
            root, point = fields.split()[3:5]
            return point, root
    return None


def _path_of_v2(own: str) -> str | None:
    """The path after ``0::`` of /proc/self/cgroup, cgroups(7)."""
    return next((line[3:] for line in own.splitlines() if line.startswith("0::")), None)


def _require_controllers(base: Path) -> None:
    try:
        offered = (base / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError as error:
        raise CgroupUnavailableError(f"{base}: {error.strerror}") from error
    if missing := [name for name in CONTROLLERS if name not in offered]:
        raise CgroupUnavailableError(f"{base} has no controller {', '.join(missing)}")


def _require_delegation(base: Path) -> None:
    """Nobody's cgroup is rearranged who has not said that it may be."""
    if not os.access(base / "cgroup.procs", os.W_OK) or not os.access(base, os.W_OK):
        raise CgroupUnavailableError(f"{base} cannot be written")
    if os.geteuid() != 0 or _is_marked(base):
        return
    # the true root of the hierarchy has no type; that of a namespace has one
    if not ((base / "cgroup.type").exists() and os.path.ismount(base)):
        raise CgroupUnavailableError(f"{base} is not delegated")


def _is_marked(base: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(base, name) == b"1":
                return True
    return False


class Groups:
    """The subtree of a worker, and the groups that it makes for its children."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._numbers = itertools.count(1)

    @property
    def controllers(self) -> tuple[str, ...]:
        """Those that the groups have: the two that each needs, and that of processors where it is delegated."""
        with contextlib.suppress(OSError):
            if PROCESSORS in (self._base / "cgroup.controllers").read_text(encoding="ascii").split():
                return (*CONTROLLERS, PROCESSORS)
        return CONTROLLERS

    def take_over(self) -> None:
        """Move what is in the subtree's own cgroup into the leaf, and hand the controllers to those beneath.

        May be called by several processes of one service, one after the other or at the same time.

        Raises:
            CgroupUnavailableError: the kernel refuses.
        """
        try:
            (self._base / LEAF).mkdir(exist_ok=True)
            for _ in range(_LEAVE_TRIES):
                self._move_all()
                try:
                    _write(self._base / "cgroup.subtree_control", " ".join(f"+{name}" for name in self.controllers))
                except OSError as error:
                    if error.errno != errno.EBUSY:  # a process came in meanwhile
                        raise
                else:
                    return
        except OSError as error:
            raise CgroupUnavailableError(f"{self._base}: {error.strerror}") from error
        raise CgroupUnavailableError(f"{self._base}: processes keep coming into it")

    def _move_all(self) -> None:
        for pid in (self._base / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                _write(self._base / LEAF / "cgroup.procs", pid)

    def make(self, *, memory_bytes: int, tasks: int, processors: float | None = None) -> RunGroup:
        """A new group for one child.

        Args:
            memory_bytes: past which the kernel ends all of it.
            tasks: threads and processes together.
            processors: of which it has the time of so many, ``None`` for all.
        Raises:
            OSError: the kernel refuses.
        """
        folder = self._base / f"{_RUN}{os.getpid()}-{next(self._numbers)}"
        folder.mkdir()
        group = RunGroup(folder)
        try:
            group.limit_memory(memory_bytes)
            _write(folder / "memory.oom.group", "1")
            if (folder / "memory.swap.max").exists():  # not where the kernel was built or started without swap accounts
                _write(folder / "memory.swap.max", "0")
            _write(folder / "pids.max", str(tasks))
            if processors is not None:
                _write(folder / "cpu.max", f"{round(processors * _PERIOD_US)} {_PERIOD_US}")
        except BaseException:
            group.close()
            raise
        return group

    def sweep(self) -> None:
        """Remove the groups of workers that are gone."""
        for folder in self._base.glob(f"{_RUN}*"):
            if not os.path.exists(f"/proc/{folder.name.removeprefix(_RUN).partition('-')[0]}"):
                RunGroup(folder).close()


class GroupMemory(NamedTuple):
    """Memory that a group holds now, and that only its end gives back."""

    all_bytes: int
    """All of it but the cache of files on disk. What a child shares with its zygote is not in it."""
    kernel_bytes: int
    """Of these what no process shows: buffers of sockets and pipes, page tables, names of files, kernel stacks."""


class RunGroup:
    """The cgroup of one child and of all that it starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def limit_memory(self, memory_bytes: int) -> None:
        """Set ``memory.max``."""
        _write(self._folder / "memory.max", str(memory_bytes))

    def add(self, pid: int) -> None:
        """Move a process in. What it has touched so far stays on its old group's account."""
        _write(self._folder / "cgroup.procs", str(pid))

    def kill(self) -> None:
        """Kill all that is in it, ``cgroup.kill``, Linux 5.14."""
        with contextlib.suppress(OSError):
            _write(self._folder / "cgroup.kill", "1")

    def held(self) -> GroupMemory:
        """The memory that it holds; nothing when it is gone."""
        try:
            current, stat = int(self._read("memory.current")), self._stat()
        except OSError:
            return GroupMemory(0, 0)
        return GroupMemory(max(current - _file_cache_bytes(stat), 0), _kernel_bytes(stat))

    def peak_bytes(self) -> int:
        """The most that it ever held, ``memory.peak`` (Linux 5.19), without the cache of files that is left."""
        try:
            peak, stat = int(self._read("memory.peak")), self._stat()
        except OSError:
            return self.held().all_bytes
        return max(peak - _file_cache_bytes(stat), 0)

    def was_out_of_memory(self) -> bool:
        """Whether the kernel has ended something in it for want of memory."""
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in self._read("memory.events").splitlines())
            return int(events.get("oom_kill", 0)) > 0 or int(events.get("oom_group_kill", 0)) > 0
        return False

    def close(self) -> None:
        """End what is left in it, and remove it."""
        self.kill()
        for _ in range(_LEAVE_TRIES):
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:  # a process in it has not quite gone; what stays is swept up at the next start
                time.sleep(_LEAVE_PAUSE_S)
            else:
                return

    def _stat(self) -> dict[str, int]:
        fields = (line.split() for line in self._read("memory.stat").splitlines())
        return {name: int(value) for name, value in fields}

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text(encoding="ascii")


def _file_cache_bytes(stat: Mapping[str, int]) -> int:
    """Pages of files on disk. Those of a tmpfs are in ``shmem``, and cannot be given back."""
    return max(stat["file"] - stat["shmem"], 0)


def _kernel_bytes(stat: Mapping[str, int]) -> int:
    """``sock``, and ``kernel`` (Linux 5.18) or those of its parts that older kernels name."""
    parts = ("kernel",) if "kernel" in stat else ("kernel_stack", "pagetables", "percpu", "slab")
    return sum(stat.get(name, 0) for name in ("sock", *parts))


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
