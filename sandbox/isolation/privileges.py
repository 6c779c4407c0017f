"""Gives up every privilege: capabilities and ways to gain them, being traced by a sibling, core dumps.

Sources: capabilities(7), PR_SET_NO_NEW_PRIVS(2const), PR_SET_DUMPABLE(2const), PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from sandbox.isolation import libc
from sandbox.isolation.prepared import Calls


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent thread dies."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)


def become(uid: int, gid: int) -> None:
    """Give up root for good. The process stays dumpable, or it could not write its own uid_map: proc(5).

    Raises:
        PermissionError: root has not the capabilities for that, as in a container that drops all.
    """
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except PermissionError as error:
        raise PermissionError(
            error.errno, f"root without CAP_SETUID and CAP_SETGID cannot become {uid}:{gid}"
        ) from None
    libc.prctl(libc.PR_SET_DUMPABLE, 1)
    die_with_parent()


def drop_capabilities(calls: Calls) -> None:
    """Empty the bounding, ambient, effective, permitted and inheritable sets."""
    drop_bounding_set(calls)
    calls.call("prctl PR_CAP_AMBIENT", "prctl", libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    # struct __user_cap_header_struct, _LINUX_CAPABILITY_VERSION_3, then two data structs that are empty: capset(2)
    calls.call("capset", "capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def drop_bounding_set(calls: Calls) -> None:
    """Empty the bounding set."""
    for capability in libc.capabilities():
        # who has no capability at all may not drop one either; nothing can then bring one back (forbid_new_privileges)
        calls.call(
            f"prctl PR_CAPBSET_DROP {capability}", "prctl", libc.PR_CAPBSET_DROP, capability, forgiven=errno.EPERM
        )


def forbid_new_privileges(calls: Calls) -> None:
    """Forbid that an exec gains a privilege; seccomp and Landlock require this of an unprivileged process."""
    calls.call("prctl PR_SET_NO_NEW_PRIVS", "prctl", libc.PR_SET_NO_NEW_PRIVS, 1)


def hide_from_inspection(calls: Calls) -> None:
    """Forbid core dumps, also to a core_pattern pipe, and ptrace by processes of the same user."""
    calls.call("prctl PR_SET_DUMPABLE", "prctl", libc.PR_SET_DUMPABLE, 0)
