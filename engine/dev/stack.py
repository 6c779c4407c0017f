"""The whole service on one machine: embedded servers where no URL is set, workers and the API, from one process.

Each part is a process of its own that the kernel ends when this one dies. What ends by itself is started again, but a
part that cannot start at all ends everything: its last words on stderr say why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import cast

from engine.config.listening import listen, refuse_open
from engine.config.machine import tasks_memory_mib
from engine.config.settings import PROJECT_DIR, Settings
from engine.dev.embedded import Embedded, default_data_dir, die_with
from engine.model.cancel import end_tasks
from engine.model.errors import EngineError
from engine.model.unreachable import is_unreachable, reason_of
from engine.policies.policies import Policies, largest_memory_mib
from engine.store.connect import Connector
from engine.telemetry.logs import get_logger
from engine.worker.pools import probe
from sandbox.pool.patience import StartPatience, used_s

START_S = 180.0
"""Processor time of all parts together until tasks are accepted and run; and how long none may be used meanwhile."""
LOOK_S = 1.0
READY_POLL_S = 0.05
WATCH_S = 0.5
STEADY_S = 5.0
RESTART_PAUSE_S = (0.2, 5.0)
API_STOP_S = 20.0
DATABASE_ANSWER_S = 5.0
ERROR = b"error: "
"""How the sentence begins that a command ends with."""
LONGEST_LINE = 1 << 20
LAST_WORDS_S = 1.0
"""How long the end of a part's stderr is waited for: what it started may still hold it."""
WORKER_STOP_GRACE_S = 15.0


class StackError(EngineError):
    """The service did not come up."""


