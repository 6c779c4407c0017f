"""What people do wrong at first, and the sentence that each of them gets: what is wrong, and what to do next.

A row is an example of its kind. The service has keys and runs in production, as a beginner meets it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from engine.config.keys import add_key, make_key
from engine.model.principal import Scope
from tests.support.command_line import engine_text
from tests.support.stack import Stack, free_port, open_folder, task

JSON = {"content-type": "application/json"}
NOBODY = "00000000-0000-0000-0000-000000000000"
PRODUCTION: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "N8N_WEBHOOK_URL": "http://n8n.example/",
    "FASTAPI_URL": "http://app.example/",
    "CALLBACK_SECRET": f"whsec_{'0' * 40}",
    "MAX_BODY_MIB": "1",
}


class BeginnersService:
    """A production service, its keys, and files to stumble over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        keys = folder / "keys.toml"
        self.keys = {
            "whole": make_key("t", tuple(Scope)),
            "submits": make_key("t", (Scope.SUBMIT,)),
            "one policy": make_key("t", tuple(Scope), policies=["custom_script"]),
        }
        for key in self.keys.values():
            add_key(keys, key)
        headers = {"authorization": f"Bearer {self.keys['whole'].text}"}
        self.stack = Stack(folder, headers=headers, twin="custom_script_twin", API_KEYS_FILE=str(keys), **PRODUCTION)
        self.stack.worker()
        (folder / "ok.py").write_text("result = 1")
        (folder / "task.txt").write_text("result = 1")
        (folder / "half.json").write_text("{")
        (folder / "code.py").write_bytes(b"\xff\xfe\x00")
        ended = self.stack.submit("result = 1")["task_id"]
        self.ended = self.stack.get(ended, 60)["task_id"]

    def cli(self, *command: str, key: str | None = "whole", **environ: str) -> tuple[int, str]:
        """Exit code and stderr of a command that asks this service."""
        asks = {"ENGINE_URL": str(self.stack.client.base_url)} | ({"ENGINE_KEY": self.keys[key].text} if key else {})
        words = [word.replace("FOLDER", str(self.folder)).replace("ENDED", self.ended) for word in command]
        done = engine_text(*words, **(asks | environ))
        return done.returncode, " ".join(done.stderr.replace("│", " ").split()) + done.stdout[-300:]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BeginnersService]:
    found = BeginnersService(tmp_path_factory.mktemp("beginners"))
    yield found
    found.stack.close()


# ---- HTTP


class Asked(NamedTuple):
    """A request, and what its refusal must say."""

    method: str
    path: str
    status: int
    said: tuple[str, ...]
    body: bytes | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    key: str | None = "whole"


