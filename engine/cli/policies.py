"""``python -m engine policies ...``: for who audits the policy files and signs them off."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.shared import AsJson, load, note_in_audit_log, print_json, sentences
from engine.config.settings import Settings

if TYPE_CHECKING:
    from sandbox import PolicyFile

app = typer.Typer(help="Audit the policy files: check, show, diff, lock.", no_args_is_help=True)


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="Folder of policy files; POLICIES_DIR unless given.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    json: AsJson = False,
) -> None:
    """Read every policy file strictly; say what is wrong and where, and what is loose. Exit code 1 on errors."""
    with sentences():
        settings = load()
        from engine.policies.check import check_folder

        findings = check_folder(
            folder or settings.policies_dir,
            settings.egress_allow_private,
            locked=settings.policy_lock == "required",
        )
        if json:
            print_json(findings)
        else:
            print("\n".join(map(str, findings)) or "no errors, no warnings")
        raise typer.Exit(1 if any(strict or finding.level == "error" for finding in findings) else 0)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a policy, or a file.")]) -> None:
    """Print a grant in plain words, on one page."""
    with sentences():
        from engine.policies.show import show as page

        sys.stdout.write(page(_find(load(), name)))


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="Name of a policy, or a file.")],
    new: Annotated[str, typer.Argument(help="Name of a policy, or a file.")],
    json: AsJson = False,
) -> None:
    """Say what becomes looser and what tighter from OLD to NEW. Exit code 1 if anything becomes looser."""
    with sentences():
        settings = load()
        from engine.policies.diff import compare

        changes = compare(_find(settings, old).policy, _find(settings, new).policy)
        if json:
            print_json(changes)
        else:
            print("\n".join(map(str, changes)) or "no difference")
        raise typer.Exit(1 if any(change.direction == "looser" for change in changes) else 0)


@app.command()
def lock() -> None:
    """Sign off the policy files as they are: write their digests to policies.lock, which POLICY_LOCK=required holds
    them against."""
    with sentences():
        settings = load()
        from engine.policies.lock import write_lock
        from sandbox import load_policies

        policies = load_policies(settings.policies_dir, exceptions=settings.egress_allow_private)
        locked = write_lock(settings.policies_dir, policies.values())
        digests = {policy.name: policy.digest for policy in policies.values()}
        note_in_audit_log(settings, "policies locked", {"policies": digests})
        print(f"{locked}: {len(policies)} policies signed off")


def _find(settings: Settings, name: str) -> PolicyFile:
    """The policy file of this name in POLICIES_DIR, or at this path.

    Raises:
        PolicyError: there is none, or it cannot be.
    """
    from sandbox import PolicyError, policy_paths, read_policy

    paths = {path.stem: path for path in policy_paths(settings.policies_dir)}
    path = paths.get(name) or Path(name)
    if not path.is_file():
        there_are = ", ".join(paths) or "none"
        raise PolicyError(f"there is no policy and no file {name}; policies in {settings.policies_dir}: {there_are}")
    return read_policy(path, exceptions=settings.egress_allow_private)
