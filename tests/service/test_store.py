"""The store's own promises, on a real PostgreSQL: one claim, one result, whatever a stale worker tries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
import yaml

from engine.model.errors import SchemaError, StoreUnavailableError
from engine.model.principal import Principal, Quotas, Scope
from engine.model.result import NoRun, TaskResult
from engine.model.status import Status
from engine.model.trail import TrailFilter
from engine.model.worker_state import WorkerState
from engine.service.auditor import Auditor
from engine.store.database import BULK_BYTES, SQL_DIR, Bulk, bulk_of
from engine.store.patience import one_patience
from engine.store.store import Store
from engine.store.trail import TENANTS
from sandbox import ExitReason, Isolation, PolicyFile, load_policy
from tests.support.new_task import as_claim, new_task
from tests.support.stack import ROOT, ask

DEPLOY = Path(__file__).resolve().parents[2] / ".github" / "deploy"
POLICY = ROOT / "policies" / "custom_script.toml"
OK = TaskResult(run=NoRun(exit_reason=ExitReason.OK, message="done"))
OLDEST_FIELDS = ("worker_id", "host", "pid", "slots", "running", "ready", "isolation", "state")
LOST = TaskResult(run=NoRun(exit_reason=ExitReason.WORKER_LOST, message="lost"))


def with_store(dsn: str, do: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = Store(dsn, connections=4)
        await store.open()
        try:
            return await do(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def expire(dsn: str, task_id: UUID) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE tasks SET lease_until = now() - interval '1 s' WHERE task_id = $1", task_id)
    await connection.close()


def test_one_of_many_workers_gets_a_task(dsn: str) -> None:
    """Ten workers that claim one task at once: one has it."""

    async def do(store: Store) -> list[Any]:
        task = new_task()
        await store.tasks.insert(task)
        return await asyncio.gather(*(store.claims.claim(task.task_id, uuid4(), 10) for _ in range(10)))

    assert 1 == sum(claim is not None for claim in with_store(dsn, do))


def test_parameters_come_back_as_they_were(dsn: str) -> None:
    """Parameters are bytes: NUL, broken UTF-8 and all."""
    parameters = bytes(range(256)) * 100

    async def do(store: Store) -> Any:
        task = new_task(parameters=memoryview(parameters))
        await store.tasks.insert(task)
        return await store.claims.claim(task.task_id, uuid4(), 10)

    assert parameters == bytes(with_store(dsn, do).request.parameters)


def test_stale_worker_cannot_store_a_result(dsn: str) -> None:
    """A worker whose lease ran out writes nothing, whether or not the task has been claimed again."""

    async def do(store: Store) -> tuple[bool, bool, bool, Any]:
        task, first, second = new_task(), uuid4(), uuid4()
        await store.tasks.insert(task)
        stale = as_claim(await store.claims.claim(task.task_id, first, 10))
        await expire(dsn, task.task_id)
        swept = await store.claims.sweep_lost(LOST)
        assert [Status.QUEUED] == [found.status for found in swept]
        between = await store.claims.finish(stale, OK)
        fresh = as_claim(await store.claims.claim(task.task_id, second, 10))
        after = await store.claims.finish(stale, OK)
        return between, after, await store.claims.finish(fresh, OK), await store.tasks.get(task.task_id, "acme")

    between, after, real, task = with_store(dsn, do)
    assert (False, False, True) == (between, after, real)
    assert (Status.SUCCEEDED, 2) == (task.status, task.attempts)


def test_lease_that_was_lost_is_not_renewed(dsn: str) -> None:
    """Renewing tells a worker which of its tasks are no longer its own."""

    async def do(store: Store) -> tuple[dict[UUID, bool], UUID]:
        kept, lost, worker = new_task(), new_task(), uuid4()
        for task in (kept, lost):
            await store.tasks.insert(task)
            await store.claims.claim(task.task_id, worker, 10)
        await expire(dsn, lost.task_id)
        await store.claims.sweep_lost(LOST)
        return await store.claims.renew(worker, [kept.task_id, lost.task_id], 10), kept.task_id

    renewed, kept = with_store(dsn, do)
    assert {kept: False} == renewed


def test_attempts_end_in_worker_lost(dsn: str) -> None:
    """After the last attempt a lost worker makes the task fail, once and for all."""

    async def do(store: Store) -> Any:
        task = new_task()
        await store.tasks.insert(task)
        for _ in range(2):
            assert await store.claims.claim(task.task_id, uuid4(), 10)
            await expire(dsn, task.task_id)
            await store.claims.sweep_lost(LOST)
        assert await store.claims.claim(task.task_id, uuid4(), 10) is None
        return await store.tasks.get(task.task_id, "acme")

    task = with_store(dsn, do)
    assert (Status.FAILED, ExitReason.WORKER_LOST) == (task.status, task.result.exit_reason)


def test_our_own_failure_is_retried_and_counted(dsn: str) -> None:
    """A failure of the sandbox queues the task again until no attempt is left; giving back costs none."""

    async def do(store: Store) -> list[Status | None]:
        task, worker, done = new_task(), uuid4(), []
        await store.tasks.insert(task)
        for give_back in (store.claims.release, None, None):
            claim = as_claim(await store.claims.claim(task.task_id, worker, 10))
            if give_back:
                done.append(await give_back(claim))
            else:
                done.append(await store.claims.retry(claim, "spawn: \x00", delay_s=0))
        return done

    assert [Status.QUEUED, Status.QUEUED, None] == with_store(dsn, do)


def test_old_tasks_are_deleted_and_young_ones_kept(dsn: str) -> None:
    """Retention counts from a task's end; what has not ended stays."""

    async def do(store: Store) -> tuple[int, list[bool]]:
        tasks, worker = [new_task() for _ in range(3)], uuid4()
        for task in tasks:
            await store.tasks.insert(task)
        for task in tasks[:2]:
            claim = as_claim(await store.claims.claim(task.task_id, worker, 10))
            await store.claims.finish(claim, OK)
        connection = await asyncpg.connect(dsn)
        old = "UPDATE tasks SET finished_at = now() - interval '31 days' WHERE task_id = $1"
        await connection.execute(old, tasks[0].task_id)
        await connection.close()
        deleted = await store.tasks.delete_old(30)
        return deleted, [await store.tasks.get(task.task_id, "acme") is not None for task in tasks]

    assert (1, [False, True, True]) == with_store(dsn, do)


