"""Every example of the project's Markdown runs as it stands, and answers what the page shows."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import msgspec
import pytest

import sandbox
from engine.model.status import TASK_TYPES
from engine.telemetry.audit import AuditLog
from sandbox import Host, Template, load_policies
from tests.support.readme import (
    ADDRESS,
    ROOT,
    Block,
    Example,
    blocks,
    comparable,
    examples,
    is_requests_only,
    pages,
    without_way,
)
from tests.support.stack import Part, free_port, is_open, until
from tests.support.synchronous import Sandbox
from tests.support.web import Names, ok, raw_server

EXAMPLES = [example for page in pages() for example in examples(page)]
NOT_RUN_HERE = MappingProxyType(
    {
        "docker": "tests/image runs the container files",
        "kubectl": "needs a cluster; tests/image holds the manifests against settings, routes and files",
        "make": ".ci/run runs `make test`; test_command_line.py runs the demo",
        "pg_dump": "test_backup.py runs them on a real database",
        "psql": "test_backup.py runs them on a real database",
        "python -m pytest": "these are the tests",
        "curl -s localhost:8001/.well-known/unityai-receipt-keys": "test_receipts.py keeps and checks receipts",
        "python -m engine up": "test_command_line.py starts it",
        "python -m engine mcp": "test_mcp.py starts it",
    }
)
"""How a block of commands begins that another test runs, or none can."""
STAND_IN = (
    '<!doctype html><html lang="en"><head><title>Example Domain</title><meta name="viewport" '
    'content="width=device-width, initial-scale=1"></head><body><div><h1>Example Domain</h1>'
    "<p>This domain is for use in documentation examples</p>"
    '<p><a href="https://iana.org/domains/example">Learn more</a></p></div></body></html>'
)
"""The page from which the interface's page has its answer of ``web_scraping``."""


def _named(found: list[Any]) -> dict[str, Any]:
    return {"argvalues": found, "ids": [one.where for one in found]}


@pytest.mark.parametrize("page", ["README.md", "engine/api/README.md"])
def test_a_page_shows_an_answer_of_each_task_type(page: str) -> None:
    """With its request; what they show is held by the test below."""
    found = [example for example in examples(page) if example.shown and example.target.startswith("/execute?")]
    assert set(TASK_TYPES) == {example.request["task_type"] for example in found}


@pytest.mark.parametrize("example", **_named(EXAMPLES))
def test_a_request_answers_what_the_page_shows(reader: httpx.Client, example: Example) -> None:
    """In production, with the key that pages tell to add: all but times, ids, hashes and layers.

    Where no network leads to its host, the rest of the answer.
    """
    answer = example.send(reader)
    shown = json.loads(example.shown.text) if example.shown else None
    if "example.com" in json.dumps(example.request) and without_way(answer):
        if shown and not example.picks:
            assert _without_end(shown) == _without_end(answer)
    elif shown:
        assert comparable(shown) == comparable(answer[example.picks] if example.picks else answer)
    elif example.target.startswith("/execute"):
        assert "ok" == answer["exit_reason"], answer
    else:
        assert "status" not in answer, answer


