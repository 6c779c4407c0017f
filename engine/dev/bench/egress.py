"""Measures what the egress proxy takes: the same fetches from a sandbox through it and, for comparison, directly.

Run as a program (``python -m engine.dev.bench.egress``) it is the server that both fetch from, in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import msgspec

from engine.config.settings import PROJECT_DIR
from sandbox import ExitReason, Host, Policy, Pool, Template

BIG_MIB = 100
SMALL_FETCHES = 200
HOST = "bench.example"
FETCH = """
import time, urllib.request

def fetch(url):
    started = time.perf_counter()
    with urllib.request.urlopen(url) as answer:
        size = 0
        while part := answer.read(1 << 18):
            size += len(part)
    return size, time.perf_counter() - started

fetch(args["small"])
small = sorted(fetch(args["small"])[1] for _ in range(args["count"]))
big = [fetch(args["big"]) for _ in range(3)]
result = {"small_s": small, "big": big}
"""
"""The program that runs in a sandbox and outside of one, to the letter."""


class Fetched(msgspec.Struct, frozen=True):
    """The result of ``FETCH``."""

    small_s: list[float]
    big: list[tuple[int, float]]
    """(bytes, seconds) of each."""


async def measure(policy: Policy, host: Host, template: Template) -> tuple[Fetched, Fetched]:
    """Fetch directly and through the proxy; (direct, proxied)."""
    with serving() as port:
        direct = await asyncio.to_thread(_fetch_directly, port)
        async with _pool(policy, host, template, port) as pool:
            result = await pool.run(_request(HOST, port))
    if result.exit_reason is not ExitReason.OK or result.value is None:
        raise RuntimeError(f"a benchmark run ended with {result.exit_reason}: {result.message}")
    return direct, msgspec.json.decode(result.value, type=Fetched)


def _pool(policy: Policy, host: Host, template: Template, port: int) -> Pool:
    network = msgspec.structs.replace(
        policy.network, allow=(f"{HOST}:{port}",), connections=8, connections_total=1024, in_mib=1024, out_mib=64,
        head_kib=16, first_byte_s=10.0, total_s=60.0,
    )  # fmt: skip
    granted = msgspec.structs.replace(policy, preload=("handlers.custom_script",), network=network)
    outside = msgspec.structs.replace(template, egress_exceptions=(ip_network("127.0.0.1/32"),))
    return Pool(granted, host, outside, ready=1, resolve=_always_here)


async def _always_here(_: str) -> Sequence[str]:
    return ["127.0.0.1"]


def _arguments(host: str, port: int) -> dict[str, object]:
    return {"small": f"http://{host}:{port}/small", "big": f"http://{host}:{port}/big", "count": SMALL_FETCHES}


def _request(host: str, port: int) -> bytes:
    parameters = {"script": FETCH, "args": _arguments(host, port)}
    return json.dumps({"task_type": "custom_script", "parameters": parameters}).encode()


def _fetch_directly(port: int) -> Fetched:
    program = f"args = {_arguments('127.0.0.1', port)!r}\n{FETCH}\nimport json\nprint(json.dumps(result))"
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        ended = subprocess.run([sys.executable, "-I", file.name], check=True, capture_output=True)  # noqa: S603  ours
    return msgspec.json.decode(ended.stdout, type=Fetched)


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """The server, and its port."""
    command = [sys.executable, "-m", "engine.dev.bench.egress"]
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:  # noqa: S603  ours
        try:
            yield int((process.stdout.readline() if process.stdout else b"") or 0)
        finally:
            process.kill()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """A small answer, or a big one."""
        body = bytes(BIG_MIB << 20) if self.path == "/big" else b"small"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
