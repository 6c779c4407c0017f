"""seccomp: which system calls a run may make. Default deny, each denial reported to the supervisor by name.

A call that is not allowed stops the calling thread, the supervisor reads its number from the listener,
answers EPERM (ENOSYS for a number without a name) and counts it. Allowed calls never leave the kernel.

Sources: seccomp(2), seccomp_unotify(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import select
import struct
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from sandbox.isolation import libc
from sandbox.isolation.landlock import TRUNCATE_ABI
from sandbox.isolation.namespaces import INNER_UID
from sandbox.isolation.prepared import Calls, Later
from sandbox.isolation.syscalls import ALLOWED, COUNTED, NOT_BESIDE_OTHERS, PROCESSES, QUIET, TO_ONESELF, names

CONTROL_FD = 4
"""The one descriptor that a child may pass descriptors over, before it reports ready; closed after that."""

_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19, see ``holds_until_death``
_FLAGS_OF_A_HOLD = _FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE_RECV
_NOTIF_RECV = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV: _IOWR('!', 0, struct seccomp_notif), 80 bytes
_NOTIF_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND: _IOWR('!', 1, struct seccomp_notif_resp), 24 bytes
_NOTIF_ID_VALID = 0x40082102  # SECCOMP_IOCTL_NOTIF_ID_VALID: _IOW('!', 2, u64), Linux 5.17
_NOTIF_BYTES = 80
_NAMES_KEPT = 1024
"""Names of calls: more than there are, and not without end, for a run chooses the numbers that it calls."""
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
_CALLER_IS_GONE = (errno.ENOENT, errno.EINTR, errno.EAGAIN, errno.ENOTCONN)

# include/uapi/linux/sched.h: every flag that glibc's pthread_create passes, see clone(2) and nptl/createthread
_CLONE_THREAD_REQUIRED = 0x00010000 | 0x00000100 | 0x00000800  # CLONE_THREAD | CLONE_VM | CLONE_SIGHAND
_CLONE_NAMESPACES = 0x7E000000 | 0x00020000 | 0x00000080  # CLONE_NEW* (and CLONE_IO, never asked for)
# include/uapi/asm-generic/fcntl.h: F_DUPFD F_GETFD F_SETFD F_GETFL F_DUPFD_CLOEXEC F_GETPIPE_SZ, and the
# queries F_GETLK F_OFD_GETLK. A query sees real locks alone, and no run can take one (_FCNTL_LOCKS): of a run's own
# file the answer is always "free", which SQLite's write-ahead log needs.
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030, 1032, 5, 36)
_F_SETFL = 4
# F_SETLK F_SETLKW F_OFD_SETLK F_OFD_SETLKW. No real lock and no lease: two runs could signal to each other by them over
# the read-only files that both see. But a run's own files are nobody else's, so every lock on them would be granted.
_FCNTL_LOCKS = (6, 7, 37, 38)
# include/uapi/asm-generic/ioctls.h: TCGETS (isatty), TIOCGPGRP and TIOCGWINSZ (asked of every output, answered ENOTTY:
# a run has no terminal), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_IOCTL_REQUESTS = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_AT_SYMLINK_FOLLOW = 0x400  # include/uapi/linux/fcntl.h; not AT_EMPTY_PATH, which links an open descriptor
_UNCHANGED = 0xFFFFFFFF  # -1: chown(2) leaves user or group as it is
_PR_SET_NAME, _PR_GET_NAME = 15, 16  # include/uapi/linux/prctl.h
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10  # include/linux/socket.h
_SOCK_STREAM, _IPPROTO_TCP = 1, 6
_NSCD_SOCKET = _SOCK_STREAM | os.O_CLOEXEC | os.O_NONBLOCK  # as glibc's nscd/nscd_helper.c makes it
_SOL_SOCKET = 1
_SOCKET_OPTIONS = {
    # include/uapi/asm-generic/socket.h: SO_REUSEADDR, SO_KEEPALIVE, SO_LINGER, SO_RCVTIMEO, SO_SNDTIMEO. No
    # SO_ATTACH_FILTER and its kin.
    _SOL_SOCKET: (2, 9, 13, 20, 21),
    # include/uapi/linux/tcp.h: TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT. No TCP_ULP.
    _IPPROTO_TCP: (1, 4, 5, 6, 18),
}
"""Level → options that may be set."""
_BUFFER_SIZES = (7, 8)
"""SO_SNDBUF, SO_RCVBUF: the kernel's memory in buffers is nobody's in particular, so they keep their size."""
# include/uapi/asm-generic/mman-common.h
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_LOCKED, _MAP_HUGETLB = 0x1, 0x20, 0x2000, 0x40000
_MAP_FLAGS = _MAP_SHARED | _MAP_ANONYMOUS | _MAP_LOCKED | _MAP_HUGETLB
_SHARED_ANONYMOUS = _MAP_SHARED | _MAP_ANONYMOUS
# MADV_NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE DONTFORK DOFORK NOHUGEPAGE DONTDUMP DODUMP WIPEONFORK KEEPONFORK
_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 15, 16, 17, 18, 19)
# MERGEABLE UNMERGEABLE HUGEPAGE COLD PAGEOUT POPULATE_READ POPULATE_WRITE COLLAPSE GUARD_INSTALL GUARD_REMOVE: answered
# as by a kernel that does not know them. numpy asks for huge pages for every large array.
_ADVICE_UNKNOWN = (12, 13, 14, 20, 21, 22, 23, 25, 102, 103)
_SOCK_TYPE_MASK, _PAIRS = 0xF, (1, 5)  # include/linux/net.h: SOCK_STREAM, SOCK_SEQPACKET
_LOW_32 = 0xFFFFFFFF
_BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE of seccomp_attr_set(3), libseccomp 2.5


def compile_filter(
    *,
    processes: bool = False,
    network: bool = False,
    extra: Sequence[str] = (),
    alone: bool = True,
    landlock_abi: int = 7,
) -> bytes:
    """The filter as BPF, an array of struct sock_filter.

    Args:
        alone: whether namespaces keep the run apart; without them the filter also closes what they would have.
        landlock_abi: the ABI in force, whose gaps the filter then closes.
        processes: whether to add what the ``processes`` profile allows.
        network: whether to add what connecting to the egress proxy takes.
        extra: further system calls to allow, by name.
    Raises:
        ImportError, RuntimeError: libseccomp is not on this host.
        OSError: libseccomp or the kernel is too old.
    """
    import pyseccomp  # noqa: PLC0415 loads the C library, so not at import

    arch = pyseccomp.Arch.NATIVE
    rules = pyseccomp.SyscallFilter(pyseccomp.NOTIFY)
    # another architecture's calling convention (i386, x32) would mean other numbers: no program of ours uses one
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    # the same rules and answers, found by the call's number in some eight steps: the kernel loads it in half the time
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _BINARY_TREE)

    def add(action: int, name: str, *arguments: Any) -> None:
        if pyseccomp.resolve_syscall(arch, name) >= 0:
            rules.add_rule(action, name, *arguments)

    conditions = _conditions(pyseccomp, processes=processes) + (_connections(pyseccomp) if network else [])
    conditions += _owners(pyseccomp) if alone else []
    taken = set() if alone else _not_beside_others(landlock_abi)
    if "openat" in taken:
        conditions += _opens_that_truncate_only_what_they_may_write(pyseccomp)
    for name in [*names(ALLOWED), *(names(PROCESSES) if processes else ()), *extra]:
        if name not in taken:
            add(pyseccomp.ALLOW, name)
    for name, condition in conditions:
        add(pyseccomp.ALLOW, name, *condition)
    for number, name, condition in _answers(pyseccomp):
        add(pyseccomp.ERRNO(number), name, *condition)
    return _export(rules)


def compile_last_filter() -> bytes:
    """The filter that goes on top when the child is ready: it denies the two calls that its lock-down still needed.

    Descriptors that are being passed count against a limit that all runs of one user share: one run could keep all
    others from starting.
    """
    import pyseccomp  # noqa: PLC0415 as above

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    for name, condition in _until_ready(
        pyseccomp
    ):  # exactly these: all else is left to the first filter, which reports
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name, *condition)
    return _export(rules)


def _until_ready(pyseccomp: Any) -> list[tuple[str, list[Any]]]:
    """The calls of the lock-down's last step: hand over workspace and listener, put the last filter on top."""

    def arg(index: int, value: int) -> Any:
        return pyseccomp.Arg(index, pyseccomp.MASKED_EQ, _LOW_32, value)

    return [("sendmsg", [arg(0, CONTROL_FD)]), ("seccomp", [arg(0, _SET_MODE_FILTER), arg(1, 0)])]


