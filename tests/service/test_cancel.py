"""DELETE /task/{id}: at once while it waits, soon while it runs, and always one end."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.held import Held
from tests.support.stack import Stack, frozen, task, until

ENDLESS = "print('started', flush=True)\nimport time\ntime.sleep(120)"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with one worker."""
    found = Stack(tmp_path_factory.mktemp("cancel"), LEASE_S="60", DRAIN_S="0.2")
    found.worker()
    yield found
    found.close()


def cancel(stack: Stack, task_id: str, wait_s: float = 0) -> tuple[int, dict[str, Any]]:
    response = stack.client.delete(f"/task/{task_id}", params={"wait": wait_s})
    return response.status_code, response.json()


def started(stack: Stack, script: str = ENDLESS, **more: Any) -> str:
    """A task that runs."""
    task_id: str = stack.submit(script, **more)["task_id"]
    until(lambda: stack.get(task_id)["status"] == "running", "the task runs")
    return task_id


def test_running_task_is_killed(quick: Stack) -> None:
    """JOB-08: 200 and the task as it ended, with its prints and its usage."""
    held = Held("print('started', flush=True)\nunder_way()\nhold()", named_at_once=False)
    task_id = started(quick, held.script)
    held.wait()
    status, answer = cancel(quick, task_id, wait_s=60)
    assert (200, "cancelled", "cancelled") == (status, answer["status"], answer["exit_reason"])
    assert "started\n" == answer["logs"]["stdout"]
    assert answer["usage"]["wall_s"] > 0
    assert 1 == answer["attempts"]


def test_running_task_is_202_for_who_does_not_wait(quick: Stack) -> None:
    """Without ?wait the call only asks; the end follows by itself."""
    task_id = started(quick)
    with frozen(quick.get_worker()["pid"]):  # it would end the run before the call is answered, now and then
        status, answer = cancel(quick, task_id)
    assert (202, "running") == (status, answer["status"])
    assert "cancelled" == quick.get(task_id, wait_s=60)["status"]


def test_cancelled_task_stays_as_it_ended(quick: Stack) -> None:
    """JOB-08: twice is as once, and a result that was there is not taken away."""
    task_id = started(quick)
    _, first = cancel(quick, task_id, wait_s=60)
    assert (200, first) == cancel(quick, task_id)
    done = quick.get(quick.submit("result = 7")["task_id"], wait_s=60)
    assert (200, done) == cancel(quick, done["task_id"])


@pytest.mark.parametrize("task_id", [str(uuid4()), "1", "%2e%2e"])
def test_unknown_task_is_404(quick: Stack, task_id: str) -> None:
    """JOB-07: nothing is remembered of an id that nobody has."""
    assert 404 == quick.client.delete(f"/task/{task_id}").status_code


def test_worker_that_hears_nothing_learns_it_from_the_lease(quick: Stack) -> None:
    """Nobody tells the worker (as when Redis is away): PostgreSQL does, at the next renewal."""

    async def ask(task_id: str) -> None:
        connection = await asyncpg.connect(quick.environ["DATABASE_URL"])
        await connection.execute("UPDATE tasks SET cancel_asked_at = now() WHERE task_id = $1", task_id)
        await connection.close()

    task_id = started(quick)
    asyncio.run(ask(task_id))
    assert "cancelled" == quick.get(task_id, wait_s=60)["status"]


def test_cancels_around_the_end_leave_one_state(quick: Stack) -> None:
    """Cancels that come around the end: each task has one end, the same for who cancels and for who asks."""
    ends: dict[str, set[str]] = {}

    def race(number: int) -> None:
        pause_s = random.Random(number).uniform(0, 0.05)
        with httpx.Client(base_url=quick.client.base_url, timeout=90) as client:
            answer = client.post("/execute", json=task(f"import time; time.sleep({pause_s}); result = {number}")).json()
            time.sleep(pause_s)
            cancelled = client.delete(f"/task/{answer['task_id']}", params={"wait": 60}).json()
            asked = client.get(f"/task/{answer['task_id']}", params={"wait": 60}).json()
            ends[answer["task_id"]] = {cancelled["status"], asked["status"]}
            if asked["status"] == "succeeded":
                assert number == asked["result"]

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(race, range(100)))
    assert 100 == len(ends)
    assert all(len(end) == 1 for end in ends.values()), ends
    assert {"succeeded", "cancelled"} == set().union(*ends.values())


def test_cancelled_task_of_a_worker_that_stops_is_not_run_again(quick: Stack, tmp_path: Any) -> None:
    """The worker is told to stop and dies before it hears: the sweeper ends the task instead of queueing it again."""
    stack = Stack(tmp_path, LEASE_S="2", DRAIN_S="0.2")
    try:
        waiting, behind = (stack.submit("result = 1")["task_id"] for _ in range(2))
        assert [1, 2] == [stack.get(task_id)["queue_position"] for task_id in (waiting, behind)]
        status, answer = cancel(stack, waiting)
        assert (200, "cancelled", 0) == (status, answer["status"], answer["attempts"])
        assert "while it did not run" in answer["message"]
        assert [None, 1] == [stack.get(task_id)["queue_position"] for task_id in (waiting, behind)]
        first = stack.worker()
        assert "cancelled" == stack.get(waiting)["status"]
        task_id = started(stack)
        first.process.send_signal(signal.SIGSTOP)
        assert 202 == cancel(stack, task_id)[0]
        first.stop(signal.SIGKILL)
        stack.end_leases()
        stack.worker()
        answer = stack.get(task_id, wait_s=60)
        assert ("cancelled", "cancelled", 1) == (answer["status"], answer["exit_reason"], answer["attempts"])
    finally:
        stack.close()
