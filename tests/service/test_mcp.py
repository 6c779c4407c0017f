"""``engine mcp`` by the official client, before a service with keys: over stdio and HTTP, in its new and old form."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, EmbeddedResource, ImageContent, TextContent

from engine.config.keys import NewKey, add_key, make_key
from engine.mcp.server import KeyGuard
from engine.model.principal import Scope
from tests.support.command_line import engine_text, fresh_engine
from tests.support.held import Held
from tests.support.stack import FOREIGN, ROOT, Stack, free_port, is_open, until

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
Act = Callable[[Client], Awaitable[Any]]


class AgentsService:
    """A service with keys, and the agents' door before it."""

    def __init__(self, folder: Path) -> None:
        keys = folder / "keys.toml"
        self.whole = self._key(keys, *Scope)
        self.narrow = self._key(keys, Scope.SUBMIT, Scope.READ, policies=["custom_script"])
        self.stack = Stack(
            folder,
            headers={"authorization": f"Bearer {self.whole.text}"},
            twin="custom_script_twin",
            API_KEYS_FILE=str(keys),
        )
        self.stack.worker()
        self.service = str(self.stack.client.base_url)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        door = self.stack.start("mcp", "--http", "--port", str(self.port), ENGINE_URL=self.service)
        until(lambda: is_open(self.port), f"the door is open; see {door.log}")

    @staticmethod
    def _key(path: Path, *scopes: Scope, **more: Any) -> NewKey:
        made = make_key("agents", scopes, **more)
        add_key(path, made)
        return made


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsService]:
    found = AgentsService(tmp_path_factory.mktemp("mcp"))
    yield found
    found.stack.close()


@contextlib.asynccontextmanager
async def over_http(found: AgentsService, key: NewKey, mode: str = "auto") -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {key.text}"}, timeout=60) as http,
        Client(streamable_http_client(found.url, http_client=http), mode=mode) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def over_stdio(found: AgentsService, key: NewKey) -> AsyncIterator[Client]:
    environ = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "engine", "mcp", "--url", found.service],
        env=environ | {"ENGINE_KEY": key.text},
        cwd=ROOT,
    )
    async with Client(stdio_client(command)) as client:
        yield client


def done(found: AgentsService, act: Act, key: NewKey | None = None, mode: str = "auto") -> Any:
    """What an act over HTTP comes to."""

    async def run() -> Any:
        async with over_http(found, key or found.whole, mode) as client:
            return await act(client)

    return asyncio.run(run())


def call(found: AgentsService, tool: str, key: NewKey | None = None, mode: str = "auto", **arguments: Any) -> Any:
    """The answer of one tool."""
    return done(found, lambda client: client.call_tool(tool, arguments), key, mode)


def text_of(answer: CallToolResult) -> str:
    return "\n".join(one.text for one in answer.content if isinstance(one, TextContent))


def facts(answer: CallToolResult) -> dict[str, Any]:
    assert answer.structured_content is not None, answer
    return answer.structured_content


def test_the_tools_say_what_they_take_and_answer(agents: AgentsService) -> None:
    """Each with a description, each argument too; the schemas of the answers are there."""
    found = done(agents, lambda client: client.list_tools()).tools
    names = {
        "run_python", "get_task", "cancel_task", "put_file", "list_files", "get_artifact", "list_libraries",
        "list_policies",
    }  # fmt: skip
    assert names == {tool.name for tool in found}
    for tool in found:
        assert tool.description
        for name, schema in tool.input_schema.get("properties", {}).items():
            assert schema.get("description"), f"{tool.name}.{name}"
    run = next(tool for tool in found if tool.name == "run_python")
    assert ["script"] == run.input_schema["required"]
    assert {"result", "denied", "artifacts"} <= set((run.output_schema or {})["properties"])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_script_runs_and_its_picture_is_seen(agents: AgentsService, mode: str) -> None:
    """Output, result and picture, by the newest protocol and by that of before."""
    script = (
        "import base64\nprint('drawing')\nopen('artifacts/plot.png', 'wb').write(base64.b64decode(args))\n"
        "open('artifacts/fake.png', 'w').write('no picture')\nresult = {'dots': 1}"
    )
    answer = call(agents, "run_python", mode=mode, script=script, args=base64.b64encode(PNG).decode())
    assert not answer.is_error
    assert ("succeeded", "drawing\n", {"dots": 1}) == tuple(
        facts(answer)[name] for name in ("status", "stdout", "result")
    )
    assert {"plot.png", "fake.png"} == {one["name"] for one in facts(answer)["artifacts"]}
    [picture] = [one for one in answer.content if isinstance(one, ImageContent)]
    assert (PNG, "image/png") == (base64.b64decode(picture.data), picture.mime_type)
    assert '--- result\n{"dots": 1}' in text_of(answer)


