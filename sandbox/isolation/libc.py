"""The few C library and kernel calls that Python does not offer, each raising ``OSError`` on failure.

System call numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64)
of the Linux source. Constants: the header named beside each group.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_LIBC_AT_ONCE = ctypes.PyDLL(None, use_errno=True)
"""The same, but each call keeps the interpreter's lock: for calls that never wait, made many in a row."""
_X86 = platform.machine() == "x86_64"

# Same number on every architecture since Linux 5.0.
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
# Not the same number everywhere.
SYS_SECCOMP = 317 if _X86 else 277
SYS_PIVOT_ROOT = 155 if _X86 else 41
SYS_CAPSET = 126 if _X86 else 91
SYS_RT_SIGACTION = 13 if _X86 else 134
SYS_PERSONALITY = 135 if _X86 else 92
SYS_IOPRIO_SET = 251 if _X86 else 30

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
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_TIMERSLACK = 29
PR_SET_NO_NEW_PRIVS = 38
PR_SET_THP_DISABLE = 41
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_MOST_CAPABILITIES = 64
"""As many as a set has bits. Linux 6.18 knows 41; the last is CAP_CHECKPOINT_RESTORE."""


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: object) -> int:
    """Make one system call by number, see syscall(2). ``what`` names it in the error."""
    return _checked(_LIBC.syscall(ctypes.c_long(number), *arguments), what)


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces: unshare(2)."""
    _checked(_LIBC.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Move the calling thread into a namespace that a descriptor refers to: setns(2)."""
    _checked(_LIBC.setns(fd, flags), "setns")


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    """Change or read an attribute of the calling process: prctl(2)."""
    return _checked(_LIBC.prctl(option, argument, argument3, 0, 0), "prctl")


def drop_bounding_set() -> None:
    """Drop every capability that this kernel knows from the bounding set: PR_CAPBSET_DROP(2const).

    The kernel answers EINVAL to the first number that is none of its capabilities, some forty in; there it ends.

    Raises:
        OSError: the kernel refuses any of them, e.g. EPERM: CAP_SETPCAP is missing.
    """
    drop = _LIBC_AT_ONCE.prctl
    for capability in range(_MOST_CAPABILITIES):
        if drop(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            number = ctypes.get_errno()
            if number == errno.EINVAL and capability:
                return
            raise OSError(number, f"prctl PR_CAPBSET_DROP {capability}: {os.strerror(number)}")


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
    syscall("pivot_root", SYS_PIVOT_ROOT, new_root, put_old)


class _MountAttr(ctypes.Structure):
    # struct mount_attr of include/uapi/linux/mount.h
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_setattr(target: bytes, attributes: int, *, recursive: bool) -> None:
    """Add mount attributes, see mount_setattr(2), Linux 5.12. Never clears one, so locked flags are no obstacle."""
    attr = _MountAttr(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    syscall("mount_setattr", SYS_MOUNT_SETATTR, AT_FDCWD, target, flags, ctypes.byref(attr), ctypes.sizeof(attr))


def collapse(start: int) -> None:
    """Collapse what lies in one huge page, whose first address is given: madvise(2), MADV_COLLAPSE."""
    _checked(_LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(HUGE_PAGE_BYTES), MADV_COLLAPSE), "madvise")


def give_back_free_memory() -> None:
    """Give the kernel back what ``malloc`` holds and nobody uses: malloc_trim(3), which glibc has."""
    if (trim := getattr(_LIBC, "malloc_trim", None)) is not None:
        trim(ctypes.c_size_t(0))


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``, see close_range(2), Linux 5.9."""
    if first <= last:
        syscall("close_range", SYS_CLOSE_RANGE, first, last, 0)


# struct __user_cap_header_struct, _LINUX_CAPABILITY_VERSION_3, then two empty data structs; the kernel only reads them
_CAPSET_HEADER, _NO_CAPABILITIES = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()


def capset_nothing() -> None:
    """Empty the effective, permitted and inheritable sets of the calling thread, see capset(2)."""
    syscall("capset", SYS_CAPSET, ctypes.byref(_CAPSET_HEADER), ctypes.byref(_NO_CAPABILITIES))
