"""A policy in plain words, on one page: for who has to say yes to it.

Every key of a policy file is in the page, with its unit and what a script sees of it; the system calls come from the
tables that the filter itself is made of. The pages of the delivered policies are kept beside the tests.
"""

from __future__ import annotations

import textwrap
from types import MappingProxyType

from sandbox import GrantedCalls, Policy, PolicyFile, granted_calls, is_wide

WIDTH = 118
_KEY, _VALUE = 18, 12

LIMITS = MappingProxyType(
    {
        "wall_s": "on the clock; then it is killed: wall_limit",
        "cpu_s": "of processor time, over all threads and processes; then it is killed: cpu_limit",
        "memory_mib": "of memory, workspace included; then MemoryError, or it is killed: memory_limit",
        "processes": "beside the script itself",
        "threads": "at once; then no thread starts: process_limit, if it ends by that",
        "open_files": "descriptors at once; then OSError (EMFILE)",
        "output_kib": "of stdout and stderr together; then it is killed: output_limit",
        "result_kib": "of JSON as its answer; a longer one is not taken: invalid_result",
        "workspace_mib": "in /work, held in memory; then OSError (ENOSPC): workspace_limit, if it ends by that",
        "workspace_files": "files and folders in /work; then likewise",
        "processors": "of which it has the time of so many, all threads and processes together; then it waits",
        "artifacts_mib": "kept of what it leaves in /work/artifacts; the rest is named in artifacts_refused",
    }
)
"""Limit → what is counted, and what the script sees when it is met."""

PLACES = MappingProxyType(
    {
        "python": "/python, /usr, /lib, /app: the interpreter, its libraries, shared libraries, the handlers",
        "scripts": "/scripts: the named scripts (SCRIPTS_DIR)",
        "models": "/models: the models (MODELS_DIR)",
    }
)
"""Word in ``filesystem.read`` → where it is inside, and what."""

INPUTS = MappingProxyType(
    {
        "none": "no files of the operator's",
        "read-only": "/inputs: the operator's files (FILES_DIR); uploads that the task names, in /work/inputs",
    }
)

CAPS = MappingProxyType(
    {
        "connections": "at once",
        "connections_total": "over the whole run, refused ones included",
        "in_mib": "received, from all hosts together",
        "out_mib": "sent, to all hosts together",
        "head_kib": "longest head of a request or response",
        "first_byte_s": "longest wait for a head, and for looking up and connecting",
        "total_s": "longest life of one connection",
    }
)
"""Cap of ``[network]`` → what is counted."""

ATTEMPTS = "{} at most: work that is lost with its worker, or by a fault of ours, is started again"
ONE_ATTEMPT = "one: work that is lost with its worker, or by a fault of ours, is not started again"

STARTS = MappingProxyType(
    {
        "warm": "warm: each run is a fork of one zygote; runs beside each other share address layout and hash seed",
        "cold": "cold: each run is a new interpreter, with an address layout and a hash seed of its own",
    }
)


