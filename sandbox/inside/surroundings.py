"""What the standard library asks its surroundings for, answered from what is known, where the sandbox has it not.

``platform``, ``uuid`` and ``ctypes.util`` start programs (uname, file, ldconfig) or ask a daemon, and take the answer
that there is none; each attempt would be a denied call that no script has made. Without a root of our own there is no
/etc/passwd either, from which ``pwd`` and ``grp`` could tell the run's user.
"""

from __future__ import annotations

import ctypes.util
import functools
import glob
import grp
import os
import platform
import pwd
import uuid
from collections.abc import Sequence
from typing import Any

USER = "sandbox"


def settle(places: Sequence[str], *, own_users: bool) -> None:
    """Answer for programs and daemons that are not there.

    Args:
        places: files and folders that a run may read.
        own_users: whether /etc/passwd is our own. Otherwise ``pwd`` and ``grp`` answer for the run's user themselves.
    """
    # what `uname -p` and `file` say where they are missing
    vars(platform.uname()).setdefault("processor", "")
    _replace(platform, "_syscmd_file", lambda target, default="": default)  # noqa: ARG005 as it is called
    _replace(uuid, "_generate_time_safe", None)  # uuidd's; without it uuid1 counts by itself
    _replace(ctypes.util, "find_library", functools.partial(_find_library, tuple(places)))
    if not own_users:
        _name_the_user()


def _replace(module: Any, name: str, value: object) -> None:
    """Only what is there: a later Python may have none of it, and then asks for nothing."""
    if hasattr(module, name):
        setattr(module, name, value)


def _find_library(folders: Sequence[str], name: str) -> str | None:
    """As ``ctypes.util.find_library``: the name under which a shared library is loaded, of those that are there."""
    found = [path for folder in folders for path in glob.glob(f"{folder}/lib{glob.escape(name)}.so.*")]
    return min((os.path.basename(path) for path in found), key=len, default=None)


def _name_the_user() -> None:
    """Let ``pwd`` and ``grp`` know the run's own user and group by a name, before they look into the host's files."""
    uid, gid = os.geteuid(), os.getegid()
    real_user, real_user_by_name, real_group, real_group_by_name = (
        pwd.getpwuid, pwd.getpwnam, grp.getgrgid, grp.getgrnam
    )  # fmt: skip

    def user() -> pwd.struct_passwd:
        return pwd.struct_passwd((USER, "x", uid, gid, USER, os.environ.get("HOME", "/"), "/usr/sbin/nologin"))

    def group() -> grp.struct_group:
        return grp.struct_group((USER, "x", gid, []))

    _replace(pwd, "getpwuid", lambda number: user() if number == uid else real_user(number))
    _replace(pwd, "getpwnam", lambda name: user() if name == USER else real_user_by_name(name))
    _replace(grp, "getgrgid", lambda number: group() if number == gid else real_group(number))
    _replace(grp, "getgrnam", lambda name: group() if name == USER else real_group_by_name(name))
