"""Finds out which isolation layers the host offers, their versions, and the fix where one is missing."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec

from sandbox.isolation import landlock, seccomp
from sandbox.policy.policy import Policy
from sandbox.run.cgroup import CONTROLLERS, CgroupUnavailableError, Groups, find_subtree

_PROBE_UID = 60999
_NAMESPACES = "user, mount, pid, net, ipc, uts"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One isolation layer as it was found on this host."""

    name: str
    available: bool
    version: str
    detail: str
    fix: str = ""
    """The fix, where the layer is missing."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of ``probe_host``."""

    profile: str
    kernel: str
    landlock_abi: int
    layers: tuple[Layer, ...]
    cgroup: Path | None = None
    """The delegated subtree in which each child gets a cgroup of its own, ``None`` where there is none."""

    def missing(self, policy: Policy) -> tuple[Layer, ...]:
        """The layers that ``policy`` requires and this host lacks.

        With the ``unprivileged`` profile the operator has decided to do without namespaces, whatever a policy says.
        """
        required = [name for name in policy.require if self.profile == "full" or name != "namespaces"]
        return tuple(layer for layer in self.layers if layer.name in required and not layer.available)


def probe_host(
    uid: int = _PROBE_UID,
    gid: int = _PROBE_UID,
    *,
    isolation: Literal["full", "unprivileged", "auto"] = "full",
    landlock_abi_max: int | None = None,
) -> Host:
    """Try each layer for real, in a throw-away process (blocking, about 0.1 s).

    Args:
        uid: outer user to try as when the caller is root, as the zygotes will.
        gid: likewise.
        isolation: the profile to use; ``auto`` is the strongest that this host can give.
        landlock_abi_max: use no later Landlock ABI than this, to test what an older kernel would do.
    """
    abi = landlock.abi_version()
    if landlock_abi_max is not None:
        abi = min(abi, landlock_abi_max)
    cgroup, subtree = _cgroup()
    layers = (_namespaces(uid, gid), _landlock(abi), _seccomp(), _rlimits(uid), cgroup)
    profile = isolation
    if profile == "auto":
        profile = "full" if layers[0].available else "unprivileged"
    return Host(profile=profile, kernel=platform.release(), landlock_abi=abi, layers=layers, cgroup=subtree)


_GROUP_BYTES = 64 << 20


def _cgroup() -> tuple[Layer, Path | None]:
    """Make a group in the delegated subtree, with limits, and have a process enter it and be killed by it."""
    try:
        subtree = find_subtree()
        groups = Groups(subtree)
        groups.take_over()
        groups.sweep()
        _try_group(groups)
    except (CgroupUnavailableError, OSError) as error:
        return Layer(name="cgroup", available=False, version="", detail=str(error), fix=_CGROUP_FIX), None
    layer = Layer(
        name="cgroup", available=True, version=f"v2: {', '.join(CONTROLLERS)}",
        detail="memory of every sort, swap, tasks; the whole group ends at once",
    )  # fmt: skip
    return layer, subtree


def _try_group(groups: Groups) -> None:
    """Have a process enter a new group, and be killed with it."""
    group = groups.make(memory_bytes=_GROUP_BYTES, tasks=8)
    tried = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], env={}, stdin=subprocess.PIPE)
    try:
        group.add(tried.pid)
        group.kill()
        if tried.wait(10) != -signal.SIGKILL:
            raise CgroupUnavailableError("cgroup.kill has no effect")
    except subprocess.TimeoutExpired:
        raise CgroupUnavailableError("cgroup.kill is missing (Linux 5.14)") from None
    finally:
        tried.kill()
        tried.communicate()
        group.close()


_CGROUP_FIX = (
    "Optional. Delegate a subtree of cgroup v2: `Delegate=yes` in the systemd unit, or a container with a writable "
    "cgroup (.github/deploy/README.md)."
)