def test_schema_is_applied_once_by_many(dsn: str) -> None:
    """Processes that start together agree on one schema."""

    async def run() -> list[Any]:
        stores = [Store(dsn, connections=2) for _ in range(5)]
        await asyncio.gather(*(store.open() for store in stores))
        for store in stores:
            await store.close()
        connection = await asyncpg.connect(dsn)
        rows = await connection.fetch("SELECT version FROM schema_versions")
        await connection.close()
        return [row["version"] for row in rows]

    assert [int(path.name[:4]) for path in sorted(SQL_DIR.glob("[0-9]*.sql"))] == asyncio.run(run())


def test_schema_of_a_newer_engine_is_left_alone(dsn: str) -> None:
    """An older engine refuses a newer database instead of damaging it."""

    async def do(_: Store) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("INSERT INTO schema_versions VALUES (9999, 'later', 'x')")
        await connection.close()
        older = Store(dsn, connections=1)
        with pytest.raises(SchemaError, match="9999"):
            await older.open()

    with_store(dsn, do)


def test_what_two_workers_do_at_the_same_time_is_done_once(dsn: str) -> None:
    """JOB-16: sweeping and cleaning up on five workers at once; every task is swept by one and deleted by one."""
    count = 60

    async def do(store: Store) -> tuple[list[list[Any]], list[int]]:
        others = [Store(dsn, connections=1) for _ in range(5)]
        for task in (new_task(max_attempts=1) for _ in range(count)):
            await store.tasks.insert(task)
            await store.claims.claim(task.task_id, uuid4(), 10)
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE tasks SET lease_until = now() - interval '1 s'")
        await asyncio.gather(*(other.open() for other in others))
        swept = await asyncio.gather(*(other.claims.sweep_lost(LOST) for other in others for _ in range(20)))
        await connection.execute("UPDATE tasks SET finished_at = now() - interval '31 days'")
        await connection.close()
        deleted = await asyncio.gather(*(other.tasks.delete_old(30) for other in others))
        await asyncio.gather(*(other.close() for other in others))
        return swept, deleted

    swept, deleted = with_store(dsn, do)
    assert count == len([task for tasks in swept for task in tasks]) == len({task for tasks in swept for task in tasks})
    assert count == sum(deleted)


