"""Gives up every privilege: capabilities and ways to gain them, being traced by a sibling, core dumps.

Sources: capabilities(7), PR_SET_NO_NEW_PRIVS(2const), PR_SET_DUMPABLE(2const), PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import contextlib
import os
import signal

from sandbox.isolation import libc


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


def drop_capabilities() -> None:
    """Empty the bounding, ambient, effective, permitted and inheritable sets."""
    # who has no capability at all may not drop one either; nothing can then bring one back (forbid_new_privileges)
    with contextlib.suppress(PermissionError):
        libc.drop_bounding_set()
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset_nothing()


def forbid_new_privileges() -> None:
    """Forbid that an exec gains a privilege; seccomp and Landlock require this of an unprivileged process."""
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)


def hide_from_inspection() -> None:
    """Forbid core dumps, also to a core_pattern pipe, and ptrace by processes of the same user."""
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
