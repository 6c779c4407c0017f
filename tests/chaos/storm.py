"""Tasks come in while everything below them breaks; afterwards the record is held against every promise.

Workers are killed (kill -9) all the time, one at random each time. Beside that there is weather: one sort after
another, each of which ends by itself. Nothing is ever repaired by hand but what was taken away by hand.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import psutil
import redis

from tests.chaos.record import Record, faults, read, watch
from tests.support.stack import Part, Stack, ask, frozen, task, until

SCRIPT = "import time\ntime.sleep(args['lasts_s'])\nresult = args['nonce']"
MAX_ATTEMPTS = 20
SETTLE_S = 180.0
OPEN = "SELECT count(*) FROM tasks WHERE finished_at IS NULL"


class Plan(NamedTuple):
    """The parts of a storm."""

    tasks: int
    seconds: float
    weather: tuple[str, ...]
    workers: int = 2
    kill_every_s: float = 2.0
    longest_s: float = 1.5
    """Of a task."""
    seed: int = 0


class Outcome(NamedTuple):
    """The outcome of a storm."""

    records: dict[str, Record]
    accepted: dict[str, str]
    faults: list[str]
    refused: int
    """Requests that were answered with 503, or with nothing, and sent again."""
    kills: dict[str, float]
    """Worker's id → when it was killed."""
    weather: Counter[str]

    @property
    def reruns(self) -> list[tuple[float, float]]:
        """For each attempt that a killed worker lost: seconds from the kill until noticed, and until the next."""
        found = []
        for record in self.records.values():
            for lost, again in itertools.pairwise(record.history):
                if lost.ended == "worker_lost" and (killed := self.kills.get(lost.worker_id)):
                    found.append((lost.ended_at.timestamp() - killed, again.started_at.timestamp() - killed))
        return found