def _conditions(pyseccomp: Any, *, processes: bool) -> list[tuple[str, list[Any]]]:
    """Calls that are allowed for some arguments only."""

    def arg(index: int, value: int, mask: int = _LOW_32) -> Any:
        return pyseccomp.Arg(index, pyseccomp.MASKED_EQ, mask, value)

    required = 0 if processes else _CLONE_THREAD_REQUIRED
    thread = arg(0, required, required | _CLONE_NAMESPACES)
    return [
        ("clone", [thread]),
        *[("fcntl", [arg(1, command)]) for command in _FCNTL_COMMANDS],
        # no O_DIRECT: a pipe then hands us one write at a time, and each costs us a wake-up
        ("fcntl", [arg(1, _F_SETFL), arg(2, 0, os.O_DIRECT)]),
        *[("mmap", [arg(3, flags, _MAP_FLAGS)]) for flags in (0, _MAP_SHARED, _MAP_ANONYMOUS)],
        *[("madvise", [arg(2, advice)]) for advice in _ADVICE],
        *[
            ("setsockopt", [arg(1, level), arg(2, option)])
            for level, options in _SOCKET_OPTIONS.items()
            for option in options
        ],
        *[("ioctl", [arg(1, request)]) for request in _IOCTL_REQUESTS],
        *[("prctl", [arg(0, option)]) for option in (_PR_SET_NAME, _PR_GET_NAME)],
        ("linkat", [arg(4, 0, _LOW_32 & ~_AT_SYMLINK_FOLLOW)]),
        # connected pairs only: a datagram socket could send to any address that it can name
        *[("socketpair", [arg(0, _AF_UNIX), arg(1, kind, _SOCK_TYPE_MASK)]) for kind in _PAIRS],
        ("sendto", [pyseccomp.Arg(4, pyseccomp.EQ, 0)]),
        *_until_ready(pyseccomp),
        # one's own limits, which without privilege can only be lowered
        ("prlimit64", [arg(0, 0)]),
    ]


