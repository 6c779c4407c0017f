"""The system calls of the ``threads`` profile, by group, each group with its reason. Everything else is denied.

Names as in syscalls(2); a name that an architecture does not have is passed over there.
"""

from __future__ import annotations

import errno

ALLOWED: dict[str, str] = {
    "files through descriptors": """
        read write readv writev pread64 pwrite64 preadv pwritev lseek close fstat ftruncate fallocate fsync fdatasync
        getdents64 fchmod""",
    "files by name, which mounts and Landlock confine": """
        open openat creat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd chdir
        fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink symlinkat link truncate chmod
        fchmodat utimensat statfs fstatfs umask""",
    "memory, which rlimits and the watchdog bound": """
        munmap mprotect mremap brk msync""",
    "threads of this process, and waiting for them": """
        futex set_robust_list rseq exit gettid sched_yield sched_getaffinity getcpu""",
    "signals within this process": """
        rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigpending rt_sigsuspend rt_sigtimedwait pause alarm
        setitimer getitimer restart_syscall""",
    "who and where am I": """
        getpid getppid getuid geteuid getgid getegid getgroups getpgrp getpgid getsid uname sysinfo getrusage times
        getrlimit""",
    "time": """
        clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time""",
    "randomness": """
        getrandom""",
    "waiting for descriptors, event loops": """
        poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 pipe pipe2
        dup dup2 dup3""",
    "talk over connected sockets: pairs, and the egress proxy's where a policy grants network": """
        recvfrom shutdown getsockname getpeername getsockopt""",
}

PROCESSES: dict[str, str] = {
    "processes, which RLIMIT_NPROC counts and the pid namespace ends": """
        fork vfork execve wait4 waitid setsid setpgid""",
    "what a newly executed interpreter does before its first line": """
        arch_prctl set_tid_address""",
    "what subprocess and multiprocessing need": """
        close_range""",
}
"""Added by the ``processes`` profile."""

TO_ONESELF = "chown lchown fchown fchownat"
"""Calls that are allowed with one's own user and group alone, which changes nothing: programs that copy files make
them. Only with namespaces, where there is no other user."""

SIGNALS: dict[str, int] = {"kill": 1, "tgkill": 2, "rt_sigqueueinfo": 1, "rt_tgsigqueueinfo": 2}
"""Calls that send a signal to the process that their first argument names → which argument is the signal's number. The
supervisor lets them through where that process is the run itself."""

PARTLY: dict[str, str] = {
    "clone": "threads of this process; with the `processes` profile processes too; never a namespace",
    "fcntl": "duplicate a descriptor, read and set its flags, ask for locks; taking one is answered as granted without "
    "being taken",
    "ioctl": "is it a terminal and of what size, how much is there to read, do not block, close on exec or do not",
    "linkat": "by name, never by an open descriptor alone",
    **dict.fromkeys(TO_ONESELF.split(), "to one's own user and group alone, which changes nothing"),
    **dict.fromkeys(SIGNALS, "to the run itself; with the `processes` profile to any process of the run"),
    "prctl": "name a thread",
    "socketpair": "connected pairs of Unix sockets (stream, seqpacket)",
    "mmap": "private memory and files; shared memory is counted by the supervisor; no huge pages, no locked ones",
    "madvise": "what concerns one's own mappings alone; nothing that pushes shared files out of memory",
    "setsockopt": "time limits, keep-alive and the like; buffer sizes are answered as set without being changed; no "
    "filters, no other protocols on top",
    "sendto": "without an address: over what is connected already",
    "prlimit64": "one's own limits, which can only be lowered",
}
"""Allowed for some arguments only: call → for what."""

PARTLY_NETWORK: dict[str, str] = {
    "socket": "TCP over IPv4; asking for IPv6 is answered as not there",
    "connect": "to the egress proxy, which is all that is there to connect to",
}
"""Likewise, where a policy grants network."""

LEAVING = "exit_group"
"""The call by which a process ends itself. Reported like a denied one, then let through: so the supervisor has the exit
code from the kernel before the process is taken apart, and can measure it one last time."""

COUNTED = "mmap"
"""The call that is reported where it asks for shared anonymous memory, then let through while the run may have more."""

NOT_BESIDE_OTHERS = "chmod fchmod fchmodat utimensat"
"""Calls that neither Landlock nor anything else mediates: taken away where a run shares its user and its file system
with others, which is so without namespaces."""

QUIET: dict[int, str] = {
    # Answered in the kernel, without a violation: libraries probe for these and take the answer well.
    errno.ENOSYS: "clone3 sendfile copy_file_range get_robust_list set_mempolicy get_mempolicy mbind",
    errno.EOPNOTSUPP: """
        getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
        removexattr lremovexattr fremovexattr""",
}
"""errno → calls. clone3 hides its flags behind a pointer that a filter cannot read; glibc falls back to clone."""


ANSWERED: dict[str, str] = {
    LEAVING: "reported to the supervisor, then let through",
    "fadvise64": "answered as done without being done: it would push files out of memory that other runs read",
    "flock": "answered as granted without being taken: a run's files are nobody else's",
}
"""Calls that the filter or the supervisor answers in its own way."""


def names(table: dict[str, str]) -> list[str]:
    """All names of a table of groups."""
    return [name for group in table.values() for name in group.split()]
