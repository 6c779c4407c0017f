"""``python -m engine audit ...``: holds the audit log, and receipts of tasks, against what they say of themselves."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.shared import fail, load, sentences

if TYPE_CHECKING:
    from engine.model.receipt import PublicKeys

app = typer.Typer(help="Verify the audit log, and receipts of tasks.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """Verify the audit log, and receipts of tasks."""


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


@app.command()
def receipt(
    file: Annotated[Path, typer.Argument(help="The answer of GET /task/{task_id}/receipt.")],
    public_key: Annotated[
        str | None,
        typer.Option(
            help="The service's public key, or a file with the answer of GET /.well-known/unityai-receipt-keys; "
            "RECEIPT_KEY's own unless given."
        ),
    ] = None,
) -> None:
    """Hold a receipt against the service's public key, without the service. Exit code 1 when it does not hold."""
    with sentences():
        from engine.telemetry.receipts import verify_receipt

        said = verify_receipt(file.read_bytes(), _public_keys(public_key))
        print(
            f"the receipt holds: task {said['task_id']} of {said['tenant']} ended {said['exit_reason']} "
            f"at {said['finished_at']}"
        )


def _public_keys(given: str | None) -> PublicKeys:
    from engine.telemetry.receipts import ReceiptError, ReceiptSigner, read_public_keys

    if given is not None:
        path = Path(given)
        return read_public_keys(path.read_text(encoding="utf-8") if path.is_file() else given)
    if not (secrets := load().receipt_keys):
        raise ReceiptError("no public key: give --public-key, for RECEIPT_KEY is not set here")
    return ReceiptSigner(secrets).public


def _anchor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text)
    if found is None:
        fail(["--anchor: must be NUMBER:DIGEST, as `audit verify` prints it"])
        raise AssertionError
    return int(found[1]), found[2]
