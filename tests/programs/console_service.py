"""The service that the console is tried on: keys, two tenants, tasks of every sort, and a receiver that is gone."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from engine.config.keys import NewKey, add_key, make_key
from engine.model.principal import Scope
from tests.support.stack import until, whole_service

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e"
PLOT = (
    "import matplotlib.pyplot as plt\nprint('drawing')\nplt.plot([1, 4, 9])\nplt.savefig('artifacts/plot.png')\n"
    "result = [{'x': x, 'square': x * x, 'name': 'abc'[x % 3]} for x in range(300)]"
)
HOSTILE_RESULT = """
import os, sys
print(args)
print(args, file=sys.stderr)
report_progress(0.5, args)
for name in ("<img src=x onerror=alert(3)>.png", "<b onclick=alert(4)>.svg", "x.html"):
    open("artifacts/" + name, "w").write(args)
os.symlink("/etc/passwd", "artifacts/<i onmouseover=alert(5)>")
result = {args: args, "rows": [{args: args, "n": 1}, {args: args, "n": 2}], "deep": [[{args: [args]}]]}
"""
DENIED = (
    "import socket, subprocess\n"
    "what = lambda: subprocess.run(['ls']), lambda: socket.create_connection(('192.0.2.1', 80))\n"
    "for each in what:\n    try:\n        each()\n    except OSError as error:\n        print(error)\nresult = 'tried'"
)
SCRIPTS: dict[str, dict[str, Any]] = {
    "plot": {"script": PLOT},
    "error": {"script": "def half(x):\n    return 1 / x\n\nprint('before')\nresult = half(0)"},
    "hostile": {"script": HOSTILE_RESULT, "args": HOSTILE, "inputs": {"<u id=alert(6)>.txt": {"text": HOSTILE}}},
    "hostile error": {"script": "raise type(args[:40], (Exception,), {})(args)", "args": HOSTILE},
    "hostile exit": {"script": "import sys\nsys.exit(args)", "args": HOSTILE},
    "limit": {"script": "print('x' * 1000)\nwhile True: pass"},
    "memory": {"script": "result = len(bytearray(900 << 20))"},
    "denied": {"script": DENIED},
    "named": {
        "script": "data_analysis.py",
        "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "statistics"},
    },
    "null": {"script": "x = 1\n"},
    "callback": {"script": "result = 1"},
}


class Tried(NamedTuple):
    """The service, who has keys, and the tasks that have ended."""

    url: str
    key: NewKey
    """Opens everything, of all tenants."""
    reader: NewKey
    """Reads tasks, and nothing else."""
    other: NewKey
    """Of another tenant, without the scope admin."""
    tasks: dict[str, str]
    """Name → id of a task of the first key's tenant."""


class _Gone(BaseHTTPRequestHandler):
    """Answers every callback with 410, upon which the service gives it up."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(410)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the name that the base class gives it
        pass


@contextmanager
def keyed_service() -> Iterator[Tried]:
    """Start it, and let its tasks end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = {
            "key": make_key("acme", Scope),
            "reader": make_key("acme", [Scope.READ]),
            "other": make_key("globex", [scope for scope in Scope if scope != Scope.ADMIN]),
        }
        for made in keys.values():
            add_key(folder / "keys.toml", made)
        receiver = stack.enter_context(HTTPServer(("127.0.0.1", 0), _Gone))
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        stack.callback(receiver.shutdown)
        stack.enter_context(
            _environment(
                API_KEYS_FILE=str(folder / "keys.toml"),
                AUDIT_LOG=str(folder / "audit.log"),
                CALLBACK_SECRET=f"whsec_{'0' * 40}",
                CALLBACK_ALLOW=f"http://127.0.0.1:{receiver.server_port}/",
            )
        )
        url, _ = stack.enter_context(whole_service())
        tasks = _run_tasks(url, keys["key"], f"http://127.0.0.1:{receiver.server_port}/gone")
        _run_tasks(url, keys["other"], None, only=("denied", "named"))
        yield Tried(url.replace("127.0.0.1", "localhost"), **keys, tasks=tasks)


def _run_tasks(
    url: str, key: NewKey, callback_url: str | None, only: tuple[str, ...] = tuple(SCRIPTS)
) -> dict[str, str]:
    found = {}
    with httpx.Client(base_url=url, headers={"x-api-key": key.text}, timeout=90) as client:
        for name in only:
            body: dict[str, Any] = {
                "task_type": "custom_script",
                "parameters": SCRIPTS[name],
                "labels": {"of": HOSTILE},
            }
            body |= {"timeout_s": 0.5} if name == "limit" else {}
            body |= {"callback_url": callback_url} if name == "callback" else {}
            found[name] = client.post("/execute?wait=60", json=body).json()["task_id"]
        if "callback" in found:
            until(lambda: _is_dead(client, found["callback"]), "the callback is given up")
    return found


def _is_dead(client: httpx.Client, task_id: str) -> bool:
    return bool(client.get(f"/task/{task_id}").json()["callback"]["state"] == "dead")


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
