"""Lines to PostgreSQL and Redis that break at any moment: no part ends by it, and nobody is answered with 500."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil
import pytest

from tests.support import line as tcp
from tests.support.stack import Part, Stack, ask, task, until

TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND application_name = 'unityai-engine' AND datname = current_database()"
)
UNSHAKEN = (200, 202, 404, 503)
"""404: a task whose submission was refused."""


class Storm:
    """Requests of all kinds, without a pause, while a test breaks something."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._is_over = threading.Event()
        self.seen: Counter[tuple[str, int]] = Counter()
        self.accepted: list[str] = []
        self.rounds = 0
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def wait_for_a_round(self) -> None:
        """Until a whole round of requests has been asked and answered."""
        done = self.rounds
        until(lambda: self.rounds > done + 1, "another round of requests was answered")

    def _ask(self) -> None:
        body = task("result = 1")
        with httpx.Client(base_url=self._stack.client.base_url, timeout=60) as client:
            while not self._is_over.is_set():
                one = self._note("POST /execute", client.post("/execute", json=body))
                task_id = one.get("task_id", "00000000-0000-4000-8000-000000000000")
                many = self._note("POST /execute/batch", client.post("/execute/batch", json=[body, body]))
                self._note("GET /task", client.get(f"/task/{task_id}"))
                spare = next((item.get("task_id") for item in many.get("tasks", ())), None) or task_id
                self._note("DELETE /task", client.delete(f"/task/{spare}"))
                if "task_id" in one:
                    self.accepted.append(one["task_id"])
                self.rounds += 1

    def _note(self, call: str, response: httpx.Response) -> dict[str, Any]:
        self.seen[call, response.status_code] += 1
        return dict(response.json()) if response.status_code in (200, 202) else {}


class Lines:
    """A stack whose lines to its servers can be cut, and its worker."""

    def __init__(self, folder: Path, redis: tcp.Line, database: tcp.Line, stack: Stack) -> None:
        self.folder, self.redis, self.database, self.stack = folder, redis, database, stack
        self.worker: Part = stack.worker(WORKER_METRICS_PORT="0")

    def faults(self) -> list[str]:
        """What the parts have logged that nobody foresaw."""
        lines = [line for log in self.folder.glob("*.log") for line in log.read_text().splitlines()]
        return [line for line in lines if '"exception"' in line or "Traceback" in line]

    def parts(self) -> list[tuple[int, float]]:
        """The processes of API and worker, which are the same until one dies."""
        pids = (self.stack.api.pid, self.worker.pid)
        return [(pid, psutil.Process(pid).create_time()) for pid in pids if psutil.pid_exists(pid)]

    def assert_all_run(self, accepted: list[str]) -> None:
        """Every task that was accepted ends, and the parts do their work as before."""
        for task_id in accepted:
            until(partial(self._has_ended, task_id), f"{task_id} has ended")

    def _has_ended(self, task_id: str) -> bool:
        response = self.stack.client.get(f"/task/{task_id}", params={"wait": 5})
        return response.status_code == 200 and response.json()["status"] in ("succeeded", "cancelled")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    """Servers behind TCP lines."""
    folder = tmp_path_factory.mktemp("lines")
    found: list[tcp.Line] = []

    def rewire(environ: dict[str, str]) -> dict[str, str]:
        database, redis = urlsplit(environ["DATABASE_URL"]), urlsplit(environ["REDIS_URL"])
        behind = Path(parse_qs(database.query)["host"][0], ".s.PGSQL.5432")
        found.extend((wires.open(Path(redis.path)), wires.open(behind)))
        account = f"{database.username}:{database.password}" if database.password else database.username
        return environ | {
            "REDIS_URL": f"redis://:{redis.password}@127.0.0.1:{found[0].port}/0",
            "DATABASE_URL": f"postgresql://{account}@127.0.0.1:{found[1].port}{database.path}",
        }

    with contextlib.ExitStack() as stack_of:
        wires = stack_of.enter_context(tcp.Lines())
        stack = Stack(folder, rewire=rewire)
        stack_of.callback(stack.close)
        yield Lines(folder, found[0], found[1], stack)


def restart_database(lines: Lines) -> None:
    assert lines.stack.servers.database
    lines.stack.servers.database.stop()
    lines.stack.servers.start_database()