def test_heartbeat_of_another_version_hides_no_worker(dsn: str) -> None:
    """During an upgrade health tells of the workers that it understands, older ones too, and never fails."""
    isolation = Isolation(profile="full", start="warm", layers={})
    state = WorkerState(
        worker_id=uuid4(), host="h", pid=1, slots=2, running=0, ready={}, isolation=isolation, state="working"
    )

    async def do(store: Store) -> list[UUID]:
        await store.workers.beat(state.worker_id, msgspec.json.encode(state).decode())
        connection = await asyncpg.connect(dsn)
        older = {name: msgspec.to_builtins(state)[name] for name in OLDEST_FIELDS}
        insert = "INSERT INTO workers (worker_id, state) VALUES ($1, $2)"
        others: tuple[Any, ...] = (older | {"worker_id": str(uuid4())}, older | {"state": "thinking"}, {}, [])
        for other in others:
            await connection.execute(insert, uuid4(), json.dumps(other))
        await connection.close()
        return [heartbeat.state.worker_id for heartbeat in await store.workers.heartbeats(60)]

    found = with_store(dsn, do)
    assert (2, True) == (len(found), state.worker_id in found)


class LateEnd:
    """A socket in front of PostgreSQL's that passes all that is said, and later on not that the server hangs up."""

    def __init__(self, dsn: str, folder: Path) -> None:
        """Take the place of the server of ``dsn``; ``self.dsn`` leads here."""
        behind = parse_qs(urlsplit(dsn).query)["host"][0]
        self.dsn = dsn.replace(quote(behind, safe=""), quote(str(folder), safe="")).replace(behind, str(folder))
        self._behind, self._socket = Path(behind, ".s.PGSQL.5432"), folder / ".s.PGSQL.5432"
        self.is_late = False
        self.hung_up = asyncio.Event()
        """PostgreSQL has closed a connection, and the client has not heard of it."""

    async def start(self) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_unix_server(self._serve, self._socket)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._behind)
        sending = asyncio.create_task(pass_on(reader, to_server))
        await pass_on(from_server, writer)
        if self.is_late:
            self.hung_up.set()
            await sending  # until the client hangs up
        writer.close()
        await sending
        to_server.close()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(1 << 16):
        writer.write(part)


def test_idle_connection_that_postgresql_ends_is_unreachable(
    dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The server's goodbye is there and its hanging up is not, as on a busy machine: unavailable, no fault of ours."""

    async def run() -> tuple[str, int]:
        late = LateEnd(dsn, tmp_path_factory.mktemp("pg"))
        async with await late.start():
            store = Store(late.dsn, connections=1, answer_s=60)
            await store.open()
            await store.ping()
            late.is_late = True
            killer = await asyncpg.connect(dsn)
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND application_name = 'unityai-engine' AND datname = current_database()"
            )
            await killer.close()
            await late.hung_up.wait()
            await asyncio.sleep(0.1)  # so that asyncpg has read the goodbye
            with pytest.raises(StoreUnavailableError) as caught:
                await store.ping()
            late.is_late = False
            await store.ping()
            await store.close()
        return str(caught.value), len(store.database._idle)

    message, idle = asyncio.run(run())
    assert (True, 0) == ("another operation" in message, idle)