class Storm:
    """One run."""

    def __init__(self, stack: Stack, plan: Plan) -> None:
        self._stack = stack
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._numbers = itertools.count()
        self._workers: list[Part] = []
        self._kills: dict[str, float] = {}
        self._accepted: dict[str, str] = {}
        self._refused = 0
        self._blown: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Blow, calm down, and look."""
        watch(self._dsn)
        self._workers = [self._start_worker() for _ in range(self._plan.workers)]
        with ThreadPoolExecutor(1) as threads:
            submitting = threads.submit(self._submit_all)
            self._blow()
            submitting.result()
        until(self._is_over, "every task is final", timeout_s=SETTLE_S)
        records = read(self._dsn)
        found = faults(records, self._accepted, max_attempts=MAX_ATTEMPTS)
        if len(self._accepted) != self._plan.tasks:
            found.append(f"{len(self._accepted)} of {self._plan.tasks} tasks were accepted")
        if len(records) != self._plan.tasks:
            found.append(f"{self._plan.tasks} requests, some of them sent again, made {len(records)} tasks")
        return Outcome(records, self._accepted, found, self._refused, self._kills, self._blown)

    @property
    def _dsn(self) -> str:
        return self._stack.environ["DATABASE_URL"]

    def _blow(self) -> None:
        """Kill and spoil until the time is over, all weather has been and somebody died; leave everything whole."""
        began = time.monotonic()
        next_kill = began + self._plan.kill_every_s
        pause_s = self._plan.seconds / (len(self._plan.weather) + 1)
        coming = deque(self._random.sample(self._plan.weather, len(self._plan.weather)))
        next_weather, ends_at = began + pause_s, 0.0
        with contextlib.ExitStack() as last:
            over = last.enter_context(contextlib.ExitStack())
            while (now := time.monotonic()) < began + self._plan.seconds or coming or ends_at or not self._kills:
                if now >= next_kill:
                    self._kill_worker()
                    next_kill += self._plan.kill_every_s
                if ends_at and now >= ends_at:
                    over.close()
                    ends_at = 0.0
                if coming and now >= next_weather and not ends_at:
                    lasts_s, weather = WEATHER[coming[0]]
                    self._blown[coming.popleft()] += 1
                    over.enter_context(weather(self))
                    ends_at, next_weather = now + lasts_s, next_weather + pause_s
                time.sleep(0.02)

    def _is_over(self) -> bool:
        return bool(ask(self._dsn, OPEN)[0][0] == 0)

    # -- workers

    def _start_worker(self) -> Part:
        log = self._stack.folder / f"worker-{next(self._numbers)}.log"
        return self._stack.keep(Part(["worker"], self._stack.environ, log))

    def _kill_worker(self) -> None:
        """Kill any worker, even one that still starts, as soon as one is at work, however long that takes."""
        if not self._kills and not any(map(worker_id_of, self._workers)):
            return
        number = self._random.randrange(len(self._workers))
        doomed = self._workers[number]
        killed_at = time.time()
        doomed.stop(signal.SIGKILL)
        if worker_id := worker_id_of(doomed):
            self._kills[worker_id] = killed_at
        self._workers[number] = self._start_worker()

    # -- clients

    def _submit_all(self) -> None:
        """Spread over two thirds of the storm; what is refused is sent again, under the same key."""
        pause_s = self._plan.seconds * 2 / 3 / self._plan.tasks
        draw = random.Random(self._plan.seed + 1)
        for number in range(self._plan.tasks):
            nonce = f"nonce-{number}"
            body = task(SCRIPT)
            body["parameters"]["args"] = {"nonce": nonce, "lasts_s": draw.uniform(0.02, self._plan.longest_s)}
            self._accepted[self._submit(body, nonce)] = nonce
            time.sleep(pause_s)

    def _submit(self, body: dict[str, Any], key: str) -> str:
        while True:
            try:
                response = self._stack.client.post("/execute", json=body, headers={"Idempotency-Key": key}, timeout=20)
            except httpx.TransportError:  # an API that was killed
                response = None
            if response is not None and response.status_code in (200, 202):
                return str(response.json()["task_id"])
            if response is not None and (response.status_code != 503 or "retry-after" not in response.headers):
                raise AssertionError(f"{response.status_code} {response.text}")
            self._refused += 1
            time.sleep(0.3)

    # -- weather

    @contextlib.contextmanager
    def redis_flushed(self) -> Iterator[None]:
        """Everything in Redis is gone."""
        with self._redis() as connection:
            connection.flushall()
        yield

    @contextlib.contextmanager
    def redis_read_only(self) -> Iterator[None]:
        """Redis answers and takes no writes, as a replica would."""
        with self._redis() as connection:
            connection.config_set("min-replicas-to-write", 1)
        yield
        with self._redis() as connection:
            connection.config_set("min-replicas-to-write", 0)

    @contextlib.contextmanager
    def redis_full(self) -> Iterator[None]:
        """Redis has no memory left."""
        with self._redis() as connection:
            connection.config_set("maxmemory", 1)
        yield
        with self._redis() as connection:
            connection.config_set("maxmemory", 0)

    @contextlib.contextmanager
    def redis_hangs(self) -> Iterator[None]:
        """Redis takes connections and says nothing."""
        assert self._stack.servers.redis
        with frozen(self._stack.servers.redis.pid):
            yield

    @contextlib.contextmanager
    def redis_away(self) -> Iterator[None]:
        """Redis is stopped, and comes back empty."""
        assert self._stack.servers.redis
        self._stack.servers.redis.stop()
        yield
        self._stack.servers.start_redis()

    @contextlib.contextmanager
    def postgres_restarted(self) -> Iterator[None]:
        """PostgreSQL is stopped and comes back."""
        assert self._stack.servers.database
        self._stack.servers.database.stop()
        yield
        self._stack.servers.start_database()

    @contextlib.contextmanager
    def postgres_crashes(self) -> Iterator[None]:
        """PostgreSQL dies with all its processes and recovers from its log."""
        server = self._stack.servers.database
        assert server
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.stop()
        psutil.wait_procs(family, timeout=10)
        yield
        self._stack.servers.start_database()

    @contextlib.contextmanager
    def postgres_hangs(self) -> Iterator[None]:
        """PostgreSQL neither answers nor refuses."""
        assert self._stack.servers.database
        with frozen(self._stack.servers.database.pid):
            yield

    @contextlib.contextmanager
    def worker_frozen(self) -> Iterator[None]:
        """A worker does nothing for longer than its lease, then goes on as if nothing had been."""
        number = self._random.randrange(len(self._workers))
        sleeper, self._workers[number] = self._workers[number], self._start_worker()
        with frozen(sleeper.pid, whole_family=False):
            yield
        self._workers.append(sleeper)  # one more from now on: it is killed like any other

    @contextlib.contextmanager
    def worker_terminated(self) -> Iterator[None]:
        """A worker is told to stop, with its hands full."""
        number = self._random.randrange(len(self._workers))
        leaving, self._workers[number] = self._workers[number], self._start_worker()
        leaving.process.send_signal(signal.SIGTERM)
        yield
        leaving.process.wait(60)

    @contextlib.contextmanager
    def api_killed(self) -> Iterator[None]:
        """The API is killed and started again."""
        self._stack.api.stop(signal.SIGKILL)
        yield
        self._stack.api = self._stack.start("api")

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self._stack.environ["REDIS_URL"])


WEATHER: dict[str, tuple[float, Callable[[Storm], contextlib.AbstractContextManager[None]]]] = {
    "redis flushed": (0.0, Storm.redis_flushed),
    "redis read-only": (3.0, Storm.redis_read_only),
    "redis full": (3.0, Storm.redis_full),
    "redis hangs": (3.0, Storm.redis_hangs),
    "redis away": (3.0, Storm.redis_away),
    "postgres restarted": (1.0, Storm.postgres_restarted),
    "postgres crashes": (1.0, Storm.postgres_crashes),
    "postgres hangs": (4.0, Storm.postgres_hangs),
    "worker frozen": (5.0, Storm.worker_frozen),
    "worker told to stop": (4.0, Storm.worker_terminated),
    "API killed": (1.0, Storm.api_killed),
}
"""Name → how long it lasts, seconds, and what it is."""


def worker_id_of(part: Part) -> str | None:
    """The id that a worker gave itself; ``None`` when it was killed before it had one."""
    for line in part.log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and "worker_id" in found:
                return str(found["worker_id"])
    return None


def blow(stack: Stack, plan: Plan) -> Outcome:
    """A storm over a stack."""
    return Storm(stack, plan).run()