class Part:
    """One process of the stack: ``python -m engine COMMAND``."""

    def __init__(self, command: str, environ: Mapping[str, str], *, stop_s: float) -> None:
        self.command = command
        self._environ = dict(environ)
        self._stop_s = stop_s
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._telling: asyncio.Task[None] | None = None
        self.error = ""
        """What it said last that was wrong, in a sentence."""

    async def start(self) -> None:
        """Start the process of this part."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine", self.command,
            cwd=PROJECT_DIR, env=self._environ, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, limit=LONGEST_LINE, start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),
        )  # fmt: skip
        self._started_at, self.error = time.monotonic(), ""
        self._telling = asyncio.create_task(self._tell(cast(asyncio.StreamReader, self._process.stderr)))

    async def _tell(self, stderr: asyncio.StreamReader) -> None:
        """Pass on what it says, and keep the sentence by which it may end."""
        while line := await _next_line(stderr):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
            if line.startswith(ERROR):
                self.error = line.removeprefix(ERROR).decode(errors="replace").strip()

    async def wait_ended(self) -> int:
        """Wait for the process to end, and return its exit code."""
        if self._process is None or self._telling is None:
            return 0
        code = await self._process.wait()
        await asyncio.wait([self._telling], timeout=LAST_WORDS_S)
        return code

    @property
    def steady(self) -> bool:
        """Whether the process has run for ``STEADY_S``."""
        return time.monotonic() - self._started_at > STEADY_S

    async def stop(self) -> None:
        """Ask it to stop, wait, and kill it when it takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._stop_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """The next line; of one that is too long, a part."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as beyond:
        return await stream.readexactly(beyond.consumed)


async def run_stack(settings: Settings, *, workers: int, ready: Callable[[str], None]) -> None:
    """Start everything, say so, and stop everything on SIGINT or SIGTERM.

    Args:
        settings: of the whole service.
        workers: how many worker processes.
        ready: told the API's URL once tasks are accepted and run.

    Raises:
        SettingsError: others could reach the API without a key.
        ListenError: the API's address cannot be listened on.
        EmbeddedError: an embedded server cannot run here.
        StackError: a part did not come up.
    """
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    refuse_open(settings)  # these three better now than after all the rest has started
    listen(settings.listen_host, settings.port).close()
    await _refuse_foreign_database(settings)
    await _say_isolation(settings)
    wanted = (settings.database_url is None, settings.redis_url is None)
    data_dir = (settings.data_dir or default_data_dir()) if wanted[0] else None
    with Embedded(data_dir, database=wanted[0], redis=wanted[1]) as embedded:
        if any(wanted):
            get_logger().info("embedded servers started", data=str(data_dir) if data_dir else None)
        environ = _environ(settings, embedded) | {"WORKER_MEMORY_MIB": str(_worker_memory_mib(settings, workers))}
        stop_s = settings.drain_s + WORKER_STOP_GRACE_S
        parts = [
            Part("worker", environ | {"WORKER_METRICS_PORT": metrics_port(settings, number)}, stop_s=stop_s)
            for number in range(workers)
        ]
        await _run_parts([Part("api", environ, stop_s=API_STOP_S), *parts], embedded, settings, stop, ready)


async def _refuse_foreign_database(settings: Settings) -> None:
    """A service waits for a PostgreSQL that is away; a developer who named a wrong one wants to know.

    Raises:
        StackError: DATABASE_URL leads to none that takes us in.
    """
    if settings.database_url is None:
        return
    try:
        async with asyncio.timeout(DATABASE_ANSWER_S):
            connection = await Connector(settings.database_url).first()
            await connection.close()
    except Exception as error:
        if not is_unreachable(error):
            raise
        fix = "start PostgreSQL and make the database, or leave DATABASE_URL out for an embedded one"
        raise StackError(f"DATABASE_URL: PostgreSQL says: {reason_of(error)}; {fix}") from error


async def _say_isolation(settings: Settings) -> None:
    """The first line says what will hold the runs, before anything is started on the strength of it."""
    host = await asyncio.to_thread(probe, settings)
    layers = {layer.name: layer.version for layer in host.layers if layer.available}
    get_logger().info("isolation", profile=host.profile, asked=settings.isolation, layers=layers)


async def _run_parts(
    parts: list[Part], embedded: Embedded, settings: Settings, stop: asyncio.Event, ready: Callable[[str], None]
) -> None:
    up = asyncio.Event()
    jobs = [asyncio.create_task(_keep(part, up)) for part in parts]
    jobs.append(asyncio.create_task(_keep_servers(embedded)))
    coming = asyncio.create_task(_until_ready(settings.listen_host, settings.port))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([coming, stopping, *jobs], return_when=asyncio.FIRST_COMPLETED)
        if coming.done() and not stop.is_set():
            coming.result()
            up.set()
            ready(_url(settings))
        await asyncio.wait([stopping, *jobs], return_when=asyncio.FIRST_COMPLETED)
        for job in jobs:
            if job.done():
                job.result()
    finally:
        await end_tasks(coming, stopping, *jobs)
        for part in parts:  # the API first: nothing new comes in while the workers drain
            await part.stop()


async def _keep(part: Part, up: asyncio.Event) -> None:
    """Keep a part running.

    Raises:
        StackError: it ended before the service was up.
    """
    pause = RESTART_PAUSE_S[0]
    while True:
        await part.start()
        code = await part.wait_ended()
        if not up.is_set():
            why = part.error or f"exit code {code}; its own words are above"
            raise StackError(f"the {part.command} could not start: {why}")
        pause = RESTART_PAUSE_S[0] if part.steady else min(pause * 2, RESTART_PAUSE_S[1])
        get_logger().error("part ended", part=part.command, exit_code=code, restart_s=pause)
        await asyncio.sleep(pause)


async def _keep_servers(embedded: Embedded) -> None:
    """Start an embedded server again that has ended."""
    while True:
        await asyncio.sleep(WATCH_S)
        if embedded.database and embedded.database.pid is None:
            get_logger().error("embedded server ended", server="PostgreSQL")
            embedded.start_database()
        if embedded.redis and embedded.redis.pid is None:
            get_logger().error("embedded server ended", server="Valkey")
            embedded.start_redis()


async def _until_ready(host: str, port: int) -> None:
    patience, looked_at = StartPatience(START_S, lambda: used_s(os.getpid())), time.monotonic()
    while not await _is_ready(_reachable(host), port):
        if time.monotonic() - looked_at > LOOK_S:
            looked_at = time.monotonic()
            if (fault := patience.fault()) is not None:
                raise StackError(f"the service is {fault}")
        await asyncio.sleep(READY_POLL_S)


async def _is_ready(host: str, port: int) -> bool:
    request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def _environ(settings: Settings, embedded: Embedded) -> dict[str, str]:
    """The environment of every part: our own, with what was decided here."""
    environ = dict(os.environ) | {"HOST": settings.listen_host, "PORT": str(settings.port)}
    if embedded.urls.database:
        environ["DATABASE_URL"] = embedded.urls.database
    if embedded.urls.redis:
        environ["REDIS_URL"] = embedded.urls.redis
    return environ


def _worker_memory_mib(settings: Settings, workers: int) -> int:
    """What the tasks of each worker may have together: the workers share this machine."""
    largest_mib = largest_memory_mib(Policies.load(settings), settings)
    return tasks_memory_mib(settings.worker_memory_mib, largest_mib, workers=workers)


def metrics_port(settings: Settings, number: int) -> str:
    """A port of its own for each worker: counted on from the one that was asked for, else any that is free."""
    first = settings.worker_metrics_port
    return str(first + number) if first else "0"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not listened on


def _url(settings: Settings) -> str:
    host = settings.listen_host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
