"""The few C library and kernel calls that Python does not offer, each raising ``OSError`` on failure.

System call numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64)
of the Linux source. Constants: the header named beside each group.
"""

from __future__ import annotations

import ctypes
import os
import platform

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_LIBC_AT_ONCE = ctypes.PyDLL(None, use_errno=True)
"""The same, but each call keeps the interpreter's lock: for calls that hardly wait, made many in a row."""
_LIBC_AT_ONCE.syscall.argtypes = [ctypes.c_long, *[ctypes.c_ulong] * 6]
_LIBC_AT_ONCE.syscall.restype = ctypes.c_long
_X86 = platform.machine() == "x86_64"

BY_ARCHITECTURE = {
    "bind": (49, 200),
    "capset": (126, 91),
    "chdir": (80, 49),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup3": (292, 24),
    "fcntl": (72, 25),
    "getrandom": (318, 278),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "listen": (50, 201),
    "mkdirat": (258, 34),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "openat": (257, 56),
    "personality": (135, 92),
    "pidfd_open": (434, 434),
    "pipe2": (293, 59),
    "pivot_root": (155, 41),
    "ppoll": (271, 73),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "recvmsg": (47, 212),
    "rt_sigaction": (13, 134),
    "seccomp": (317, 277),
    "sendmsg": (46, 211),
    "setns": (308, 268),
    "setsid": (112, 157),
    "socket": (41, 198),
    "umask": (95, 166),
    "unshare": (272, 97),
    "wait4": (61, 260),
    "write": (1, 64),
}
"""System call → its numbers on x86_64 and aarch64."""
NUMBERS = {name: numbers[0 if _X86 else 1] for name, numbers in BY_ARCHITECTURE.items()}
"""System call → its number on this machine."""
SIGACTION_BYTES, SIGSET_BYTES = 32, 8
"""Of the kernel's struct sigaction, which is SIG_DFL without flags where all are 0; and of its mask: sigaction(2)."""

# include/uapi/linux/sched.h
CLONE_THREAD = 0x00010000
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# include/uapi/linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

# include/uapi/asm-generic/mman-common.h
MADV_COLLAPSE = 25
HUGE_PAGE_BYTES = 2 << 20
"""The smallest on x86_64, and on aarch64 with pages of 4 KiB; where it is not, the kernel refuses."""

# include/uapi/linux/fcntl.h
AT_FDCWD = -100
AT_RECURSIVE = 0x8000

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_SET_NO_NEW_PRIVS = 38
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_KEPT_BYTES = 1 << 20
_MOST_CAPABILITIES = 64
"""As many as a set has bits."""


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(name: str, *arguments: object) -> int:
    """Make one system call, see syscall(2).

    Args:
        name: one of ``NUMBERS``; it stands in the error.
    """
    return _checked(_LIBC.syscall(ctypes.c_long(NUMBERS[name]), *arguments), name)


def make_syscall(number: int, *arguments: int) -> int:
    """Make one system call by number with six numbers; -1 where it fails, and then ``ctypes.get_errno()`` says why."""
    return int(_LIBC_AT_ONCE.syscall(number, *arguments))


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces: unshare(2)."""
    _checked(_LIBC.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Move the calling thread into a namespace that a descriptor refers to: setns(2)."""
    _checked(_LIBC.setns(fd, flags), "setns")


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    """Change or read an attribute of the calling process: prctl(2)."""
    return _checked(_LIBC.prctl(option, argument, argument3, 0, 0), "prctl")


def capabilities() -> range:
    """The capabilities that this kernel knows, by number: it answers EINVAL to the first that is none.

    PR_CAPBSET_READ(2const). Linux 6.18 knows 41; the last is CAP_CHECKPOINT_RESTORE.

    Raises:
        RuntimeError: it does not know one, or more than a set has bits.
    """
    known = 0
    while known <= _MOST_CAPABILITIES and _LIBC.prctl(PR_CAPBSET_READ, known, 0, 0, 0) >= 0:
        known += 1
    if not 0 < known <= _MOST_CAPABILITIES:
        raise RuntimeError("the kernel does not say which capabilities it knows")
    return range(known)


def sethostname(name: bytes) -> None:
    """Set the host name of the caller's uts namespace: sethostname(2)."""
    _checked(_LIBC.sethostname(name, len(name)), "sethostname")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    """Mount a file system, or change a mount: mount(2)."""
    _checked(_LIBC.mount(source, target, kind, ctypes.c_ulong(flags), data), f"mount {target.decode()}")


def umount(target: bytes, flags: int) -> None:
    """Unmount a file system: umount2(2)."""
    _checked(_LIBC.umount2(target, flags), f"umount {target.decode()}")


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Make ``new_root`` the root, and move the old one to ``put_old``: pivot_root(2)."""
    syscall("pivot_root", new_root, put_old)


class _MountAttr(ctypes.Structure):
    # struct mount_attr of include/uapi/linux/mount.h
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_setattr(target: bytes, attributes: int, *, recursive: bool) -> None:
    """Add mount attributes, see mount_setattr(2), Linux 5.12. Never clears one, so locked flags are no obstacle."""
    attr = _MountAttr(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    syscall("mount_setattr", AT_FDCWD, target, flags, ctypes.byref(attr), ctypes.sizeof(attr))


def collapse(start: int) -> None:
    """Collapse what lies in one huge page, whose first address is given: madvise(2), MADV_COLLAPSE."""
    _checked(_LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(HUGE_PAGE_BYTES), MADV_COLLAPSE), "madvise")


def give_back_free_memory() -> None:
    """Give the kernel back what ``malloc`` holds and nobody uses: malloc_trim(3), which glibc has.

    But for a mebibyte, of which the interpreter of a child takes its first buffers: its limits count what is new.
    """
    if (trim := getattr(_LIBC, "malloc_trim", None)) is not None:
        trim(ctypes.c_size_t(_KEPT_BYTES))


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``, see close_range(2), Linux 5.9."""
    if first <= last:
        syscall("close_range", first, last, 0)