_TRY_NAMESPACES = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.isolation import libc, namespaces, privileges
proc_fd = namespaces.open_proc()
if os.geteuid() == 0:
    privileges.become(int(sys.argv[2]), int(sys.argv[3]))
original_uid, original_gid = os.geteuid(), os.getegid()
step = "unshare"
try:
    libc.unshare(namespaces.ZYGOTE | libc.CLONE_NEWNET)
    step = "uid_map"
    namespaces._write(proc_fd, "self/setgroups", "deny")
    namespaces._write(proc_fd, "self/gid_map", f"0 {original_gid} 1")
    namespaces._write(proc_fd, "self/uid_map", f"0 {original_uid} 1")
    step = "mount"
    libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0)
except OSError as error:
    print(f"{step}: {os.strerror(error.errno)}")
else:
    print("ok")
"""


def _namespaces(uid: int, gid: int) -> Layer:
    """Enter namespaces and mount something: some hosts grant the namespaces without the capabilities in them."""
    here = str(Path(__file__).resolve().parent.parent)
    tried = subprocess.run(  # noqa: S603 our own interpreter with a text of ours
        [sys.executable, "-I", "-S", "-c", _TRY_NAMESPACES, here, str(uid), str(gid)],
        env={}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    answer = tried.stdout.strip() or (tried.stderr.strip().splitlines() or ["no answer"])[-1]
    if answer == "ok":
        return Layer(name="namespaces", available=True, version=_NAMESPACES, detail="unprivileged, with capabilities")
    return Layer(name="namespaces", available=False, version="", detail=f"refused at {answer}", fix=_namespaces_fix())


def _namespaces_fix() -> str:
    def setting(name: str) -> str:
        try:
            return Path("/proc/sys", name).read_text(encoding="ascii").strip()
        except OSError:
            return ""

    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor takes the capabilities away (Ubuntu 23.10 and later): set "
            "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give the interpreter an AppArmor profile "
            "with the `userns` permission."
        )
    if setting("kernel/unprivileged_userns_clone") == "0":
        return "Set `sysctl kernel.unprivileged_userns_clone=1`."
    if setting("user/max_user_namespaces") == "0":
        return "Set `sysctl user.max_user_namespaces` to 10000 or more."
    return (
        "In a container, its seccomp profile or its runtime refuses `unshare` or `mount`: start it with a profile that "
        "allows them."
    )


def _landlock(abi: int) -> Layer:
    if abi >= landlock.FLOOR_ABI:
        return Layer(name="landlock", available=True, version=f"ABI {abi}", detail="files, tcp, signals, sockets")
    return Layer(
        name="landlock", available=False, version=f"ABI {abi}" if abi else "",
        detail=f"the kernel offers ABI {abi}, ABI {landlock.FLOOR_ABI} is needed",
        fix="Use Linux 5.13 or later, built with CONFIG_SECURITY_LANDLOCK and `landlock` in the `lsm=` boot list.",
    )  # fmt: skip


def _seccomp() -> Layer:
    try:
        seccomp.compile_filter()
        version = f"libseccomp {seccomp.library_version()}"
    except (ImportError, RuntimeError, OSError) as error:
        return Layer(
            name="seccomp", available=False, version="", detail=str(error),
            fix="Install libseccomp 2.5 or later (package libseccomp2 on Debian and Ubuntu).",
        )  # fmt: skip
    return Layer(name="seccomp", available=True, version=version, detail="default deny, denials reported by name")


def _rlimits(uid: int) -> Layer:
    """rlimits are always there, but RLIMIT_NPROC does not bind an outer uid of 0: setrlimit(2)."""
    if os.geteuid() == 0 and uid == 0:
        return Layer(
            name="rlimits", available=False, version="", detail="RLIMIT_NPROC does not bind root",
            fix="Set SANDBOX_UID to an unprivileged user id.",
        )  # fmt: skip
    return Layer(name="rlimits", available=True, version="cpu, data, as, nproc, nofile, fsize", detail="getrlimit(2)")
