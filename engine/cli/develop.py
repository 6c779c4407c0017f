"""``python -m engine up``, ``demo`` and ``bench``: for development. What they start stands in ``engine/dev``."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.shared import AsJson, fail, load, print_json, sentences


class BenchPart(enum.StrEnum):
    """The parts that ``bench`` can measure."""

    ALL = "all"
    SANDBOX = "sandbox"
    SERVICE = "service"
    EGRESS = "egress"
    STORE = "store"
    WORKERS = "workers"


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; see HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on; see PORT.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the embedded servers' data; see DATA_DIR.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of worker processes.")] = 1,
) -> None:
    """Start everything: API, worker, and embedded PostgreSQL and Valkey where DATABASE_URL or REDIS_URL is not set.

    Prints "ready http://HOST:PORT" once the service accepts and runs tasks. SIGINT and SIGTERM stop all of it.
    """
    with sentences(), _for_development("up", "start `api` and `worker` instead"):
        from engine.dev.stack import run_stack

        given = {"HOST": host, "PORT": str(port) if port else None, "DATA_DIR": str(data.absolute()) if data else None}
        settings = load({name: value for name, value in given.items() if value})
        asyncio.run(run_stack(settings, workers=workers, ready=lambda url: print(f"ready {url}", flush=True)))


def demo() -> None:
    """Start the whole service in a temporary folder, run some examples, show the answers, and stop it again."""
    with sentences(), _for_development("demo", "run it in a checkout, by `make demo`"):
        from engine.dev.demo import run_demo

        run_demo()


def bench(
    part: Annotated[BenchPart, typer.Argument(help="What to measure.")] = BenchPart.ALL,
    json: AsJson = False,
    report: Annotated[Path | None, typer.Option(help="Write the report to this file, as BENCHMARKS.md.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Afterwards write flame graphs (SVG) into this folder.")] = None,
) -> None:
    """Measure, always beside a baseline in the same run: plain python, and bwrap where it is installed.

    All takes six minutes on a quiet machine; all but the sandbox and the egress proxy runs on embedded servers.
    """
    with sentences(), _for_development("bench", "run it in a checkout, by `make bench`"):
        from engine.dev.bench import run as benchmarks

        parts = [one.value for one in BenchPart if one is not BenchPart.ALL] if part is BenchPart.ALL else [part.value]
        rows = benchmarks.run(load(), parts, json=json, report=report, profile=profile)
        if json:
            print_json(rows)


@contextlib.contextmanager
def _for_development(command: str, instead: str) -> Iterator[None]:
    """Say so in one sentence where ``engine/dev`` is missing, as it is in the image."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "engine.dev":
            raise
        fail([f"`{command}` is for development, and this installation leaves that part out: {instead}."])
