"""Tasks as their clients meet them: stored, looked up, listed, cancelled, and deleted in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

import msgspec

from engine.model.callback import Callback
from engine.model.principal import Quotas
from engine.model.receipt import FileDigest, Submitted
from engine.model.result import CANCELLED, status_after
from engine.model.status import TASK_TYPES, Status
from engine.model.task import Cancellation, ListedTask, NewTask, StoredTask, TaskFilter
from engine.model.turns import taking_turns
from engine.store.admission import UNLIMITED, Admission
from engine.store.columns import plain_uuid
from engine.store.database import LISTED_TASK, NEW_TASK, STORED_TASK, Database, bulk_of
from engine.store.results import decode_result, encode_result
from sandbox import ExitReason

DELETED_AT_ONCE = 250
NEWEST = 2000
"""So many tasks are looked through for labels before the index of labels is asked."""


class Tasks:
    """The tasks of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._admission = Admission(database)

    async def insert(self, task: NewTask, quotas: Quotas = UNLIMITED) -> datetime | None:
        """Store a new task; when this returns, the task survives any crash.

        Raises:
            QuotaError: its tenant may not have another task accepted just now.
            StoreUnavailableError: PostgreSQL is unreachable.

        Returns:
            When it was accepted; ``None`` when its tenant has a task under its idempotency key, and nothing was stored.
        """
        values = NEW_TASK.values(task)
        quotas = await self._admission.quotas_to_ask([task], quotas)
        if quotas == UNLIMITED:
            rows = await self._database.rows("insert_task", **values)
        else:
            insert = self._database.statement("insert_task")
            bulk = bulk_of("insert_task", values.values())
            async with self._admission.admitted([task], quotas, bulk) as connection:
                rows = await connection.fetch(insert.sql, *insert.bind(values))
        return rows[0]["created_at"] if rows else None

    async def insert_many(self, tasks: Sequence[NewTask], quotas: Quotas = UNLIMITED) -> dict[UUID, datetime]:
        """Store new tasks of one tenant, all of them or none.

        Raises:
            QuotaError: they are more than the tenant may have accepted just now.
            StoreUnavailableError: PostgreSQL is unreachable.

        Returns:
            Task id → when it was accepted, without those whose tenant has a task under their idempotency key.
        """
        insert = self._database.statement("insert_task")
        bound = [insert.bind(NEW_TASK.values(task)) async for task in taking_turns(tasks)]
        bulk = bulk_of("insert_task", chain.from_iterable(bound))
        quotas = await self._admission.quotas_to_ask(tasks, quotas)
        async with self._admission.admitted(tasks, quotas, bulk) as connection:
            rows = await connection.fetchmany(insert.sql, bound)
        return {plain_uuid(row["task_id"]): row["created_at"] for row in rows}

    async def by_key(self, tenant: str, idempotency_key: str) -> tuple[UUID, bytes] | None:
        """The task that a tenant has under a key, with the hash of its request."""
        rows = await self._database.rows("get_task_by_key", tenant=tenant, idempotency_key=idempotency_key)
        return (plain_uuid(rows[0]["task_id"]), rows[0]["request_sha256"]) if rows else None

    async def find(self, tenant: str, wanted: TaskFilter) -> list[ListedTask]:
        """A tenant's tasks, the newest first. By a key or a source without an id, ``Trail`` finds them."""
        before_time, before_id = wanted.before or (None, None)
        page = {
            "tenant": tenant,
            "created_after": wanted.created_after,
            "created_before": wanted.created_before,
            "before_time": before_time,
            "before_id": before_id,
            "limit": wanted.limit,
        }
        return [LISTED_TASK.read(row) for row in await self._find(wanted, page)]

    async def _find(self, wanted: TaskFilter, page: dict[str, Any]) -> list[Any]:
        """Send the statement whose plan fits what is asked for."""
        chosen = states_of(wanted)
        labelled = page | chosen | {"labels": msgspec.json.encode(wanted.labels).decode()}
        if wanted.ids:
            lowest_id, highest_id = wanted.ids
            lowest, highest = wanted.source or (None, None)
            whose = {"key_id": wanted.key_id, "lowest": lowest, "highest": highest}
            return await self._database.rows(
                "list_tasks_by_id", lowest_id=lowest_id, highest_id=highest_id, **whose, **labelled
            )
        if wanted.labels:
            rows = await self._database.rows("list_labelled_tasks", newest=NEWEST, **labelled)
            is_full = len(rows) == wanted.limit
            return rows if is_full else await self._database.rows("list_rarely_labelled_tasks", **labelled)
        if wanted.statuses or wanted.exit_reasons or wanted.task_type:
            return await self._database.rows("list_chosen_tasks", **page, **chosen)
        return await self._database.rows("list_newest_tasks", **page)

    async def get(self, task_id: UUID, tenant: str) -> StoredTask | None:
        """One task, or ``None`` when this tenant has none with this id."""
        rows = await self._database.rows("get_task", task_id=task_id, tenant=tenant)
        return read_task(rows[0], _callback(rows[0])) if rows else None

    async def submission(self, task_id: UUID, tenant: str) -> Submitted | None:
        """Who submitted a task and what, or ``None`` when this tenant has none with this id."""
        rows = await self._database.rows("get_submission", task_id=task_id, tenant=tenant)
        if not rows:
            return None
        row = rows[0]
        files = zip(row["file_ids"], row["file_hashes"], strict=True)
        return Submitted(
            key_id=row["key_id"],
            request_id=row["request_id"],
            source_sha256=row["source_sha256"],
            parameters_sha256=row["parameters_sha256"],
            files=tuple(FileDigest(file_id=file_id, sha256=sha256) for file_id, sha256 in files),
        )

    async def cancel(self, task_id: UUID, tenant: str) -> Cancellation | None:
        """Cancel a task: at once while it is queued, else by its worker; ``None`` when it is final or missing."""
        outcome = encode_result(CANCELLED)
        rows = await self._database.rows("cancel_task", task_id=task_id, tenant=tenant, outcome=outcome)
        return Cancellation(Status(rows[0]["status"]), rows[0]["task_type"], rows[0]["policy"]) if rows else None

    async def delete_old(self, ttl_s: float) -> int:
        """Delete tasks that ended ``ttl_s`` seconds ago or earlier; returns how many."""
        return await self._database.execute_until_done("delete_old_tasks", ttl_s=ttl_s, limit=DELETED_AT_ONCE)


