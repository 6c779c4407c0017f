"""One thing goes wrong at a time, under one service that is never restarted: it goes on by itself when that is over."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.chaos.record import Record, faults, read, watch
from tests.chaos.storm import WEATHER, Plan, Storm
from tests.support.stack import Part, Stack, answers, ask, free_port, task, until

MAX_ATTEMPTS = 2
FULL = """
CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER disk_full BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION disk_full();
"""
SPACE = "DROP FUNCTION disk_full CASCADE"


class Sky(Storm):
    """A storm of which a test takes one sort of weather at a time."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack, Plan(tasks=0, seconds=0, weather=()))
        self.stack = stack
        self.worker = stack.worker()
        watch(self._dsn)
        self.accepted: dict[str, str] = {}

    def submit(self, nonce: str, lasts_s: float = 0.0) -> str:
        """A task whose result must be its nonce."""
        answer = self.stack.client.post("/execute", json=body(nonce, lasts_s))
        assert 202 == answer.status_code, answer.text
        self.accepted[answer.json()["task_id"]] = nonce
        return str(answer.json()["task_id"])

    def ended(self, *task_ids: str) -> list[tuple[str, int]]:
        """Status and attempts of tasks, once they have ended."""
        answers = [self.stack.get(task_id, wait_s=40) for task_id in task_ids]
        return [(answer["status"], answer["attempts"]) for answer in answers]

    def records(self) -> dict[str, Record]:
        """All that PostgreSQL remembers."""
        return read(self._dsn)

    def ask(self, statement: str) -> None:
        """Change something in PostgreSQL."""
        ask(self._dsn, statement)


def body(nonce: str, lasts_s: float = 0.0) -> dict[str, Any]:
    """A request for a task whose result must be its nonce."""
    asked = task(f"import time\ntime.sleep({lasts_s})\nresult = args")
    asked["parameters"]["args"] = nonce
    return asked


@pytest.fixture(scope="module")
def shared_sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    """One service with one worker."""
    folder = tmp_path_factory.mktemp("weather")
    folder.chmod(0o755)
    stack = Stack(folder, LEASE_S="4", MAX_ATTEMPTS=str(MAX_ATTEMPTS), DRAIN_S="0.3")
    try:
        yield Sky(stack)
    finally:
        stack.close()


@pytest.fixture
def sky(shared_sky: Sky) -> Iterator[Sky]:
    """That service, as whole before as after: the same processes, and no promise of this test broken."""
    before = len(shared_sky.accepted)
    yield shared_sky
    assert shared_sky.worker.process.poll() is None
    assert shared_sky.stack.api.process.poll() is None
    mine = dict(list(shared_sky.accepted.items())[before:])
    shared_sky.ended(*mine)
    records = {task_id: record for task_id, record in shared_sky.records().items() if task_id in mine}
    assert [] == faults(records, mine, max_attempts=MAX_ATTEMPTS)


@pytest.mark.parametrize("name", [name for name in WEATHER if name.startswith("redis")])
def test_tasks_are_accepted_whatever_redis_does(sky: Sky, name: str) -> None:
    """JOB-10, JOB-11: flushed, read-only, full, hanging, away: 202 meanwhile, run once it is over, each once."""
    _, weather = WEATHER[name]
    before = [sky.submit(f"{name} before {number}", 0.3) for number in range(12)]  # more than there are slots
    with weather(sky):
        during = [sky.submit(f"{name} during {number}") for number in range(3)]
    assert [("succeeded", 1)] * 15 == sky.ended(*before, *during)


@pytest.mark.parametrize("name", [name for name in WEATHER if name.startswith("postgres")])
def test_postgres_comes_back_and_nothing_needs_a_restart(sky: Sky, name: str) -> None:
    """Restarted, crashed, hanging: 503 meanwhile; what runs is stored when it is back, by the attempt that ran."""
    _, weather = WEATHER[name]
    task_id = sky.submit(name, lasts_s=1)
    until(lambda: sky.stack.get(task_id)["status"] == "running", "the task runs")
    with weather(sky):
        refused = sky.stack.client.post("/execute", json=body("refused"))
        assert (503, "2") == (refused.status_code, refused.headers["retry-after"])
    until(lambda: sky.stack.client.get("/health").status_code == 200, "it is back")
    assert [("succeeded", 1)] * 2 == sky.ended(task_id, sky.submit(f"after {name}"))


