"""Queue order and quotas as clients see them: two APIs, two workers, real servers, through HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis

from engine.config.keys import NewKey, add_key, make_key
from engine.model.principal import Quotas, Scope
from tests.support.stack import Part, Stack, answers, ask, free_port, task, until

SLOTS = 2
QUEUE = "unityai:tasks"
INTERVAL = "import time\nstart = time.monotonic()\ntime.sleep(0.05)\nresult = [start, time.monotonic()]"
LEAVE_A_HUNDRED = """
DELETE FROM tasks WHERE status = 'queued' AND task_id NOT IN (
    SELECT task_id FROM tasks WHERE status = 'queued' LIMIT 100
)
"""
"""Of a flood that has been a flood: to run all of it takes twenty seconds of processor time, and shows no more."""
KEYS = {
    "ops": Quotas(),
    "flood": Quotas(),
    "quiet": Quotas(),
    "single": Quotas(concurrent_tasks=1),
    "short": Quotas(queued_tasks=20),
}


class Shared:
    """Two APIs on the same servers, a tenant with each quota, and as many workers as a test starts."""

    def __init__(self, folder: Any) -> None:
        keys = {tenant: make_key(tenant, list(Scope), quotas=quotas) for tenant, quotas in KEYS.items()}
        for key in keys.values():
            add_key(folder / "keys.toml", key)
        self._headers = {tenant: _bearer(key) for tenant, key in keys.items()}
        self.stack = Stack(
            folder,
            headers=self._headers["ops"],
            API_KEYS_FILE=str(folder / "keys.toml"),
            MAX_CONCURRENT_TASKS=str(SLOTS),
            DRAIN_S="0.3",
        )
        self.workers: list[Part] = []
        self.urls = [str(self.stack.client.base_url)]
        port = free_port()
        self.stack.start("api", PORT=str(port))
        self.urls.append(f"http://127.0.0.1:{port}")
        with httpx.Client(base_url=self.urls[1], headers=self._headers["ops"]) as client:
            until(lambda: answers(client, "/health"), "the second API accepts tasks")

    def work(self, workers: int = 1) -> None:
        self.workers += [self.stack.worker() for _ in range(workers)]

    def as_(self, tenant: str, api: int = 0) -> httpx.Client:
        return httpx.Client(base_url=self.urls[api], headers=self._headers[tenant], timeout=60)

    def rows(self, statement: str) -> list[Any]:
        return ask(self.stack.environ["DATABASE_URL"], statement)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.stack.environ["REDIS_URL"])

    def unfinished(self, tenant: str) -> int:
        statement = f"SELECT count(*) FROM tasks WHERE tenant = '{tenant}' AND status IN ('queued', 'running')"
        return int(self.rows(statement)[0][0])

    def queued(self) -> int:
        return int(self.rows("SELECT count(*) FROM tasks WHERE status = 'queued'")[0][0])


def _bearer(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    found = Shared(tmp_path_factory.mktemp("fairness"))
    yield found
    found.stack.close()


@pytest.fixture
def empty(shared: Shared) -> Iterator[Shared]:
    """Nobody works, and nothing waits."""
    shared.rows("TRUNCATE tasks CASCADE; SELECT 1")
    with shared.redis() as connection:
        connection.flushall()
    yield shared
    for worker in shared.workers:
        worker.stop()
    shared.workers.clear()


def test_quota_of_queued_tasks_is_exact_through_two_apis(empty: Shared) -> None:
    """API-11: of 50 requests at once 20 are accepted; the others are told how long to wait, and that nothing runs."""
    with empty.as_("short", 0) as first, empty.as_("short", 1) as second, ThreadPoolExecutor(50) as threads:
        clients = [first, second] * 25
        found = list(threads.map(lambda client: client.post("/execute", json=task("result = 1")), clients))
    refused = [answer for answer in found if answer.status_code == 429]
    assert [202] * 20 + [429] * 30 == sorted(answer.status_code for answer in found)
    assert all("queued_tasks" in answer.json()["detail"] for answer in refused)
    assert all(0 < int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert 20 == empty.unfinished("short")


def test_no_tenant_and_no_priority_waits_for_a_flood(empty: Shared) -> None:
    """API-11: behind 1,000 high tasks of another tenant come one's own normal ones, and its low ones, in turn.

    Then Redis loses everything, with some of the flood still waiting, and nothing is lost.
    """
    with empty.as_("flood") as flood, empty.as_("quiet", 1) as quiet:
        flood.post("/execute/batch", json=[task("result = 1", priority="high")] * 1000)
        low = flood.post("/execute/batch", json=[task("result = 1", priority="low")] * 3).json()["tasks"]
        own = [quiet.post("/execute", json=task("result = 1")).json()["task_id"] for _ in range(3)]
        assert quiet.get(f"/task/{own[0]}").json()["queue_position"] <= 3
        empty.work(2)
        assert "succeeded" == quiet.get(f"/task/{own[-1]}", params={"wait": 60}).json()["status"]
        last_low = low[-1]["task"]["task_id"]
        assert "succeeded" == flood.get(f"/task/{last_low}", params={"wait": 60}).json()["status"]
    assert empty.unfinished("flood") > 100
    empty.rows(LEAVE_A_HUNDRED)
    with empty.redis() as connection:
        connection.flushall()
    order = [str(row["task_id"]) for row in empty.rows("SELECT task_id FROM tasks ORDER BY started_at NULLS LAST")]
    at_once = 2 * SLOTS  # tasks that run at the same time start in any order
    assert [True] * 3 == [order.index(task_id) <= 3 * number + 2 + at_once for number, task_id in enumerate(own)]
    assert [True] * 3 == [
        order.index(item["task"]["task_id"]) <= 9 * number + 6 + at_once for number, item in enumerate(low)
    ]
    until(lambda: not empty.unfinished("flood"), "nothing was lost")


def test_tasks_of_a_tenant_run_one_at_a_time_over_two_workers(empty: Shared) -> None:
    """Four slots are free; its quota is one. No two overlap, and no slot is kept from others meanwhile."""
    empty.work(2)
    with empty.as_("single") as single, empty.as_("quiet") as quiet:
        batch = single.post("/execute/batch", json=[task(INTERVAL)] * 12).json()["tasks"]
        assert "succeeded" == quiet.post("/execute", params={"wait": 30}, json=task("result = 1")).json()["status"]
        ended = [single.get(f"/task/{item['task']['task_id']}", params={"wait": 60}).json() for item in batch]
    assert {"succeeded"} == {answer["status"] for answer in ended}
    intervals = sorted(answer["result"] for answer in ended)
    assert all(end <= start for (_, end), (start, _) in pairwise(intervals))


def test_what_redis_lost_is_found_behind_a_deep_line(empty: Shared) -> None:
    """JOB-17: a task that stands in no line is put there, although hundreds of older ones do stand in it."""
    with empty.as_("flood") as flood, empty.as_("quiet") as quiet, empty.redis() as connection:
        [blocker, *_] = [flood.post("/execute", json=task("import time\ntime.sleep(60)")).json() for _ in range(SLOTS)]
        empty.work()
        until(lambda: flood.get(f"/task/{blocker['task_id']}").json()["status"] == "running", "the slots are taken")
        flood.post("/execute/batch", json=[task("result = 1")] * 700)
        lost = quiet.post("/execute", json=task("result = 1")).json()["task_id"]
        assert 1 == connection.zrem(QUEUE, lost)
        assert quiet.get(f"/task/{lost}").json()["queue_position"] is None
        until(lambda: connection.zscore(QUEUE, lost) is not None, "it stands in line again")
        assert quiet.get(f"/task/{lost}").json()["queue_position"] <= 3


def test_wait_is_foretold_from_slots_and_how_long_they_are_kept(empty: Shared) -> None:
    """Nobody knows it before anything has run; then it is the place times how long a slot is kept, over the slots."""
    with empty.as_("quiet") as quiet:
        first = quiet.post("/execute", json=task("import time\ntime.sleep(0.4)")).json()["task_id"]
        known = quiet.get(f"/task/{first}").json()
        assert (1, None) == (known["queue_position"], known["estimated_wait_s"])
        empty.work()
        quiet.get(f"/task/{first}", params={"wait": 30})
        for _ in range(SLOTS):
            quiet.post("/execute", json=task(f"import time\ntime.sleep(60) # {uuid4()}"))
        until(lambda: empty.unfinished("quiet") == SLOTS and not empty.queued(), "the slots are taken")
        batch = quiet.post("/execute/batch", json=[task("result = 1")] * 20).json()["tasks"]
        last = batch[-1]["task"]["task_id"]
        until(lambda: quiet.get(f"/task/{last}").json()["estimated_wait_s"], "it is foretold")
        known = quiet.get(f"/task/{last}").json()
    took = "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM tasks WHERE finished_at IS NOT NULL"
    [[slot_s]] = empty.rows(took)
    assert 20 == known["queue_position"]
    assert known["estimated_wait_s"] == pytest.approx(20 * slot_s / SLOTS, abs=0.11)
