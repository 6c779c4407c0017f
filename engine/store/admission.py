"""Admits new tasks as far as their tenant's quotas allow. PostgreSQL counts, so all APIs together keep a quota."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from engine.model.errors import QuotaError
from engine.model.principal import Quotas
from engine.model.request import SubmitRequest
from engine.model.task import NewTask
from engine.store.database import BULK_TIMEOUT_S, Bulk, Database, transaction, unreachable_is_unavailable
from engine.store.patience import renew_patience, spending

UNLIMITED = Quotas()
ROW_BYTES = 1 << 10
"""What each task counts besides its parameters and labels (``sql/0016_every_byte.sql``)."""
LARGE_BYTES = 1 << 16
"""Tasks of so many bytes are admitted one after the other with a tenant's files and artifacts, and no byte too many is
stored. Smaller ones do not wait for a file that is stored meanwhile, and do not see it."""
KNOWN_S = 1.0
"""For how long it is taken as known how much a tenant has stored."""
MOST_TENANTS = 10_000
"""Of which it is kept."""


def stored_bytes(request: SubmitRequest) -> int:
    """How many stored bytes a request counts as, before it has an outcome."""
    return ROW_BYTES + memoryview(request.parameters).nbytes + len(msgspec.json.encode(request.labels))


async def refuse_bytes(
    database: Database, connection: Any, tenant: str, quotas: Quotas, *, more_files: int, more_bytes: int
) -> QuotaError | None:
    """Why a tenant may not store more; otherwise nobody stores more for it until the transaction ends.

    Args:
        database: has the statements.
        connection: within the transaction that stores.
        tenant: whose.
        quotas: those that hold.
        more_files: uploaded files.
        more_bytes: of all sorts.
    """
    asked = {
        "tenant": tenant,
        "files_per_minute": quotas.files_per_minute,
        "most_bytes": quotas.stored_bytes,
        "more_files": more_files,
        "more_bytes": more_bytes,
    }
    return await _refused(database, connection, "admit_bytes", asked, quotas)


async def _refused(
    database: Database, connection: Any, name: str, asked: Mapping[str, Any], quotas: Quotas
) -> QuotaError | None:
    """Ask a statement of admission, whose row is a refusal; ``None`` where it has none."""
    admit = database.statement(name)
    row = await connection.fetchrow(admit.sql, *admit.bind(asked))
    if row is None:
        return None
    return QuotaError(row["reason"], getattr(quotas, row["reason"]), max(0.0, row["retry_after_s"]))


class Room:
    """How much tenants have stored, as PostgreSQL last said: for small tasks, which are not worth a question each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, _Known] = {}

    async def take(self, tenant: str, most_bytes: int, more_bytes: int) -> bool:
        """Take room for more; ``False`` when so little is left that PostgreSQL has to be asked.

        Others may store at the same time what is not known here for a second: so the last eighth is not given away.
        """
        known = self._known.get(tenant)
        if known is None or time.monotonic() - known.at_s > KNOWN_S:
            if len(self._known) >= MOST_TENANTS:
                self._known.clear()
            known = self._known[tenant] = _Known(time.monotonic(), known.bytes if known else most_bytes)
            known.bytes = await self._database.value("get_stored_bytes", tenant=tenant)
        if known.bytes + more_bytes > most_bytes - most_bytes // 8:
            return False
        known.bytes += more_bytes
        return True


class _Known(msgspec.Struct):
    at_s: float
    bytes: int


class Admission:
    """Decides whether a tenant may have more tasks accepted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._room = Room(database)

    async def quotas_to_ask(self, tasks: Sequence[NewTask], quotas: Quotas) -> Quotas:
        """The quotas of one tenant that PostgreSQL must be asked about before it stores these tasks.

        ``UNLIMITED`` if only bytes are limited, and small tasks find room as far as is known: most do, and then one
        statement stores them.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        if quotas.tasks_per_minute is not None or quotas.queued_tasks is not None:
            return quotas
        if quotas.stored_bytes is None:
            return UNLIMITED
        more_bytes = sum(stored_bytes(task.request) for task in tasks)
        is_small = more_bytes < LARGE_BYTES
        has_room = is_small and await self._room.take(tasks[0].tenant, quotas.stored_bytes, more_bytes)
        return UNLIMITED if has_room else quotas

    @contextlib.asynccontextmanager
    async def admitted(self, tasks: Sequence[NewTask], quotas: Quotas, bulk: Bulk) -> AsyncIterator[Any]:
        """A connection, within a transaction in which these tasks of one tenant may be stored.

        PostgreSQL admits no other tasks of this tenant until the transaction ends.

        Raises:
            QuotaError: they are more than the quotas allow.
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        tenant = tasks[0].tenant
        async with (
            self._turn_of(tenant, quotas, bulk),
            self._database.connection(bulk) as connection,
            transaction(connection),
        ):
            refusal = None if quotas == UNLIMITED else await self._refusal(connection, tenant, quotas, tasks)
            if refusal is None:
                yield connection
                return
        raise refusal

    @contextlib.asynccontextmanager
    async def _turn_of(self, tenant: str, quotas: Quotas, bulk: Bulk) -> AsyncIterator[None]:
        """Let one request of a tenant at a time wait for its lock in PostgreSQL.

        Those that wait there hold a connection each; those that wait here hold none, and leave them to other tenants.
        A large one may wait for the large ones before it: that says nothing of PostgreSQL, whom it asks afterwards.
        """
        if quotas == UNLIMITED:
            yield
            return
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        waiting = contextlib.nullcontext(BULK_TIMEOUT_S) if bulk is not Bulk.NO else spending(self._database.answer_s)
        with unreachable_is_unavailable(), waiting as allowed_s:
            async with asyncio.timeout(allowed_s):
                await lock.acquire()
        if bulk is not Bulk.NO:
            renew_patience()
        try:
            yield
        finally:
            lock.release()

    async def _refusal(
        self, connection: Any, tenant: str, quotas: Quotas, tasks: Sequence[NewTask]
    ) -> QuotaError | None:
        more = len(tasks) - await self._count_replayed(connection, tenant, tasks)
        if not more:
            return None
        asked = {
            "tenant": tenant,
            "tasks_per_minute": quotas.tasks_per_minute,
            "queued_tasks": quotas.queued_tasks,
            "more": more,
            "most_bytes": quotas.stored_bytes,
            "more_bytes": (more_bytes := sum(stored_bytes(task.request) for task in tasks)),
        }
        refusal = await _refused(self._database, connection, "admit", asked, quotas)
        if refusal is None and more_bytes >= LARGE_BYTES and quotas.stored_bytes is not None:
            return await refuse_bytes(self._database, connection, tenant, quotas, more_files=0, more_bytes=more_bytes)
        return refusal

    async def _count_replayed(self, connection: Any, tenant: str, tasks: Sequence[NewTask]) -> int:
        """How many were accepted before: a quota is no reason to refuse the answer that a client has missed."""
        keys = [key for task in tasks if (key := task.request.idempotency_key) is not None]
        if not keys:
            return 0
        replayed = self._database.statement("count_replayed")
        bound = replayed.bind({"tenant": tenant, "idempotency_keys": keys})
        count: int = await connection.fetchval(replayed.sql, *bound)
        return count
