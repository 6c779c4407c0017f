"""Quotas hold exactly, whoever asks at the same time; what waits for a quota holds no slot and is not forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from engine.model.errors import QuotaError
from engine.model.principal import Quotas
from engine.model.result import CANCELLED
from engine.model.status import Priority
from engine.model.task import Claim, ClaimRefused, NewTask
from engine.queue.queue import COSTS
from engine.store.store import Store
from tests.support.new_task import as_claim
from tests.support.new_task import new_task as make_task


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


def new_task(tenant: str, quotas: Quotas, priority: Priority = Priority.NORMAL, key: str | None = None) -> NewTask:
    return make_task(
        parameters=b"{}",
        max_attempts=3,
        tenant=tenant,
        priority=priority,
        concurrent_limit=quotas.concurrent_tasks,
        idempotency_key=key,
        request_sha256=b"request" if key else None,
    )


async def insert(store: Store, task: NewTask, quotas: Quotas) -> str:
    """``"accepted"``, or which quota it was too much for."""
    try:
        await store.tasks.insert(task, quotas)
    except QuotaError as error:
        return error.quota if 0 < (error.retry_after_s or 0) <= 60 else f"try again after {error.retry_after_s} s"
    return "accepted"


@pytest.mark.parametrize("quota", ["tasks_per_minute", "queued_tasks"])
def test_quota_is_exact_under_fifty_at_once(with_stores: Any, quota: str) -> None:
    """API-11: of 50 concurrent requests through four processes 20 are accepted; another tenant's are not counted."""
    tenant, quotas = f"t-{uuid4()}", Quotas(**{quota: 20})

    async def do(stores: list[Store]) -> tuple[list[str], str]:
        inserts = [insert(stores[number % 4], new_task(tenant, quotas), quotas) for number in range(50)]
        return await asyncio.gather(*inserts), await insert(stores[0], new_task(f"other-{tenant}", quotas), quotas)

    ends, other = with_stores(do)
    assert (20, 30) == (ends.count("accepted"), ends.count(quota))
    assert "accepted" == other


@pytest.mark.parametrize("quota", ["tasks_per_minute", "queued_tasks"])
def test_batch_beyond_a_quota_is_refused_as_a_whole(with_stores: Any, quota: str) -> None:
    """Nothing of it is stored, and what fits is accepted afterwards."""
    tenant, quotas = f"t-{uuid4()}", Quotas(**{quota: 10})

    async def do(stores: list[Store]) -> int:
        with pytest.raises(QuotaError):
            await stores[0].tasks.insert_many([new_task(tenant, quotas) for _ in range(11)], quotas)
        fits = await stores[0].tasks.insert_many([new_task(tenant, quotas) for _ in range(10)], quotas)
        with pytest.raises(QuotaError):
            await stores[0].tasks.insert_many([new_task(tenant, quotas)], quotas)
        return len(fits)

    assert 10 == with_stores(do)


def test_minute_passes(with_stores: Any, dsn: str) -> None:
    """A task accepted more than a minute ago does not count any more."""
    tenant, quotas = f"t-{uuid4()}", Quotas(tasks_per_minute=2)

    async def do(stores: list[Store]) -> list[str]:
        ends = [await insert(stores[0], new_task(tenant, quotas), quotas) for _ in range(3)]
        connection = await asyncpg.connect(dsn)
        later = "UPDATE tasks SET created_at = created_at - interval '1 min' WHERE tenant = $1"
        await connection.execute(later, tenant)
        await connection.close()
        return [*ends, await insert(stores[0], new_task(tenant, quotas), quotas)]

    assert ["accepted", "accepted", "tasks_per_minute", "accepted"] == with_stores(do)