def test_a_failing_script_is_an_error_that_says_why(agents: AgentsService) -> None:
    """With the traceback, which the model corrects by."""
    answer = call(agents, "run_python", script="print('before')\nresult = 1 / 0")
    assert answer.is_error
    assert "failed: error: ZeroDivisionError: division by zero" in text_of(answer)
    assert "line 2" in text_of(answer)
    assert "before\n" == facts(answer)["stdout"]


def test_what_the_policy_denies_is_denied_here(agents: AgentsService) -> None:
    """A socket, a process: the run fails, and the answer names the calls and the policy."""
    script = "import os, socket\ntry:\n    socket.socket(socket.AF_NETLINK)\nexcept OSError:\n    os.fork()"
    answer = call(agents, "run_python", script=script)
    assert answer.is_error
    assert {"socket", "clone"} & {one["syscall"] for one in facts(answer)["denied"]}
    assert "denied by the policy custom_script: " in text_of(answer)


def test_what_a_key_may_not_do_is_refused_here(agents: AgentsService) -> None:
    """A policy that is not the key's, and a scope that it lacks, by the service's own sentences."""
    other = call(agents, "run_python", agents.narrow, script="result = 1", policy="custom_script_twin")
    assert other.is_error
    assert "may not use the policy custom_script_twin" in text_of(other)
    task_id = facts(call(agents, "run_python", agents.narrow, script="result = 1"))["task_id"]
    refused = call(agents, "cancel_task", agents.narrow, task_id=task_id)
    assert refused.is_error
    assert "lacks the scope `cancel`" in text_of(refused)
    assert "custom_script" in text_of(call(agents, "list_policies", agents.narrow))
    assert "custom_script_twin" not in text_of(call(agents, "list_policies", agents.narrow))
    whole = text_of(call(agents, "list_policies"))
    assert "# custom_script_twin" in whole
    assert "network" in whole


def test_a_fault_in_a_call_names_its_place(agents: AgentsService) -> None:
    """What the service refuses, and what the tool itself does."""
    assert "$.timeout_s" in text_of(call(agents, "run_python", script="result = 1", timeout_s=1e9))
    both = call(agents, "put_file", name="x", text="a", content_base64="YQ==")
    assert "give either `text` or `content_base64`" in text_of(both)
    unknown = call(agents, "run_python", script="result = 1", inputs={"a": {"path": "x"}})
    assert "inputs.a: give exactly one of text, base64, file_id" in text_of(unknown)
    assert "no task" in text_of(call(agents, "get_task", task_id="00000000-0000-0000-0000-000000000000"))


