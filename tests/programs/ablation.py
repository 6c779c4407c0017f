"""Takes one layer away at a time and shows which attacks then get through: ``make ablation``.

For each row of severity C that tries something by a system call, the program runs in a pool that lacks one layer. What
no other layer stops is printed as ``through``: that row rests on this layer alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from sandbox import ExitReason, Policy, Template, load_policies, probe_host
from tests.attacks.attack import PRELUDE, Attack
from tests.attacks.field import Field, Secrets
from tests.attacks.table import ROWS
from tests.support.libraries import library_sets
from tests.support.synchronous import BUSY, Sandbox, value_of

ABLATIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "namespaces": ("enter_namespaces",),
    "landlock": ("restrict_by_landlock",),
    "seccomp": ("filter_syscalls",),
    "privileges": ("drop_capabilities", "forbid_new_privileges", "hide_from_inspection"),
    "rlimits": ("limit_resources",),
}
"""Layer → steps of ``sandbox.inside.child.lock_down`` that are left out. Without ``enter_namespaces`` a child still
stands in its zygote's namespaces and in its own pid namespace: only what separates it from the zygote is gone."""


def verdict(sandbox: Sandbox, field: Field, row: Attack) -> str:
    """``held``, or the attempts that did what they must not."""
    program = row.program if row.bare else PRELUDE + row.program
    if row.meanwhile is not None:
        program = BUSY + program
    try:
        result = sandbox.run(program, row.args(field), wall_s=10.0, **row.limits)
    except Exception as error:  # a pool that cannot run at all is a finding too
        return f"our error: {error}"
    if result.exit_reason is not ExitReason.OK or not row.outcomes:
        return "held" if result.exit_reason in row.reasons else f"ended by {result.exit_reason}"
    through = [name for name, outcome in value_of(result).items() if not allowed(row, name, outcome)]
    return "held" if not through else "through: " + ", ".join(through[:3])


def allowed(row: Attack, name: str, outcome: str) -> bool:
    """Whether an attempt was refused, with whatever errno, or may succeed."""
    expected = row.outcomes.get(name, row.outcomes.get("*", ()))
    return not outcome.startswith("done") or "done" in expected


def main() -> int:
    """Print the table; exit code 1 if a row does not hold with every layer on."""
    root = Path(__file__).resolve().parents[2]
    policy: Policy = load_policies(root / "policies")["custom_script"]
    policy = msgspec.structs.replace(policy, preload=("handlers.custom_script",))
    places = {"scripts": root / "scripts"}
    template = Template(
        code=root, entry="handlers.entry:main", libraries=library_sets(), places=places, uid=60999, gid=60999
    )
    host = probe_host()
    rows = [row for row in ROWS if row.severity == "C"]
    verdicts: dict[str, dict[str, str]] = {row.name: {} for row in rows}
    for layer, steps in ABLATIONS.items():
        print(f"without {layer} ...", file=sys.stderr)
        secrets = Secrets()
        sandbox = Sandbox(policy, host, template, ablated=steps)
        field = Field(sandbox, template, secrets)
        try:
            for row in rows:
                verdicts[row.name][layer] = verdict(sandbox, field, row)
        finally:
            field.close()
            sandbox.close()
            secrets.close()
    show(verdicts)
    return int(any(by_layer["none"] != "held" for by_layer in verdicts.values()))


def show(verdicts: dict[str, dict[str, str]]) -> None:
    """The table for people."""
    table = Table(title="attacks of severity C, with one layer away")
    for head in ("attack", *ABLATIONS):
        table.add_column(head)
    for name, by_layer in verdicts.items():
        table.add_row(name, *by_layer.values())
    Console(width=200).print(table)
    alone = {
        layer: sorted(name for name, by_layer in verdicts.items() if by_layer[layer].startswith("through"))
        for layer in ABLATIONS
    }
    for layer, names in alone.items():
        print(f"held by {layer} alone: {', '.join(names) or '-'}")


if __name__ == "__main__":
    sys.exit(main())
