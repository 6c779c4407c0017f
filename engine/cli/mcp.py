"""``python -m engine mcp``: the agents' door. What it does stands in ``engine/mcp``."""
# ruff: noqa: PLC0415  a command should not load what only the others need

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Annotated

import typer

from engine.cli.shared import fail, sentences
from engine.cli.tasks import DEFAULT_URL, Url


def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve /mcp over HTTP instead of stdin and stdout.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on, with --http.")] = 8002,
    url: Url = DEFAULT_URL,
) -> None:
    """Let agents run Python by the Model Context Protocol, in a running service. Needs the extra `mcp`.

    Over stdin and stdout, calls are made under the key in ENGINE_KEY; over HTTP each client sends its own key.
    """
    with sentences(), _with_sdk():
        from engine.cli.client import KEY_ENV
        from engine.mcp.server import AgentDoor

        if http:
            door = AgentDoor(url, None)
            asyncio.run(door.run_http(host, port, lambda where: print(f"ready {where}", flush=True)))
        else:
            asyncio.run(AgentDoor(url, os.environ.get(KEY_ENV)).run_stdio())


@contextlib.contextmanager
def _with_sdk() -> Iterator[None]:
    """Say what to install where the SDK is missing, as it is in the image."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        fail(["`mcp` needs the extra mcp: `python -m pip install --require-hashes -r requirements-mcp.lock`."])
