"""Puts the calling process under a container's seccomp profile, as runc does with the same JSON.

Sources: config-linux.md of the OCI runtime specification on ``seccomp``; seccomp_rule_add(3).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyseccomp

FULL = Path(__file__).resolve().parents[2] / ".github" / "deploy" / "seccomp-full.json"
VARIABLE = "CONTAINER_SECCOMP"
"""Names the profile of the container that tests run in, where they do."""
OPERATORS = {"SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_NE": pyseccomp.NE, "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ}


def read(without: tuple[int, ...] = ()) -> dict[str, Any]:
    """The profile that we deliver, without some of its openings (counted from 0)."""
    profile: dict[str, Any] = json.loads(FULL.read_text(encoding="ascii"))
    left_out = [opening for number, opening in enumerate(openings(profile)) if number in without]
    return profile | {"syscalls": [rule for rule in profile["syscalls"] if rule not in left_out]}


def openings(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules that Docker's default profile does not have: each says what it is for."""
    return [rule for rule in profile["syscalls"] if "comment" in rule]


def read_docker_default() -> dict[str, Any]:
    """Docker's default profile in a container without capabilities: ours without its openings."""
    return read(without=tuple(range(len(openings(read())))))


def is_refused_by_container(name: str) -> bool:
    """Whether the container itself refuses a call, at least sometimes. Its answer comes before any listener's, see
    seccomp(2) on the order of actions: the supervisor does not learn of such calls.
    """
    if VARIABLE not in os.environ:
        return False
    rules = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="ascii"))["syscalls"]
    always = (
        rule for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and not (rule.get("args") or rule.get("includes"))
    )
    return not any(name in rule["names"] for rule in always)


def apply(profile: dict[str, Any]) -> None:
    """Everything that this process starts is under it, too; there is no way back."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(profile["defaultErrnoRet"]))
    for rule in profile["syscalls"]:
        allowed = rule["action"] == "SCMP_ACT_ALLOW"
        action = pyseccomp.ALLOW if allowed else pyseccomp.ERRNO(rule["errnoRet"])
        arguments = [_argument(**wanted) for wanted in rule.get("args", [])]
        for name in rule["names"]:
            if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) >= 0:
                rules.add_rule(action, name, *arguments)
    rules.load()


def _argument(*, index: int, op: str, value: int, valueTwo: int = 0) -> pyseccomp.Arg:  # noqa: N803 the JSON's own name
    return pyseccomp.Arg(index, OPERATORS[op], value, valueTwo)
