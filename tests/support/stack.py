"""Starts parts of the service as real processes, for tests."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from engine.dev.embedded import Embedded
from tests.support.forked import Forked, Streams

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("DATABASE_URL", "REDIS_URL", "HOST", "PORT", "DATA_DIR", "ENVIRONMENT")


class Part:
    """One process of the service: ``python -m engine COMMAND``, forked from a process that has imported it already.

    Importing takes as long as all else that a part does at its start. Tests that start ``python -m engine`` itself
    (``whole_service``, ``test_command_line.py``) show that a fresh interpreter does the same.
    """

    def __init__(self, command: list[str], environ: dict[str, str], log: Path, module: str = "engine") -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.log = log
        self.process = Forked(module, command, inherited | environ, Streams(stderr=str(log)))

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout_s: float = 120) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout_s)


class Stack:
    """Servers, an API and workers that a test may break. Their only policy loads little, so that they start quickly."""

    def __init__(
        self,
        folder: Path,
        *,
        max_attempts: int = 3,
        headers: dict[str, str] | None = None,
        twin: str = "",
        rewire: Callable[[dict[str, str]], dict[str, str]] = dict,
        **environ: str,
    ) -> None:
        """
        Args:
            folder: of logs and policies.
            max_attempts: of the policies.
            headers: of each request.
            twin: name of a second policy, which grants the same.
            rewire: given the environment with the servers' URLs, returns what the parts get instead.
            environ: settings.
        """
        self.folder = folder
        self._cleanup = contextlib.ExitStack()
        policies = light_policies(folder, "custom_script", *filter(None, [twin]), max_attempts=max_attempts)
        self.servers = self._cleanup.enter_context(fresh_servers())
        self.port = free_port()
        self.environ = {
            "DATABASE_URL": str(self.servers.urls.database),
            "REDIS_URL": str(self.servers.urls.redis),
            "PORT": str(self.port),
            "POLICIES_DIR": str(policies),
            **environ,
        }
        self.environ = rewire(self.environ)
        client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, headers=headers)
        self.client = self._cleanup.enter_context(client)
        self.api = self.start("api")
        until(lambda: answers(self.client, "/health"), "the API accepts tasks")

    def start(self, *command: str, module: str = "engine", **environ: str) -> Part:
        """Start a part; it is stopped at the end, should it still run."""
        log = self.folder / f"{'-'.join(command).replace(' ', '-')}.log"
        return self.keep(Part(list(command), self.environ | environ, log, module))

    def keep(self, part: Part) -> Part:
        """Stop a part at the end, should it still run."""
        self._cleanup.callback(part.stop, signal.SIGKILL)
        return part

    def worker(self, **environ: str) -> Part:
        """Start a worker and wait until it is at work."""
        part = self.start("worker", **environ)
        until(lambda: part.pid in self.worker_pids(), f"worker {part.pid} is at work; see {part.log}")
        return part

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are alive, as far as the service knows."""
        workers = self.client.get("/health").json()["workers"]
        return [worker["pid"] for worker in workers if worker["state"] != "silent"]

    def get_worker(self) -> dict[str, Any]:
        """The service's report of its only worker."""
        [worker] = self.client.get("/health").json()["workers"]
        return dict(worker)

    def submit(self, script: str, **more: Any) -> dict[str, Any]:
        """Submit a script; the answer of 202."""
        response = self.client.post("/execute", json=task(script, **more))
        assert response.status_code == 202, response.text
        return dict(response.json())

    def get(self, task_id: str, wait_s: float = 0) -> dict[str, Any]:
        """A task, as it is or as it ends within the time."""
        return dict(self.client.get(f"/task/{task_id}", params={"wait": wait_s}).json())

    def end_leases(self) -> None:
        """Let the time of every lease be over, at once: for tests in which it is another thing that matters."""
        ask(self.environ["DATABASE_URL"], "UPDATE tasks SET lease_until = now() WHERE status = 'running'")

    def close(self) -> None:
        self._cleanup.close()


def light_policies(folder: Path, *names: str, max_attempts: int = 3) -> Path:
    """A folder of policies, each of which is custom_script's but loads little, so that its zygote starts quickly."""
    policies = folder / "policies"
    policies.mkdir()
    light = (ROOT / "policies" / "custom_script.toml").read_text()
    for old, new in {
        r"^preload .*$": 'preload = ["handlers.custom_script"]',
        r"^preload_if_named .*$": "preload_if_named = []",
        r"^max_attempts .*$": f"max_attempts = {max_attempts}",
    }.items():
        light = re.sub(old, new, light, flags=re.MULTILINE)
    for name in names:
        (policies / f"{name}.toml").write_text(light)
    return policies