FAULTS: dict[str, Callable[[Lines], object]] = {
    "backends terminated": lambda lines: ask(lines.stack.servers.urls.database or "", TERMINATE),
    "line to PostgreSQL cut": lambda lines: lines.database.cut(),
    "PostgreSQL restarted": restart_database,
    "line to Redis cut": lambda lines: lines.redis.cut(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_broken_connections_end_no_part_and_are_no_500(lines: Lines, fault: Callable[[Lines], object]) -> None:
    """Each call is answered with what it asks for or with 503; what was accepted runs; API and worker live on."""
    before = lines.parts()
    with Storm(lines.stack) as storm:
        for _ in range(2 if fault is restart_database else 10):
            fault(lines)
            storm.wait_for_a_round()
    lines.assert_all_run(storm.accepted)
    unforeseen = {key: count for key, count in storm.seen.items() if key[1] not in UNSHAKEN}
    assert ({}, before, []) == (unforeseen, lines.parts(), lines.faults())


def failures(lines: Lines, loop: str) -> float:
    """How often a loop of the worker has failed, as its metrics count it."""
    address = lines.stack.get_worker()["metrics"]
    found = [line for line in httpx.get(f"http://{address}/metrics").text.splitlines() if f'{{loop="{loop}"}}' in line]
    return float(found[0].split()[-1])


def test_loop_that_fails_is_counted_and_goes_on(lines: Lines) -> None:
    """A fault that is nobody's outage (a table is missing): the worker lives, counts, and sweeps when it is back."""
    before = lines.parts()
    dsn = lines.stack.servers.urls.database or ""
    ask(dsn, "ALTER TABLE attempts RENAME TO attempts_away")
    try:
        ask(dsn, "SELECT 1")
        until(lambda: failures(lines, "sweep") >= 2, "the sweep has failed twice")
    finally:
        ask(dsn, "ALTER TABLE attempts_away RENAME TO attempts")
    task_id = lines.stack.submit("result = 1")["task_id"]
    ask(dsn, "SELECT 1")
    lines.assert_all_run([task_id])
    assert before == lines.parts()


def test_accepted_task_is_answered_with_202_though_nobody_can_wait_for_it(lines: Lines) -> None:
    """PostgreSQL ends while a client waits for the task that it has stored: the promise is kept, not a 503."""
    answers: list[httpx.Response] = []
    body = task("import time\ntime.sleep(2)\nresult = 1")
    client = lines.stack.client
    asking = threading.Thread(target=lambda: answers.append(client.post("/execute", params={"wait": 60}, json=body)))
    dsn = lines.stack.servers.urls.database or ""
    known = ask(dsn, "SELECT count(*) FROM tasks")[0][0]
    asking.start()
    until(lambda: ask(dsn, "SELECT count(*) FROM tasks")[0][0] > known, "the task is stored")
    assert lines.stack.servers.database
    lines.stack.servers.database.stop()
    asking.join()
    lines.stack.servers.start_database()
    assert 202 == answers[0].status_code
    lines.assert_all_run([answers[0].json()["task_id"]])


def test_database_that_is_read_only_is_named_and_comes_back_by_itself(lines: Lines) -> None:
    """A failover to a replica: /health, its gauge and the refusal say so; nothing needs a restart afterwards."""
    dsn, client, before = lines.stack.servers.urls.database or "", lines.stack.client, lines.parts()
    name = ask(dsn, "SELECT current_database()")[0][0]
    ask(dsn, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    ask(dsn, TERMINATE)
    try:
        until(lambda: "PostgreSQL is read-only" in str(client.get("/health/ready").json()["reasons"]), "it is named")
        refused = client.post("/execute", json=task("result = 1"))
        metrics = client.get("/metrics").text
    finally:
        ask(dsn, f'BEGIN READ WRITE; ALTER DATABASE "{name}" RESET default_transaction_read_only; COMMIT')
    assert (503, True) == (refused.status_code, "read-only" in refused.json()["detail"])
    assert 'unityai_dependency_up{dependency="database"} 0.0' in metrics
    until(lambda: client.get("/health/ready").status_code == 200, "tasks are accepted and run again")
    lines.assert_all_run([lines.stack.submit("result = 1")["task_id"]])
    assert before == lines.parts()
