"""Policy files: what a run may do. One complete TOML file per task type, read strictly.

A file says everything; nothing is inherited and nothing has a default, so that an auditor sees a whole
grant on one page. Any unknown key, missing key, value out of range or contradiction is a ``PolicyError``
that names the file, the key and the reason.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandbox.errors import PolicyError

LAYERS = ("namespaces", "landlock", "seccomp", "rlimits")
PLACES = ("python", "scripts")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every limit is hard. policies/README.md says what a script sees when it meets one."""

    wall_s: Annotated[float, Meta(gt=0, le=86400)]
    cpu_s: Annotated[float, Meta(gt=0, le=86400)]
    memory_mib: Annotated[int, Meta(ge=64, le=1 << 20)]
    processes: Annotated[int, Meta(ge=0, le=1024)]
    """Beyond the child itself. More than 0 needs ``syscalls.profile = "processes"``."""
    threads: Annotated[int, Meta(ge=1, le=4096)]
    open_files: Annotated[int, Meta(ge=16, le=65536)]
    output_kib: Annotated[int, Meta(ge=1, le=1 << 20)]
    result_kib: Annotated[int, Meta(ge=1, le=1 << 20)]
    workspace_mib: Annotated[int, Meta(ge=1, le=1 << 16)]
    workspace_files: Annotated[int, Meta(ge=16, le=1 << 24)]
    artifacts_mib: Annotated[int, Meta(ge=0, le=1 << 16)]

    def narrowed(self, *, timeout_s: float | None = None, memory_mib: int | None = None) -> Limits:
        """The same limits, lowered where the argument is lower. Never raises a limit.

        Args:
            timeout_s: wall time asked for, seconds.
            memory_mib: memory asked for, MiB.
        """
        return msgspec.structs.replace(
            self,
            wall_s=min(self.wall_s, timeout_s) if timeout_s is not None else self.wall_s,
            memory_mib=min(self.memory_mib, memory_mib) if memory_mib is not None else self.memory_mib,
        )


class Filesystem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which known places a run may read. Never a path from a request."""

    read: tuple[Literal["python", "scripts"], ...]
    inputs: Literal["none", "read-only"]


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which hosts a run may reach. An empty list is no network at all."""

    allow: tuple[str, ...]
    deny_private: bool


class Syscalls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which system calls a run may make."""

    profile: Literal["threads", "processes"]
    allow: tuple[str, ...]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run may do. ``name`` and ``digest`` come from the file, not from its text."""

    description: Annotated[str, Meta(min_length=1)]
    task_type: Annotated[str, Meta(pattern="^[a-z][a-z_]*$")]
    start: Literal["warm", "cold"]
    preload: tuple[str, ...]
    require: tuple[Literal["namespaces", "landlock", "seccomp", "rlimits"], ...]
    limits: Limits
    filesystem: Filesystem
    network: Network
    syscalls: Syscalls
    name: str = ""
    digest: str = ""


def load_policy(path: Path) -> Policy:
    """Read one policy file.

    Raises:
        PolicyError: the file cannot be read, or is not a whole and consistent policy.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        raw = msgspec.toml.decode(text)
        if "name" in raw or "digest" in raw:
            raise PolicyError(f"{path}: name, digest: come from the file itself, remove them")
        policy = msgspec.convert(raw, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{path}: {error}") from error
    except msgspec.DecodeError as error:
        raise PolicyError(f"{path}: not TOML: {error}") from error
    for fault in _contradictions(policy):
        raise PolicyError(f"{path}: {fault}")
    digest = "sha256:" + hashlib.sha256(text).hexdigest()
    return msgspec.structs.replace(policy, name=path.stem, digest=digest)


def load_policies(folder: Path) -> dict[str, Policy]:
    """Read every ``*.toml`` file of a folder: policy name → policy.

    Raises:
        PolicyError: no file there, or a file that cannot be.
    """
    policies = {path.stem: load_policy(path) for path in sorted(folder.glob("*.toml"))}
    if not policies:
        raise PolicyError(f"{folder}: no policy file (*.toml) there; set POLICIES_DIR to the folder that has them")
    return policies


_NEVER = frozenset({
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl",
    "add_key", "request_key", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "mount",
    "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "unshare", "setns", "clone3", "init_module", "finit_module", "delete_module", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "settimeofday", "clock_settime", "adjtimex", "seccomp",
    "landlock_restrict_self", "socket", "name_to_handle_at", "open_by_handle_at",
})  # fmt: skip
"""Calls that no policy file can open: each would undo a layer or reach past all of them."""


def _call_faults(names: tuple[str, ...]) -> list[tuple[str, str]]:
    never = [(name, "no policy may open this call") for name in names if name in _NEVER]
    return never + [(name, "not a system call's name") for name in names if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]


def _contradictions(policy: Policy) -> list[str]:
    limits, faults = policy.limits, []
    if limits.cpu_s > limits.wall_s * 64:
        faults.append("limits.cpu_s: more than 64 cores could use within limits.wall_s")
    if limits.artifacts_mib > limits.workspace_mib:
        faults.append("limits.artifacts_mib: more than limits.workspace_mib can hold")
    if "python" not in policy.filesystem.read:
        faults.append('filesystem.read: must name "python", or no interpreter is there to run')
    if not policy.require:
        faults.append("require: empty; a policy that requires no layer isolates nothing")
    if policy.network.allow:
        faults.append("network.allow: egress is not built yet; only an empty list is accepted")
    if (policy.syscalls.profile == "processes") != (limits.processes > 0):
        faults.append('syscalls.profile: "processes" and limits.processes > 0 go together, or neither')
    faults += [f"syscalls.allow: {name}: {fault}" for name, fault in _call_faults(policy.syscalls.allow)]
    odd = [name for name in policy.preload if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name)]
    return faults + [f"preload: {name!r} is not a module name" for name in odd]
