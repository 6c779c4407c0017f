"""What grows: many queued and many finished tasks, large values of small objects, a thousand runs that sleep.

A statement of the store is measured where it would be slow: behind tasks that the planner's statistics do not show, and
over so many finished tasks that a walk over them shows. The store stands alone for that: HTTP and the sandbox would
hide the difference.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import msgspec

from engine.dev.bench.rows import Row, make_row
from engine.dev.embedded import Embedded
from engine.model.request import SubmitRequest
from engine.model.result import CANCELLED
from engine.model.status import TASK_TYPES, Status
from engine.model.task import Claim, NewTask, TaskFilter
from engine.store.store import Store
from sandbox import ExitReason, Host, Policy, Pool, Template

Progress = Callable[[str], None]

TENANT = "bench"
FEW, MANY, QUEUED = 10_000, 1_000_000, 200_000
OLD = 500_000
SAMPLES = 200
LEASE_S = 60.0
SLEEPERS = 1000
WATCHED_S = 5.0
OBJECTS = 170_000
FILL = """
INSERT INTO tasks (task_id, task_type, status, policy, parameters, max_attempts, tenant, created_at, due_at,
    started_at, finished_at, exit_reason, outcome)
SELECT gen_random_uuid(), ($1::text[])[1 + n % 6], $2::task_status, 'custom_script', '{}', 3, $3,
    now() - make_interval(secs => n), now() - make_interval(secs => n),
    CASE WHEN $2 <> 'queued' THEN now() - make_interval(secs => n) END,
    CASE WHEN $2 <> 'queued' THEN now() - make_interval(secs => n) END,
    CASE WHEN $2 <> 'queued' THEN 'ok'::exit_reason END, CASE WHEN $2 <> 'queued' THEN '{}'::bytea END
FROM generate_series($4::int, $5::int) AS n
"""
OBJECTS_SCRIPT = "result = [{'a': number} for number in range(args)]"
SLEEP_SCRIPT = "import time\ntime.sleep(args)\nresult = 1"


class OwnDatabase(NamedTuple):
    """A store on an embedded PostgreSQL of its own, and a connection beside it."""

    store: Store
    connection: asyncpg.Connection

    async def fill(self, status: str, first: int, last: int) -> None:
        """Store tasks, the ``n``-th of them made ``n`` seconds ago."""
        await self.connection.execute(FILL, list(TASK_TYPES), status, TENANT, first, last, timeout=1800)


@asynccontextmanager
async def open_database() -> AsyncIterator[OwnDatabase]:
    """One that no worker and no sweep touches, and whose statistics are taken when told only."""
    with Embedded(None, redis=False) as servers:
        url = str(servers.urls.database)
        store = Store(url, connections=4)
        await store.open()
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER TABLE tasks SET (autovacuum_enabled = off)")
        try:
            yield OwnDatabase(store, connection)
        finally:
            await connection.close()
            await store.close()


async def measure_store(progress: Progress) -> list[Row]:
    """Claims behind a deep queue, a task's life and every list over few and over many finished tasks, and retention."""
    async with open_database() as database:
        progress(f"claims behind {QUEUED:,} queued tasks that statistics do not show")
        await database.connection.execute("ANALYZE tasks")
        await database.fill("queued", 1, QUEUED)
        rows = [make_row(f"claim behind {QUEUED:,} queued, statistics stale", await _claims(database))]
        await database.connection.execute("TRUNCATE tasks CASCADE")
        rows += await _measure_growth(database, progress)
        return [*rows, *await _measure_retention(database, progress)]


async def _claims(database: OwnDatabase) -> list[float]:
    ids = await database.connection.fetch("SELECT task_id FROM tasks TABLESAMPLE SYSTEM (1) LIMIT $1", SAMPLES)
    worker = uuid4()
    return [await _timed(lambda one=one: database.store.claims.claim(one["task_id"], worker, LEASE_S)) for one in ids]  # type: ignore[misc]


async def _measure_growth(database: OwnDatabase, progress: Progress) -> list[Row]:
    rows: list[Row] = []
    before: dict[str, Row] = {}
    for first, count in ((1, FEW), (FEW + 1, MANY)):
        progress(f"a task's life and every list over {count:,} finished tasks")
        await database.fill("succeeded", first, count)
        await database.connection.execute("VACUUM ANALYZE tasks", timeout=1800)
        lists = await _lists(database)
        for name, seconds in {**await _life(database), **lists}.items():
            row = make_row(
                f"{'list ' if name in lists else ''}over {count:,} finished, {name}", seconds, before.get(name)
            )
            if name in before:
                times = row.p50_ms / before[name].p50_ms
                row = msgspec.structs.replace(row, value=times, unit="times", note=f"{times:.2f} times as long")
            before[name] = row
            rows.append(row)
    return rows


async def _life(database: OwnDatabase) -> dict[str, list[float]]:
    """Seconds of each statement in the life of a task."""
    worker = uuid4()
    lives = [await live_once(database.store, worker) for _ in range(SAMPLES)]
    return {name: [life[name] for life in lives] for name in lives[0]}


async def live_once(store: Store, worker: UUID) -> dict[str, float]:
    """Submit a task, claim it for a worker and finish it; the seconds of each."""
    task = _new_task()
    submitted_s = await _timed(lambda: store.tasks.insert(task))
    began_s = time.perf_counter()
    claim = await store.claims.claim(task.task_id, worker, LEASE_S)
    claimed_s = time.perf_counter() - began_s
    if not isinstance(claim, Claim):
        raise TypeError(f"a task of its own was not claimed: {claim}")
    finished_s = await _timed(lambda: store.claims.finish(claim, CANCELLED))
    return {"submit": submitted_s, "claim": claimed_s, "finish": finished_s}


