"""``python -m engine audit ...``: holds the audit log, and receipts of tasks, against what they say of themselves."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.shared import fail, sentences

app = typer.Typer(help="Verify the audit log.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Verify the audit log."""


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="The files of one audit log, the oldest first.")],
    anchor: Annotated[
        str | None, typer.Option(help="NUMBER:DIGEST of a line that must be in it, as printed here before.")
    ] = None,
) -> None:
    """Hold an audit log against its hash chain: a line that was changed, put in or removed is a fault.

    Prints the last line's number and digest, to be kept elsewhere as the next anchor. Exit code 1 on faults.
    """
    with sentences():
        from engine.telemetry.audit import verify as hold

        found = hold(files, _anchor(anchor))
        if found.faults:
            fail(found.faults)
        last = f"the last is {found.last.number}:{found.last.digest}" if found.last else "it is empty"
        print(f"{found.lines} lines, none changed and none missing; {last}")


def _anchor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
    if found is None:
        fail(["--anchor: must be NUMBER:DIGEST, as `audit verify` prints it"])
        raise AssertionError
    return int(found[1]), found[2]
