"""The service as a storm finds it: each part behind lines of its own to its servers, and restarted when it was ended.

Whoever runs the service restarts a process that was killed, as Kubernetes and systemd do. A process that ends though
nobody ended it is noted as such, and started again, so that the storm can go on.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import redis

from tests.chaos.outside.promises import RETRY_S
from tests.support.line import Line, Lines
from tests.support.stack import Part, Stack, ask, free_port, until

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS1zdG9ybS0wMTIzNDU2Nzg5"
MAX_ATTEMPTS = 30
SETTINGS = {
    "LEASE_S": "3",
    "DRAIN_S": "1",
    "MAX_CONCURRENT_TASKS": "6",
    "CALLBACK_RETRY_S": str(RETRY_S),
    "EVENT_HEARTBEAT_S": "3",
    "WORKER_STALL_S": "8",
    "DEBUG_STALL_S": "4",
}
"""Short leases and pauses: a storm has little time for each."""
LAST_WORDS = 400
ASK_S = 30.0
AWAY = (
    OSError, asyncpg.PostgresConnectionError, asyncpg.exceptions.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)  # fmt: skip
"""How PostgreSQL is away when a fault befalls it at the very moment of a question."""
AT_WORK = {"API": "PostgreSQL is open", "wor": "worker started"}
STARTED_S = 2.0
"""A process that starts may well end by what befalls it, and has nothing below it that could be spoilt."""
STOP_S = 75.0
"""For a part that is told to end: longer than it gives PostgreSQL to come back and take a result."""


class Scene:
    """Servers, lines, one API and some workers."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        seed: int = 0,
        max_attempts: int = MAX_ATTEMPTS,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            folder: of logs and policies.
            workers: how many.
            seed: of what is left to chance, such as which worker dies.
            max_attempts: of each task.
            settings: beside ``SETTINGS``.
        """
        self.folder = folder
        self._max_attempts, self._settings = max_attempts, SETTINGS | dict(settings)
        self.random = random.Random(seed)
        self.parts: dict[str, Part] = {}
        """Name (``API``, ``worker 1``) → its process of now."""
        self.facts: list[dict[str, Any]] = []
        """What a client cannot know, as ``promises.py`` reads it: processes that ended, faults that came and went."""
        self._workers = workers
        self._logs = itertools.count(1)
        self._started_s: dict[str, float] = {}
        self._at_work: set[int] = set()
        self._leaving: dict[int, tuple[str, Part, float]] = {}
        """Processes that we have told to end: which, and by when they must have done so."""
        self._ended: set[int] = set()
        """Processes that have ended as they were told."""
        self._down: set[str] = set()
        """Parts that are not to be started again yet."""
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            lines = undo.enter_context(Lines())
            self.receiver_port = free_port()
            self.to_receiver = lines.open(self.receiver_port)
            self.stack = Stack(
                self.folder,
                max_attempts=self._max_attempts,
                rewire=lambda environ: self._wire(lines, environ),
                CALLBACK_SECRET=SECRET,
                CALLBACK_ALLOW=f"http://127.0.0.1:{self.to_receiver.port}",
                **self._settings,  # type: ignore[arg-type]  # none of them is named as another argument
            )
            undo.callback(self.stack.close)
            self.to_api = lines.open(self.stack.port)
            self.parts["API"], self._started_s["API"] = self.stack.api, 0.0
            for number in range(1, self._workers + 1):
                self.parts[f"worker {number}"] = self._start(f"worker {number}")
            pids = {part.pid for name, part in self.parts.items() if name != "API"}
            until(lambda: pids <= set(self.stack.worker_pids()), "the workers are at work")
            self._watching.start()
            undo.callback(self._stop_watching)
            self._cleanup = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def dsn(self) -> str:
        """PostgreSQL, not through a line."""
        return str(self.stack.servers.urls.database)

    def ask(self, statement: str, dsn: str = "") -> list[Any]:
        """Ask PostgreSQL, not through a line; again and again while it has no place for us, recovers, or ends.

        Args:
            statement: the question; asked twice, it must mean what it means asked once.
            dsn: of another database than the service's.
        """
        by = time.monotonic() + ASK_S
        while True:
            try:
                return ask(dsn or self.dsn, statement)
            except AWAY:
                if time.monotonic() > by:
                    raise
                time.sleep(0.2)

    def redis(self) -> redis.Redis:
        """Redis, not through a line."""
        return redis.Redis.from_url(str(self.stack.servers.urls.redis))

    def note(self, event: str, **facts: Any) -> None:
        """Add a fact."""
        self.facts.append({"at": time.monotonic(), "event": event, **facts})

    # ---- processes -------------------------------------------------------------------------------------------------

    def any_worker(self) -> str:
        """The name of a worker."""
        return self.random.choice([name for name in self.parts if name != "API"])

    @contextlib.contextmanager
    def ended(self, name: str, signum: signal.Signals) -> Iterator[None]:
        """A part is told to end, or killed; afterwards another takes its place, for the API when it has ended."""
        with self._changing:
            part = self.parts[name]
            self._leaving[part.pid] = (name, part, time.monotonic() + STOP_S)
            self._down.add(name)
            part.process.send_signal(signum)
        yield
        with self._changing:
            self._down.discard(name)

    def stands(self, part: str) -> bool:
        """Whether a part is there to be spoilt: its processes have run for a while, and none is to leave."""
        with self._changing:
            meant = [(name, one) for name, one in self.parts.items() if name.startswith(part)]
            return not any(
                name in self._down
                or one.pid in self._leaving
                or one.process.poll() is not None
                or not self._is_at_work(name, one)
                for name, one in meant
            )

    def _is_at_work(self, name: str, part: Part) -> bool:
        if part.pid not in self._at_work:
            if time.monotonic() - self._started_s[name] < STARTED_S or AT_WORK[name[:3]] not in part.log.read_text():
                return False
            self._at_work.add(part.pid)
        return True

    def family(self, name: str) -> list[psutil.Process]:
        """A part's process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.parts[name].pid)
            return [process, *process.children(recursive=True)]
        return []

    def below(self, name: str, is_meant: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
        """The processes below a part of one sort."""
        found = []
        for process in self.family(name)[1:]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if is_meant(process):
                    found.append(process)
        return found

    def complaints(self) -> list[str]:
        """What the parts have logged that nobody foresaw, but for a zygote that has no descriptor to start with."""
        found = []
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text().splitlines()
            found += [line for line in lines if '"exception"' in line]
            for number, line in enumerate(lines):
                if line.startswith("Traceback"):
                    said = next((later for later in lines[number + 1 :] if not later.startswith(" ")), "")
                    found += [] if "Too many open files" in said else [f"{log.name}: Traceback … {said}"]
        return found

    def _wire(self, lines: Lines, environ: dict[str, str]) -> dict[str, str]:
        """Put lines before the servers; the API's environment."""
        database, queue = urlsplit(environ["DATABASE_URL"]), urlsplit(environ["REDIS_URL"])
        sockets = Path(parse_qs(database.query)["host"][0], ".s.PGSQL.5432"), Path(queue.path)
        self.api_to_database, self.worker_to_database = lines.open(sockets[0]), lines.open(sockets[0])
        self.api_to_redis, self.worker_to_redis = lines.open(sockets[1]), lines.open(sockets[1])
        account = f"{database.username}:{database.password}"

        def urls(to_database: Line, to_redis: Line) -> dict[str, str]:
            return {
                "DATABASE_URL": f"postgresql://{account}@127.0.0.1:{to_database.port}{database.path}",
                "REDIS_URL": f"redis://:{queue.password}@127.0.0.1:{to_redis.port}/0",
            }

        self._worker_urls = urls(self.worker_to_database, self.worker_to_redis)
        return environ | urls(self.api_to_database, self.api_to_redis)

    def _start(self, name: str) -> Part:
        command, more = ("api", {}) if name == "API" else ("worker", self._worker_urls)
        log = self.folder / f"{command}-{next(self._logs)}.log"
        self._started_s[name] = time.monotonic()
        return self.stack.keep(Part([command], self.stack.environ | more, log))

    def _renew(self, name: str) -> None:
        self.parts[name] = self._start(name)
        if name == "API":
            self.stack.api = self.parts[name]

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            with self._changing:
                self._see_off()
                for name, part in self.parts.items():
                    is_leaving = part.pid in self._leaving
                    if name in self._down or (is_leaving and name == "API"):
                        continue  # the port is still taken
                    code = part.process.poll()
                    if code is not None and not is_leaving and part.pid not in self._ended:
                        self._note_death(name, part, code)
                    if code is not None or is_leaving:
                        self._renew(name)

    def _see_off(self) -> None:
        """Note those that have ended as they were told, and those that do not."""
        for pid, (name, part, by) in list(self._leaving.items()):
            if part.process.poll() is not None:
                del self._leaving[pid]
                self._ended.add(pid)
            elif time.monotonic() > by:
                self._note_death(name, part, None)
                part.stop(signal.SIGKILL)

    def _note_death(self, name: str, part: Part, code: int | None) -> None:
        words = [line for line in part.log.read_text().splitlines() if '"level":"info"' not in line]
        last = " / ".join(words[-3:])[-LAST_WORDS:]
        self.note("death", part=f"{name} ({part.pid}, {part.log.name})", code=code, ours=False, last_words=last)

    def _stop_watching(self) -> None:
        self._over.set()
        self._watching.join()
