"""``python -m engine files ...`` and ``callbacks ...``: uploaded files and owed callbacks of a running service."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.shared import AsJson, print_json, print_table, sentences
from engine.cli.tasks import DEFAULT_URL, TaskId, Url, service_client

app = typer.Typer(help="Uploaded files of a running service: list, upload, delete.", no_args_is_help=True)
callbacks_app = typer.Typer(help="Callbacks of a running service: list, send again.", no_args_is_help=True)


@app.command("list")
def list_files(url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """List your tenant's uploaded files, the newest first, and how much it has stored."""
    with sentences(), service_client(url) as client:
        found = client.get("/files")
        if json:
            print_json(found)
            return
        from engine.telemetry.logs import escape_controls

        rows = [[one["file_id"], f"{one['size_bytes']:,}", one["expires_at"][:19], escape_controls(one["name"])]
                for one in found["files"]]  # fmt: skip
        print_table(["file", "bytes", "until (UTC)", "name"], rows)
        most = "" if found["stored_mib"] is None else f" of {found['stored_mib']:,} MiB"
        print(f"stored: {found['stored_bytes'] / (1 << 20):,.1f} MiB{most}")


@app.command()
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files of this machine.")],
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Upload files for tasks to read, and print the id of each."""
    with sentences(), service_client(url) as client:
        for path in paths:
            found = client.upload(path)
            if json:
                print_json({"file_id": found.file_id, "name": found.name, "sha256": found.sha256})
            else:
                print(found.file_id)


@app.command()
def delete(
    file_ids: Annotated[list[str], typer.Argument(help="Their ids, as `files list` shows them, or their beginnings.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Delete uploaded files before their time is over."""
    with sentences(), service_client(url) as client:
        for file_id in map(client.whole_file_id, file_ids):
            client.delete_file(file_id)
            print(f"deleted {file_id}")


@callbacks_app.command("list")
def list_callbacks(
    state: Annotated[str, typer.Option(help="dead, due or delivered.")] = "dead",
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """List callbacks in one state, the newest first: those that were given up, unless you say otherwise."""
    with sentences(), service_client(url) as client:
        found = client.get("/callbacks", {"state": state})["callbacks"]
        if json:
            print_json(found)
        elif not found:
            print(f"no callback is {state}")
        else:
            rows = [[one["task_id"], str(one["callback"]["attempts"]), str(one["callback"]["last_status"] or ""),
                     one["callback"]["last_error"] or "", one["callback"]["url"]] for one in found]  # fmt: skip
            print_table(["task", "attempts", "status", "last error", "url"], rows)


@callbacks_app.command()
def send(task_id: TaskId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Send the callback of a final task once more."""
    with sentences(), service_client(url) as client:
        task_id = client.whole_id(task_id)
        found = client.post(f"/task/{task_id}/callback", b"")
        if json:
            print_json(found)
        else:
            print(f"{task_id}: its callback is {found['state']}")