def _owners(pyseccomp: Any) -> list[tuple[str, list[Any]]]:
    """``chown`` and its kin to one's own user and group, or to none: what the kernel grants every owner."""

    def arg(index: int, value: int) -> Any:
        return pyseccomp.Arg(index, pyseccomp.MASKED_EQ, _LOW_32, value)

    return [
        (name, [arg(first, user), arg(first + 1, group)])
        for name in TO_ONESELF.split()
        for first in (2 if name == "fchownat" else 1,)
        for user in (INNER_UID, _UNCHANGED)
        for group in (INNER_UID, _UNCHANGED)
    ]


def _connections(pyseccomp: Any) -> list[tuple[str, list[Any]]]:
    """TCP over IPv4 only. The network namespace and Landlock say where to."""

    def arg(index: int, value: int, mask: int = _LOW_32) -> Any:
        return pyseccomp.Arg(index, pyseccomp.MASKED_EQ, mask, value)

    sockets = [
        ("socket", [arg(0, _AF_INET), arg(1, _SOCK_STREAM, _SOCK_TYPE_MASK), arg(2, protocol)])
        for protocol in (0, _IPPROTO_TCP)
    ]
    return [*sockets, ("connect", [])]


def _answers(pyseccomp: Any) -> list[tuple[int, str, list[Any]]]:
    """(errno, call, condition) of what the filter answers itself, without the kernel or the supervisor seeing it."""

    def arg(index: int, value: int) -> Any:
        return pyseccomp.Arg(index, pyseccomp.MASKED_EQ, _LOW_32, value)

    quiet = [(number, name, list[Any]()) for number, calls in QUIET.items() for name in calls.split()]
    granted = [
        (0, "flock", list[Any]()),
        (0, "fadvise64", list[Any]()),
        *[(0, "fcntl", [arg(1, command)]) for command in _FCNTL_LOCKS],
        *[(0, "setsockopt", [arg(1, _SOL_SOCKET), arg(2, option)]) for option in _BUFFER_SIZES],
    ]
    quiet += [(errno.EINVAL, "madvise", [arg(2, advice)]) for advice in _ADVICE_UNKNOWN]
    # libraries ask for IPv6 when they are imported, or try it first, and take the answer well
    no_ipv6 = (errno.EAFNOSUPPORT, "socket", [arg(0, _AF_INET6)])
    # glibc asks the name service daemon for each user by exactly this sort of socket, before it reads /etc/passwd
    no_daemon = (errno.EAFNOSUPPORT, "socket", [arg(0, _AF_UNIX), arg(1, _NSCD_SOCKET)])
    return [*quiet, *granted, no_ipv6, no_daemon]


