"""The line on real Valkey: who is next, whatever anybody floods it with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
import redis

from engine.dev.embedded import Embedded
from engine.model.status import Priority
from engine.model.task import QueueItem
from engine.queue.queue import Queue


@pytest.fixture
def line(servers: Embedded) -> Callable[[Callable[[Queue], Awaitable[Any]]], Any]:
    """Runs something on a line of its own, empty at first."""
    name = f"test-{uuid4()}"

    def run(do: Callable[[Queue], Awaitable[Any]]) -> Any:
        async def on_line() -> Any:
            queue = Queue(str(servers.urls.redis), name)
            try:
                return await do(queue)
            finally:
                await queue.close()

        return asyncio.run(on_line())

    run.name = name  # type: ignore[attr-defined]
    return run


def waiting(tenant: str, priority: Priority = Priority.NORMAL, count: int = 1) -> list[QueueItem]:
    return [QueueItem(uuid4(), tenant, priority) for _ in range(count)]


async def taken(queue: Queue, known: list[QueueItem]) -> list[QueueItem]:
    """Everything in the line, in the order in which workers take it."""
    by_id = {task.task_id: task for task in known}
    order = []
    while popped := await queue._redis.zpopmin(queue._name):
        order.append(by_id[UUID(popped[0][0].decode())])
    return order


def test_tasks_of_one_flow_are_taken_in_their_order(line: Any) -> None:
    """First come, first served, within a tenant's tasks of one priority."""
    tasks = waiting("a", count=300)

    async def do(queue: Queue) -> list[QueueItem]:
        await queue.put(tasks)
        return await taken(queue, tasks)

    assert tasks == line(do)


def test_flood_of_one_tenant_does_not_delay_another(line: Any) -> None:
    """API-11: behind 1,000 tasks of another, a tenant's own come in turn with them: the first at once."""
    flood, own = waiting("flood", count=1000), waiting("own", count=10)

    async def do(queue: Queue) -> list[int]:
        await queue.put(flood)
        for task in own:
            await queue.put([task])
        order = await taken(queue, flood + own)
        return [order.index(task) for task in own]

    assert all(place <= 2 * number + 2 for number, place in enumerate(line(do)))


def test_tenant_that_comes_while_others_are_served_saved_nothing_up(line: Any) -> None:
    """Nor does it owe: silence is no credit to flood the line with."""
    first, second, late = waiting("a", count=200), waiting("b", count=200), waiting("late", count=200)

    async def do(queue: Queue) -> list[QueueItem]:
        await queue.put(first + second)
        for _ in range(200):
            await queue._redis.zpopmin(queue._name)
        await queue.put(late)
        return await taken(queue, first + second + late)

    order = [task.tenant for task in line(do)[:150]]
    assert [50, 50, 50] == pytest.approx([order.count(name) for name in ("a", "b", "late")], abs=2)


def test_low_tasks_never_starve_under_high_ones(line: Any) -> None:
    """Of each nine that are taken, one is low, however many are high."""
    high, low = waiting("a", Priority.HIGH, 800), waiting("a", Priority.LOW, 50)

    async def do(queue: Queue) -> list[QueueItem]:
        await queue.put(high)
        await queue.put(low)
        return await taken(queue, high + low)

    order = [task.priority for task in line(do)]
    assert all(order[start : start + 9].count(Priority.LOW) >= 1 for start in range(0, 400, 9))


def test_urgent_task_overtakes_the_own_backlog(line: Any) -> None:
    """A single high task goes to the front of its tenant's 1,000 normal ones."""
    backlog, urgent = waiting("a", count=1000), waiting("a", Priority.HIGH)

    async def do(queue: Queue) -> int:
        await queue.put(backlog)
        await queue.put(urgent)
        return (await taken(queue, backlog + urgent)).index(urgent[0])

    assert line(do) <= 1


def test_task_that_is_put_again_keeps_its_place(line: Any) -> None:
    """The sweeper may put what is there already: nothing moves, and no clock is put forward."""
    tasks, later = waiting("a", count=50), waiting("a", count=50)

    async def do(queue: Queue) -> list[QueueItem]:
        await queue.put(tasks)
        for _ in range(5):
            await queue.put(tasks)
        await queue.put(later)
        assert [] == await queue.missing(tasks)
        return await taken(queue, tasks + later)

    assert tasks + later == line(do)


def test_task_that_had_its_turn_goes_to_the_front(line: Any) -> None:
    """JOB-17: what a lost worker had, or what was held, does not stand behind its tenant's 1,000 once more."""
    backlog, others, back = waiting("a", count=1000), waiting("b", count=50), waiting("a")[0]._replace(had_turn=True)
    later = waiting("a", count=2)

    async def do(queue: Queue) -> list[int]:
        await queue.put(backlog + others)
        await queue._redis.zpopmin(queue._name, 20)
        await queue.put([back])
        await queue.put(later)
        order = await taken(queue, [*backlog, *others, back, *later])
        return [order.index(task) for task in (back, *later)]

    back_at, *later_at = line(do)
    assert back_at <= 2
    assert all(place > 1000 for place in later_at)


def test_empty_line_forgets_its_clocks(line: Any, servers: Embedded) -> None:
    """Past tenants leave nothing behind once the queue is empty."""
    tasks = [task for number in range(100) for task in waiting(f"tenant-{number}")]

    async def do(queue: Queue) -> None:
        await queue.put(tasks)
        await taken(queue, tasks)
        await queue.put(waiting("last"))

    line(do)
    client = redis.Redis.from_url(str(servers.urls.redis))
    assert {b"normal last"} == set(cast(list[bytes], client.hkeys(f"{line.name}:clocks")))
    client.close()


def test_place_in_line_is_told(line: Any) -> None:
    """How many are before it; nothing for one that is not there."""
    tasks = waiting("a", count=20)

    async def do(queue: Queue) -> list[int | None]:
        await queue.put(tasks)
        return [await queue.position(tasks[7].task_id), await queue.position(uuid4())]

    assert [7, None] == line(do)