async def _lists(database: OwnDatabase) -> dict[str, list[float]]:
    """Seconds of a page of fifty, by filter."""
    filters = {
        "no filter": TaskFilter(),
        "status": TaskFilter(statuses=(Status.SUCCEEDED,)),
        "a status that none has": TaskFilter(statuses=(Status.CANCELLED,)),
        "task type": TaskFilter(task_type="web_scraping"),
        "exit reason": TaskFilter(exit_reasons=(ExitReason.OK,)),
        "status, task type and reason": TaskFilter(
            statuses=(Status.SUCCEEDED,), task_type="ml_inference", exit_reasons=(ExitReason.OK,)
        ),
        "a label that none has": TaskFilter(labels={"no": "task"}),
    }
    return {
        name: [
            await _timed(lambda wanted=wanted: database.store.tasks.find(TENANT, wanted))  # type: ignore[misc]
            for _ in range(30)
        ]
        for name, wanted in filters.items()
    }


async def _measure_retention(database: OwnDatabase, progress: Progress) -> list[Row]:
    """Delete half of the finished tasks beside tasks that are submitted, claimed and finished all the while."""
    progress(f"retention of {OLD:,} finished tasks beside running ones")
    alone = [sum(one) for one in zip(*(await _life(database)).values(), strict=True)]
    began_s = time.perf_counter()
    deleting = asyncio.create_task(database.store.tasks.delete_old(MANY - OLD))
    beside: list[float] = []
    while not deleting.done():
        beside += [sum(one) for one in zip(*(await _life(database)).values(), strict=True)]
    deleted, took_s = await deleting, time.perf_counter() - began_s
    before = make_row("life in the store, alone", alone)
    row = make_row("life in the store, beside retention", beside, before)
    times = row.p50_ms / before.p50_ms
    note = f"p50 {times:.2f} times as long, worst {row.worst_ms:.0f} ms; {deleted:,} tasks deleted in {took_s:.0f} s"
    return [before, msgspec.structs.replace(row, value=times, unit="times", note=note)]


def _new_task() -> NewTask:
    request = SubmitRequest(task_type="custom_script", parameters=msgspec.Raw(b'{"script":"result = 1"}'))
    return NewTask(task_id=uuid4(), tenant=TENANT, policy="custom_script", max_attempts=3, request=request)


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    began_s = time.perf_counter()
    await act()
    return time.perf_counter() - began_s


# -- the sandbox


async def measure_sandbox(policy: Policy, host: Host, template: Template, progress: Progress) -> list[Row]:
    """A result of many small objects, and a thousand runs that sleep."""
    return [
        await _measure_objects(policy, host, template, progress),
        *await _measure_sleepers(policy, host, template, progress),
    ]


async def _measure_objects(policy: Policy, host: Host, template: Template, progress: Progress) -> Row:
    """Processor time of worker and child together; the script's own making of the objects is in it."""
    progress(f"a result of {OBJECTS:,} objects")
    spent_ms: list[float] = []
    async with Pool(policy, host, template, ready=2) as pool:
        for _ in range(8):
            before_s = _spent_s()
            result = await pool.run(_request(OBJECTS_SCRIPT, OBJECTS))
            if result.exit_reason is not ExitReason.OK:
                raise RuntimeError(f"a benchmark run ended with {result.exit_reason}: {result.message}")
            spent_ms.append((_spent_s() - before_s + result.usage.cpu_s) * 1e3)
    value = sorted(spent_ms[1:])[len(spent_ms) // 2]
    note = f"{value:.0f} ms of processor time, worker and child"
    return Row(what=f"result of {OBJECTS:,} small objects", samples=len(spent_ms), value=value, unit="ms", note=note)


async def _measure_sleepers(policy: Policy, host: Host, template: Template, progress: Progress) -> list[Row]:
    """From an empty pool until all sleep; then what watching them costs."""
    progress(f"{SLEEPERS:,} runs that sleep")
    async with Pool(policy, host, template, ready=0, rotate_after=SLEEPERS * 2) as pool:
        stop = asyncio.Event()
        began_s = time.perf_counter()
        request = _request(SLEEP_SCRIPT, 600)
        runs = [asyncio.create_task(pool.run(request, cancel=stop)) for _ in range(SLEEPERS)]
        while pool.stats().running < SLEEPERS:
            if ended := [run for run in runs if run.done()]:
                raise RuntimeError(f"a run that was to sleep has ended: {ended[0].exception() or ended[0].result()}")
            await asyncio.sleep(0.005)
        took_s = time.perf_counter() - began_s
        await asyncio.sleep(1)
        before_s = _spent_s()
        await asyncio.sleep(WATCHED_S)
        each_percent = (_spent_s() - before_s) / WATCHED_S / SLEEPERS * 100
        stop.set()
        ends = {(await run).exit_reason for run in runs}
    if ends != {ExitReason.CANCELLED}:
        raise RuntimeError(f"sleeping runs ended otherwise than by us: {ends}")
    rate_s = SLEEPERS / took_s
    watched = f"{each_percent:.4f} % of a core each, while it sleeps"
    return [
        Row(what=f"{SLEEPERS:,} sleeping runs, from none to all", samples=SLEEPERS, rate_s=round(rate_s, 1), note=""),
        Row(what="watching a sleeping run", samples=SLEEPERS, value=each_percent, unit="% of a core", note=watched),
    ]


def _request(script: str, args: Any) -> bytes:
    parameters = {"script": script, "args": args}
    return msgspec.json.encode({"task_type": "custom_script", "parameters": parameters})


def _spent_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
