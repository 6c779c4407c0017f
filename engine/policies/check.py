"""Find the faults of a folder's policy files, and the grants that are valid but loose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from engine.policies.lock import FILE_NAME, check_lock
from engine.policies.policies import Policies
from sandbox import LAYERS, Policy, PolicyError, PolicyFault, PolicyFile, is_wide, policy_paths, read_policy
from sandbox import Network as PolicyNetwork

_MIB = 1 << 20
_LONG_WALL_S = 3600.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that ``policies check`` says."""

    level: Literal["error", "warning"]
    policy: str
    message: str

    def __str__(self) -> str:
        # an error's message begins with its file
        place = f"{self.policy}: " if self.policy and self.level == "warning" else ""
        return f"{self.level}: {place}{self.message}"


def check_folder(folder: Path, exceptions: tuple[object, ...] = (), *, locked: bool = False) -> list[Finding]:
    """Everything that is to be said of the policy files of a folder, errors first.

    Args:
        folder: of the files.
        exceptions: what ``EGRESS_ALLOW_PRIVATE`` opens, as the settings have it.
        locked: whether ``POLICY_LOCK`` requires the lock, so that what differs from it is an error.
    """
    paths = policy_paths(folder)
    if not paths:
        return [Finding(level="error", policy="", message=f"{folder}: no policy file (*.toml) there")]
    errors: list[Finding] = []
    others: list[Finding] = []
    policies: dict[str, Policy] = {}
    for path in paths:
        try:
            file = read_policy(path, exceptions=exceptions)  # type: ignore[arg-type]  # the sandbox's own type
        except PolicyError as error:
            errors += [_error(path, fault) for fault in error.faults]
        else:
            policies[path.stem] = file.policy
            others += [Finding(level="warning", policy=path.stem, message=message) for message in loose(file)]
            others += _exceptions_in_force(file.policy, exceptions)
    errors += [] if errors else _together(policies)
    found = errors + others + _differences(folder, policies, level="error" if locked else "warning")
    return sorted(found, key=lambda finding: finding.level)


def _together(policies: dict[str, Policy]) -> list[Finding]:
    """Find the faults between files of which each is valid by itself."""
    try:
        Policies(policies)
    except PolicyError as error:
        return [Finding(level="error", policy="", message=error.message)]
    return []


def _differences(folder: Path, policies: dict[str, Policy], *, level: Literal["error", "warning"]) -> list[Finding]:
    """Find the differences from the folder's lock; none if there is no lock and none is required."""
    if level == "warning" and not (folder / FILE_NAME).exists():
        return []
    try:
        check_lock(folder, policies.values())
    except PolicyError as error:
        return [Finding(level=level, policy="", message=error.message)]
    return []


def loose(file: PolicyFile) -> list[str]:
    """Name the grants of a policy that deserve a second look, a sentence each."""
    policy = file.policy
    return [
        *_loose_limits(policy),
        *_loose_network(policy.network),
        *_loose_calls(file),
        *[f"require: without {layer}, a host that lacks it runs tasks all the same" for layer in _not_required(policy)],
    ]


def _loose_limits(policy: Policy) -> list[str]:
    limits, found = policy.limits, []
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    if limits.memory_mib > memory_mib:
        found.append(f"limits.memory_mib: {limits.memory_mib} is more than this host has ({memory_mib})")
    if limits.workspace_mib > limits.memory_mib:
        found.append("limits.workspace_mib: more than limits.memory_mib, which it counts towards and is met before")
    if limits.processes:
        found.append(f"limits.processes: {limits.processes} further processes, each with memory that is added up late")
    if limits.wall_s > _LONG_WALL_S:
        found.append(f"limits.wall_s: {limits.wall_s:g} s is a long time for a run to hold a slot")
    if limits.cpu_s > limits.wall_s * (os.cpu_count() or 1):
        found.append("limits.cpu_s: more than this host's cores can use within limits.wall_s, so it limits nothing")
    return found


def _loose_network(network: PolicyNetwork) -> list[str]:
    wide = [f"network.allow: {entry} is wide: it reaches hosts of anybody" for entry in network.allow if is_wide(entry)]
    private = [] if network.deny_private else ["network.deny_private: false, so that private networks can be reached"]
    return wide + private


def _loose_calls(file: PolicyFile) -> list[str]:
    extra = file.policy.syscalls.allow
    found = [f"syscalls.allow: {call} is open beyond the profile" for call in extra]
    return found + [
        f"syscalls.allow: {call} stands without a comment that says why"
        for call in extra
        if not file.comment("syscalls.allow", call)
    ]


def _not_required(policy: Policy) -> list[str]:
    return [layer for layer in LAYERS if layer not in policy.require]


def _exceptions_in_force(policy: Policy, exceptions: tuple[object, ...]) -> list[Finding]:
    if not exceptions or not policy.network.allow:
        return []
    named = ", ".join(map(str, exceptions))
    message = f"network: EGRESS_ALLOW_PRIVATE opens {named} to the hosts that it names"
    return [Finding(level="warning", policy=policy.name, message=message)]


def _error(path: Path, fault: PolicyFault) -> Finding:
    return Finding(level="error", policy=path.stem, message=str(fault))
