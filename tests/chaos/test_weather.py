"""One thing goes wrong at a time, under one service that is never restarted: it goes on by itself when that is over."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.chaos.faults import FAULTS, PREPARE, Fault
from tests.chaos.record import Record, faults, read, watch
from tests.chaos.scene import Scene
from tests.support.held import Held
from tests.support.stack import Part, answers, free_port, task, until

MAX_ATTEMPTS = 2
AWAY = (
    "PostgreSQL restarted", "PostgreSQL crashes", "PostgreSQL hangs", "sessions refused", "PostgreSQL read-only",
    "PostgreSQL full", "tasks locked", "API-PostgreSQL: refused", "API-PostgreSQL: hangs", "API-PostgreSQL: hangs back",
    "API-PostgreSQL: loses answers", "API-PostgreSQL: garbage to", "API-PostgreSQL: garbage back",
)  # fmt: skip


class Sky(Scene):
    """A service with one worker, to which a test does one thing at a time."""

    def __init__(self, folder: Path) -> None:
        settings = {"LEASE_S": "4", "MAX_ATTEMPTS": str(MAX_ATTEMPTS), "DRAIN_S": "0.3"}
        super().__init__(folder, workers=1, max_attempts=3, settings=settings)
        self.accepted: dict[str, str] = {}

    @property
    def worker(self) -> Part:
        """The worker."""
        return self.parts["worker 1"]

    def submit(self, nonce: str, lasts_s: float = 0.0) -> str:
        """A task whose result must be its nonce."""
        answer = self.stack.client.post("/execute", json=body(nonce, lasts_s))
        assert 202 == answer.status_code, answer.text
        self.accepted[answer.json()["task_id"]] = nonce
        return str(answer.json()["task_id"])

    def ends(self, *task_ids: str) -> list[tuple[str, int]]:
        """Status and attempts of tasks, once they have ended."""
        answers = [self.stack.get(task_id, wait_s=40) for task_id in task_ids]
        return [(answer["status"], answer["attempts"]) for answer in answers]

    def records(self) -> dict[str, Record]:
        """All that PostgreSQL remembers."""
        return read(self.dsn)


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
    with Sky(folder) as sky:
        watch(sky.dsn)
        sky.ask(PREPARE)
        yield sky


@pytest.fixture
def sky(shared_sky: Sky) -> Iterator[Sky]:
    """That service, as whole before as after: the same processes, and no promise of this test broken."""
    before, parts = len(shared_sky.accepted), dict(shared_sky.parts)
    yield shared_sky
    assert parts == shared_sky.parts
    assert [None, None] == [part.process.poll() for part in parts.values()]
    mine = dict(list(shared_sky.accepted.items())[before:])
    shared_sky.ends(*mine)
    records = {task_id: record for task_id, record in shared_sky.records().items() if task_id in mine}
    assert [] == faults(records, mine, max_attempts=MAX_ATTEMPTS)


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS.values() if fault.part == "Redis"], ids=lambda one: one.name
)
def test_tasks_are_accepted_whatever_redis_does(sky: Sky, fault: Fault) -> None:
    """JOB-10, JOB-11: flushed, read-only, full, hanging, away: 202 meanwhile, run once it is over, each once."""
    before = [sky.submit(f"{fault.name} before {number}", 0.3) for number in range(12)]  # more than there are slots
    with fault.blow(sky):
        during = [sky.submit(f"{fault.name} during {number}") for number in range(3)]
    assert [("succeeded", 1)] * 15 == sky.ends(*before, *during)


@pytest.mark.parametrize("name", AWAY)
def test_postgres_comes_back_and_nothing_needs_a_restart(sky: Sky, name: str) -> None:
    """Restarted, crashed, hanging, beyond a bad line: 503 meanwhile; what runs is stored afterwards, by its attempt."""
    task_id = sky.submit(name, lasts_s=1)
    until(lambda: sky.stack.get(task_id)["status"] != "queued", "the task runs")
    with FAULTS[name].blow(sky):
        refused = sky.stack.client.post("/execute", json=body("refused"))
        assert (503, "2") == (refused.status_code, refused.headers["retry-after"])
    until(lambda: sky.stack.client.get("/health").status_code == 200, "it is back")
    assert [("succeeded", 1)] * 2 == sky.ends(task_id, sky.submit(f"after {name}"))


def test_parts_that_start_while_everything_is_away_wait_for_it(sky: Sky) -> None:
    """An API and a worker that come up first: 503 and no crash, and then they are at work."""
    port = free_port()
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        FAULTS["Redis away"].blow(sky),
        FAULTS["PostgreSQL restarted"].blow(sky),
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
    held = Held("hold()\nresult = args")
    asked = task(held.script)
    asked["parameters"]["args"] = "stored later"
    task_id = str(sky.stack.client.post("/execute", json=asked).json()["task_id"])
    sky.accepted[task_id] = "stored later"
    held.wait()
    with FAULTS["PostgreSQL full"].blow(sky):
        refused = sky.stack.client.post("/execute", json=body("refused"))
        held.tell()
        until(lambda: ("No space left", task_id) in misses_of_space(sky), "the worker tries")
    assert (503, "2") == (refused.status_code, refused.headers["retry-after"])
    assert [("succeeded", 1)] == sky.ends(task_id)


def misses_of_space(sky: Sky) -> set[tuple[str, str]]:
    """Of which tasks the worker could not store the result for want of space."""
    lines = [json.loads(line) for line in sky.worker.log.read_text().splitlines() if "No space left" in line]
    return {("No space left", line["task_id"]) for line in lines if "task_id" in line}


def test_api_without_descriptors_answers_on_the_connections_that_it_has(sky: Sky) -> None:
    """JOB-20: it can open nothing more, not even a file of its own, and says how it is all the same."""
    api = psutil.Process(sky.stack.api.pid)
    with httpx.Client(base_url=sky.stack.client.base_url, timeout=20) as client:
        assert 200 == client.get("/health").status_code  # has a connection
        before = api.rlimit(resource.RLIMIT_NOFILE)
        api.rlimit(resource.RLIMIT_NOFILE, (1, before[1]))
        try:
            answers = {path: client.get(path).status_code for path in ("/health", "/health/live", "/tasks", "/metrics")}
            with FAULTS["checker killed"].blow(sky):
                large = [client.post("/execute", json=body("x" * 140_000)) for _ in range(2)]
        finally:
            api.rlimit(resource.RLIMIT_NOFILE, before)
    assert {200, 503} >= set(answers.values())
    assert [(503, "2")] * 2 == [(answer.status_code, answer.headers["retry-after"]) for answer in large]
    assert "could not be started" in large[-1].json()["detail"]


def test_sessions_whose_callers_gave_up_wait_for_no_lock(sky: Sky) -> None:
    """Somebody has the table of tasks: who asks is told so, and leaves no session behind that waits on."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO tasks%'"
    )
    with FAULTS["tasks locked"].blow(sky):
        told = {sky.stack.client.post("/execute", json=body("refused")).status_code for _ in range(3)}
        until(lambda: sky.ask(waiting)[0][0] == 0, "no session waits any more, though the table is still locked")
    assert {503} == told
    until(lambda: sky.stack.client.get("/health").status_code == 200, "it is back")


