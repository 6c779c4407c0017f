"""Says in words what a run was refused: what it tried, which policy denies it by which key, which would grant it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sandbox import ExitReason, Policy, Result

_ENDED_BY_ITSELF = (ExitReason.ERROR, ExitReason.NONZERO_EXIT, ExitReason.NO_RESULT, ExitReason.SIGNALED)
"""Only such an end can come of a refusal; what was killed at a limit has its own reason."""
_PROCESSES = frozenset({"clone", "fork", "vfork", "execve", "execveat"})
_SOCKETS = frozenset({"socket", "connect", "bind", "listen", "accept", "accept4", "sendmsg", "sendto", "recvmsg"})
_SIGNALS = frozenset({"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"})
_LOOKUP_FAILED = ("gaierror", "Name or service not known", "failure in name resolution")
"""By these words a look-up of a host name that failed is known in a traceback."""


def with_denials(run: Result, policy: Policy, known: Iterable[Policy]) -> Result:
    """The same result; where the run failed and was denied calls or the network, its message says which and why.

    Args:
        run: as the sandbox gives it.
        policy: under which it ran.
        known: the policies that there are, of which one that allows more is named.
    """
    if run.exit_reason not in _ENDED_BY_ITSELF:
        return run
    sentences = denials([violation.syscall for violation in run.violations], policy, known)
    if not sentences and not policy.network.allow and _speaks_of_a_lookup(run):
        sentences = [f"it looked a host name up; {_no_network(policy, known)}"]
    return msgspec.structs.replace(run, message=f"{run.message} ({'; '.join(sentences)})") if sentences else run


def _speaks_of_a_lookup(run: Result) -> bool:
    """Whether a name that was not found may be why it failed. No system call is denied for that: there is no resolver.

    By the run's own words, which decide about a hint and nothing else.
    """
    words = f"{run.error.message} {run.error.traceback}" if run.error else run.logs.stderr
    return any(sign in words for sign in _LOOKUP_FAILED)


def denials(calls: Iterable[str], policy: Policy, known: Iterable[Policy]) -> list[str]:
    """One clause for each sort of call that was denied."""
    left, clauses = set(calls), []
    if left & _PROCESSES and not policy.limits.processes:
        clauses.append(f"it tried to start a process; the policy {policy.name} allows none: limits.processes")
        left -= _PROCESSES
    if left & _SOCKETS and not policy.network.allow:
        clauses.append(f"it tried to open a socket; {_no_network(policy, known)}")
        left -= _SOCKETS
    if left & _SIGNALS:
        clauses.append(f"it tried to signal another process; the policy {policy.name} allows that of none")
        left -= _SIGNALS
    if left:
        named = ", ".join(sorted(left))
        clauses.append(f"it made system calls that the policy {policy.name} denies: {named}; see syscalls.allow")
    return clauses


def _no_network(policy: Policy, known: Iterable[Policy]) -> str:
    return f"the policy {policy.name} grants no network: network.allow{_instead(policy, known)}"


def _instead(policy: Policy, known: Iterable[Policy]) -> str:
    names = sorted(one.name for one in known if one.task_type == policy.task_type and one.network.allow)
    return f"; {' and '.join(names)} would grant it" if names else ""