def _not_beside_others(landlock_abi: int) -> set[str]:
    """Calls that are not allowed as they are to a run which shares its user and its file system with others."""
    taken = set(NOT_BESIDE_OTHERS.split())
    if landlock_abi < TRUNCATE_ABI:
        taken |= {"truncate", "open", "openat"}
    return taken


def _opens_that_truncate_only_what_they_may_write(pyseccomp: Any) -> list[tuple[str, list[Any]]]:
    """``open`` and ``openat`` without ``O_RDONLY | O_TRUNC``: that truncates a file which may only be read."""

    def flags(index: int, mask: int, value: int) -> list[Any]:
        return [pyseccomp.Arg(index, pyseccomp.MASKED_EQ, mask, value)]

    return [
        (name, flags(index, mask, value))
        for name, index in (("open", 1), ("openat", 2))
        for mask, value in (
            (os.O_TRUNC, 0),
            (os.O_TRUNC | os.O_WRONLY, os.O_TRUNC | os.O_WRONLY),
            (os.O_TRUNC | os.O_RDWR, os.O_TRUNC | os.O_RDWR),
        )
    ]


def _export(rules: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


class _SockFprog(ctypes.Structure):
    # struct sock_fprog of include/uapi/linux/filter.h
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install(calls: Calls, program: bytes, *, into: int = 0) -> Later:
    """Put the filter on the calling thread, for good; the listener's descriptor.

    The kernel refuses if no_new_privs is not set, or another listener stands above.

    Args:
        into: as of ``Calls.call``.
    """
    flags = _FLAGS_OF_A_HOLD if holds_until_death() else _FLAG_NEW_LISTENER
    return calls.call("seccomp", "seccomp", _SET_MODE_FILTER, flags, _program(calls, program), into=into)


def holds_until_death() -> bool:
    """Whether a call that was taken is held whatever signal comes, but for one that kills: seccomp(2), Linux 5.19.

    Elsewhere a signal that the caller handles ends its wait: it runs on, and makes the call once more. Asked as
    the kernel's own tests ask: it looks at the flags before it looks at the filter, which here is none (EFAULT).
    """
    try:
        libc.syscall("seccomp", _SET_MODE_FILTER, _FLAGS_OF_A_HOLD, None)
    except OSError as error:
        return error.errno == errno.EFAULT
    raise AssertionError("the kernel took a filter that is none")


def install_last(calls: Calls, program: bytes) -> None:
    """Put one more filter on top; of two answers the kernel takes the stricter."""
    calls.call("seccomp", "seccomp", _SET_MODE_FILTER, 0, _program(calls, program))


def _program(calls: Calls, program: bytes) -> _SockFprog:
    buffer = ctypes.create_string_buffer(program, len(program))
    return _SockFprog(len(program) // 8, calls.keep(buffer))


def has_call(listener: int) -> bool | None:
    """Whether a call waits to be answered; ``None`` when no caller is left.

    Ask this before ``take_call``, which blocks while no call waits: the listener also wakes its reader when the last
    caller dies.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    events = dict(poll.poll(0)).get(listener, 0)
    if events & select.POLLIN:
        return True
    return None if events & (select.POLLHUP | select.POLLERR) else False


class HeldCall(NamedTuple):
    """A system call that the kernel holds until it is answered."""

    identity: int
    pid: int
    """The caller's thread group or thread, in the reader's pid namespace."""
    number: int
    arguments: tuple[int, ...]
    """All six, from the caller's registers: nobody can change them any more."""


def take_call(listener: int) -> HeldCall | None:
    """The next call that waits, ``None`` if its caller died meanwhile: struct seccomp_notif, seccomp_unotify(2)."""
    notification = bytearray(_NOTIF_BYTES)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, notification)
    except OSError as error:
        if error.errno in _CALLER_IS_GONE:
            return None
        raise
    # u64 id, u32 pid, u32 flags, struct seccomp_data {int nr, u32 arch, u64 instruction_pointer, u64 args[6]}
    identity, pid, _flags, number, _arch, _at, *arguments = struct.unpack_from("=QIIiIQ6Q", notification)
    return HeldCall(identity, pid, number, tuple(arguments))


def shared_memory_asked_for(call: HeldCall) -> int | None:
    """Bytes of shared anonymous memory that a call asks for, in whole pages; ``None`` if it is no such call."""
    if syscall_name(call.number) != COUNTED or call.arguments[3] & _MAP_FLAGS != _SHARED_ANONYMOUS:
        return None
    return -(-call.arguments[1] // mmap.PAGESIZE) * mmap.PAGESIZE


def refuse_memory(listener: int, call: HeldCall) -> None:
    """Answer as the kernel does when there is no memory left."""
    _answer(listener, call, error=errno.ENOMEM)


def deny(listener: int, call: HeldCall) -> str:
    """Refuse a call and return its name, ``syscall_N`` for a number without one."""
    name = syscall_name(call.number)
    _answer(listener, call, error=errno.ENOSYS if name is None else errno.EPERM)
    return name or f"syscall_{call.number}"


def is_held(listener: int, call: HeldCall) -> bool:
    """Whether a call that was taken still waits for its answer: its caller has not been killed."""
    return _still_waits(listener, _NOTIF_ID_VALID, struct.pack("=Q", call.identity))


def let_through(listener: int, call: HeldCall) -> bool:
    """Let the kernel carry the call out, and say whether its caller was still waiting for that.

    Only for calls whose meaning lies in registers, not in memory.
    """
    return _answer(listener, call, flags=_CONTINUE)


def _answer(listener: int, call: HeldCall, *, error: int = 0, flags: int = 0) -> bool:
    # struct seccomp_notif_resp: u64 id, s64 val, s32 error, u32 flags
    return _still_waits(listener, _NOTIF_SEND, struct.pack("=QqiI", call.identity, 0, -error, flags))


def _still_waits(listener: int, request: int, argument: bytes) -> bool:
    """Ask or tell the kernel something of a held call: ioctl(2); whether its caller still waited for an answer."""
    try:
        fcntl.ioctl(listener, request, argument)
    except OSError as failure:
        if failure.errno not in _CALLER_IS_GONE:
            raise
        return False
    return True


@functools.lru_cache(_NAMES_KEPT)
def syscall_name(number: int) -> str | None:
    """Name of a system call of this architecture, ``None`` when libseccomp knows none."""
    import pyseccomp  # noqa: PLC0415 as above

    try:
        name = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number)
    except (OSError, ValueError):
        return None
    return os.fsdecode(name) if name else None


def library_version() -> str:
    """Version of the libseccomp in use, e.g. ``2.5.4``."""
    import pyseccomp  # noqa: PLC0415 as above

    class _Version(ctypes.Structure):
        _fields_ = [(part, ctypes.c_uint) for part in ("major", "minor", "micro")]

    function = pyseccomp._libseccomp.seccomp_version  # noqa: SLF001 the binding has no name for it
    function.restype = ctypes.POINTER(_Version)
    version = function().contents
    return f"{version.major}.{version.minor}.{version.micro}"
