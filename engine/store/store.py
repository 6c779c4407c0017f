"""PostgreSQL, the truth about every task. All SQL lies in ``sql/``; each statement has a name and a sentence there.

A task is ``queued`` until one worker's conditional UPDATE claims it. The claim carries a lease, which the worker
renews, and an attempt number, without which no result can be stored: a worker that lost its lease writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import msgspec

from engine.model.callback import Callback
from engine.model.errors import QuotaError, StoreUnavailableError
from engine.model.outcome import CANCELLED, ArtifactFacts, Outcome
from engine.model.principal import Quotas
from engine.model.status import Priority, Status
from engine.model.task import (
    OLDEST,
    Cancelled,
    Claim,
    Held,
    ListedTask,
    NewFile,
    NewTask,
    Overdue,
    OwedCallback,
    Pace,
    StoredTask,
    Swept,
    Waiting,
    Wanted,
)
from engine.model.worker_state import Heartbeat, WorkerState
from engine.store.database import (
    _AWAY,
    ANSWER_S,
    BULK_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    OPEN_TIMEOUT_S,
    SQL_DIR,
    Bulk,
    _away,
    _bulk,
    load_queries,
)
from engine.store.migrate import _migrate
from engine.telemetry.logs import get_logger
from sandbox import Artifact, ExitReason

CLOCK_S = 1.0
PART_BYTES = 1 << 20
UNLIMITED = Quotas()
_TIMES = ("created_at", "started_at", "finished_at")


class Store:
    """Remembers tasks. Opened lazily: a database that is away makes calls fail, never the constructor."""

    def __init__(self, dsn: str, *, connections: int, answer_s: float = ANSWER_S) -> None:
        """
        Args:
            dsn: PostgreSQL's URL.
            connections: most connections that are opened.
            answer_s: how long a call waits in all, for its turn, a connection and the answer, before the database
                counts as away. Megabytes may take longer, on a database that has just answered within this time.
        """
        self._dsn = dsn
        self._answer_s = answer_s
        self._sql = load_queries(SQL_DIR / "queries.sql")
        self.opened = asyncio.Event()
        """Set once `open` has succeeded. The database may be away again since."""
        self._schema = [(path.name, path.read_text()) for path in sorted(SQL_DIR.glob("[0-9]*.sql"))]
        self._idle: list[Any] = []
        self._turns = asyncio.Semaphore(connections)
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._outcomes = msgspec.json.Decoder(Outcome)

    async def open(self) -> None:
        """Bring the schema up to date and be ready for calls.

        Raises:
            StoreUnavailableError: the database is away.
            SchemaError: its schema is newer than this engine, or was changed by hand.
        """
        if self.opened.is_set():
            return
        with _away():
            connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_S)
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await _migrate(connection, self._schema)
            finally:
                await connection.close(timeout=CONNECT_TIMEOUT_S)
            self.opened.set()

    async def close(self) -> None:
        """Close every connection."""
        self.opened.clear()
        while self._idle:
            with contextlib.suppress(*_AWAY):
                await self._idle.pop().close(timeout=CONNECT_TIMEOUT_S)

    async def ping(self) -> None:
        """Ask for nothing.

        Raises:
            StoreUnavailableError: no answer.
        """
        async with self._connection() as connection:
            await connection.fetchval("SELECT 1")

    async def insert(self, task: NewTask) -> datetime | None:
        """Remember a new task; when this returns, the task survives any crash.

        Raises:
            QuotaError: its tenant has no more to ask for just now.

        Returns:
            When it was accepted; ``None`` when its tenant has a task under its idempotency key, and nothing was stored.
        """
        if task.quotas == UNLIMITED:
            created_at: datetime | None = await self._value("insert_task", *_columns(task))
        else:
            bulk = _bulk("insert_task", (memoryview(task.request.parameters),))
            async with self._admitted([task], bulk) as connection:
                created_at = await connection.fetchval(self._sql["insert_task"], *_columns(task))
        return created_at

    async def insert_many(self, tasks: Sequence[NewTask]) -> dict[UUID, datetime]:
        """Remember new tasks of one tenant, all of them or none.

        Raises:
            QuotaError: that would be more than the tenant may ask for just now.

        Returns:
            Task id → when it was accepted, without those whose tenant has a task under their idempotency key.
        """
        columns = [list(column) for column in zip(*map(_columns, tasks), strict=True)]
        columns[8] = [",".join(file_ids) for file_ids in columns[8]]
        bulk = _bulk("insert_tasks", tuple(columns))
        async with self._admitted(tasks, bulk) as connection:
            rows = await connection.fetch(self._sql["insert_tasks"], *columns)
        return {UUID(bytes=row["task_id"].bytes): row["created_at"] for row in rows}

    @contextlib.asynccontextmanager
    async def _admitted(self, tasks: Sequence[NewTask], bulk: Bulk) -> AsyncIterator[Any]:
        """A transaction in which these tasks may be stored; nobody else is admitted for their tenant meanwhile.

        Raises:
            QuotaError: they may not.
        """
        tenant, quotas = tasks[0].tenant, tasks[0].quotas
        async with self._door(tenant, quotas), self._connection(bulk) as connection, connection.transaction():
            if quotas != UNLIMITED and (more := len(tasks) - await self._replayed(connection, tasks)):
                asked = (tenant, quotas.tasks_per_minute, quotas.queued_tasks, more)
                if refusal := await connection.fetchrow(self._sql["admit"], *asked):
                    limit = getattr(quotas, refusal["reason"])
                    raise QuotaError(refusal["reason"], limit, max(0.0, refusal["retry_after_s"]))
            yield connection

    @contextlib.asynccontextmanager
    async def _door(self, tenant: str, quotas: Quotas) -> AsyncIterator[None]:
        """One at a time of those that wait for a tenant's lock in PostgreSQL, so that the others keep no connection."""
        if quotas == UNLIMITED:
            yield
            return
        door = self._doors.setdefault(tenant, asyncio.Lock())
        with _away():
            async with asyncio.timeout(self._answer_s):
                await door.acquire()
        try:
            yield
        finally:
            door.release()

    async def _replayed(self, connection: Any, tasks: Sequence[NewTask]) -> int:
        """How many were accepted before: a quota is no reason to refuse the answer that a client has missed."""
        if not (keys := [task.request.idempotency_key for task in tasks if task.request.idempotency_key is not None]):
            return 0
        count: int = await connection.fetchval(self._sql["replayed"], tasks[0].tenant, keys)
        return count

    async def by_key(self, tenant: str, idempotency_key: str) -> tuple[UUID, bytes] | None:
        """The task that a tenant has under a key, with the hash of its request."""
        rows = await self._rows("get_task_by_key", tenant, idempotency_key)
        return (UUID(bytes=rows[0]["task_id"].bytes), rows[0]["request_sha256"]) if rows else None

    async def list_tasks(self, tenant: str, wanted: Wanted) -> list[ListedTask]:
        """A tenant's tasks, the newest first."""
        before = wanted.before or (None, None)
        rows = await self._rows(
            "list_tasks",
            tenant,
            list(wanted.statuses) or None,
            wanted.task_type,
            list(wanted.exit_reasons) or None,
            msgspec.json.encode(wanted.labels).decode(),
            wanted.created_after,
            *before,
            wanted.limit,
            wanted.created_before,
        )
        return [
            ListedTask(
                task_id=UUID(bytes=row["task_id"].bytes),
                status=Status(row["status"]),
                exit_reason=ExitReason(row["exit_reason"]) if row["exit_reason"] else None,
                priority=Priority(row["priority"]),
                labels=msgspec.json.decode(row["labels"]),
                **{name: row[name] for name in ("task_type", "policy", "attempts", *_TIMES)},
            )
            for row in rows
        ]

    async def get(self, task_id: UUID, tenant: str) -> StoredTask | None:
        """One task, or ``None`` when this tenant has none with this id."""
        rows = await self._rows("get_task", task_id, tenant)
        return self._stored_task(rows[0]) if rows else None

    async def claim(self, task_id: UUID, worker_id: UUID, lease_s: float) -> Claim | Held | None:
        """Take a queued task for ``lease_s`` seconds; ``None`` when it is not there to be taken."""
        rows = await self._rows("claim_task", task_id, worker_id, lease_s)
        if not rows:
            [limited] = await self._rows("claim_limited_task", task_id, worker_id, lease_s)
            if limited["claimed"] is False:
                return Held(limited["tenant"])
            rows = await self._rows("get_claim", task_id, worker_id) if limited["claimed"] else []
        if not rows:
            return None
        row = rows[0]
        return Claim(
            task_id=task_id,
            attempt=row["attempts"],
            tenant=row["tenant"],
            priority=Priority(row["priority"]),
            task_type=row["task_type"],
            policy=row["policy"],
            parameters=row["parameters"],
            timeout_s=row["timeout_s"],
            script_name=row["script_name"],
            file_ids=tuple(row["file_ids"]),
            memory_mib=row["memory_mib"],
            callback_url=row["callback_url"],
            concurrent_limit=row["concurrent_limit"],
            queue_s=max(0.0, row["queue_s"]),
            age_s=max(0.0, row["age_s"]),
            traceparent=row["traceparent"],
        )

    async def renew(self, worker_id: UUID, task_ids: Sequence[UUID], lease_s: float) -> dict[UUID, bool]:
        """Renew the leases of a worker's tasks.

        Returns:
            Those that are still its own → whether somebody asked for their end.
        """
        rows = await self._rows("renew_leases", worker_id, list(task_ids), lease_s)
        return {UUID(bytes=row["task_id"].bytes): row["cancel_asked"] for row in rows}

    async def finish(self, claim: Claim, worker_id: UUID, outcome: Outcome, artifacts: Sequence[Artifact] = ()) -> bool:
        """Store how an attempt ended; ``False`` when its lease was lost meanwhile and nothing was stored."""
        rows = await self._rows(
            "finish_task",
            claim.task_id,
            claim.attempt,
            worker_id,
            outcome.status.value,
            outcome.exit_reason.value,
            msgspec.json.encode(outcome),
            [artifact.name for artifact in artifacts],
            [artifact.sha256 for artifact in artifacts],
            [artifact.content for artifact in artifacts],
        )
        return bool(rows)

    async def cancel(self, task_id: UUID, tenant: str) -> Cancelled | None:
        """Cancel a task: at once while it is queued, else by its worker; ``None`` when it is final or not there."""
        rows = await self._rows("cancel_task", task_id, tenant, msgspec.json.encode(CANCELLED))
        return Cancelled(Status(rows[0]["status"]), rows[0]["task_type"], rows[0]["policy"]) if rows else None

    async def release(self, claim: Claim, worker_id: UUID) -> Status | None:
        """Give a task back without spending an attempt, because this worker stops.

        Returns:
            ``QUEUED``, or ``CANCELLED`` where that was asked for; ``None`` when the lease was lost.
        """
        return await self._give_back(claim, worker_id, "released", "the worker stopped", more_attempts=1)

    async def retry(
        self, claim: Claim, worker_id: UUID, message: str, *, delay_s: float, counts: bool = True
    ) -> Status | None:
        """Queue a task again after our own failure.

        Args:
            claim: the attempt.
            worker_id: who made it.
            message: what failed.
            delay_s: not to be queued again before, seconds.
            counts: whether it costs the task one of its attempts.
        Returns:
            ``QUEUED``, or ``CANCELLED`` where that was asked for; ``None`` when no attempt or no lease is left.
        """
        text = message.replace("\x00", "\\x00")
        return await self._give_back(
            claim, worker_id, "sandbox_failed", text, delay_s=delay_s, more_attempts=0 if counts else 1
        )

    async def _give_back(
        self, claim: Claim, worker_id: UUID, ended: str, why: str, *, more_attempts: int, delay_s: float = 0.0
    ) -> Status | None:
        cancelled = msgspec.json.encode(CANCELLED)
        rows = await self._rows(
            "give_back_task", claim.task_id, claim.attempt, worker_id, delay_s, more_attempts, ended, why, cancelled
        )
        return Status(rows[0]["status"]) if rows else None

    async def sweep_lost(self, outcome: Outcome) -> list[Swept]:
        """Take back the tasks of lost workers; those without an attempt left fail with ``outcome``.

        The time is asked for first, and must be told soon. On a server that hangs, a statement is carried out when it
        goes on, perhaps long after we gave it up, at a time when leases have run out because nobody could renew them.

        Raises:
            StoreUnavailableError: as ever; also when the time took longer than ``CLOCK_S``.
        """
        with _away():
            async with asyncio.timeout(CLOCK_S):
                time = await self._value("clock")
        lost, cancelled = map(msgspec.json.encode, (outcome, CANCELLED))
        rows = await self._rows("sweep_lost_tasks", lost, time, cancelled)
        return [
            Swept(
                task_id=UUID(bytes=row["task_id"].bytes),
                tenant=row["tenant"],
                priority=Priority(row["priority"]),
                task_type=row["task_type"],
                policy=row["policy"],
                status=Status(row["status"]),
            )
            for row in rows
        ]

    async def overdue(
        self, older_than_s: float, page: int, after: tuple[datetime, UUID] = OLDEST
    ) -> AsyncIterator[Overdue]:
        """Pages of the tasks that have waited longer than ``older_than_s`` seconds, the oldest first."""
        while True:
            rows = await self._rows("overdue_tasks", older_than_s, page, *after)
            is_last = len(rows) < page
            after = OLDEST if is_last else (rows[-1]["due_at"], rows[-1]["task_id"])
            yield Overdue([_waiting(row) for row in rows], after)
            if is_last:
                return

    async def let_go(self, tenant: str | None = None) -> list[Waiting]:
        """Held tasks that may run now, as many of each tenant (or of this one) as there is room for."""
        return [_waiting(row, had_turn=True) for row in await self._rows("let_go", tenant)]

    async def pace(self, within_s: float, alive_within_s: float) -> Pace:
        """How fast the line moves, by what ended in the last ``within_s`` seconds."""
        [row] = await self._rows("pace", within_s, alive_within_s)
        return Pace(row["slot_s"], row["slots"])

    async def insert_file(self, file: NewFile, ttl_s: float) -> datetime:
        """Keep an uploaded file for ``ttl_s`` seconds; returns when it expires."""
        expires_at: datetime = await self._value(
            "insert_file",
            file.file_id,
            file.name,
            file.media_type,
            len(file.content),
            file.sha256,
            file.content,
            ttl_s,
            file.tenant,
        )
        return expires_at

    async def known_files(self, file_ids: Sequence[str], tenant: str) -> set[str]:
        """Those of the files that this tenant has."""
        return {row["file_id"] for row in await self._rows("known_files", list(file_ids), tenant)}

    async def read_files(self, file_ids: Sequence[str], tenant: str) -> dict[str, bytes]:
        """File id → content, of those that this tenant has."""
        return {row["file_id"]: row["content"] for row in await self._rows("read_files", list(file_ids), tenant)}

    async def delete_old_files(self) -> int:
        """Delete files whose time is over; returns how many."""
        deleted = 0
        while count := int((await self._execute("delete_old_files", 20)).rpartition(" ")[2]):
            deleted += count
        return deleted

    async def artifact(self, task_id: UUID, name: str, tenant: str) -> ArtifactFacts | None:
        """One artifact of a task, ``None`` when this tenant has none of this name there."""
        rows = await self._rows("get_artifact", task_id, name, tenant)
        return ArtifactFacts(**dict(rows[0])) if rows else None

    async def artifact_parts(self, task_id: UUID, name: str, tenant: str, size_bytes: int) -> AsyncIterator[bytes]:
        """The content of an artifact, a MiB at a time.

        Raises:
            StoreUnavailableError: PostgreSQL is away, or the artifact has gone meanwhile.
        """
        for start in range(1, size_bytes + 1, PART_BYTES):
            part: bytes | None = await self._value("get_artifact_part", task_id, name, tenant, start, PART_BYTES)
            if part is None:
                raise StoreUnavailableError("the artifact has just been deleted")
            yield part

    async def delete_old(self, ttl_s: float) -> int:
        """Delete tasks that ended ``ttl_s`` seconds ago or earlier; returns how many."""
        deleted = 0
        while count := int((await self._execute("delete_old_tasks", ttl_s, 500)).rpartition(" ")[2]):
            deleted += count
        return deleted

    async def take_callbacks(self, origin: str, lease_s: float, most: int) -> list[OwedCallback]:
        """Up to ``most`` callbacks that are due to URLs that begin with ``origin``, for ``lease_s`` seconds."""
        rows = await self._rows("take_callbacks", origin, lease_s, most)
        return [
            OwedCallback(
                task=self._stored_task(row), url=row["url"], attempts=row["callback_attempts"], age_s=row["age_s"]
            )
            for row in rows
        ]

    async def retry_callback(
        self, callback: OwedCallback, delay_s: float, status: int | None, error: str | None
    ) -> None:
        """An attempt at a callback failed; the next is due in ``delay_s`` seconds."""
        await self._execute("retry_callback", callback.task.task_id, callback.attempts, delay_s, status, _reason(error))

    async def end_callback(self, callback: OwedCallback, state: str, status: int | None, error: str | None) -> None:
        """A callback was ``delivered``, or is ``dead``."""
        await self._execute("end_callback", callback.task.task_id, callback.attempts, state, status, _reason(error))

    async def bury_callbacks(self, origins: Sequence[str]) -> int:
        """Give up what is owed to URLs that begin with none of ``origins``; returns how many."""
        return int((await self._execute("bury_callbacks", list(origins))).rpartition(" ")[2])

    async def callbacks(self, tenant: str, state: str, most: int) -> list[tuple[UUID, Callback]]:
        """The newest callbacks of a tenant in a state, each with its task's id."""
        rows = await self._rows("list_callbacks", tenant, state, most)
        return [(UUID(bytes=row["task_id"].bytes), _callback(row)) for row in rows]

    async def redeliver(self, task_id: UUID, tenant: str) -> Callback | None:
        """Owe a final task's callback once more; ``None`` when there is none."""
        rows = await self._rows("redeliver_callback", task_id, tenant)
        return _callback(rows[0]) if rows else None

    async def beat(self, state: WorkerState) -> None:
        """Say that a worker is alive."""
        await self._execute("beat", state.worker_id, msgspec.json.encode(state).decode())

    async def forget_worker(self, worker_id: UUID) -> None:
        """Say that a worker has stopped."""
        await self._execute("forget_worker", worker_id)

    async def forget_lost_workers(self, silent_s: float) -> None:
        """Drop workers that have been silent for longer than that."""
        await self._execute("forget_lost_workers", silent_s)

    async def heartbeats(self, within_s: float) -> list[Heartbeat]:
        """The last word of each worker heard of in the last ``within_s`` seconds, as far as we understand it."""
        found = []
        for row in await self._rows("heartbeats", within_s):
            try:
                state = msgspec.json.decode(row["state"], type=WorkerState)
            except msgspec.ValidationError as error:  # of a newer engine; health must tell of the others all the same
                get_logger().warning("heartbeat not understood", worker_id=str(row["worker_id"]), reason=str(error))
            else:
                found.append(Heartbeat(state=state, age_s=max(0.0, row["age_s"])))
        return found

    async def queue_depth(self) -> tuple[int, float, int]:
        """How many tasks wait, the longest wait in seconds, how many run."""
        row = (await self._rows("queue_depth"))[0]
        return row["queued"], max(0.0, row["oldest_wait_s"] or 0.0), row["running"]

    def _stored_task(self, row: asyncpg.Record) -> StoredTask:
        return StoredTask(
            task_id=UUID(bytes=row["task_id"].bytes),
            tenant=row["tenant"],
            task_type=row["task_type"],
            status=Status(row["status"]),
            policy=row["policy"],
            priority=Priority(row["priority"]),
            labels=msgspec.json.decode(row["labels"]),
            attempts=row["attempts"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            outcome=self._outcomes.decode(row["outcome"]) if row["outcome"] is not None else None,
            callback=_callback_of(row) if row["callback_url"] is not None else None,
        )

    @contextlib.asynccontextmanager
    async def _connection(self, bulk: Bulk = Bulk.NO) -> AsyncIterator[Any]:
        """A connection for one statement.

        asyncpg's own pool tidies a connection after each use, for more than what most of our statements cost. Ours
        leave nothing to tidy: each is one statement, and a connection on which one was broken off is not used again.
        """
        with _away():
            if not self.opened.is_set():
                raise StoreUnavailableError("the database has not been reached yet")
            async with asyncio.timeout(self._answer_s) as deadline, self._turns:
                connection = await self._take_connection()
                try:
                    if bulk is not Bulk.NO:
                        await self._allow_bulk(connection, deadline, bulk)
                    yield connection
                except (asyncpg.PostgresError, QuotaError):
                    self._idle.append(connection)
                    raise
                except BaseException:
                    connection.terminate()
                    raise
                self._idle.append(connection)

    async def _allow_bulk(self, connection: Any, deadline: asyncio.Timeout, bulk: Bulk) -> None:
        """More time, for megabytes take theirs on a healthy database too; whether it is healthy is seen first."""
        if bulk is Bulk.WAITED_FOR:
            await connection.fetchval("SELECT 1")
        deadline.reschedule(asyncio.get_running_loop().time() + BULK_TIMEOUT_S)

    async def _take_connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={"application_name": "unityai-engine", "jit": "off"},
        )

    async def _rows(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._connection(_bulk(name, arguments)) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(self._sql[name], *arguments)
            return rows

    async def _value(self, name: str, *arguments: Any) -> Any:
        async with self._connection(_bulk(name, arguments)) as connection:
            return await connection.fetchval(self._sql[name], *arguments)

    async def _execute(self, name: str, *arguments: Any) -> str:
        async with self._connection(_bulk(name, arguments)) as connection:
            done: str = await connection.execute(self._sql[name], *arguments)
            return done


def _columns(task: NewTask) -> tuple[Any, ...]:
    """What of a new task is stored, in the order of the statement."""
    request = task.request
    return (
        task.task_id,
        request.task_type,
        task.policy,
        memoryview(request.parameters),
        request.timeout_s,
        msgspec.json.encode(request.labels).decode(),
        request.script_name,
        task.max_attempts,
        list(request.file_ids),
        request.memory_mib,
        task.tenant,
        request.priority.value,
        task.callback_url,
        request.idempotency_key,
        task.request_sha256,
        task.traceparent,
        task.quotas.concurrent_tasks,
    )


def _waiting(row: asyncpg.Record, *, had_turn: bool = False) -> Waiting:
    return Waiting(UUID(bytes=row["task_id"].bytes), row["tenant"], Priority(row["priority"]), had_turn)


def _callback(row: asyncpg.Record) -> Callback:
    fields = ("url", "state", "attempts", "due_at", "ended_at", "last_status", "last_error")
    return Callback(**{name: row[name] for name in fields})


def _callback_of(row: asyncpg.Record) -> Callback:
    """The callback of a task's row; there is none in the outbox before the task is final."""
    if (state := row.get("callback_state")) is None:
        return Callback(url=row["callback_url"], state="waiting")
    return Callback(
        url=row["callback_url"],
        state=state,
        attempts=row["callback_attempts"],
        due_at=row["callback_due_at"],
        ended_at=row["callback_ended_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
    )


def _reason(error: str | None) -> str | None:
    """What PostgreSQL's text can hold of a reason."""
    return None if error is None else error.replace("\x00", "\\x00")[:500]
