"""Quotas hold exactly, whoever asks at the same time; what waits for a quota holds no slot and is not forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from engine.auth import Quotas
from engine.store import QuotaError, Store
from engine.task import CANCELLED, NewTask, Priority


@pytest.fixture
def with_stores(dsn: str) -> Callable[[Callable[[list[Store]], Awaitable[Any]]], Any]:
    """Runs something on four stores, as of four processes."""

    def run(do: Callable[[list[Store]], Awaitable[Any]]) -> Any:
        async def on_stores() -> Any:
            stores = [Store(dsn, connections=10) for _ in range(4)]
            try:
                for store in stores:
                    await store.open()
                return await do(stores)
            finally:
                for store in stores:
                    await store.close()

        return asyncio.run(on_stores())

    return run


def new_task(tenant: str, quotas: Quotas, priority: Priority = Priority.NORMAL) -> NewTask:
    return NewTask(
        task_id=uuid4(),
        task_type="custom_script",
        parameters=b"{}",
        policy="custom_script",
        timeout_s=None,
        labels={},
        script_name=None,
        max_attempts=3,
        tenant=tenant,
        priority=priority,
        quotas=quotas,
    )


async def insert(store: Store, task: NewTask) -> str:
    """``"accepted"``, or which quota it was too much for."""
    try:
        await store.insert(task)
    except QuotaError as error:
        return error.quota if 0 < error.retry_after_s <= 60 else f"try again after {error.retry_after_s} s"
    return "accepted"


@pytest.mark.parametrize("quota", ["tasks_per_minute", "queued_tasks"])
def test_quota_is_exact_under_fifty_at_once(with_stores: Any, quota: str) -> None:
    """API-11: of 50 concurrent requests through four processes 20 are accepted; another tenant's are not counted."""
    tenant, quotas = f"t-{uuid4()}", Quotas(**{quota: 20})

    async def do(stores: list[Store]) -> tuple[list[str], str]:
        inserts = [insert(stores[number % 4], new_task(tenant, quotas)) for number in range(50)]
        return await asyncio.gather(*inserts), await insert(stores[0], new_task(f"other-{tenant}", quotas))

    ends, other = with_stores(do)
    assert (20, 30) == (ends.count("accepted"), ends.count(quota))
    assert "accepted" == other


@pytest.mark.parametrize("quota", ["tasks_per_minute", "queued_tasks"])
def test_batch_beyond_a_quota_is_refused_as_a_whole(with_stores: Any, quota: str) -> None:
    """Nothing of it is stored, and what fits is accepted afterwards."""
    tenant, quotas = f"t-{uuid4()}", Quotas(**{quota: 10})

    async def do(stores: list[Store]) -> tuple[int, int]:
        with pytest.raises(QuotaError):
            await stores[0].insert_many([new_task(tenant, quotas) for _ in range(11)])
        fits = await stores[0].insert_many([new_task(tenant, quotas) for _ in range(10)])
        with pytest.raises(QuotaError):
            await stores[0].insert_many([new_task(tenant, quotas)])
        return len(fits)

    assert 10 == with_stores(do)


def test_minute_passes(with_stores: Any, dsn: str) -> None:
    """What was accepted more than a minute ago does not count any more."""
    tenant, quotas = f"t-{uuid4()}", Quotas(tasks_per_minute=2)

    async def do(stores: list[Store]) -> list[str]:
        ends = [await insert(stores[0], new_task(tenant, quotas)) for _ in range(3)]
        connection = await asyncpg.connect(dsn)
        later = "UPDATE tasks SET created_at = created_at - interval '1 min' WHERE tenant = $1"
        await connection.execute(later, tenant)
        await connection.close()
        return [*ends, await insert(stores[0], new_task(tenant, quotas))]

    assert ["accepted", "accepted", "tasks_per_minute", "accepted"] == with_stores(do)


def test_no_more_run_at_once_than_the_limit(with_stores: Any) -> None:
    """Twenty claims at once through four processes: three run, the others are held, and none of another tenant."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=3), uuid4()

    async def do(stores: list[Store]) -> Any:
        tasks = [new_task(tenant, quotas) for _ in range(20)]
        await stores[0].insert_many(tasks)
        claims = await asyncio.gather(
            *(stores[number % 4].claim(task.task_id, worker, 30) for number, task in enumerate(tasks))
        )
        running = [claim for claim in claims if claim]
        other = new_task(f"other-{tenant}", quotas)
        await stores[0].insert(other)
        assert await stores[0].claim(other.task_id, worker, 30)
        nothing = await stores[0].let_go(tenant)
        overdue = {task.task_id async for page in stores[0].overdue(0, 500) for task in page}
        await stores[0].finish(running[0], worker, CANCELLED)
        await stores[0].release(running[1], worker)
        freed = await stores[0].let_go(tenant)
        overdue &= {task.task_id for task in tasks}
        return len(running), nothing, overdue, freed

    running, nothing, overdue, freed = with_stores(do)
    assert (3, [], set()) == (running, nothing, overdue)
    assert 2 == len(freed) == len({task.task_id for task in freed})


def test_most_urgent_of_those_held_is_let_go_first(with_stores: Any) -> None:
    """Then the oldest. A task that was cancelled meanwhile is no more."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=1), uuid4()

    async def do(stores: list[Store]) -> Any:
        (store, *_) = stores
        priorities = [Priority.NORMAL, Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH]
        tasks = [new_task(tenant, quotas, priority) for priority in priorities]
        for task in tasks:
            await store.insert(task)
        claims = [await store.claim(task.task_id, worker, 30) for task in tasks]
        assert [True, False, False, False, False] == [claim is not None for claim in claims]
        await store.cancel(tasks[3].task_id, tenant)
        claim = claims[0]
        order = []
        for _ in range(3):
            await store.finish(claim, worker, CANCELLED)
            (free,) = await store.let_go(tenant)
            order.append(tasks.index(next(task for task in tasks if task.task_id == free.task_id)))
            claim = await store.claim(free.task_id, worker, 30)
        return order

    assert [4, 2, 1] == with_stores(do)
