"""User, mount, pid, network, ipc and uts namespaces: what a run can see and name.

Sources: namespaces(7), user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os

from sandbox.isolation import libc
from sandbox.isolation.prepared import WHATEVER, Calls

ZYGOTE = libc.CLONE_NEWUSER | libc.CLONE_NEWNS | libc.CLONE_NEWPID | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
CHILD = libc.CLONE_NEWUSER | libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
CHILD_WITH_NETWORK = CHILD & ~libc.CLONE_NEWNET
"""Of a child that its zygote has forked into a network namespace which nobody else is in."""
INNER_UID = 1000
HOSTNAME = b"sandbox"


def hide_hostname() -> None:
    """Give the caller's own uts namespace a fixed name, instead of the host's or the container's.

    Podman's default profile refuses sethostname(2) without CAP_SYS_ADMIN outside. The container's name then stays,
    which is a generated one.
    """
    with contextlib.suppress(PermissionError):
        libc.sethostname(HOSTNAME)


def open_proc() -> int:
    """Open /proc. The descriptor outlives the change of root, after which no path leads there."""
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY)


def enter(calls: Calls, flags: int, *, proc_fd: int, inner_uid: int) -> None:
    """Enter new namespaces and map the caller's own user and group, alone, to ``inner_uid``.

    The host may refuse; see ``sandbox.probe`` for the usual reasons.
    """
    uid, gid = os.geteuid(), os.getegid()
    calls.call("unshare", "unshare", flags)
    map_user(calls, proc_fd=proc_fd, uid=uid, gid=gid, inner_uid=inner_uid)


def map_user(calls: Calls, *, proc_fd: int, uid: int, gid: int, inner_uid: int) -> None:
    """Map a user and a group that the caller had outside its new user namespace, alone, to ``inner_uid``."""
    # setgroups must be given up before gid_map may be written without privilege: user_namespaces(7)
    calls.write_file(proc_fd, "self/setgroups", "deny")
    calls.write_file(proc_fd, "self/gid_map", f"{inner_uid} {gid} 1")
    calls.write_file(proc_fd, "self/uid_map", f"{inner_uid} {uid} 1")


def forbid_further(calls: Calls, proc_fd: int) -> None:
    """Forbid to make a user namespace in the caller's, see namespaces(7) on /proc/sys/user, and so to make any.

    Every other kind takes CAP_SYS_ADMIN, which a child gives up, and has again only in a user namespace that it makes
    first: user_namespaces(7). The second layer behind the system call filter. It is left out where /proc/sys is
    read-only, as in most containers.
    """
    calls.write_file(proc_fd, "sys/user/max_user_namespaces", "0", forgiven=WHATEVER)
