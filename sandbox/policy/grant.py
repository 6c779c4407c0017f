"""The system calls that a policy grants, by group, each group with its reason: for the auditor.

Made from the very tables that the filter is compiled from; a test runs the compiled filter against this list.
"""

from __future__ import annotations

import msgspec

from sandbox.isolation.syscalls import (
    ALLOWED,
    ANSWERED,
    NOT_BESIDE_OTHERS,
    PARTLY,
    PARTLY_NETWORK,
    PROCESSES,
    TO_ONESELF,
)
from sandbox.policy.policy import Policy


class CallGroup(msgspec.Struct, frozen=True, kw_only=True):
    """System calls that are open for one reason, whatever their arguments."""

    reason: str
    calls: tuple[str, ...]


class GrantedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """Every system call that a run may make in the ``full`` isolation profile; all others are denied."""

    groups: tuple[CallGroup, ...]
    extra: tuple[str, ...]
    """Named by the policy file itself, and not among ``groups``."""
    partly: dict[str, str]
    """Call → the arguments for which it is open."""
    answered: dict[str, str]
    """Call → how it is answered instead of being carried out."""
    unprivileged_less: tuple[str, ...]
    """Those of ``groups`` and ``partly`` that the ``unprivileged`` profile takes away."""

    @property
    def count(self) -> int:
        """How many calls are open, wholly or partly."""
        return sum(len(group.calls) for group in self.groups) + len(self.extra) + len(self.partly)


def granted_calls(policy: Policy) -> GrantedCalls:
    """The system calls that a policy's filter allows."""
    table = ALLOWED | (PROCESSES if policy.syscalls.profile == "processes" else {})
    partly = PARTLY | (PARTLY_NETWORK if policy.network.allow else {})
    groups = [
        CallGroup(reason=reason, calls=tuple(call for call in calls.split() if call not in partly))
        for reason, calls in table.items()
    ]
    whole = {call for group in groups for call in group.calls}
    return GrantedCalls(
        groups=tuple(groups),
        extra=tuple(call for call in policy.syscalls.allow if call not in whole),
        partly=partly,
        answered=ANSWERED,
        unprivileged_less=(*(call for call in NOT_BESIDE_OTHERS.split() if call in whole), *TO_ONESELF.split()),
    )
