"""A 202 is a promise: what happens to tasks when something dies."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest
import redis

from engine.model.errors import QueueUnavailableError
from engine.model.status import Priority
from engine.model.task import QueueItem
from engine.queue.queue import ANSWER_S, Queue
from tests.support.held import Held
from tests.support.stack import Stack, ask, frozen, task, until, whole_service

LEASE_S = 3.0
"""Of the stack that tests may break."""
LOSE = """
WITH lost AS (
    UPDATE tasks SET status = 'queued', worker_id = NULL, lease_until = NULL, due_at = now() - interval '1 minute'
    WHERE status = 'running' RETURNING task_id, attempts, started_at
)
INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended)
SELECT task_id, attempts, gen_random_uuid(), started_at, 'worker_lost' FROM lost
"""
"""A sweeper's statement, without the lease having run out."""
SLEEP = "import time\ntime.sleep({})\nresult = 'slept'"


def running(stack: Stack, task_id: str) -> bool:
    return bool(stack.get(task_id)["status"] == "running")


def until_attempt(stack: Stack, task_id: str, number: int) -> None:
    until(lambda: stack.get(task_id)["attempts"] == number, f"attempt {number} runs")


def put_in_line(stack: Stack, task_id: str) -> None:
    """A sweeper's second step, for a task that it has queued again."""

    async def put() -> None:
        queue = Queue(stack.environ["REDIS_URL"], "unityai:tasks")
        await queue.put([QueueItem(UUID(task_id), "default", Priority.NORMAL)])
        await queue.close()

    asyncio.run(put())


def test_task_of_a_killed_worker_runs_again(stack: Stack) -> None:
    """JOB-01: kill -9 of the worker: another one runs the task again when the lease is over."""
    first = stack.worker()
    task_id = stack.submit(SLEEP.format(2))["task_id"]
    until(lambda: running(stack, task_id), "the task runs")
    first.stop(signal.SIGKILL)
    stack.worker()
    answer = stack.get(task_id, wait_s=30)
    assert ("succeeded", "slept", 2) == (answer["status"], answer["result"], answer["attempts"])


def test_task_that_loses_every_worker_fails_as_our_fault(stack: Stack) -> None:
    """JOB-05: a task that kills its worker each time ends with ``worker_lost``, which never reads as its own fault."""
    task_id = stack.submit(SLEEP.format(60))["task_id"]
    for attempt in (1, 2):
        worker = stack.worker()
        until_attempt(stack, task_id, attempt)
        worker.stop(signal.SIGKILL)
        stack.end_leases()
    stack.worker()
    answer = stack.get(task_id, wait_s=30)
    assert ("failed", "worker_lost", 2, None) == (
        answer["status"],
        answer["exit_reason"],
        answer["attempts"],
        answer["error"],
    )


def test_sigterm_lets_a_short_task_end(stack: Stack) -> None:
    """A worker that is told to stop finishes what it can within DRAIN_S, and takes nothing more."""
    worker = stack.worker(DRAIN_S="60")
    held = Held("hold()\nresult = 1")
    task_id = stack.submit(held.script)["task_id"]
    until(lambda: running(stack, task_id), "the task runs")
    worker.process.send_signal(signal.SIGTERM)
    until(lambda: "draining" in worker.log.read_text(), "the worker drains")
    later = stack.submit("result = 1")["task_id"]
    held.tell()
    assert 0 == worker.stop()
    answer = stack.get(task_id)
    assert ("succeeded", 1) == (answer["status"], answer["attempts"])
    assert "queued" == stack.get(later)["status"]
    assert [] == stack.worker_pids()


def test_sigterm_gives_a_long_task_back(stack: Stack) -> None:
    """A task that does not end within DRAIN_S is killed and queued again, and no attempt is spent on it."""
    held = Held("hold()\nresult = 1")
    task_id = stack.submit(held.script)["task_id"]
    for _ in range(3):  # more often than MAX_ATTEMPTS
        worker = stack.worker()
        until(lambda: running(stack, task_id), "the task runs")
        assert 0 == worker.stop()
        assert "queued" == stack.get(task_id)["status"]
    stack.worker()
    held.tell()
    assert "succeeded" == stack.get(task_id, wait_s=30)["status"]