def _without_end(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without how the run ended: with the names of its fields, and what is the same for every end."""
    ends = ("status", "exit_reason", "exit_code", "result", "error", "message", "usage")
    return dict(comparable({name: None if name in ends else value for name, value in answer.items()}))


def test_the_shown_page_gives_the_shown_result(host: Host, template: Template) -> None:
    """The answer of web_scraping that the pages show is the handler's, of a local stand-in for example.com."""
    shown = [one for one in EXAMPLES if one.shown and one.request.get("task_type") == "web_scraping"]
    policy = load_policies(ROOT / "policies")["web_scraping"]
    outside = msgspec.structs.replace(template, egress_exceptions=(ip_network("127.0.0.0/8"),))
    with raw_server(_stand_in) as server:
        network = msgspec.structs.replace(policy.network, allow=(f"example.com:{server.port}",))
        granted = msgspec.structs.replace(policy, network=network)
        names = Names(example_com=[["127.0.0.1"]])
        box = Sandbox(granted, host, outside, ready=1, resolve=names)
        here = f"http://example.com:{server.port}"
        try:
            for one in shown:
                request = json.dumps(one.request).replace("https://example.com", here).encode()
                result = box.do(box.pool.run(request))
                value = json.loads(bytes(result.value or b"null").replace(here.encode(), b"https://example.com"))
                text = json.loads(one.shown.text if one.shown else "")
                assert (text if one.picks else text["result"]) == value
        finally:
            box.close()
    assert 2 == len(shown)


def _stand_in(sock: Any, head: bytes) -> None:
    is_page = head.split(b" ")[1] == b"/"
    none = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    sock.sendall(ok(STAND_IN.encode(), "Content-Type: text/html") if is_page else none)


# -- Python


@pytest.fixture
def keyed_url(production: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a service in production, whose key is in ``KEY``, where the programs of the pages look for it."""
    url, key = production
    monkeypatch.setenv("KEY", key)
    return url


def _run_client(block: Block, url: str, **_: Any) -> None:
    """A program of a client, from its own imports on."""
    exec(compile(block.text.replace(f"http://{ADDRESS}", url), block.where, "exec"), {})


def _run_agent(block: Block, url: str, **_: Any) -> None:
    """A program of an agent, before a door of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        door = Part(["mcp", "--http", "--port", str(port)], {"ENGINE_URL": url}, Path(folder, "log"))
        try:
            until(lambda: is_open(port), "the agents' door is open")
            exec(compile(block.text.replace("localhost:8002", f"127.0.0.1:{port}"), block.where, "exec"), {})
        finally:
            door.stop()


def _run_sandbox(block: Block, host: Host, template: Template, **_: Any) -> None:
    """The sandbox's own example: Python of an asyncio program, after ``from sandbox import *``."""

    async def run() -> None:
        names = {name: getattr(sandbox, name) for name in sandbox.__all__} | {"Path": Path, "template": template}
        code = compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
        assert sandbox.ExitReason.OK is names["result"].exit_reason

    asyncio.run(run())


def _run_script(block: Block, url: str, **_: Any) -> None:
    """A script of ``custom_script`` over a few rows."""
    body = {"task_type": "custom_script", "parameters": {"script": block.text, "args": [1, 2, 3]}}
    headers = {"x-api-key": os.environ["KEY"]}
    answer = httpx.post(f"{url}/execute?wait=20", json=body, headers=headers, timeout=60).json()
    assert "ok" == answer["exit_reason"], answer


def _is_recipe(block: Block) -> bool:
    """Whether it is part of a recipe, which changes the project; such are for a copy of it."""
    return block.section.startswith("Adding ") and block.page != "scripts/README.md"


RUNNERS: MappingProxyType[str, Callable[..., None]] = MappingProxyType(
    {
        "engine/api/README.md": _run_client,
        "engine/mcp/README.md": _run_agent,
        "sandbox/README.md": _run_sandbox,
        "handlers/README.md": _run_script,
    }
)
PYTHON = [block for page in pages() for block in blocks(page, "python") if not _is_recipe(block)]


@pytest.mark.parametrize("block", **_named(PYTHON))
def test_python_runs(block: Block, keyed_url: str, host: Host, template: Template) -> None:
    """As its page says: for a client, in an asyncio program, or in a sandbox."""
    RUNNERS[block.page](block, url=keyed_url, host=host, template=template)


def test_the_client_tells_success_from_failure(keyed_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first program of the interface's page prints the result of one task and the traceback of another."""
    _run_client(blocks("engine/api/README.md", "python")[0], keyed_url)
    printed = capsys.readouterr().out
    assert printed.startswith("{'operation': 'sum', 'rows': 3, 'sum': 6}\nerror: ZeroDivisionError: division by zero\n")
    assert "ZeroDivisionError: division by zero" == printed.rstrip().splitlines()[-1]


def test_the_client_follows(keyed_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The second program prints what the task prints and reports, then its result."""
    _run_client(blocks("engine/api/README.md", "python")[1], keyed_url)
    lines = capsys.readouterr().out.splitlines()
    assert ["row 1", "row 2", "row 3"] == [line for line in lines if line.startswith("row")]
    assert "1.0 3 rows" in lines
    assert "done" == lines[-1]


# -- commands


def _is_run_here(block: Block) -> bool:
    return not (is_requests_only(block) or _is_recipe(block) or block.text.startswith(tuple(NOT_RUN_HERE)))


COMMANDS = [block for page in pages() for block in blocks(page, "sh") if _is_run_here(block)]


@pytest.mark.parametrize("block", **_named(COMMANDS))
def test_commands_run(block: Block, tmp_path: Path) -> None:
    """In a folder with links to what the project has, so that what they write is thrown away."""
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if block.page == "SECURITY.md":
        _write_audited_script(tmp_path)
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ENVIRONMENT": "development"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        check=False,
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stderr


def _write_audited_script(folder: Path) -> None:
    """A script, and the audit log of a service that ran it and another one."""
    source = b"result = 1"
    (folder / "script.py").write_bytes(source)
    with contextlib.closing(AuditLog(folder / "audit.log")) as log:
        for one in (source, b"result = 2"):
            log.note("attempt ended", {"task_id": "1", "source_sha256": hashlib.sha256(one).hexdigest()})
