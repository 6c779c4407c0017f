"""No capabilities, no way to gain any, no ptrace by a sibling, no core dump.

Sources: capabilities(7), PR_SET_NO_NEW_PRIVS(2const), PR_SET_DUMPABLE(2const), PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import os
import signal

from sandbox.isolation import libc

_LAST_CAPABILITY = 63
"""cap_valid() ends at 40 (CAP_CHECKPOINT_RESTORE) in Linux 6.18; later ones are tried until the kernel says EINVAL."""


def die_with_parent() -> None:
    """Be killed when the parent thread dies."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)


def become(uid: int, gid: int) -> None:
    """Leave root for good. The process stays its own to inspect, or it could not write its own uid_map."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc.prctl(libc.PR_SET_DUMPABLE, 1)
    die_with_parent()


def drop_capabilities() -> None:
    """Empty the bounding, ambient, effective, permitted and inheritable sets."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            libc.prctl(libc.PR_CAPBSET_DROP, capability)
        except OSError:
            break
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset_nothing()


def forbid_new_privileges() -> None:
    """No exec gains a privilege, and seccomp and Landlock may be used without one."""
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)


def hide_from_inspection() -> None:
    """No core dump, not even to a core_pattern pipe, and no ptrace by an equal user."""
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