def test_files_go_in_and_come_out(agents: AgentsService) -> None:
    """Uploaded as text and as bytes, read by a script, and got back: as a text, as bytes, and not what is not there."""

    async def act(client: Client) -> dict[str, Any]:
        table = facts(await client.call_tool("put_file", {"name": "t.csv", "text": "x,y\n1,2\n"}))["file_id"]
        raw = base64.b64encode(b"\x00\xff").decode()
        held = await client.call_tool("put_file", {"name": "raw.bin", "content_base64": raw})
        inputs = {"t.csv": {"file_id": table}, "raw.bin": {"file_id": facts(held)["file_id"]}}
        script = (
            "import shutil\nfor name in ('t.csv', 'raw.bin'):\n    shutil.copy(f'inputs/{name}', f'artifacts/{name}')\n"
            "result = open('inputs/t.csv').read()"
        )
        ran = await client.call_tool("run_python", {"script": script, "inputs": inputs})
        task_id = facts(ran)["task_id"]
        return {
            "listed": facts(await client.call_tool("list_files", {}))["files"],
            "table": table,
            "result": facts(ran)["result"],
            "text": await client.call_tool("get_artifact", {"task_id": task_id, "name": "t.csv"}),
            "bytes": await client.call_tool("get_artifact", {"task_id": task_id, "name": "raw.bin"}),
            "none": await client.call_tool("get_artifact", {"task_id": task_id, "name": "../x"}),
        }

    found = done(agents, act)
    assert found["table"] in {one["file_id"] for one in found["listed"]}
    assert "x,y\n1,2\n" == found["result"] == text_of(found["text"])
    [raw] = found["bytes"].content
    assert isinstance(raw, EmbeddedResource)
    assert isinstance(raw.resource, mcp_types.BlobResourceContents)
    assert b"\x00\xff" == base64.b64decode(raw.resource.blob)
    assert "there are: raw.bin, t.csv" in text_of(found["none"])


def test_libraries_are_listed(agents: AgentsService) -> None:
    """Those that scripts may import; a set that there is not is a sentence."""
    listed = text_of(call(agents, "list_libraries")).splitlines()
    assert any(line.startswith("pandas ") for line in listed)
    assert "there is no set nothing; there are: " in text_of(call(agents, "list_libraries", library_set="nothing"))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_progress_passes_through(agents: AgentsService, mode: str) -> None:
    """As the script reports it, while it runs."""
    held, told = Held("report_progress(0.5, 'half')\nhold()\nreport_progress(1.0, 'whole')\nresult = 7"), []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        if message == "half":
            await asyncio.to_thread(held.tell)

    async def act(client: Client) -> Any:
        return await client.call_tool("run_python", {"script": held.script}, progress_callback=on_progress)

    assert 7 == facts(done(agents, act, mode=mode))["result"]
    assert [(0.5, 1.0, "half"), (1.0, 1.0, "whole")] == told


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_that_is_given_up_cancels_its_task(agents: AgentsService, mode: str) -> None:
    """The run is dead, and the task cancelled; over HTTP in both eras."""
    held = Held("hold()")

    async def act(client: Client) -> None:
        running = asyncio.create_task(client.call_tool("run_python", {"script": held.script, "wait_s": 200}))
        await asyncio.to_thread(held.wait)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await asyncio.to_thread(until, lambda: held.count() == 0, "the run is dead")

    done(agents, act, mode=mode)
    newest = agents.stack.client.get("/tasks", params={"limit": 1}).json()["tasks"][0]
    until(lambda: agents.stack.get(newest["task_id"])["status"] == "cancelled", "the task is cancelled")


def test_a_long_task_goes_on_after_the_wait(agents: AgentsService) -> None:
    """Its id leads to it again: to look, to stop."""
    held = Held("hold()\nresult = 'late'")
    answer = call(agents, "run_python", script=held.script, wait_s=0)
    assert not answer.is_error
    assert "it goes on" in text_of(answer)
    task_id = facts(answer)["task_id"]
    held.tell()
    assert "late" == facts(call(agents, "get_task", task_id=task_id, wait_s=100))["result"]
    stopped = facts(call(agents, "run_python", script=Held("hold()").script, wait_s=0))["task_id"]
    assert "cancelled" == facts(call(agents, "cancel_task", task_id=stopped))["status"]