def show(file: PolicyFile) -> str:
    """The page of a policy."""
    policy = file.policy
    parts = [
        _head(policy),
        _limits(policy),
        _files(policy),
        _network(policy),
        _calls(granted_calls(policy)),
        _extra_calls(file),
        _rest(),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def quantity(key: str, value: float) -> str:
    """A number with the unit that its key ends in, e.g. ``512 MiB`` for ``memory_mib``."""
    unit = {"s": " s", "mib": " MiB", "kib": " KiB"}.get(key.rpartition("_")[2], "")
    return f"{value:,.10g}{unit}" if isinstance(value, float) else f"{value:,}{unit}"


def _head(policy: Policy) -> list[str]:
    whom = "it is their default" if policy.name == policy.task_type else "those that name it"
    return [
        f"POLICY {policy.name}",
        *_wrapped(policy.description, ""),
        "",
        _row("for", f"tasks of type {policy.task_type}; {whom}"),
        _row("attempts", ATTEMPTS.format(policy.max_attempts) if policy.max_attempts > 1 else ONE_ATTEMPT),
        _row("digest", policy.digest),
        _row("start", STARTS[policy.start]),
        *_wrapped(", ".join(policy.preload) or "nothing", f"  {'loaded before':<{_KEY}}"),
        *_loaded_if_named(policy),
        _row("libraries", f"the set {policy.libraries} (GET /libraries, `libraries list`), and no other package"),
        _row("needs", ", ".join(policy.require) + "; a worker on a host without one of them does not start"),
    ]


def _loaded_if_named(policy: Policy) -> list[str]:
    groups = [", ".join(group) for group in policy.preload_if_named]
    rows = [f"{group}{' and all above' if number else ''}" for number, group in enumerate(groups)]
    return [_row("", f"{row}, if the request's text names one") for row in rows]


def _limits(policy: Policy) -> list[str]:
    limits = policy.limits
    given = {key: getattr(limits, key) for key in limits.__struct_fields__}
    rows = [_counted(key, value, LIMITS[key]) for key, value in given.items() if value is not None]
    return ["LIMITS, each hard; the environment and a request can only lower them", *rows]


def _files(policy: Policy) -> list[str]:
    return [
        "FILES",
        _row("may write", "/work, its own and gone afterwards; /tmp is in it"),
        *[_row("may read", PLACES[place]) for place in policy.filesystem.read],
        _row("may read", "time zones, the locale C.UTF-8, and an /etc of our own: passwd, group, hosts and the like"),
        _row("may read", "/dev: null, zero, full, random, urandom"),
        _row("inputs", INPUTS[policy.filesystem.inputs]),
        _row(
            "else",
            "nothing: no /proc, no home, none of the host's /etc and paths (isolation profile `full`)",
        ),
    ]


def _network(policy: Policy) -> list[str]:
    network = policy.network
    if not network.allow:
        return ["NETWORK", _row("none", "no socket can be made that leads out, and no interface is up")]
    entries = [f"{entry}  (wide: hosts of anybody)" if is_wide(entry) else entry for entry in network.allow]
    private = "refused, but for EGRESS_ALLOW_PRIVATE" if network.deny_private else "NOT refused: deny_private is false"
    return [
        "NETWORK, by the egress proxy alone, which dials the address that it has checked",
        *[_row("may reach", entry) for entry in entries],
        _row("private addresses", private),
        _row("certificates", "/certificates.pem, as far as the operator trusts any"),
        *[_counted(key, value, CAPS[key]) for key, value in network.caps.items()],
    ]


def _calls(calls: GrantedCalls) -> list[str]:
    lines = [
        f"SYSTEM CALLS: {calls.count}; others are denied, and named in `violations` (but for what libraries probe for)"
    ]
    for group in calls.groups:
        lines += [f"  {group.reason}", *_wrapped(" ".join(group.calls), "      ")]
    lines.append("  for some arguments only")
    lines += [line for call, extent in calls.partly.items() for line in _wrapped(extent, f"      {call:<{_KEY - 5}} ")]
    lines.append("  answered instead of carried out")
    return lines + [f"      {call:<{_KEY - 4}}{answer}" for call, answer in calls.answered.items()]


def _extra_calls(file: PolicyFile) -> list[str]:
    """List the grants beyond the profile, each with the comment beside it in the file."""
    extra = file.policy.syscalls.allow
    if not extra:
        return []
    reasons = {call: file.comment("syscalls.allow", call) or "NO REASON GIVEN" for call in extra}
    return ["EXTRA SYSTEM CALLS, which this file adds", *[_row(call, reason) for call, reason in reasons.items()]]


def _rest() -> list[str]:
    return _wrapped(
        "In the isolation profile `unprivileged` there are no namespaces: the run sees the host's paths, calls that "
        "change modes and times of files are denied too, and a policy with processes or network does not start. What "
        "each layer promises, and what it does not: sandbox/README.md.",
        "",
    )


def _row(key: str, text: str) -> str:
    return f"  {key:<{_KEY}}{text}"


def _counted(key: str, value: float, what: str) -> str:
    return f"  {key:<{_KEY}}{quantity(key, value):>{_VALUE}}  {what}"


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