def delivered_policies(folder: Path, names: Collection[str], wall_s: int = 0) -> Path:
    """A folder of some of the delivered policies, which grant so much time and processor time, if that is said."""
    policies = folder / "policies"
    policies.mkdir()
    for name in names:
        text = (ROOT / "policies" / f"{name}.toml").read_text()
        if wall_s:
            text = re.sub(r"^(wall_s|cpu_s) .*$", rf"\1 = {wall_s}", text, flags=re.MULTILINE)
        (policies / f"{name}.toml").write_text(text)
    return policies


@contextlib.contextmanager
def frozen(pid: int | None, *, whole_family: bool = True) -> Iterator[None]:
    """A process, and all below it unless said otherwise, that does nothing (SIGSTOP) and then goes on (SIGCONT)."""
    stopped = [psutil.Process(pid)]
    stopped[0].suspend()
    if whole_family:
        stopped += stopped[0].children(recursive=True)
    try:
        for process in stopped:
            process.suspend()
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def ask(dsn: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of a statement; of several, which take no arguments, none."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            several = ";" in statement.strip().removesuffix(";")
            return await (connection.execute if several else connection.fetch)(statement, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextlib.contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    """A table that nobody else reads or writes: whoever asks for it waits."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(dsn))
        runner.run(connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        try:
            yield
        finally:
            runner.run(connection.close())


def task(script: str, **more: Any) -> dict[str, Any]:
    """The body of a request that runs a script."""
    return {"task_type": "custom_script", "parameters": {"script": script}, **more}


def until(what: Callable[[], Any], about: str, timeout_s: float = 120) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {about}"
        time.sleep(0.05)


def answers(client: httpx.Client, path: str) -> bool:
    """Whether a path answers with 200."""
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def _stands(url: str) -> bool:
    """Whether the workers of a service are ready for all of their policies, as far as it tells without a key."""
    health = httpx.get(f"{url}/health", timeout=20)
    return health.status_code == 401 or not any(worker["not_ready"] for worker in health.json()["workers"])


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens on, below the ephemeral ones (ip(7)), so that the kernel gives it to nobody else."""
    while True:
        port = secrets.choice(range(15_000, 30_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that other users may enter: as root the embedded servers are another user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def fresh_servers() -> Iterator[Embedded]:
    """Embedded servers with an empty database, which is a copy: making one anew takes a second of processor time."""
    with open_folder() as folder:
        shutil.copytree(_empty_database(), folder / "postgresql")
        with Embedded(folder) as servers:
            yield servers


@functools.cache
def _empty_database() -> Path:
    """The data of a PostgreSQL that was started once; made once for this process, and deleted at its end."""
    folder = Path(tempfile.mkdtemp(prefix="empty-database-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    with Embedded(folder, redis=False):
        pass
    return folder / "postgresql"


@contextlib.contextmanager
def whole_service(
    *, light: bool = False, wall_s: int = 0, only: Collection[str] = (), servers: Embedded | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``python -m engine up`` in a temporary folder; yields its URL and the process.

    Args:
        light: with one policy that loads little, instead of those that are delivered.
        wall_s: with custom_script's delivered policy, which grants so much time and processor time.
        only: with these of the delivered policies: each has a zygote, and those of models start slowly.
        servers: that it uses, instead of embedded ones of its own.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN} | {"DRAIN_S": "1"}
    if servers is not None:
        inherited |= {"DATABASE_URL": str(servers.urls.database), "REDIS_URL": str(servers.urls.redis)}
    with open_folder() as folder:
        if light:
            inherited["POLICIES_DIR"] = str(light_policies(folder, "custom_script"))
        if wall_s or only:
            inherited["POLICIES_DIR"] = str(delivered_policies(folder, only or ["custom_script"], wall_s))
        command = [sys.executable, "-m", "engine", "up", "--port", str(free_port()), "--data", str(folder / "data")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout
        try:
            line = process.stdout.readline().decode()
            assert line.startswith("ready http://127.0.0.1:"), (folder / "log").read_text()
            url = line.split()[1]
            until(lambda: _stands(url), f"every policy of {url} is ready", 300)
            yield url, process
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()