def sent(value: Any, *said: str, status: int = 400, path: str = "/execute", **more: Any) -> Asked:
    """A body that is sent to be a task."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Asked("POST", path, status, said, body, JSON, **more)


def parameters(**given: Any) -> dict[str, Any]:
    return {"task_type": "custom_script", "parameters": given}


HTTP: dict[str, Asked] = {
    "no key": Asked("GET", "/tasks", 401, ("API key", "Send `Authorization: Bearer uak_…`"), key=None),
    "another sort of header": Asked(
        "GET",
        "/tasks",
        401,
        ("API key", "Send `Authorization: Bearer"),
        headers={"authorization": "Basic eDp5"},
        key=None,
    ),
    "a key in the query": Asked("GET", "/tasks?key=uak_1", 401, ("Send `Authorization: Bearer",), key=None),
    "a key without the scope": Asked("GET", "/tasks", 403, ("lacks the scope `read`", "use a key"), key="submits"),
    "a policy that is not the key's": sent(
        task("1", policy="custom_script_twin"), "may not use", "it may use: custom_script", status=403, key="one policy"
    ),
    "GET for POST": Asked("GET", "/execute", 405, ("GET is not allowed here; POST is",)),
    "a path that is none": Asked("POST", "/run", 404, ("nothing at this path", "GET /docs")),
    "no content type": Asked("POST", "/execute", 415, ("Content-Type: application/json",), b"{}"),
    "a form": Asked(
        "POST",
        "/execute",
        415,
        ("Content-Type: application/json",),
        b"a=b",
        {"content-type": "application/x-www-form-urlencoded"},
    ),
    "an empty body": sent(b"", "the body is empty", "must be a JSON object"),
    "single quotes": sent(b"{'task_type': 1}", "a single quote (byte 1)", "double quotes"),
    "a comma at the end": sent(b'{"task_type":"x",}', "a comma stands before `}`", "leave it out"),
    "Python's None": sent(b'{"task_type":None}', "`None`", "write `null`"),
    "Latin-1": sent('{"task_type":"ü"}'.encode("latin-1"), "the body is not UTF-8 (byte 14)"),
    "an array for one task": sent([parameters(script="1")], "got `array`", "POST /execute/batch"),
    "one task for a batch": sent({}, "got `object`", "POST /execute takes one task", path="/execute/batch"),
    "an empty batch": sent([], "1 to 1000 tasks", path="/execute/batch"),
    "nothing in it": sent({}, "$.task_type: it is required", "$.parameters: it is required"),
    "a slip in task_type": sent(
        {"task_type": "custom_scripts", "parameters": {}}, "did you mean `custom_script`?", "available: "
    ),
    "a task type that is not here": sent(
        {"task_type": "data_processing", "parameters": {"operation": "sum", "data": [1]}},
        "is not available here",
        "available: custom_script",
    ),
    "a slip in a field": sent(task("1", timeout=3), "unknown field `timeout`", "did you mean `timeout_s`?"),
    "another name of the script": sent(parameters(code="1"), "unknown field `code`", "there are: args, inputs, script"),
    "JSON in a text": sent(
        {"task_type": "custom_script", "parameters": '{"script": "1"}'}, "holds JSON: send the object itself"
    ),
    "a script that is not there": sent(task("hello.py"), "there is no script hello.py", "add a line break"),
    "a number as text": sent(task("1", timeout_s="5"), "$.timeout_s", "Expected `float | null`, got `str`"),
    "more time than there is": sent(task("1", timeout_s=1e6), "$.timeout_s", "<= 86400"),
    "a word for priority": sent(task("1", priority="urgent"), "must be one of: low, normal, high"),
    "a slip in the policy": sent(task("1", policy="custom_scripts"), "did you mean `custom_script`?", "there are: "),
    "a callback to anywhere": sent(task("1", callback_url="http://x.example/"), "N8N_WEBHOOK_URL", "CALLBACK_ALLOW"),
    "a callback to a name": sent(task("1", callback_url="n8n"), "is no URL; give one such as https://"),
    "a label with a space": sent(task("1", labels={"a b": "c"}), "letters, digits and _ . / - only"),
    "a number as label": sent(task("1", labels={"a": 1}), "$.labels.a", "Expected `str`, got `int`"),
    "a text as input file": sent(
        parameters(script="1", inputs={"a": "x"}), "inputs.a", "an object has: text, base64, file_id, path"
    ),
    "a made-up file_id": sent(parameters(script="1", inputs={"a": {"file_id": "x"}}), "as the upload returned it"),
    "a path out of the folder": sent(
        parameters(script="1", inputs={"../a": {"text": "x"}}), "such as `report (1).csv`"
    ),
    "a path of the host": sent(
        parameters(script="1", inputs={"a": {"path": "/etc/x"}}), "must be relative to FILES_DIR"
    ),
    "more than a body may be": sent(b'{"task_type": "' + b"x" * (2 << 20), "MAX_BODY_MIB", "POST /files", status=413),
    "a wait that is no number": Asked("GET", f"/task/{NOBODY}?wait=long", 400, ("one number of seconds",)),
    "a slip in a filter": Asked("GET", "/tasks?state=failed", 400, ("did you mean `status`?", "there are: ")),
    "a status that is none": Asked("GET", "/tasks?status=done", 400, ("must be one of: queued, running",)),
    "a day for a time": Asked("GET", "/tasks?created_after=today", 400, ("a time such as 2026-",)),
    "a task that is not there": Asked("GET", f"/task/{NOBODY}", 404, ("no task with this", "GET /tasks lists yours")),
    "an artifact that is not there": Asked("GET", "/task/ENDED/artifacts/x", 404, ("the task's answer lists those",)),
    "a policy that is not there": Asked("GET", "/policies/x", 404, ("GET /policies lists them",)),
    "a callback that is not owed": Asked("POST", "/task/ENDED/callback", 404, ("its `callback_url` when you submit",)),
    "a file that is not there": Asked("DELETE", "/files/x", 404, ("GET /files lists yours",)),
    "a key with a space": Asked(
        "POST",
        "/execute",
        400,
        ("Idempotency-Key", "without spaces"),
        json.dumps(task("1")).encode(),
        JSON | {"idempotency-key": "a b"},
    ),
}


@pytest.mark.parametrize("name", HTTP)
def test_a_fault_in_a_request(service: BeginnersService, name: str) -> None:
    """Its problem document says what is wrong and what to do."""
    asked = HTTP[name]
    key = {"authorization": f"Bearer {service.keys[asked.key].text}"} if asked.key else {}
    answer = httpx.request(
        asked.method,
        f"{service.stack.client.base_url}{asked.path.replace('ENDED', service.ended)}",
        content=asked.body,
        headers=key | dict(asked.headers),
    )
    said = json.dumps(answer.json(), ensure_ascii=False)
    assert asked.status == answer.status_code, said
    assert [] == [words for words in asked.said if words not in json.loads(said)["detail"] + said]


# ---- scripts

SCRIPTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no result": ("x = 1", "ok", ("`result` is null", "the script assigned none")),
    "a library that is not there": ("import torch", "error", ("GET /libraries", "engine libraries add")),
    "a slip in a library": ("import panda", "error", ("Is pandas", "meant?")),
    "pip": (
        "import subprocess\nsubprocess.run(['pip', 'install', 'x'])",
        "error",
        ("start a process", "limits.processes"),
    ),
    "a notebook's magic": ("!pip install x", "error", ("SyntaxError", "nothing can be installed", "GET /libraries")),
    "a notebook's display": ("display(1)", "error", ("no notebook", "assign what is to be seen to `result`")),
    "the network": (
        "import urllib.request\nurllib.request.urlopen('http://example.com')",
        "error",
        ("grants no network", "network.allow"),
    ),
    "a file of one's own": ("open('data.csv')", "error", ("send them as `inputs`", "inputs/NAME")),
    "a file anywhere": ("open('/x.txt', 'w')", "error", ("working directory", "artifacts/")),
    "arguments of a command": ("import sys\nresult = sys.argv[1]", "error", ("send arguments as `args`",)),
    "args that were not sent": ("result = args['x']", "error", ("`args` is None", "the request has no `args`")),
    "main without its arguments": ("def main(a, b):\n    return a", "error", ("fields of an object `args`",)),
    "what has no JSON form": ("result = object()", "invalid_result", ("no JSON form at `$`", "convert it first")),
    "an endless loop": ("while True: pass", "wall_limit", ("ask for more by `timeout_s`, up to",)),
    "much memory": ("x = bytes(10 ** 10)", "memory_limit", ("memory_mib", "policy that grants more")),
    "much output": ("print('x' * 3_000_000)", "output_limit", ("to a file in artifacts/",)),
    "many files": ("for n in range(9999): open(f'{n}', 'w')", "workspace_limit", ("work in parts",)),
    "many threads": (
        "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(1,)).start()",
        "process_limit",
        ("fewer at the same time",),
    ),
    "an exit code": ("import sys\nsys.exit('no input')", "nonzero_exit", ("exit code 1", "no input")),
    "progress in words": ("report_progress('half')\nresult = 1", "ok", ()),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fault_in_a_script(service: BeginnersService, name: str) -> None:
    """Its task's message says what is wrong and what to do."""
    script, exit_reason, said = SCRIPTS[name]
    answer = service.stack.get(service.stack.submit(script, timeout_s=3)["task_id"], 60)
    assert exit_reason == answer["exit_reason"], answer["message"]
    assert [] == [words for words in said if words not in answer["message"]], answer["message"]