def test_redis_away_tasks_are_accepted_and_run_later(stack: Stack) -> None:
    """JOB-10: without Redis a task is still accepted; it runs when Redis is back, empty as it is then."""
    stack.worker()
    assert stack.servers.redis
    stack.servers.redis.stop()
    task_id = stack.submit("result = 1")["task_id"]
    health = stack.client.get("/health").json()
    assert ("degraded", "away", "ok") == (health["status"], health["redis"]["status"], health["database"]["status"])
    assert 503 == stack.client.get("/health/ready").status_code
    stack.servers.start_redis()
    assert "succeeded" == stack.get(task_id, wait_s=30)["status"]


def test_redis_that_hangs_holds_nobody_up_for_long(tmp_path: Path) -> None:
    """JOB-10: it takes connections and says nothing. Two hundred at once wait for one answer in all."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def ask_all() -> list[BaseException | None]:
        async with await asyncio.start_unix_server(hang, tmp_path / "redis.sock"):
            queue = Queue(f"unix://{tmp_path}/redis.sock", "test")
            async with asyncio.timeout(30 * ANSWER_S):  # far from the two hundred of one after the other
                found = await asyncio.gather(
                    *(queue.put([QueueItem(UUID(int=n), "default", Priority.NORMAL)]) for n in range(200)),
                    return_exceptions=True,
                )
            await queue.close()
            await asyncio.sleep(0.1)  # the server hears that its clients have gone
            return found

    assert {QueueUnavailableError} == {type(error) for error in asyncio.run(ask_all())}


def test_postgres_away_is_503_at_once(stack: Stack) -> None:
    """Without PostgreSQL nothing is accepted, and the client is told when to try again."""
    task_id = stack.submit("result = 1")["task_id"]
    assert stack.servers.database
    stack.servers.database.stop()
    refused = stack.client.post("/execute", json=task("result = 1"))
    unknown = stack.client.get(f"/task/{task_id}")
    health = stack.client.get("/health")
    assert [503] * 3 == [response.status_code for response in (refused, unknown, health)]
    assert ("2", "application/problem+json") == (refused.headers["retry-after"], refused.headers["content-type"])
    assert "down" == health.json()["status"]
    stack.servers.start_database()
    until(lambda: stack.get(task_id)["status"] == "queued", "the task is still there")
    stack.worker()
    assert "succeeded" == stack.get(task_id, wait_s=30)["status"]


def test_postgres_that_hangs_is_503_meanwhile(stack: Stack) -> None:
    """A server that neither answers nor refuses is away too, for a request of megabytes as well; then all goes on."""
    task_id = stack.submit("result = 1")["task_id"]
    assert stack.servers.database
    bodies = [task("result = 1"), task("result = 1")]
    bodies[1]["parameters"]["args"] = "x" * (2 << 20)
    with frozen(stack.servers.database.pid), ThreadPoolExecutor(13) as threads:  # more than DATABASE_CONNECTIONS
        asked = [threads.submit(stack.client.post, "/execute", json=body) for body in bodies * 5]
        paths = (f"/task/{task_id}", f"/task/{task_id}?wait=60", "/health")
        asked += [threads.submit(stack.client.get, path) for path in paths]
        refused = [question.result() for question in asked]  # while it hangs
    assert [503] * 13 == [response.status_code for response in refused]
    assert {"2"} == {response.headers["retry-after"] for response in refused[:-1]}
    until(lambda: stack.client.get("/health").json()["database"]["status"] == "ok", "PostgreSQL is back")
    stack.worker()
    assert "succeeded" == stack.get(task_id, wait_s=30)["status"]
    assert "succeeded" == stack.get(stack.submit("result = 1")["task_id"], wait_s=30)["status"]


def test_tasks_outlive_postgres_that_hangs_beyond_their_lease(stack: Stack) -> None:
    """When nobody could renew, a lease that ran out tells nothing: owners renew first, and no attempt is spent."""
    stack.worker()
    stack.worker()
    held = Held("hold()\nresult = 1")
    task_ids = [stack.submit(held.script)["task_id"] for _ in range(4)]
    until(lambda: all(running(stack, task_id) for task_id in task_ids), "the tasks run")
    held.wait(4)
    assert stack.servers.database
    with frozen(stack.servers.database.pid):
        time.sleep(1.5 * LEASE_S)
    held.tell()
    answers = [stack.get(task_id, wait_s=30) for task_id in task_ids]
    assert [("succeeded", 1)] * 4 == [(answer["status"], answer["attempts"]) for answer in answers]


def test_run_that_the_host_kills_runs_again(stack: Stack) -> None:
    """A child that is killed from outside is our failure, which the log names; the next attempt answers."""
    worker = stack.worker()
    held = Held("hold()\nresult = 1")
    task_id = stack.submit(held.script)["task_id"]
    held.kill()
    until_attempt(stack, task_id, 2)
    held.tell()
    answer = stack.get(task_id, wait_s=30)
    assert ("succeeded", 1, 2) == (answer["status"], answer["result"], answer["attempts"])
    assert '"stage":"killed"' in worker.log.read_text()


@pytest.mark.slow("the worker is stopped until the deadline of the run has passed")
def test_worker_that_was_stopped_past_a_deadline_reads_the_answer(stack: Stack) -> None:
    """The run ended in time, while nobody could read that: it has not run for too long."""
    worker = stack.worker(LEASE_S="60")
    held = Held("hold()\nresult = 'in time'")
    task_id = stack.submit(held.script, timeout_s=6)["task_id"]
    held.wait()
    with frozen(worker.pid, whole_family=False):
        held.tell()
        time.sleep(7.5)
    answer = stack.get(task_id, wait_s=30)
    assert ("succeeded", "in time", 1) == (answer["status"], answer["result"], answer["attempts"])


def test_worker_that_was_frozen_past_its_lease_writes_nothing(stack: Stack) -> None:
    """JOB-04: it wakes with a result in hand, and the task is another worker's by then; it goes on with others."""
    first = stack.worker()
    held = Held("import os\nhold()\nresult = os.urandom(8).hex()")
    task_id = stack.submit(held.script)["task_id"]
    held.wait()
    with frozen(first.pid, whole_family=False):
        held.tell()
        stack.end_leases()
        second = stack.worker()
        until_attempt(stack, task_id, 2)
        held.wait(2)  # the first is not over before its worker says so
        held.tell()
        answer = stack.get(task_id, wait_s=30)
        assert ("succeeded", 2) == (answer["status"], answer["attempts"])
        assert 0 == second.stop()
    until(lambda: "result not stored: the lease was lost" in first.log.read_text(), "it has woken, and tried")
    assert answer == stack.get(task_id)
    assert "succeeded" == stack.get(stack.submit("result = 1")["task_id"], wait_s=30)["status"]


