"""Tells apart why a host refuses a layer, by the kernel's own words, and names the fix that works.

Sources: user_namespaces(7), namespaces(7) on /proc/sys/user, unshare(2), proc_pid_status(5) on Seccomp,
seccomp(2) on EBUSY, proc_pid_attr(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sandbox.isolation import landlock

_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts")
_SETTINGS = (
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_userns_clone",
    *(f"user/max_{kind}_namespaces" for kind in _KINDS),
)
BY_A_FILTER = (
    "A system call filter is in force here (`Seccomp: 2` in /proc/self/status). In a container, its seccomp profile or "
    "its runtime refuses `unshare` or `mount`: start it with a profile that allows them."
)
NO_CAPABILITIES = (
    "Root here has not the capabilities to become another user, as in a container that drops them all: start it as an "
    "ordinary user, which needs none (`--user 1000`, `runAsUser: 1000`), or leave CAP_SETUID, CAP_SETGID and CAP_CHOWN."
)
UNKNOWN = (
    "The reason is not known. It is none of those that can be told apart here: a sysctl, a security module, a chroot "
    "or a system call filter. The kernel's log may say more."
)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of this process and host that a refusal can come from."""

    settings: Mapping[str, str]
    """Path below /proc/sys → value; without those that there are not."""
    label: str
    """Of this process, by a security module; empty when there is none."""
    is_filtered: bool
    """Whether a system call filter is in force."""
    is_in_chroot: bool


def read_surroundings() -> Surroundings:
    """The facts as they are now."""
    settings = {name: value for name in _SETTINGS if (value := _read(f"/proc/sys/{name}"))}
    return Surroundings(
        settings=settings,
        label=_read("/proc/self/attr/current").rstrip("\0"),
        is_filtered="\nSeccomp:\t2" in _read("/proc/self/status"),
        is_in_chroot=_is_in_chroot(),
    )


def _is_in_chroot() -> bool:
    """Whether the root is the root of no mount, or is another than that of pid 1 in the same mount namespace."""
    points = [line.split()[4] for line in _read("/proc/self/mountinfo").splitlines()]
    if points and "/" not in points:
        return True
    with contextlib.suppress(OSError):
        if os.readlink("/proc/1/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            return not os.path.samefile("/proc/1/root", "/")
    return False


def namespaces_fix(step: str, number: int, around: Surroundings) -> str:
    """The fix where namespaces are refused.

    Args:
        step: ``become`` (give up root), ``unshare``, ``uid_map`` or ``mount``.
        number: the error's, errno(3).
        around: what is known of process and host.
    """
    if step == "become":
        return NO_CAPABILITIES
    if around.settings.get("kernel/apparmor_restrict_unprivileged_userns") == "1" and step != "unshare":
        return (
            "AppArmor takes the capabilities away (Ubuntu 23.10 and later): set "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give the interpreter an AppArmor profile "
            "with the `userns` permission."
        )
    if number == errno.EACCES:
        return _by_a_module(step, around.label)
    if number in (errno.ENOSPC, errno.EUSERS):
        return _by_a_count(number, around.settings)
    if number in (errno.EINVAL, errno.ENOSYS):
        return "Use a kernel that is built with CONFIG_USER_NS, and with PID_NS, NET_NS, IPC_NS and UTS_NS."
    return _by_a_lack_of_permission(step, around)


def seccomp_fix(number: int) -> str:
    """The fix where the filter cannot be installed."""
    if number == errno.EBUSY:
        return (
            "A process above this one already listens to a system call filter (SECCOMP_FILTER_FLAG_NEW_LISTENER: LXD "
            "or Incus interception, an agent), and the kernel allows one listener. Start it without that."
        )
    return "Use Linux 5.14 or later, built with CONFIG_SECCOMP_FILTER, and no filter that refuses `seccomp`."


def _by_a_lack_of_permission(step: str, around: Surroundings) -> str:
    if around.settings.get("kernel/unprivileged_userns_clone") == "0":
        return "Set `sysctl kernel.unprivileged_userns_clone=1`."
    if around.is_in_chroot and step == "unshare":
        return (
            "This process is in a chroot, from which the kernel makes no user namespace: start it outside, in a "
            "container, or by pivot_root(8) instead of chroot."
        )
    return BY_A_FILTER if around.is_filtered else UNKNOWN


def describe_landlock(abi: int) -> str:
    """What Landlock mediates under an ABI, and what else closes the rest."""
    known = {
        landlock.REFER_ABI: "renames between folders",
        landlock.TRUNCATE_ABI: "truncation",
        landlock.NET_ABI: "tcp",
        landlock.SCOPE_ABI: "signals, abstract sockets",
    }
    held = ["files", *(what for since, what in known.items() if since <= abi and since != landlock.REFER_ABI)]
    open_ = [what for since, what in known.items() if since > abi and since != landlock.REFER_ABI]
    found = ", ".join(held)
    if open_:
        found += f"; not {', '.join(open_)}: namespaces, read-only mounts and seccomp close these"
    if abi < landlock.REFER_ABI:
        found += "; scripts cannot rename between folders (EXDEV)"
    return found


def _by_a_module(step: str, label: str) -> str:
    under = f"this process runs under `{label}`" if label else "it names no label"
    more = ", with `flags=(attach_disconnected)`" if step == "uid_map" else ""
    return (
        f"A security module (AppArmor, SELinux) refuses it; {under}. Allow user namespaces, mount, umount and "
        f"pivot_root there (`userns, mount, umount, pivot_root,` in an AppArmor profile{more})."
    )


def _by_a_count(number: int, settings: Mapping[str, str]) -> str:
    if number == errno.EUSERS:
        return "User namespaces are nested too deep here (32 levels): start it further outside."
    none = [name.replace("/", ".") for name, value in settings.items() if name.startswith("user/") and value == "0"]
    if none:
        return f"Set `sysctl {' '.join(f'{name}=10000' for name in none)}`."
    return "All namespaces that `user.max_*_namespaces` allows are in use: raise these sysctls."


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\n")
    except OSError:
        return ""
