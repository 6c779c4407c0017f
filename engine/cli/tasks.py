"""``python -m engine tasks ...`` and ``top``: a running service, from the command line."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.script_task import (
    Args,
    Files,
    Labels,
    PolicyName,
    ScriptFileError,
    ScriptOptions,
    TimeoutS,
    script_body,
)
from engine.cli.shared import AsJson, TaskOrScriptFile, print_field, print_json, read_body, sentences

if TYPE_CHECKING:
    from engine.cli.client import ServiceClient

PrintJson = Callable[[Any], None]
Url = Annotated[
    str,
    typer.Option("--url", envvar="ENGINE_URL", help="The service. A key is taken from ENGINE_KEY, never from here."),
]
TaskId = Annotated[str, typer.Argument(help="The task's id, or its beginning: four characters or more.")]
DEFAULT_URL = "http://127.0.0.1:8001"


app = typer.Typer(help="Tasks of a running service: list, show, follow, cancel, submit.", no_args_is_help=True)


@app.command("list")
def list_tasks(  # noqa: PLR0917  each is an option
    status: Annotated[list[str] | None, typer.Option(help="Only these; may be given several times.")] = None,
    task_type: Annotated[str | None, typer.Option(help="Only this.")] = None,
    exit_reason: Annotated[list[str] | None, typer.Option(help="Only these; may be given several times.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only with all of these, as NAME:VALUE.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """List tasks, the newest first, without what they answered."""
    wanted = {"status": status, "task_type": task_type, "exit_reason": exit_reason, "label": label}
    with sentences(), service_client(url) as client:
        found = _pages(client, {name: value for name, value in wanted.items() if value}, limit)
        if json:
            print_json(found)
        else:
            _print_tasks(found)


@app.command()
def show(task_id: TaskId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Show a task: how it stands or ended, what it printed, used and left behind."""
    with sentences(), service_client(url) as client:
        task = client.get(f"/task/{client.whole_id(task_id)}")
        if json:
            print_json(task)
        else:
            _print_task(task)