def test_parts_that_start_while_everything_is_away_wait_for_it(sky: Sky) -> None:
    """An API and a worker that come up first: 503 and no crash, and then they are at work."""
    port = free_port()
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        sky.redis_away(),
        sky.postgres_restarted(),
    ):
        api = sky.stack.start("api", PORT=str(port))
        worker = sky.stack.keep(Part(["worker"], sky.stack.environ, sky.stack.folder / "early.log"))
        until(lambda: answers(client, "/health/live"), "the API is up")
        refused = client.post("/execute", json=body("refused"))
        assert (503, "2") == (refused.status_code, refused.headers["retry-after"])
        until(lambda: "PostgreSQL is unreachable" in worker.log.read_text(), "the worker looks for PostgreSQL")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        until(lambda: answers(client, "/health/ready"), "the API is ready")
    until(lambda: worker.pid in sky.stack.worker_pids(), "the worker is at work")
    assert [0, 0] == [part.stop(signal.SIGTERM) for part in (api, worker)]


def test_postgres_without_space_is_503_and_a_result_waits_for_it(sky: Sky) -> None:
    """JOB-20: what PostgreSQL answers when its disk is full, at the two places where it counts."""
    sky.ask(FULL.format("tasks"))
    refused = sky.stack.client.post("/execute", json=body("refused"))
    sky.ask(SPACE)
    assert (503, "2") == (refused.status_code, refused.headers["retry-after"])
    sky.ask(FULL.format("attempts"))
    task_id = sky.submit("stored later")
    until(lambda: ("no space left", task_id) in complaints(sky), "the worker tries")
    sky.ask(SPACE)
    assert [("succeeded", 1)] == sky.ended(task_id)


def complaints(sky: Sky) -> set[tuple[str, str]]:
    """Of which tasks the worker could not store the result for want of space."""
    lines = [json.loads(line) for line in sky.worker.log.read_text().splitlines() if "no space left" in line]
    return {("no space left", line["task_id"]) for line in lines if "task_id" in line}


def test_results_do_not_depend_on_redis(sky: Sky) -> None:
    """JOB-14: whatever Redis keeps, and for how long, a result is PostgreSQL's."""
    task_id = sky.submit("kept")
    assert [("succeeded", 1)] == sky.ended(task_id)
    with sky.redis_flushed(), sky.redis_away():
        assert "kept" == sky.stack.get(task_id)["result"]


def test_fifty_clients_get_their_own_results(sky: Sky) -> None:
    """Fifty at once, each task with a nonce of its own: no answer is another's."""

    async def client(http: httpx.AsyncClient, number: int) -> list[tuple[str, str, str]]:
        found = []
        for turn in range(3):
            answer = (await http.post("/execute", params={"wait": 60}, json=body(f"{number}.{turn}"))).json()
            found.append((answer["task_id"], f"{number}.{turn}", answer["result"]))
        return found

    async def all_clients() -> list[list[tuple[str, str, str]]]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=sky.stack.client.base_url, timeout=90, limits=limits) as http:
            return await asyncio.gather(*(client(http, number) for number in range(50)))

    answers = [answer for found in asyncio.run(all_clients()) for answer in found]
    assert 150 == len({task_id for task_id, _, _ in answers})
    assert [] == [answer for answer in answers if answer[1] != answer[2]]
    sky.accepted |= {task_id: nonce for task_id, nonce, _ in answers}


def test_sigterm_under_load_spends_no_attempt(sky: Sky) -> None:
    """A worker with its hands full drains: what ends in DRAIN_S is stored, the rest is given back, nothing is lost."""
    leaving = sky.stack.worker()
    task_ids = [sky.submit(f"load {number}", 0.1 * (number % 20)) for number in range(30)]
    until(lambda: busy(sky, leaving.pid), "it has its hands full")
    assert 0 == leaving.stop(signal.SIGTERM)
    assert ["succeeded"] * 30 == [status for status, _ in sky.ended(*task_ids)]
    records = sky.records()
    ends = {attempt.ended for task_id in task_ids for attempt in records[task_id].history}
    assert ends <= {"finished", "released"}


def busy(sky: Sky, pid: int) -> bool:
    """Whether a worker runs tasks, as it last said."""
    workers = sky.stack.client.get("/health").json()["workers"]
    return any(worker["running"] > 2 for worker in workers if worker["pid"] == pid)
