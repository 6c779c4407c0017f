"""``python -m engine libraries ...``: what scripts and handlers may import."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.shared import AsJson, fail, load, print_json, print_table, sentences

if TYPE_CHECKING:
    from engine.config.libraries import LibrarySetFacts

app = typer.Typer(help="Libraries that scripts and handlers may import: sets in LIBRARIES_DIR.", no_args_is_help=True)


@app.command()
def install() -> None:
    """Make the delivered sets, handlers and scripts: what their locks name, digests checked."""
    with sentences():
        folder = load().libraries_dir
        from engine.config.install_libraries import install as make_sets

        make_sets(folder, _say)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The set: scripts, handlers, or a name of your own.")],
    file: Annotated[Path, typer.Argument(help="A requirements file with what it is to have besides.")],
    base: Annotated[str, typer.Option(help="The delivered set that a set of your own begins with.")] = "scripts",
) -> None:
    """Add libraries to a set, or make a set of your own, which a policy names by `libraries`. Then restart workers."""
    with sentences():
        folder = load().libraries_dir
        from engine.config.install_libraries import add as add_to_set

        add_to_set(folder, name, file, base, _say)


@app.command("list")
def list_sets(json: AsJson = False) -> None:
    """List the sets, and the name, version and summary of each library in them."""
    with sentences():
        folder = load().libraries_dir
        from engine.config.libraries import describe_sets

        sets = describe_sets(folder)
        if json:
            print_json(sets)
        elif not sets:
            fail([f"{folder}: no set of libraries is there; `python -m engine libraries install` makes them"])
        else:
            _print_sets(sets)


@app.command()
def check(json: AsJson = False) -> None:
    """Hold every file of every set against the digest with which it was installed. Exit code 1 if one differs."""
    with sentences():
        folder = load().libraries_dir
        from engine.config.libraries import check_set, find_sets

        faults = {name: check_set(found.folder) for name, found in find_sets(folder).items()}
        if json:
            print_json(faults)
        else:
            for name, found in faults.items():
                print("\n".join(f"{name}: {fault}" for fault in found) or f"{name}: every file is right")
        raise typer.Exit(1 if any(faults.values()) else 0)


def _say(line: str) -> None:
    print(line, flush=True)


def _print_sets(sets: tuple[LibrarySetFacts, ...]) -> None:
    for found in sets:
        print(f"{found.name}: {len(found.libraries)} libraries, {found.digest}")
        print_table(
            ["library", "version", "summary"], [[one.name, one.version, one.summary] for one in found.libraries]
        )
