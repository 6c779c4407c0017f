"""What a process has from whoever started it, and would keep over fork and exec: set here, not assumed.

The service may be started by `nohup`, by a shell with a job control of its own, by `setarch -R`, under a negative nice
value or a real-time class. A run must not see that, nor have an advantage by it. What confines the service stays as it
is, because whoever started it meant it: a nice value above 0, a set of processors, a memory policy.

Sources: execve(2), fork(2), signal(7), personality(2), sched(7), ioprio_set(2), proc_pid_oom_score_adj(5),
capabilities(7) on securebits, PR_SET_TIMERSLACK(2const), PR_SET_THP_DISABLE(2const).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

from sandbox.isolation import libc
from sandbox.isolation.prepared import Calls, at_once

_IOPRIO_WHO_PROCESS = 1
_DEFAULT_TIMER_SLACK_NS = 50_000
_OF_THE_C_LIBRARY = (32, 33)
"""Signals that glibc keeps for itself, nptl(7): it lets nobody set them, but a starter may have them ignored."""
_SET_BY_CHILD = (
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_AS,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_STACK,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
)
OOM_SCORE_ADJ = {"zygote": 500, "child": 1000}
"""When the host is out of memory its kernel ends a run first, then a zygote, and only then a service."""


def leave_starter_behind(proc_fd: int) -> None:
    """Give the calling process what a freshly booted system would. To be called before a privilege is given up.

    Raises:
        OSError: the kernel refuses what it grants to everybody.
    """
    reset_signals()
    libc.syscall("personality", 0)
    libc.syscall("ioprio_set", _IOPRIO_WHO_PROCESS, 0, 0)
    libc.prctl(libc.PR_SET_TIMERSLACK, _DEFAULT_TIMER_SLACK_NS)
    libc.prctl(libc.PR_SET_THP_DISABLE, 0)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):  # who lacks CAP_SETPCAP has them still: a new user namespace resets them
        libc.prctl(libc.PR_SET_SECUREBITS, 0)
    at_once(die_before_others, proc_fd, "zygote")
    _raise_hard_limits()


def reset_signals() -> None:
    """Have no signal ignored, handled or blocked. An ignored one would stay so over exec, as after `nohup`."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    default = ctypes.create_string_buffer(libc.SIGACTION_BYTES)
    for own in _OF_THE_C_LIBRARY:
        libc.syscall("rt_sigaction", own, ctypes.byref(default), None, libc.SIGSET_BYTES)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def die_before_others(calls: Calls, proc_fd: int, role: str) -> None:
    """Say to the kernel whom to end first when the host is out of memory. Anybody may raise this value."""
    calls.write_file(proc_fd, "self/oom_score_adj", str(OOM_SCORE_ADJ[role]))


def _raise_hard_limits() -> None:
    """Lift the starter's limits where this process may; where not, the child says which is too low for its policy."""
    for kind in _SET_BY_CHILD:
        ceiling = resource.RLIM_INFINITY if kind != resource.RLIMIT_NOFILE else _most_open_files()
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (resource.getrlimit(kind)[0], ceiling))


def _most_open_files() -> int:
    """The most that the kernel takes for RLIMIT_NOFILE: proc_sys_fs(5) on nr_open."""
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
