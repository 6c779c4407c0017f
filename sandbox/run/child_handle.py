"""The supervisor's handle on one child: its pidfd, its pipes, and what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sandbox.run.cgroup import RunGroup
from sandbox.run.workspace import LastFacts, Workspace

GIVES_WAY = 5
"""The niceness of a run that has computed for long: it has a third of the share of others, and so never starves."""


class ExitFacts(NamedTuple):
    """How a child ended, from the kernel."""

    status: int
    """Wait status, wait4(2)."""
    cpu_s: float
    """Processor seconds of its whole life."""


class Measurement(NamedTuple):
    """The resources that a run uses at one moment."""

    anonymous_bytes: int
    """Private memory of its own."""
    shared_bytes: int
    """Shared memory and files of a tmpfs, as far as they are mapped."""
    threads: int
    """Over all processes."""
    cpu_s: float
    """Since the start of the process, over all threads."""
    file_bytes: int = 0
    """Of files on disk: libraries and what else is mapped. It is no memory of its own."""
    high_bytes: int = 0
    """The most that all three ever were together; 0 where that is not known, as of several processes."""
    kill_pending: bool = False
    """Whether its first thread is about to die by SIGKILL, as when another thread ends the process."""


class ChildHandle:
    """The supervisor's side of one child, from ready to dead: its descriptors, its measurements, its death."""

    def __init__(
        self,
        pidfd: int,
        pipes: tuple[int, int, int, int],
        workspace: Workspace,
        listener: int,
        proxy: int | None = None,
        *,
        group: RunGroup | None = None,
        rehearsed: bool = False,
    ) -> None:
        """
        Args:
            pidfd: refers to its process, pidfd_open(2).
            pipes: write end of stdin, read ends of stdout, stderr, response.
            workspace: its private directory.
            listener: from which its held calls are read, seccomp_unotify(2).
            proxy: the socket on which its egress proxy is to accept, where its policy grants one.
            group: the cgroup that it is in, if it has one of its own.
            rehearsed: whether it has touched the memory that a request will touch.

        Raises:
            OSError: it is dead already.
        """
        self.pidfd = pidfd
        self.rehearsed = rehearsed
        self.group = group
        self.stdin, self.stdout, self.stderr, self.response = pipes
        self.workspace, self.listener, self.proxy = workspace, listener, proxy
        self.last_facts = LastFacts(workspace)
        self.death: asyncio.Future[ExitFacts] = asyncio.get_running_loop().create_future()
        self._open = {pidfd, *pipes, listener} | ({proxy} if proxy is not None else set())
        self._freed = False
        self.pid = pid_of(pidfd)
        self._status = os.open(f"/proc/{self.pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.own_pid = _own_pid(os.pread(self._status, 4096, 0))
            """What it itself takes for its process id: 1 in a pid namespace of its own."""
        except OSError:  # it has died since the line above
            os.close(self._status)
            raise
        self._open.add(self._status)
        self.at_rest = self.measure() or Measurement(0, 0, 1, 0.0)

    def measure(self) -> Measurement | None:
        """Read the resources that the child itself uses now; ``None`` when it is gone: proc_pid_status(5)."""
        try:
            status = os.pread(self._status, 4096, 0)
            cpu_s = self.cpu_s()
        except OSError:
            return None
        found = _MEMORY_AND_THREADS.search(status)
        if found is None:
            return None
        high, anonymous, file, shared = (int(kib) << 10 for kib in found.groups()[:4])
        pending = int(found[6], 16) | int(found[7], 16)
        kill_pending = bool(pending & 1 << (signal.SIGKILL - 1))
        return Measurement(
            anonymous, shared, int(found[5]), cpu_s, file_bytes=file, high_bytes=high, kill_pending=kill_pending
        )

    def cpu_s(self) -> float:
        """Processor seconds so far over all threads, living and dead: clock_getcpuclockid(3).

        Raises:
            OSError: it has been reaped.
        """
        return time.clock_gettime((~self.pid << 3) | 2)

    def files_open_for_writing(self) -> tuple[str, ...]:
        """Paths in the workspace of the files that its process has open for writing; none where we may not look.

        The mode of a link in /proc/PID/fd says how the file is open: proc_pid_fd(5).
        """
        found: list[str] = []
        try:
            place, device = os.readlink(f"/proc/self/fd/{self.workspace.fd}"), os.fstat(self.workspace.fd).st_dev
            for name in os.listdir(folder := f"/proc/{self.pid}/fd"):
                if os.lstat(link := f"{folder}/{name}").st_mode & stat.S_IWUSR:
                    found += _path_below(place, device, link)
        except OSError:
            return ()
        return () if self.has_ended() else tuple(sorted(set(found)))

    def has_ended(self) -> bool:
        """Whether its process has ended, be its death reported or not: then its pidfd is readable, pidfd_open(2)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def give_way(self) -> None:
        """Let all others go first where there are too few processors: setpriority(2), sched(7) on autogroups.

        The niceness counts within a control group for processors; where there is none, within a session, which is the
        run's own. So the session gets it, too, where we may: as root.
        """
        nice = max(GIVES_WAY, os.getpriority(os.PRIO_PROCESS, 0))  # never before the worker itself
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PGRP, self.pid, nice)
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/autogroup", "w", encoding="ascii") as autogroup:
            autogroup.write(str(nice))

    def kill(self) -> None:
        """SIGKILL pid 1 of the child's namespace: the kernel kills the rest, pid_namespaces(7)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        if self.group is not None:
            self.group.kill()

    def close_descriptor(self, fd: int) -> None:
        """Close one of its descriptors, if that is still open."""
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def close(self) -> None:
        """Close all descriptors that are still open and free the workspace. The child must be dead."""
        for fd in list(self._open):
            self.close_descriptor(fd)
        if not self._freed:
            self._freed = True
            self.workspace.close()
            if self.group is not None:
                self.group.close()


def _path_below(place: str, device: int, link: str) -> list[str]:
    """The path below ``place`` of the regular file that a link of procfs leads to, if it lies there and has a name."""
    target, kind = os.readlink(link), os.stat(link)
    is_ours = stat.S_ISREG(kind.st_mode) and kind.st_dev == device and kind.st_nlink > 0
    return [os.path.relpath(target, place)] if is_ours and target.startswith(place.rstrip("/") + "/") else []


_MEMORY_AND_THREADS = re.compile(
    rb"^VmHWM:\s+(\d+) kB\n.*?^RssAnon:\s+(\d+) kB\nRssFile:\s+(\d+) kB\nRssShmem:\s+(\d+) kB\n.*?^Threads:\s+(\d+)\n"
    rb".*?^SigPnd:\s+(\w+)\n.*?^ShdPnd:\s+(\w+)",
    re.MULTILINE | re.DOTALL,
)


def pid_of(pidfd: int) -> int:
    """The process id in our own pid namespace, see pidfd_open(2) on fdinfo."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        return next(int(line[4:]) for line in info if line.startswith("Pid:"))


def _own_pid(status: bytes) -> int:
    """The process id in the process's own pid namespace, see proc_pid_status(5) on NSpid."""
    return int(next(line for line in status.splitlines() if line.startswith(b"NSpid:")).split()[-1])


def is_fatal(thread: int, number: int) -> bool:
    """Whether a signal would end the process of a thread: it is neither caught, ignored, nor blocked by the thread.

    Args:
        thread: its id in our own pid namespace.
        number: of the signal, signal(7).
    """
    if not 0 < number <= signal.SIGRTMAX or number in _HARMLESS:
        return False
    try:
        status = Path(f"/proc/{thread}/status").read_bytes()
    except OSError:
        return False  # it is gone, and nothing is left to end
    return not any(int(mask, 16) & 1 << (number - 1) for mask in _SIGNAL_MASKS.findall(status))


_SIGNAL_MASKS = re.compile(rb"^Sig(?:Blk|Ign|Cgt):\s+(\w+)$", re.MULTILINE)
_HARMLESS = frozenset(
    {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN,
     signal.SIGTTOU}
)  # fmt: skip
"""Signals whose default action does not end a process: signal(7). Those that stop one do nothing to pid 1."""


def measure_tree(pid: int) -> Measurement | None:
    """Read the resources that a process and all its descendants use, each shared page counted once: proc_pid_smaps(5).

    A zombie has no memory left, but the processor time that it used counts until somebody waits for it.
    """
    processes = anonymous_kib = shared_kib = threads = 0
    cpu_s = 0.0
    for one, fields in stats_of_tree(pid):
        processes += 1
        threads += int(fields[20 - 3])
        cpu_s += cpu_s_of(fields)
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_bytes()
        except OSError as error:
            _blame_ourselves(error)
            continue
        if (found := _SHARED_OUT.search(rollup)) is not None:
            anonymous_kib += int(found[1])
            shared_kib += int(found[2])
    return Measurement(anonymous_kib << 10, shared_kib << 10, threads, cpu_s) if processes else None


def stats_of_tree(pid: int) -> Iterator[tuple[int, list[bytes]]]:
    """Each process of a tree that is still there: its pid, and its proc_pid_stat(5) from the third field on.

    None where the first one is gone, and with it the way to all others.

    Raises:
        OSError: we are short of descriptors or memory.
    """
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_bytes().rpartition(b")")[2].split()
            for thread in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{thread}/children").read_bytes().split())
        except OSError as error:
            _blame_ourselves(error)
            continue
        yield one, fields


def cpu_s_of(fields: list[bytes]) -> float:
    """Processor time of a process, and of its children that were waited for, by what ``stats_of_tree`` gives of it."""
    return sum(int(ticks) for ticks in fields[14 - 3 : 18 - 3]) / os.sysconf("SC_CLK_TCK")


def _blame_ourselves(error: OSError) -> None:
    """Raise an error that means that we are short of descriptors or memory; any other means that a process is gone."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


_SHARED_OUT = re.compile(rb"^Pss_Anon:\s+(\d+) kB.*?^Pss_Shmem:\s+(\d+) kB", re.MULTILINE | re.DOTALL)
