"""All running tasks of a worker together stay within its memory: the others wait in the queue, and pay nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from engine.queue.memory import MemoryBudget
from engine.queue.queue import MOST_PASSES
from tests.support.held import Held
from tests.support.stack import Stack, open_folder, task, until

WHOLE_MIB = 400


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """One worker whose tasks may have ``WHOLE_MIB`` together."""
    with open_folder() as folder:
        stack = Stack(folder, WORKER_MEMORY_MIB=str(WHOLE_MIB))
        try:
            stack.worker()
            yield stack
        finally:
            stack.close()


def running(stack: Stack, held: Held, memory_mib: int) -> str:
    """A task of so much memory that goes on until it is told to end."""
    task_id = str(stack.submit(held.script, memory_mib=memory_mib)["task_id"])
    held.wait()
    return task_id


def ends_well(stack: Stack, task_id: str) -> None:
    """A task that waited for memory has paid nothing for that."""
    ended = stack.get(task_id, 60)
    assert ("succeeded", 1) == (ended["status"], ended["attempts"]), ended


def test_two_tasks_that_need_the_whole_memory_run_one_after_the_other(stack: Stack) -> None:
    """The second keeps its place in the queue and no slot; health, metrics and log say what it waits for."""
    held = Held("hold()")
    first = running(stack, held, WHOLE_MIB)
    second = stack.submit("result = 1", memory_mib=WHOLE_MIB)["task_id"]
    until(lambda: stack.get_worker()["waits_for_memory"], "the worker says that it is short of memory")
    waiting, worker = stack.get(second), stack.get_worker()
    assert ("queued", 1, 0) == (waiting["status"], waiting["queue_position"], waiting["attempts"])
    assert (WHOLE_MIB, WHOLE_MIB, 1) == (worker["memory_mib"], worker["memory_taken_mib"], worker["running"])
    assert 0 == stack.client.get("/health").json()["queue"]["free_slots"]
    assert "tasks wait for memory" in (stack.folder / "worker.log").read_text()
    held.tell()
    ends_well(stack, first)
    ends_well(stack, second)
    until(lambda: 0 == stack.get_worker()["memory_taken_mib"], "all memory is free again")


def test_small_task_passes_a_large_one_that_waits(stack: Stack) -> None:
    """It runs in the memory that the large one could not use anyway."""
    held = Held("hold()")
    first = running(stack, held, WHOLE_MIB // 2)
    large = stack.submit("result = 1", memory_mib=WHOLE_MIB)["task_id"]
    small = stack.submit("result = 2", memory_mib=64)["task_id"]
    ends_well(stack, small)
    assert "queued" == stack.get(large)["status"]
    held.tell()
    ends_well(stack, first)
    ends_well(stack, large)


def test_small_tasks_do_not_keep_a_large_one_waiting_for_ever(stack: Stack) -> None:
    """So many pass it, and no more: then it is the next, whatever else would fit."""
    held = Held("hold()")
    first = running(stack, held, WHOLE_MIB // 2)
    large = stack.submit("result = 1", memory_mib=WHOLE_MIB)["task_id"]
    batch = {"tasks": [task("result = 2", memory_mib=64)] * (MOST_PASSES + 4)}
    small = [one["task"]["task_id"] for one in stack.client.post("/execute/batch", json=batch["tasks"]).json()["tasks"]]

    def ended() -> list[str]:
        return [task_id for task_id in small if stack.get(task_id)["status"] == "succeeded"]

    until(lambda: len(ended()) == MOST_PASSES, "so many have passed it")
    held.tell()
    for task_id in (first, large, *small):
        ends_well(stack, task_id)
    started = {task_id: stack.get(task_id)["started_at"] for task_id in (large, *small)}
    assert MOST_PASSES == sum(started[task_id] < started[large] for task_id in small)


def test_task_that_could_never_run_is_refused(stack: Stack) -> None:
    """It would wait for ever; the refusal says how much it may ask for."""
    refused = stack.client.post("/execute", json=task("result = 1"))
    assert 400 == refused.status_code
    [fault] = refused.json()["errors"]
    assert "$.memory_mib" == fault["path"]
    assert f"at most {WHOLE_MIB}" in fault["message"]
    assert "WORKER_MEMORY_MIB" in fault["message"]


def test_shares_that_are_returned_wake_who_waits_for_more() -> None:
    """A share can grow once others have given theirs back; one that is larger than the whole is refused at once."""

    async def do() -> tuple[bool, bool, int]:
        budget = MemoryBudget(100, 60)
        one, two = budget.take(60), budget.take(40)
        assert one
        assert two
        assert budget.take(1) is None
        growing = asyncio.create_task(two.become(80))
        await asyncio.sleep(0)
        waits = not growing.done()
        one.release()
        return waits, await growing and not await one.become(101), budget.taken_mib

    assert (True, True, 80) == asyncio.run(do())