def states_of(wanted: TaskFilter) -> dict[str, list[str]]:
    """The types, and the unfinished states and reasons of an end, that both filters of a list let through.

    A task has a reason exactly when it is final, and its reason says which final status it has.
    """
    statuses = wanted.statuses or tuple(Status)
    reasons = wanted.exit_reasons or tuple(ExitReason)
    return {
        "task_types": [wanted.task_type] if wanted.task_type else list(TASK_TYPES),
        "unfinished": [] if wanted.exit_reasons else [status.value for status in statuses if not status.final],
        "exit_reasons": [reason.value for reason in reasons if status_after(reason) in statuses],
    }


def read_task(row: Mapping[str, Any], callback: Callback | None) -> StoredTask:
    """The task that a row holds."""
    outcome = row["outcome"]
    result = decode_result(outcome, policy=row["policy"]) if outcome is not None else None
    return STORED_TASK.read(row, result=result, callback=callback)


def _callback(row: Mapping[str, Any]) -> Callback | None:
    """The callback of a task's row; the outbox has none before the task is final."""
    if row["callback_url"] is None:
        return None
    if row["callback_state"] is None:
        return waiting_callback(row)
    return Callback(
        url=row["callback_url"],
        state=row["callback_state"],
        attempts=row["callback_attempts"],
        due_at=row["callback_due_at"],
        ended_at=row["callback_ended_at"],
        last_status=row["last_status"],
        last_error=row["last_error"],
    )


def waiting_callback(row: Mapping[str, Any]) -> Callback:
    """The callback of a task as it is before the first attempt to deliver it."""
    return Callback(url=row["callback_url"], state="waiting")
