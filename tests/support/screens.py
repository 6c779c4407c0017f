"""What commands print on a terminal of some width, before a service that answers with the document's own examples."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import pty
import re
import struct
import tempfile
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.api.docs.answers import read_examples
from engine.config.keys import add_key, make_key
from engine.model.principal import Scope
from tests.support.forked import Forked, Streams
from tests.support.stack import FOREIGN, ROOT

GOLDEN = ROOT / "tests" / "service" / "golden" / "screens"
WIDTHS = (60, 80, 140)
FAILED = "0044c9e0-a891-4035-b6d7-768af2fdc287"
SCREENS: dict[str, tuple[str, ...]] = {
    "tasks list": ("tasks", "list"),
    "tasks show": ("tasks", "show", FAILED),
    "tasks artifacts": ("tasks", "artifacts", FAILED),
    "tasks cancel": ("tasks", "cancel", FAILED),
    "files list": ("files", "list"),
    "callbacks list": ("callbacks", "list", "--state", "due"),
    "top": ("top", "--once"),
    "keys list": ("keys", "list", "--file", "KEYS"),
    "a fault": ("tasks", "list", "--url", "localhost:8001"),
}
"""Name of a screen → its command."""
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def answers() -> dict[str, Any]:
    """Path → what the service answers, made of the document's examples."""
    examples = read_examples()
    (listed,) = examples["listTasks 200"].values()
    (files,) = examples["listFiles 200"].values()
    (callbacks,) = examples["listCallbacks 200"].values()
    (health,) = examples["getHealth 200"].values()
    task = copy.deepcopy(examples["execute 200"]["custom_script"])
    error = {
        "type": "ValueError", "code": None, "message": "no such column: price",
        "traceback": 'Traceback (most recent call last):\n  File "script.py", line 2, in <module>\n'
        "ValueError: no such column: price\n",
    }  # fmt: skip
    artifact = {"name": "reports/plot of the year.png", "size_bytes": 48213, "sha256": "0" * 64}
    task |= {
        "task_id": FAILED, "status": "failed", "exit_reason": "error", "result": None, "error": error,
        "message": "ValueError: no such column: price", "artifacts": [artifact],
        "artifacts_refused": [{"name": "huge.bin", "reason": "larger than artifacts_mib allows"}],
    }  # fmt: skip
    return {
        "/tasks": listed, f"/task/{FAILED}": task, "/files": files, "/callbacks": callbacks, "/health": health,
    }  # fmt: skip


@contextlib.contextmanager
def answering() -> Iterator[str]:
    """A web server that answers as a service would; yields its URL."""
    known = answers()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = json.dumps(known[urlsplit(self.path).path]).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = answer  # noqa: N815  their names are http.server's

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_keys(path: Path) -> None:
    """A file of keys that are always the same."""
    for number, (tenant, scopes) in enumerate({"main-app": tuple(Scope), "n8n": (Scope.SUBMIT, Scope.READ)}.items()):
        made = make_key(tenant, scopes, policies=["custom_script", "custom_script_network"] if number else None)
        add_key(path, made)
        path.write_text(path.read_text().replace(made.key_id, f"{number}a2b3c4d5e6f"))


def screen(columns: int, name: str, url: str, keys: Path) -> str:
    """What the command of a screen prints on a terminal of so many columns, without colours."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    left_out = (*FOREIGN, "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "ENGINE_KEY")
    environ = {one: value for one, value in os.environ.items() if one not in left_out}
    path = os.ttyname(child)
    command = [word.replace("KEYS", str(keys)) for word in SCREENS[name]]
    process = Forked("engine", command, environ | {"TERM": "xterm", "ENGINE_URL": url}, Streams(path, path, path))
    printed = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: its other end was closed
            while part := os.read(terminal, 1 << 16):
                printed.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    process.wait(60)
    os.close(child)
    reader.join()
    os.close(terminal)
    text = _COLOURS.sub("", printed.decode()).replace("\r\n", "\n")
    text = re.sub(r"\d\d:\d\d:\d\d UTC", "12:00:00 UTC", text.replace(str(keys), "keys.toml"))
    return re.sub(r"\d{4}-\d\d-\d\d", "2026-01-31", text) if name == "keys list" else text  # made now, so dated


def screens() -> dict[str, str]:
    """Every screen at every width: name and columns → what was printed."""
    with answering() as url, tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys.toml")
        write_keys(keys)
        return {f"{name}.{columns}": screen(columns, name, url, keys) for name in SCREENS for columns in WIDTHS}