def test_over_stdio_calls_have_the_key_of_the_environment(agents: AgentsService) -> None:
    """Nothing but the protocol is on stdout; a task that the end of the program gives up is cancelled."""
    held = Held("hold()")

    async def run() -> Any:
        async with over_stdio(agents, agents.whole) as client:
            answer = await client.call_tool("run_python", {"script": "print('x')\nresult = args", "args": [1, None]})
            running = asyncio.create_task(client.call_tool("run_python", {"script": held.script, "wait_s": 200}))
            await asyncio.to_thread(held.wait)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await asyncio.to_thread(until, lambda: held.count() == 0, "the run is dead")
            return answer

    answer = asyncio.run(run())
    assert ([1, None], "x\n") == (facts(answer)["result"], facts(answer)["stdout"])
    listed = agents.stack.client.get("/tasks", params={"label": "via:mcp"}).json()["tasks"]
    assert listed


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer uak_nothing"}, {"x-api-key": "schl\u00fcssel"}])
def test_without_a_key_the_door_is_shut(agents: AgentsService, headers: dict[str, str]) -> None:
    """401 before anything of the protocol is read, as the service itself answers."""
    given = {name.encode(): value.encode() for name, value in headers.items()}
    answer = httpx.post(agents.url, headers=given, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (401, 'Bearer realm="unityai"') == (answer.status_code, answer.headers["www-authenticate"])
    assert "API key" in answer.json()["detail"]


def test_a_session_belongs_to_its_key(agents: AgentsService) -> None:
    """Who knows its id and has another key does not find it."""
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    accept = {"accept": "application/json, text/event-stream"}
    mine = accept | {"authorization": f"Bearer {agents.whole.text}"}
    session = httpx.post(agents.url, headers=mine, json=hello).headers["mcp-session-id"]
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert 200 == httpx.post(agents.url, headers=mine | {"mcp-session-id": session}, json=body).status_code
    other = accept | {"authorization": f"Bearer {agents.narrow.text}", "mcp-session-id": session}
    assert 404 == httpx.post(agents.url, headers=other, json=body).status_code


def test_another_sites_page_does_not_get_in(agents: AgentsService) -> None:
    """A name that was bound to this address for it, and its origin, are refused (DNS rebinding)."""
    mine = {"authorization": f"Bearer {agents.whole.text}"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert 421 == httpx.post(agents.url, headers=mine | {"host": "evil.example"}, json=body).status_code
    assert 403 == httpx.post(agents.url, headers=mine | {"origin": "http://evil.example"}, json=body).status_code


def test_a_service_that_is_away_is_a_sentence() -> None:
    """At the start over HTTP; with the address."""
    away = f"http://127.0.0.1:{free_port()}"
    begun = engine_text("mcp", "--http", "--port", "0", "--url", away)
    assert (1, "") == (begun.returncode, begun.stdout)
    assert f"error: {away} does not answer" in begun.stderr
    assert "Traceback" not in begun.stderr


def test_a_service_without_keys_is_not_opened_to_others(tmp_path: Path) -> None:
    """Then anybody could run scripts; the sentence names the setting."""
    with contextlib.closing(Stack(tmp_path)) as stack:
        begun = engine_text("mcp", "--http", "--host", "0.0.0.0", "--port", "0", "--url", str(stack.client.base_url))
    assert 1 == begun.returncode
    assert "asks for no keys" in begun.stderr
    assert "API_KEYS_FILE" in begun.stderr


@pytest.mark.parametrize(("needs_key", "statuses"), [(True, [503]), (False, [])])
def test_a_door_to_others_shuts_when_the_service_loses_its_keys(needs_key: bool, statuses: list[int]) -> None:
    """The service may come back without them; what let nobody in without a key then lets nobody in at all."""
    sent: list[Any] = []
    let_in: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        let_in.append(scope["path"])

    async def asked(_key: str | None) -> dict[str, Any]:
        return {"key_id": None}

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    guard = KeyGuard(app, asked, needs_key=needs_key)
    asyncio.run(guard({"type": "http", "path": "/mcp", "headers": []}, receive, send))
    assert (statuses, [] if needs_key else ["/mcp"]) == ([m["status"] for m in sent if "status" in m], let_in)


def test_without_the_sdk_the_command_says_what_to_install(tmp_path: Path) -> None:
    """In a sentence, as in the image, which leaves it out."""
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "__init__.py").write_text("raise ModuleNotFoundError('No module named mcp', name='mcp')")
    begun = fresh_engine("mcp", PYTHONPATH=str(tmp_path))
    assert (1, b"error: `mcp` needs the extra mcp: ") == (begun.returncode, begun.stderr[:34])
    assert b"requirements-mcp.lock" in begun.stderr