def test_a_wrong_call_of_progress_is_a_line_on_stderr(service: BeginnersService) -> None:
    """The run goes on."""
    answer = service.stack.get(service.stack.submit(SCRIPTS["progress in words"][0])["task_id"], 60)
    assert "a number from 0 to 1" in answer["logs"]["stderr"]


# ---- the command line

AWAY = f"http://127.0.0.1:{free_port()}"
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a slip in a command": (("taks", "list"), ("No such command 'taks'", "Did you mean 'tasks'?")),
    "a slip in an option": (("tasks", "list", "--state", "x"), ("No such option: --state", "--status")),
    "a script that is not there": (("run", "nothing.py"), ("nothing.py: No such file", "looked for in /")),
    "a script by another ending": (("run", "FOLDER/task.txt"), ("no task in JSON", "ends in .py")),
    "a folder for a script": (("run", "FOLDER"), ("Is a directory",)),
    "bytes for a script": (("run", "FOLDER/code.py"), ("is no Python source",)),
    "half a task": (("run", "FOLDER/half.json"), ("$: Input data was truncated",)),
    "args that are no JSON": (("run", "FOLDER/ok.py", "--args", "{x: 1}"), ("--args: is no JSON", "with its quotes")),
    "args beside a task": (("run", "FOLDER/half.json", "--args", "1"), ("only for a script", "has fields for them")),
    "a policy that is not there": (
        ("run", "FOLDER/ok.py", "--policy", "free"),
        ("$.policy", "there are: custom_script"),
    ),
    "a file that is not there": (
        ("run", "FOLDER/ok.py", "--file", "t.csv"),
        ("t.csv: No such file", "looked for in /"),
    ),
    "nothing to submit": (("tasks", "submit"), ("name either a file with a task, or a script by --script",)),
    "a label without a value": (("tasks", "submit", "FOLDER/ok.py", "--label", "x"), ("--label x: is not NAME=VALUE",)),
    "an id that is not there": (("tasks", "show", "ffffffff"), ("begins with ffffffff", "`tasks list` shows")),
    "two letters of an id": (("tasks", "show", "ab"), ("give 4 characters or more",)),
    "a status that is none": (("tasks", "list", "--status", "done"), ("status: must be one of: queued",)),
    "a label for a filter": (("tasks", "list", "--label", "a=b"), ("label: must be NAME:VALUE",)),
    "an address without http": (
        ("tasks", "list", "--url", "localhost:8001"),
        ("give one such as http://localhost:8001",),
    ),
    "a service that is away": (("tasks", "list", "--url", AWAY), ("does not answer", "Is the service up")),
    "an upload of nothing": (("files", "upload", "t.csv"), ("t.csv: No such file",)),
    "a file that was not uploaded": (("files", "delete", "file_x"), ("begins with file_x", "`files list` shows")),
    "a state that is none": (
        ("callbacks", "list", "--state", "lost"),
        ("state: must be one of: dead, due, delivered",),
    ),
    "keys without a file": (("keys", "list"), ("API_KEYS_FILE is not set", "--file")),
    "a key that is not there": (
        ("keys", "revoke", "x", "--file", "FOLDER/keys.toml"),
        ("there is no key x", "keys list"),
    ),
    "a policy to show": (("policies", "show", "free"), ("there is no policy and no file free", "policies in ")),
    "libraries of no file": (("libraries", "add", "scripts", "more.txt"), ("more.txt: No such file",)),
    "an audit log of no file": (("audit", "verify", "audit.log"), ("audit.log: No such file",)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_in_a_command(service: BeginnersService, name: str) -> None:
    """A sentence on stderr, an exit code, and never a traceback."""
    command, said = COMMANDS[name]
    code, words = service.cli(*command)
    assert code in (1, 2), words
    assert "Traceback" not in words
    assert [] == [one for one in said if one not in words], words


@pytest.mark.parametrize(
    ("key", "said"), [(None, "Set ENGINE_KEY"), ("wrong", "What ENGINE_KEY holds is no key of this service")]
)
def test_a_command_without_a_key(service: BeginnersService, key: str | None, said: str) -> None:
    """The variable is named, whether it lacks or is wrong."""
    environ = {"ENGINE_KEY": "uak_0_0"} if key else {}
    code, words = service.cli("tasks", "list", key=None, **environ)
    assert (1, True) == (code, said in words), words


def test_a_command_over_tls_to_a_service_without(service: BeginnersService) -> None:
    """The scheme is named."""
    url = str(service.stack.client.base_url).replace("http://", "https://")
    code, words = service.cli("tasks", "list", "--url", url)
    assert (1, True) == (code, "has a URL with http://" in words), words


def test_a_script_is_submitted_by_its_name(service: BeginnersService) -> None:
    """What was a fault once: `tasks submit hello.py` needs no option."""
    code, words = service.cli("tasks", "submit", "FOLDER/ok.py", "--follow")
    assert (0, True) == (code, "succeeded: ok" in words), words


# ---- settings

SETTINGS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "a level that is none": ("api", {"LOG_LEVEL": "verbose"}, ("LOG_LEVEL 'verbose'", "one of DEBUG, INFO")),
    "a port in words": ("api", {"PORT": "http"}, ("PORT 'http'", "1 to 65535")),
    "an environment that is none": ("api", {"ENVIRONMENT": "prod"}, ("one of development, production",)),
    "a time with its unit": ("api", {"MAX_TASK_TIMEOUT": "5m"}, ("a number of seconds",)),
    "a host for a URL": (
        "api",
        {"DATABASE_URL": "localhost:5432", "REDIS_URL": "redis://h"},
        ("DATABASE_URL", "starts with postgresql://"),
    ),
    "another scheme": (
        "api",
        {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "http://h"},
        ("REDIS_URL", "starts with redis://"),
    ),
    "no database": ("api", {"REDIS_URL": "redis://h"}, ("DATABASE_URL is not set",)),
    "production without the rest": (
        "api",
        {"ENVIRONMENT": "production"},
        ("API_KEYS_FILE", "keys new", "CALLBACK_SECRET"),
    ),
    "open to others without keys": ("up", {"HOST": "0.0.0.0"}, ("HOST 0.0.0.0", "keys new", "API_KEYS_FILE")),
    "a database that is away": (
        "up",
        {"DATABASE_URL": f"postgresql://a:b@127.0.0.1:{free_port()}/x"},
        ("DATABASE_URL", "start PostgreSQL"),
    ),
    "a folder without policies": ("check", {"POLICIES_DIR": "/nowhere"}, ("no policy file", "POLICIES_DIR")),
    "a folder without libraries": ("libraries list", {"LIBRARIES_DIR": "/nowhere"}, ("engine libraries install",)),
    "isolation that is none": ("worker", {"SANDBOX_ISOLATION": "none"}, ("one of full, unprivileged, auto",)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fault_in_a_setting(name: str) -> None:
    """A sentence at once, with the variable and what it may be; nothing was started."""
    command, environ, said = SETTINGS[name]
    done = engine_text(*command.split(), **environ)
    last = [line for line in done.stderr.splitlines() if line][-1]
    assert 1 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    assert last.startswith("error: ")
    assert [] == [words for words in said if words not in done.stderr], done.stderr


def test_a_database_that_does_not_exist_is_named_at_once(service: BeginnersService) -> None:
    """By ``up``, in PostgreSQL's own words."""
    url = service.stack.environ["DATABASE_URL"].replace("/postgres?", "/nothing_here?")
    done = engine_text("up", DATABASE_URL=url)
    assert (1, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert '"nothing_here" does not exist; start PostgreSQL and make the database' in done.stderr


def test_a_second_start_on_the_same_data_is_named_at_once() -> None:
    """In one sentence, without PostgreSQL's own."""
    with open_folder() as folder:
        (folder / "postgresql").mkdir(mode=0o700)
        handle = os.open(folder / "postgresql", os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # as the first one does
            done = engine_text("up", "--port", str(free_port()), "--data", str(folder))
        finally:
            os.close(handle)
    assert 1 == done.returncode
    assert done.stderr.splitlines()[-1].endswith("another service uses it; choose another data folder"), done.stderr


def test_a_port_that_is_taken_is_named_at_once() -> None:
    """Before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        done = engine_text("up", "--port", str(taken.getsockname()[1]))
    assert (1, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert "Address already in use (see HOST and PORT)" in done.stderr


def test_the_table_is_as_long_as_it_was_meant() -> None:
    """Sixty faults and more, of each sort."""
    assert len(HTTP) + len(SCRIPTS) + len(COMMANDS) + len(SETTINGS) > 100