@pytest.mark.parametrize(
    ("name", "arguments", "bulk"),
    [
        ("insert_task", (b"x" * 1000,), Bulk.NO),
        ("insert_task", (memoryview(b"x" * (BULK_BYTES + 1)),), Bulk.WAITED_FOR),
        ("insert_task", [b"x" * 2000] * 1000, Bulk.WAITED_FOR),
        ("claim_task", (), Bulk.UNHURRIED),
    ],
)
def test_megabytes_get_the_time_that_they_take(name: str, arguments: tuple[Any, ...], bulk: Bulk) -> None:
    """One large value or many small ones; what is small is given up soon."""
    assert bulk is bulk_of(name, arguments)


def test_query_of_the_autoscaler_counts_what_waits_and_runs(dsn: str) -> None:
    """KEDA asks PostgreSQL by the statement of the manifest: a task that is final needs no worker."""
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes" / "worker.yaml").read_text(encoding="ascii"))
    (scaled,) = [one for one in manifests if one["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]

    async def do(store: Store) -> None:
        tasks, worker = [new_task() for _ in range(3)], uuid4()
        for task in tasks:
            await store.tasks.insert(task)
        claims = [as_claim(await store.claims.claim(task.task_id, worker, 10)) for task in tasks[:2]]
        await store.claims.finish(claims[0], OK)

    with_store(dsn, do)
    (row,) = ask(dsn, query)
    assert [2] == list(row)


def test_policies_with_one_text_are_both_kept(dsn: str) -> None:
    """They have one digest, and each is found by its name; to keep them once more changes nothing."""

    async def do(store: Store) -> list[str | None]:
        custom = PolicyFile(path=POLICY, text=POLICY.read_text(), policy=load_policy(POLICY))
        twin = msgspec.structs.replace(custom, policy=msgspec.structs.replace(custom.policy, name="twin"))
        for files in ([custom], [twin, custom]):
            await store.trail.keep_policies(files)
        digest = custom.policy.digest
        return [await store.trail.policy_text(name, digest) for name in ("custom_script", "twin", "nobody")]

    text = POLICY.read_text()
    assert [text, text, None] == with_store(dsn, do)


def test_record_says_that_there_are_more_tenants(dsn: str) -> None:
    """It looks at so many for one answer; all are there until one more has come. Who names one has it whole."""
    admin = Principal(tenant="ops", scopes=frozenset(Scope))

    async def said(store: Store) -> tuple[tuple[bool, ...], int]:
        auditor = Auditor(store.trail, cast(Any, None), ())
        loads, has_all = await auditor.loads(admin)
        denials = await auditor.denials(admin, "custom_script", 1)
        page = await auditor.page(admin, TrailFilter(limit=1))
        named = await auditor.page(admin, TrailFilter(limit=1, tenant="t9"))
        return (has_all, denials[1], page.has_all_tenants, named.has_all_tenants), len(loads)

    more = "INSERT INTO stored_bytes (tenant, shard, bytes) SELECT 't' || n, 0, 0 FROM generate_series({}, {}) AS n"
    with_store(dsn, lambda store: store.ping())
    ask(dsn, f"{more.format(1, TENANTS)} RETURNING 1")
    assert ((True, True, True, True), TENANTS) == with_store(dsn, said)
    ask(dsn, f"{more.format(0, 0)} RETURNING 1")
    assert ((False, False, False, True), TENANTS) == with_store(dsn, said)


def test_large_request_waits_for_the_large_one_before_it(dsn: str) -> None:
    """Of one tenant: that takes longer than PostgreSQL may take for an answer, and says nothing of PostgreSQL."""

    async def do(store: Store) -> Any:
        large = new_task(parameters=b'{"script":"' + b"x" * (BULK_BYTES + 1) + b'"}')
        lock = asyncio.Lock()
        store.tasks._admission._locks["acme"] = lock
        await lock.acquire()
        with one_patience(0.2):
            waiting = asyncio.create_task(store.tasks.insert(large, Quotas(stored_mib=1024)))
            await asyncio.sleep(0.5)
            lock.release()
            return await waiting

    assert with_store(dsn, do) is not None