def test_no_more_run_at_once_than_the_limit(with_stores: Any) -> None:
    """Twenty claims at once through four processes: three run, the others are held, and none of another tenant."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=3), uuid4()

    async def do(stores: list[Store]) -> Any:
        tasks = [new_task(tenant, quotas) for _ in range(20)]
        await stores[0].tasks.insert_many(tasks, quotas)
        claims = await asyncio.gather(
            *(stores[number % 4].claims.claim(task.task_id, worker, 30) for number, task in enumerate(tasks))
        )
        running = [claim for claim in claims if isinstance(claim, Claim)]
        other = new_task(f"other-{tenant}", quotas)
        await stores[0].tasks.insert(other, quotas)
        assert isinstance(await stores[0].claims.claim(other.task_id, worker, 30), Claim)
        nothing = await stores[0].waiting.release_held(tenant)
        overdue = {task.task_id async for page in stores[0].waiting.overdue(0, 500) for task in page.items}
        await stores[0].claims.finish(running[0], CANCELLED)
        await stores[0].claims.release(running[1])
        freed = await stores[0].waiting.release_held(tenant)
        overdue &= {task.task_id for task in tasks}
        return len(running), nothing, overdue, freed

    running, nothing, overdue, freed = with_stores(do)
    assert (3, [], set()) == (running, nothing, overdue)
    assert 2 == len(freed) == len({task.task_id for task in freed})


def test_most_urgent_of_those_held_is_let_go_first(with_stores: Any) -> None:
    """As in the line. A task that was cancelled meanwhile is no more."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=1), uuid4()

    async def do(stores: list[Store]) -> Any:
        (store, *_) = stores
        priorities = [Priority.NORMAL, Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH]
        tasks = [new_task(tenant, quotas, priority) for priority in priorities]
        for task in tasks:
            await store.tasks.insert(task)
        claims = [await store.claims.claim(task.task_id, worker, 30) for task in tasks]
        assert [True, False, False, False, False] == [isinstance(claim, Claim) for claim in claims]
        await store.tasks.cancel(tasks[3].task_id, tenant)
        claim = claims[0]
        order = []
        for _ in range(3):
            await store.claims.finish(as_claim(claim), CANCELLED)
            (free,) = await store.waiting.release_held(tenant)
            order.append(tasks.index(next(task for task in tasks if task.task_id == free.task_id)))
            claim = await store.claims.claim(free.task_id, worker, 30)
        return order

    assert [4, 2, 1] == with_stores(do)


async def claimed(store: Store, task: NewTask, worker: UUID) -> Claim | ClaimRefused | None:
    """Accept a task and claim it at once; ``None`` when it is held."""
    await store.tasks.insert(task)
    claim = await store.claims.claim(task.task_id, worker, 60)
    return claim if isinstance(claim, Claim) else None


def test_low_task_that_is_held_does_not_starve(with_stores: Any) -> None:
    """However many high ones come up after it, one always being there: it is let go after eight of them."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=1), uuid4()

    async def do(stores: list[Store]) -> list[Priority]:
        (store, *_) = stores
        running = await claimed(store, new_task(tenant, quotas), worker)
        assert await claimed(store, new_task(tenant, quotas, Priority.LOW), worker) is None
        order: list[Priority] = []
        while Priority.LOW not in order and len(order) < 30:
            assert await claimed(store, new_task(tenant, quotas, Priority.HIGH), worker) is None
            await store.claims.finish(as_claim(running), CANCELLED)
            [free] = await store.waiting.release_held(tenant)
            order.append(free.priority)
            running = await store.claims.claim(free.task_id, worker, 60)
        return order

    order = with_stores(do)
    assert [Priority.HIGH, Priority.LOW] == [order[0], order[-1]]
    assert len(order) <= 9


def test_task_that_comes_up_later_does_not_overtake_those_held(with_stores: Any) -> None:
    """Although there is room just then; and one that was let go and finds no room keeps its place."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=1), uuid4()

    async def do(stores: list[Store]) -> tuple[UUID, UUID]:
        (store, *_) = stores
        first, *tasks = (new_task(tenant, quotas) for _ in range(4))
        running = await claimed(store, first, worker)
        assert [None, None] == [await claimed(store, task, worker) for task in tasks[:2]]
        await store.claims.finish(as_claim(running), CANCELLED)
        assert await claimed(store, tasks[2], worker) is None
        for task in tasks[:2]:  # the second finds room too, as long as nobody has claimed the first
            assert [task.task_id] == [free.task_id for free in await store.waiting.release_held(tenant)]
        running = await store.claims.claim(tasks[1].task_id, worker, 60)
        assert ClaimRefused(tenant) == await store.claims.claim(tasks[0].task_id, worker, 60)
        await store.claims.finish(as_claim(running), CANCELLED)
        [free] = await store.waiting.release_held(tenant)
        return free.task_id, tasks[0].task_id

    free, oldest = with_stores(do)
    assert oldest == free