@app.command()
def follow(task_id: TaskId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Print what a task prints, while it runs. Exit code 0 if it succeeds, 1 if not."""
    with sentences(), service_client(url) as client:
        raise typer.Exit(_follow(client, client.whole_id(task_id), print_json if json else None))


@app.command()
def artifacts(
    task_id: TaskId,
    save: Annotated[Path | None, typer.Option(help="Write them to this folder, each under its name.")] = None,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """List the files that a task wrote to `artifacts/`, or save them."""
    with sentences(), service_client(url) as client:
        task_id = client.whole_id(task_id)
        if save is not None:
            for path in client.save_artifacts(task_id, save):
                print(path)
            return
        task = client.get(f"/task/{task_id}")
        if json:
            print_json({"artifacts": task["artifacts"], "artifacts_refused": task["artifacts_refused"]})
        else:
            _print_artifacts(task)


@app.command()
def cancel(task_id: TaskId, url: Url = DEFAULT_URL, json: AsJson = False) -> None:
    """Cancel a task and wait for its end; one that has ended stays as it is."""
    with sentences(), service_client(url) as client:
        task = client.delete(f"/task/{client.whole_id(task_id)}", {"wait": 20})
        if json:
            print_json(task)
        else:
            print(f"{task['task_id']} {task['status']}")


@app.command()
def submit(  # noqa: PLR0917  each is an option
    file: TaskOrScriptFile = None,
    script: Annotated[str | None, typer.Option(help="A script file to run, instead of a task in JSON.")] = None,
    args: Args = None,
    files: Files = None,
    policy: PolicyName = None,
    timeout_s: TimeoutS = None,
    label: Labels = None,
    wait: Annotated[bool, typer.Option("--follow", help="Follow it to its end.")] = False,
    url: Url = DEFAULT_URL,
    json: AsJson = False,
) -> None:
    """Submit a task or a script, and print the task's id."""
    with sentences(), service_client(url) as client:
        options = ScriptOptions(
            args=args, files=tuple(files or ()), policy=policy, timeout_s=timeout_s, labels=tuple(label or ())
        )
        task = client.post("/execute", _body(file, script, options))
        if json and not wait:
            print_json(task)
        elif not json:
            print(task["task_id"])
        if wait:
            raise typer.Exit(_follow(client, task["task_id"], print_json if json else None))


def _body(file: str | None, script: str | None, options: ScriptOptions) -> bytes:
    if (file is None) is (script is None):
        raise ScriptFileError("name either a file with a task, or a script by --script")
    if script is None and file is not None and file.endswith(".py"):
        script = file
    if script is not None:
        return script_body(script, options)
    options.refuse()
    return read_body(str(file))


def top(
    url: Url = DEFAULT_URL,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two pictures.")] = 1.0,
    json: AsJson = False,
) -> None:
    """Watch a running service: queue, workers, running and newest tasks. Needs a key with `audit` and `read`."""
    from rich.console import Console

    from engine.cli.top import frame, look

    with sentences(), service_client(url) as client:
        if json:
            print_json(look(client))
        elif once:
            Console(width=None if sys.stdout.isatty() else 140).print(frame(look(client)))
        else:
            _watch(client, every_s)


def _watch(client: ServiceClient, every_s: float) -> None:
    """Show one picture after another until Ctrl-C."""
    from rich.live import Live

    from engine.cli.top import frame, look

    with Live(frame(look(client)), screen=True, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(every_s)
            live.update(frame(look(client)), refresh=True)


@contextlib.contextmanager
def service_client(url: str) -> Iterator[ServiceClient]:
    from engine.cli.client import KEY_ENV, ServiceClient

    client = ServiceClient(url, os.environ.get(KEY_ENV))
    try:
        yield client
    finally:
        client.close()


def _pages(client: ServiceClient, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        page = {"limit": min(limit - len(found), 500)} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/tasks", wanted | page)
        found += answer["tasks"]
        if (cursor := answer["next_cursor"]) is None:
            break
    return found


def _follow(client: ServiceClient, task_id: str, print_json: PrintJson | None) -> int:
    """Print events; the exit code that the task's end comes to."""
    status, printed = "failed", False
    for event in client.follow(task_id):
        if print_json is not None:
            print_json({"event": event.name, "data": event.data})
        elif event.name == "log":
            _write(event.data["stream"], event.data["text"])
            printed = True
        elif event.name == "progress":
            _say(f"{event.data.get('fraction') or 0:.0%} {event.data.get('message') or ''}".strip())
        elif event.name != "result":
            _say(" ".join(str(value) for value in event.data.values() if value is not None))
        if event.name == "result":
            status = event.data["status"]
            if print_json is None:
                _print_logs({} if printed else event.data.get("logs") or {})  # it had ended before we came
                _say(f"{status}: {event.data.get('exit_reason')}: {event.data.get('message')}")
                _print_end(event.data)
    return 0 if status == "succeeded" else 1


def _print_end(task: Mapping[str, Any]) -> None:
    """The traceback or the result, on stderr like all that the task itself has not printed."""
    import json

    from engine.telemetry.logs import escape_controls

    if text := (task.get("error") or {}).get("traceback"):
        print("\n".join(map(escape_controls, text.splitlines())), file=sys.stderr)
    elif task["status"] == "succeeded":
        print(f"--- result\n{json.dumps(task['result'], indent=2)}", file=sys.stderr)
    for artifact in task.get("artifacts", ()):
        _say(f"artifact {artifact['name']}: `tasks artifacts {task['task_id'][:8]} --save FOLDER` writes it here")


def _print_artifacts(task: dict[str, Any]) -> None:
    from engine.telemetry.logs import escape_controls

    for one in task["artifacts"]:
        print(f"{one['size_bytes']:>12,} bytes  {escape_controls(one['name'])}")
    for one in task["artifacts_refused"]:
        print(f"{'not kept':>18}  {escape_controls(one['name'])}: {escape_controls(one['reason'])}")
    if not task["artifacts"] and not task["artifacts_refused"]:
        print("no artifacts")


def _print_logs(logs: dict[str, Any]) -> None:
    for stream in ("stdout", "stderr"):
        _write(stream, logs.get(stream) or "")


def _write(stream: str, text: str) -> None:
    target = sys.stderr if stream == "stderr" else sys.stdout
    target.write(text)
    target.flush()


def _say(text: str) -> None:
    """On stderr, apart from what the task prints."""
    from engine.telemetry.logs import escape_controls

    print(f"· {escape_controls(text)}", file=sys.stderr, flush=True)


def _print_tasks(tasks: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from engine.cli.top import tasks_table

    Console(width=None if sys.stdout.isatty() else 200).print(tasks_table(tasks) if tasks else "no tasks")


def _print_task(task: dict[str, Any]) -> None:
    from engine.telemetry.logs import escape_controls

    shown = ("task_id", "task_type", "status", "exit_reason", "message", "policy", "attempts", "created_at",
             "started_at", "finished_at", "queue_position", "estimated_wait_s")  # fmt: skip
    for name in shown:
        if task.get(name) is not None:
            print_field(name, escape_controls(str(task[name])), label=18)
    usage = task.get("usage") or {}
    if usage:
        used = ", ".join(f"{name} {value}" for name, value in usage.items() if not isinstance(value, list))
        print_field("usage", used, label=18)
    for artifact in task.get("artifacts", ()):
        print_field("artifact", f"{escape_controls(artifact['name'])} ({artifact['size_bytes']} bytes)", label=18)
    for stream in ("stdout", "stderr"):
        if text := (task.get("logs") or {}).get(stream):
            print(f"--- {stream}\n" + "\n".join(map(escape_controls, text.splitlines())))
    if task.get("error"):
        text = task["error"].get("traceback") or task["error"].get("message") or ""
        print("--- error\n" + "\n".join(map(escape_controls, text.splitlines())))
    if task.get("result") is not None:
        import json

        print(f"--- result\n{json.dumps(task['result'], indent=2, ensure_ascii=True)}")