@pytest.mark.parametrize("name", ["API-Redis: hangs", "API-Redis: refused"])
def test_follower_of_whom_no_worker_could_hear_is_told_of_a_gap(sky: Sky, name: str) -> None:
    """Nobody could tell the worker that its task is followed, which then ends: what is missing is said."""
    held = Held("print('first'); hold(); print('last'); result = args")
    asked = task(held.script)
    asked["parameters"]["args"] = name
    with FAULTS[name].blow(sky):
        task_id = str(sky.stack.client.post("/execute", json=asked).json()["task_id"])
        sky.accepted[task_id] = name
        with sky.stack.client.stream("GET", f"/task/{task_id}/events") as stream:
            held.wait()  # the sweeper has queued it
            held.tell()
            said = list(stream.iter_lines())
    events = [line.removeprefix("event: ") for line in said if line.startswith("event: ")]
    assert ["gap", "status", "result"] == events[-3:]


def test_results_do_not_depend_on_redis(sky: Sky) -> None:
    """JOB-14: whatever Redis keeps, and for how long, a result is PostgreSQL's."""
    task_id = sky.submit("kept")
    assert [("succeeded", 1)] == sky.ends(task_id)
    with FAULTS["Redis flushed"].blow(sky), FAULTS["Redis away"].blow(sky):
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
    assert ["succeeded"] * 30 == [status for status, _ in sky.ends(*task_ids)]
    records = sky.records()
    ends = {attempt.ended for task_id in task_ids for attempt in records[task_id].history}
    assert ends <= {"finished", "released"}


def busy(sky: Sky, pid: int) -> bool:
    """Whether a worker runs tasks, as it last said."""
    workers = sky.stack.client.get("/health").json()["workers"]
    return any(worker["running"] > 2 for worker in workers if worker["pid"] == pid)