def test_task_that_was_given_back_goes_before_those_held(with_stores: Any) -> None:
    """A worker that stops, or dies, does not send its task behind all that its tenant has waiting."""
    tenant, quotas, worker = f"t-{uuid4()}", Quotas(concurrent_tasks=1), uuid4()

    async def do(stores: list[Store]) -> tuple[bool, UUID, UUID]:
        (store, *_) = stores
        first, *others = (new_task(tenant, quotas) for _ in range(4))
        claim = await claimed(store, first, worker)
        assert [None] * 3 == [await claimed(store, task, worker) for task in others]
        await store.claims.release(as_claim(claim))
        again = await store.claims.claim(first.task_id, worker, 60)
        await store.claims.release(as_claim(again))
        [free] = await store.waiting.release_held(tenant)
        running = await store.claims.claim(free.task_id, worker, 60)
        assert ClaimRefused(tenant) == await store.claims.claim(first.task_id, worker, 60)
        await store.claims.finish(as_claim(running), CANCELLED)
        [free] = await store.waiting.release_held(tenant)
        return isinstance(again, Claim), free.task_id, first.task_id

    with_room, free, first = with_stores(do)
    assert with_room
    assert first == free


def test_letting_go_passes_by_nobody(with_stores: Any, dsn: str) -> None:
    """JOB-17: with 5,000 tasks held of each of three tenants, it looks at a few dozen rows."""
    fill = """
    INSERT INTO tasks (task_id, task_type, policy, parameters, max_attempts, concurrent_limit, tenant, held_at,
        held_place)
    SELECT gen_random_uuid(), 'custom_script', 'custom_script', '{}', 3, 2, 't' || n % 3, now(), n
    FROM generate_series(1, 15000) AS n"""
    looked = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'tasks'"

    async def do(_: list[Store]) -> tuple[int, int, int]:
        connection = await asyncpg.connect(dsn)
        await connection.execute(fill)
        async with connection.transaction():
            one = await connection.fetch("SELECT * FROM let_go('t1')")
            every = await connection.fetch("SELECT * FROM let_go(NULL)")
            rows = await connection.fetchval(looked)
        await connection.close()
        return len(one), len(every), rows

    one, every, rows = with_stores(do)
    assert (2, 6) == (one, every)
    assert 8 <= rows < 100


def test_steps_are_those_of_the_line(with_stores: Any, dsn: str) -> None:
    """Held tasks and those in line are ordered by the same costs, which stand in two places."""

    async def do(_: list[Store]) -> dict[Priority, float]:
        connection = await asyncpg.connect(dsn)
        steps = {name: await connection.fetchval(f"SELECT flow_step('{name}')") for name in Priority}
        await connection.close()
        return steps

    assert dict(COSTS) == with_stores(do)


@pytest.mark.parametrize("quota", ["tasks_per_minute", "queued_tasks"])
def test_repeated_request_is_not_refused_for_a_quota(with_stores: Any, quota: str) -> None:
    """API-05: who missed the answer asks again under the same key, alone or in a batch, and is told it."""
    tenant, quotas = f"t-{uuid4()}", Quotas(**{quota: 2})

    async def do(stores: list[Store]) -> Any:
        (store, *_) = stores
        tasks = [new_task(tenant, quotas, key=key) for key in ("a", "b")]
        first = await store.tasks.insert_many(tasks, quotas)
        again = [await store.tasks.insert(tasks[0], quotas), await store.tasks.insert_many(tasks, quotas)]
        with pytest.raises(QuotaError):
            await store.tasks.insert_many([*tasks, new_task(tenant, quotas, key="c")], quotas)
        return len(first), again

    assert (2, [None, {}]) == with_stores(do)


def test_flood_of_a_tenant_leaves_connections_to_others(with_stores: Any, dsn: str) -> None:
    """API-11: fifty requests that wait for their tenant's lock keep one connection of ten; another tenant's goes on."""
    flooding, other, quotas = f"t-{uuid4()}", f"t-{uuid4()}", Quotas(queued_tasks=100)

    async def do(stores: list[Store]) -> tuple[bool, int]:
        connection = await asyncpg.connect(dsn)
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", flooding)
        flood = [asyncio.create_task(stores[0].tasks.insert(new_task(flooding, quotas), quotas)) for _ in range(50)]
        await asyncio.sleep(0.1)
        accepted = await stores[0].tasks.insert(new_task(other, quotas), quotas) is not None
        ended_before = sum(task.done() for task in flood)
        await connection.close()  # lets go of the lock
        await asyncio.gather(*flood)
        return accepted, ended_before

    assert (True, 0) == with_stores(do)
