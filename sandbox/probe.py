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

from sandbox import refusals
from sandbox.isolation import landlock, seccomp
from sandbox.policy.policy import Policy
from sandbox.pool.template import START_S
from sandbox.run.cgroup import PROCESSORS, CgroupUnavailableError, Groups, find_subtree

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

    @property
    def limits_processors(self) -> bool:
        """Whether the layer ``cgroup`` can hold ``limits.processors``."""
        return self.cgroup is not None and PROCESSORS in Groups(self.cgroup).controllers

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
    try_s: float = START_S,
) -> Host:
    """Try each layer for real, in a throw-away process (blocking, about 0.1 s).

    Args:
        uid: outer user to try as when the caller is root, as the zygotes will.
        gid: likewise.
        isolation: the profile to use; ``auto`` is the strongest that this host can give.
        landlock_abi_max: use no later Landlock ABI than this, to test what an older kernel would do.
        try_s: how long one try may take, seconds.
    """
    abi = min(landlock.abi_version(), landlock.KNOWN_ABI)
    if landlock_abi_max is not None:
        abi = min(abi, landlock_abi_max)
    cgroup, subtree = _cgroup()
    layers = (_namespaces(uid, gid, try_s), _landlock(abi, try_s), _seccomp(try_s), _rlimits(uid), cgroup)
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
        name="cgroup", available=True, version=f"v2: {', '.join(groups.controllers)}",
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
    "Optional. Delegate a subtree of cgroup v2. systemd: `Delegate=cpu memory pids`, as in "
    ".github/deploy/unityai-worker.service. Docker: .github/deploy/compose.cgroup.yaml. "
    "Kubernetes: .github/deploy/kubernetes-cgroup."
)


_TRY_NAMESPACES = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.isolation import libc, namespaces, prepared, privileges
proc_fd = namespaces.open_proc()
step = "become"
try:
    if os.geteuid() == 0:
        privileges.become(int(sys.argv[2]), int(sys.argv[3]))
    original_uid, original_gid = os.geteuid(), os.getegid()
    step = "unshare"
    libc.unshare(namespaces.ZYGOTE | libc.CLONE_NEWNET)
    step = "uid_map"
    prepared.at_once(namespaces.map_user, proc_fd=proc_fd, uid=original_uid, gid=original_gid, inner_uid=0)
    step = "mount"
    libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0)
except OSError as error:
    print(f"{step}: {error.errno}")
else:
    print("ok")
"""


def _namespaces(uid: int, gid: int, try_s: float) -> Layer:
    """Enter namespaces and mount something: some hosts grant the namespaces without the capabilities in them."""
    step, _, number = _try(_TRY_NAMESPACES, try_s, str(uid), str(gid)).partition(": ")
    if step == "ok":
        return Layer(name="namespaces", available=True, version=_NAMESPACES, detail="unprivileged, with capabilities")
    if not number.isdecimal():
        return Layer(name="namespaces", available=False, version="", detail=f"{step} {number}", fix=refusals.UNKNOWN)
    fix = refusals.namespaces_fix(step, int(number), refusals.read_surroundings())
    detail = f"refused at {step}: {os.strerror(int(number))}"
    return Layer(name="namespaces", available=False, version="", detail=detail, fix=fix)


_TRY_LANDLOCK = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.isolation import landlock, prepared, privileges
prepared.at_once(privileges.forbid_new_privileges)
folder = os.open("/", os.O_PATH)
prepared.at_once(landlock.restrict, int(sys.argv[2]), [(folder, landlock.READ)])
try:
    os.mkdir("/tmp/unityai-landlock-probe")
except OSError:
    print("ok")
else:
    os.rmdir("/tmp/unityai-landlock-probe")
    print("it restricts nothing")
"""
_TRY_SECCOMP = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox.isolation import prepared, privileges, seccomp
program = sys.stdin.buffer.read()
prepared.at_once(privileges.forbid_new_privileges)
try:
    prepared.at_once(seccomp.install, program)
except OSError as error:
    os.write(1, f"install: {error.errno}".encode())
else:
    os.write(1, b"ok")
os._exit(0)
"""


def _try(program: str, try_s: float, *arguments: str, given: bytes = b"") -> str:
    """Run a text of ours in an interpreter of its own, and return its answer, or the last line of its error."""
    here = str(Path(__file__).resolve().parent.parent)
    try:
        tried = subprocess.run(  # noqa: S603 our own interpreter with a text of ours
            [sys.executable, "-I", "-S", "-c", program, here, *arguments],
            env={}, input=given, capture_output=True, timeout=try_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {try_s:g} s"
    answer, error = tried.stdout.decode(errors="replace").strip(), tried.stderr.decode(errors="replace").strip()
    return answer or (error.splitlines() or ["no answer"])[-1]


def _landlock(abi: int, try_s: float) -> Layer:
    """Restrict a process, and have it try what is denied: some kernels name an ABI and refuse its rules."""
    answer = f"the kernel offers ABI {abi}, ABI {landlock.FLOOR_ABI} is needed"
    if abi >= landlock.FLOOR_ABI and (answer := _try(_TRY_LANDLOCK, try_s, str(abi))) == "ok":
        return Layer(name="landlock", available=True, version=f"ABI {abi}", detail=refusals.describe_landlock(abi))
    return Layer(
        name="landlock", available=False, version=f"ABI {abi}" if abi else "", detail=answer,
        fix="Use Linux 5.14 or later, built with CONFIG_SECURITY_LANDLOCK and `landlock` in the `lsm=` boot list.",
    )  # fmt: skip


def _seccomp(try_s: float) -> Layer:
    """Compile the filter, and install it in a process that does nothing else."""
    try:
        program = seccomp.compile_filter(extra=("write", "exit_group"))
        version = f"libseccomp {seccomp.library_version()}"
    except (ImportError, RuntimeError, OSError) as error:
        return Layer(
            name="seccomp", available=False, version="", detail=str(error),
            fix="Install libseccomp 2.5 or later (package libseccomp2 on Debian and Ubuntu).",
        )  # fmt: skip
    step, _, number = _try(_TRY_SECCOMP, try_s, given=program).partition(": ")
    if step == "ok":
        return Layer(name="seccomp", available=True, version=version, detail="default deny, denials reported by name")
    if not number.isdecimal():
        return Layer(name="seccomp", available=False, version=version, detail=f"{step} {number}", fix=refusals.UNKNOWN)
    detail, fix = f"refused at {step}: {os.strerror(int(number))}", refusals.seccomp_fix(int(number))
    return Layer(name="seccomp", available=False, version=version, detail=detail, fix=fix)


def _rlimits(uid: int) -> Layer:
    """rlimits are always there, but RLIMIT_NPROC does not bind an outer uid of 0: setrlimit(2)."""
    if os.geteuid() == 0 and uid == 0:
        return Layer(
            name="rlimits", available=False, version="", detail="RLIMIT_NPROC does not bind root",
            fix="Set SANDBOX_UID to an unprivileged user id.",
        )  # fmt: skip
    return Layer(name="rlimits", available=True, version="cpu, data, as, nproc, nofile, fsize", detail="getrlimit(2)")
