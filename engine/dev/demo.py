"""Shows the service at work: starts it on embedded servers, submits examples, stops all of it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import httpx
import msgspec
import psutil
from rich.console import Console
from rich.panel import Panel

from engine.config.settings import PROJECT_DIR
from engine.model.errors import EngineError

START_TIMEOUT_S = 3600.0
"""`up` itself says when nothing goes on any more; on a slow machine it may take long."""
STOP_TIMEOUT_S = 60.0
WAIT_S = 60
LINE_LENGTH = 110
SHOWN = ("status", "exit_reason", "message", "result", "error", "usage", "isolation")


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the documentation, and what a person may check its answer against."""

    about: str
    request: dict[str, Any]
    expected: str = "ok"


EXAMPLES = (
    Example(
        about="A named script with pandas and numpy, over data in the request",
        request={
            "task_type": "custom_script",
            "parameters": {
                "script": "data_analysis.py",
                "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"},
            },
        },
    ),
    Example(
        about="Statistics over objects, on DuckDB",
        request={
            "task_type": "data_processing",
            "parameters": {
                "operation": "statistics",
                "data": [
                    {"value": 10, "category": "A"},
                    {"value": 20, "category": "B"},
                    {"value": 15, "category": "A"},
                ],
            },
        },
    ),
    Example(
        about="How a text feels, by a model that is already in memory",
        request={
            "task_type": "ml_inference",
            "parameters": {"model_type": "sentiment", "input_data": "This product is absolutely amazing!"},
        },
    ),
    Example(
        about="A script that nobody has read, and that would like to read a secret and call home",
        request={
            "task_type": "custom_script",
            "parameters": {
                "script": "import socket\n"
                "found = {}\n"
                "try:\n"
                "    found['file'] = open('/etc/shadow').read()\n"
                "except OSError as error:\n"
                "    found['file'] = str(error)\n"
                "try:\n"
                "    socket.create_connection(('192.0.2.1', 443), timeout=2)\n"
                "    found['network'] = 'connected'\n"
                "except OSError as error:\n"
                "    found['network'] = str(error)\n"
                "result = found\n"
            },
        },
    ),
    Example(
        about="A script that never ends, with two seconds to live",
        request={"task_type": "custom_script", "parameters": {"script": "while True: pass\n"}, "timeout_s": 2},
        expected="wall_limit",
    ),
)


class DemoError(EngineError):
    """The service did not do what it should."""


def run_demo() -> None:
    """Start, show, stop.

    Raises:
        DemoError: something was not as it should be.
    """
    out, started_s = Console(soft_wrap=True), time.monotonic()
    with own_service() as url:
        out.print(f"The service is up at {url} (its documentation: {url}/docs)\n")
        for number, example in enumerate(EXAMPLES, 1):
            with _saying(f"task {number} of {len(EXAMPLES)}: {example.about}"):
                answer = _submit(url, example.request)
            _show(out, number, example, answer)
    took_s = time.monotonic() - started_s
    out.print(f"Everything is stopped; nothing is left running. It took {took_s:.0f} s, start and stop included.")


@contextlib.contextmanager
def own_service(*, workers: int = 1) -> Iterator[str]:
    """The whole service on embedded servers, with its data in a temporary folder; yields its URL.

    Raises:
        DemoError: it did not start, or did not stop.
    """
    folder = Path(tempfile.mkdtemp(prefix="unityai-demo-"))
    folder.chmod(0o755)  # the embedded servers have another user when we are root
    try:
        with _saying("starting the service on embedded servers"):
            service, url = _start(folder, workers)
        try:
            yield url
        finally:
            with _saying("stopping the service"):
                _stop(service)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback on which nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(folder: Path, workers: int) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    log = (folder / "service.log").open("wb")
    environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "HOST")}
    service = subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-m", "engine", "up", "--port", str(port), "--data", str(folder / "data"),
         "--workers", str(workers)],
        cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=log, env=environ | {"ENVIRONMENT": "development"},
    )  # fmt: skip
    lines: queue.Queue[bytes] = queue.Queue()
    stream = cast(IO[bytes], service.stdout)
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_TIMEOUT_S).decode().strip()
    except queue.Empty:
        line = ""
    if not line.startswith("ready http://"):
        _stop(service, check=False)
        words = (folder / "service.log").read_text(errors="replace").strip().splitlines()
        raise DemoError("the service did not start:\n" + "\n".join(words[-5:]))
    return service, line.removeprefix("ready ")


def _submit(url: str, request: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(f"{url}/execute", params={"wait": WAIT_S}, json=request, timeout=WAIT_S + 10)
    if response.status_code != 200:
        raise DemoError(f"POST /execute answered {response.status_code}: {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def _show(out: Console, number: int, example: Example, answer: dict[str, Any]) -> None:
    shown = {name: answer[name] for name in SHOWN if answer.get(name) is not None}
    if violations := answer.get("violations"):
        shown["violations"] = violations
    out.print(Panel(f"{number}. {example.about}", expand=True))
    out.print("POST /execute?wait=60")
    out.print(_layout(example.request), markup=False)
    out.print(f"→ {answer['exit_reason']}: GET /task/{answer['task_id']}")
    out.print(_layout(shown), "\n", markup=False)
    if answer["exit_reason"] != example.expected:
        raise DemoError(f"task {number} ended with {answer['exit_reason']}; expected was {example.expected}")


def _layout(value: Any, indent: int = 0) -> str:
    """JSON for a person: on one line what fits on one, everything else a line for each part."""
    line, pad = json.dumps(value), " " * (indent + 2)
    if len(line) + indent <= LINE_LENGTH or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        parts = [f"{pad}{json.dumps(key)}: {_layout(part, indent + 2)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + _layout(part, indent + 2) for part in value) + "\n" + " " * indent + "]"


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Say on stderr what is being done: a moving line on a terminal, else one line."""
    progress = Console(stderr=True)
    if not progress.is_terminal:
        progress.print(f"{what} ...")
        yield
        return
    with progress.status(what):
        yield


def _stop(service: subprocess.Popen[bytes], *, check: bool = True) -> None:
    """Stop the service and make sure that every process of it has gone."""
    try:
        family = psutil.Process(service.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    service.send_signal(signal.SIGTERM)
    try:
        code = service.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        service.kill()
        code = service.wait()
    _, left = psutil.wait_procs(family, timeout=5)
    for process in left:
        process.kill()
    if check and left:
        raise DemoError(f"left running: {', '.join(f'{process.pid}' for process in left)}")
    if check and code != 0:
        raise DemoError(f"the service ended with exit code {code}")