def test_worker_may_get_the_next_attempt_at_what_it_lost(stack: Stack) -> None:
    """Two attempts at one task on one worker: the older is stopped, the newer keeps its lease and tells its end."""
    worker = stack.worker()
    held = Held("hold()\nresult = 'held'")
    task_id = stack.submit(held.script)["task_id"]
    held.wait()
    ask(stack.environ["DATABASE_URL"], LOSE)
    put_in_line(stack, task_id)  # at once, before it hears at its next renewal that it has lost the task
    until_attempt(stack, task_id, 2)
    until(lambda: held.count() == 1, "the older is stopped")
    held.tell()
    answer = stack.get(task_id, wait_s=30)
    assert ("succeeded", "held", 2) == (answer["status"], answer["result"], answer["attempts"])
    assert "queue entry failed" not in worker.log.read_text()


def take_free_descriptors(pid: int) -> None:
    """Lower a process's limit to the lowest number that is free there, so that every open() fails (getrlimit(2))."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in itertools.count() if number not in taken)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, free), hard))


def test_worker_without_descriptors_spends_no_tasks(stack: Stack) -> None:
    """JOB-20: EMFILE in the worker itself. It lives, says that it is sick, costs one task at most, and heals."""
    worker = stack.worker(MAX_ATTEMPTS="2")
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    stack.get(stack.submit("result = 1")["task_id"], wait_s=30)
    until(lambda: not stack.get_worker()["running"], "it is at rest")
    take_free_descriptors(worker.pid)
    task_ids = [stack.submit("import time\ntime.sleep(0.2)\nresult = 1")["task_id"] for _ in range(12)]

    def is_sick() -> bool:
        take_free_descriptors(worker.pid)  # again: what it closes meanwhile it could open anew
        return bool(stack.get_worker()["failing"] == ["custom_script"])

    until(is_sick, "it says that it is sick")
    assert 503 == stack.client.get("/health/ready").status_code
    until(lambda: worker.log.read_text().count('"sandbox failed"') >= 3, "it has tried more than once")
    assert worker.process.poll() is None
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    answers = [stack.get(task_id, wait_s=40) for task_id in task_ids]
    reasons = [answer["exit_reason"] for answer in answers]
    assert set(reasons) <= {"ok", "worker_lost"}
    assert reasons.count("worker_lost") <= 1
    until(lambda: stack.get_worker()["failing"] == [], "it says that it is well")
    assert 200 == stack.client.get("/health/ready").status_code


def test_api_that_stops_answers_those_who_wait(stack: Stack) -> None:
    """SIGTERM: a client that waits gets its task as it stands, not a broken connection."""

    async def ask_and_stop() -> httpx.Response:
        async with httpx.AsyncClient(base_url=stack.client.base_url, timeout=90) as client:
            waiting = asyncio.create_task(client.post("/execute", params={"wait": 30}, json=task("result = 1")))
            stored = lambda: ask(stack.environ["DATABASE_URL"], "SELECT 1 FROM tasks")  # noqa: E731  a condition
            await asyncio.to_thread(until, stored, "the task is stored")
            stack.api.process.send_signal(signal.SIGTERM)
            return await waiting

    response = asyncio.run(ask_and_stop())
    assert (202, "queued") == (response.status_code, response.json()["status"])
    assert 0 == stack.api.process.wait(120)  # by that signal: a second one would kill it while it leaves


class Touch:
    """Unpickling this makes a file: what a poisoned queue would do to a worker that unpickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_poisoned_queue_runs_nothing(stack: Stack, tmp_path: Path) -> None:
    """An attacker in Redis can delay tasks but run nothing: entries are JSON of one shape, never pickles."""
    trap = tmp_path / "trap"
    victim = stack.submit("result = 1")["task_id"]
    poison = pickle.dumps({"f": "run_task", "a": (Touch(trap),), "k": {}, "t": 1, "et": 1})
    pickle.loads(poison)
    assert trap.exists()  # the trap works
    trap.unlink()
    with redis.Redis.from_url(stack.environ["REDIS_URL"]) as connection:
        connection.set(f"arq:job:{victim}", poison)
        strange = {b"\xff\xfe": 1, b"*": 1, b"": 1, b"00000000-0000-4000-8000-000000000000": 1}
        connection.zadd("unityai:tasks", strange)
        connection.set("arq:job:00000000-0000-4000-8000-000000000000", poison)
    worker = stack.worker()
    assert "succeeded" == stack.get(victim, wait_s=30)["status"]
    assert not trap.exists()
    assert worker.process.poll() is None


def test_killed_service_leaves_nothing_running() -> None:
    """kill -9 of ``up``: the kernel ends its parts and the embedded servers too."""
    with whole_service(light=True) as (_, process):
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 4
        process.kill()
        _, left = psutil.wait_procs(family, timeout=120)
        assert [] == [part for part in left if part.status() != psutil.STATUS_ZOMBIE]


def test_worker_that_dies_is_started_again() -> None:
    """``up`` keeps its parts running."""
    with whole_service(light=True) as (url, _), httpx.Client(base_url=url, timeout=90) as client:
        [before] = client.get("/health").json()["workers"]
        psutil.Process(before["pid"]).kill()
        answer = client.post("/execute", params={"wait": 60}, json=task("result = 1")).json()
        assert "succeeded" == answer["status"], answer
