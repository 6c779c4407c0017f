"""What a machine under another kernel found, as lines of its console, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

MARK = "@kernel-test "
"""Begins a line of the console that holds a finding. Everything else there is for whoever reads it."""
BOTH = ("root", "user")
ALONE = ("root",)
PROFILES = ("full", "unprivileged")

CHECK = "`check`: each layer, and a run in each profile"
PARSER = "the delivered AppArmor profile loads"
CONFINED = "a hostile script in `full` under that profile"
NAMED = "`check` names what a profile of AppArmor refuses"
ATTACKS = "each attack of the table is stopped"
LAYER = "`make cgroup-test`"
ASKED = {
    "hostile script": "a hostile script reaches nothing",
    "nameless file": "a file without a name counts in `workspace_mib`",
    "full nameless file": "and ends the run with `workspace_limit`",
}
"""Scripts beside the task types: its name → what it shows."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One promise, tried by one user."""

    promise: str
    who: str
    verdict: Literal["held", "failed"]
    detail: str = ""
    """Why it failed, or what else the table should say."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A word on what goes on."""

    text: str


class End(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The machine has tried everything."""


Line = Finding | Progress | End


def written(line: Line) -> str:
    """A line for the console."""
    return MARK + msgspec.json.encode(line).decode()


def read(line: str) -> Line | None:
    """What a line of the console says; ``None`` for all that are not ours, or that the kernel has written into."""
    _, mark, text = line.partition(MARK)
    if not mark:
        return None
    try:
        return msgspec.json.decode(text, type=Line)
    except msgspec.DecodeError:
        return None


def task_promise(task_type: str, profile: str) -> str:
    """The row of a task type in a profile."""
    return f"`{task_type}` in `{profile}`"


def expected(part: str, task_types: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Promise and user of every finding that a part must bring."""
    rows: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]] = {
        "check": [(CHECK, BOTH)],
        "tasks": [
            *((task_promise(task_type, profile), BOTH) for profile in PROFILES for task_type in sorted(task_types)),
            *((promise, BOTH) for promise in ASKED.values()),
        ],
        "apparmor": [(PARSER, ALONE), (CONFINED, BOTH), (NAMED, ALONE)],
        "attacks": [(ATTACKS, ALONE)],
        "cgroup": [(LAYER, ALONE)],
    }
    for promise, users in rows[part]:
        for who in users:
            yield promise, who


def completed(found: Sequence[Finding], wanted: Iterable[tuple[str, str]]) -> list[Finding]:
    """The findings, and one that failed for each that must come and did not."""
    have = {(finding.promise, finding.who) for finding in found}
    missing = [
        Finding(promise=promise, who=who, verdict="failed", detail="no finding")
        for promise, who in wanted
        if (promise, who) not in have
    ]
    return [*found, *missing]


def has_failed(by_kernel: Mapping[str, Sequence[Finding]]) -> bool:
    """Whether anything has. Nothing found at all is a failure, too."""
    return not all(by_kernel.values()) or any(
        finding.verdict == "failed" for findings in by_kernel.values() for finding in findings
    )


def table(by_kernel: Mapping[str, Sequence[Finding]]) -> str:
    """Markdown: a row for each promise, a column for each kernel, in the order in which they came."""
    promises = dict.fromkeys(finding.promise for findings in by_kernel.values() for finding in findings)
    lines = [["promise", *by_kernel], ["---"] * (1 + len(by_kernel))]
    lines += [[promise, *(_cell(promise, findings) for findings in by_kernel.values())] for promise in promises]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(promise: str, findings: Sequence[Finding]) -> str:
    here = [finding for finding in findings if finding.promise == promise]
    if not here:
        return "not tried"
    details = [f"**{finding.who}: FAILED**, {finding.detail}" for finding in here if finding.verdict == "failed"]
    held = [finding.who for finding in here if finding.verdict == "held"]
    notes = dict.fromkeys(finding.detail for finding in here if finding.verdict == "held" and finding.detail)
    words = [f"held ({', '.join(held)})", *notes] if held else []
    return "; ".join([*words, *details]).replace("|", "\\|").replace("\n", " ")
