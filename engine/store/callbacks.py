"""The outbox: callbacks that are due, were delivered, or were given up.

The row of a callback is written by the transaction that ends its task (a trigger, see ``sql/0004_calls.sql``).
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from engine.model.callback import Callback
from engine.model.task import OwedCallback
from engine.store.columns import plain_uuid
from engine.store.database import CALLBACK, Database
from engine.store.tasks import read_task, waiting_callback

MAX_REASON_CHARACTERS = 500


class Outbox:
    """The callbacks of all tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, origin: str, lease_s: float, most: int) -> list[OwedCallback]:
        """Up to ``most`` callbacks that are due to URLs that begin with ``origin``, for ``lease_s`` seconds."""
        rows = await self._database.rows("take_callbacks", origin=origin, lease_s=lease_s, limit=most)
        return [
            OwedCallback(
                task=read_task(row, waiting_callback(row)),
                url=row["callback_url"],
                attempts=row["callback_attempts"],
                age_s=row["age_s"],
                last_status=row["last_status"],
                traceparent=row["traceparent"],
            )
            for row in rows
        ]

    async def retry(self, callback: OwedCallback, delay_s: float, status: int | None, error: str | None) -> None:
        """Note that an attempt at a callback failed; the next is due in ``delay_s`` seconds."""
        await self._database.execute(
            "retry_callback",
            task_id=callback.task.task_id,
            attempts=callback.attempts,
            delay_s=delay_s,
            status=status,
            error=_storable(error),
        )

    async def end(self, callback: OwedCallback, state: str, status: int | None, error: str | None) -> None:
        """Note that a callback was ``delivered``, or is ``dead``."""
        await self._database.execute(
            "end_callback",
            task_id=callback.task.task_id,
            attempts=callback.attempts,
            state=state,
            status=status,
            error=_storable(error),
        )

    async def bury(self, origins: Sequence[str]) -> int:
        """Give up callbacks to URLs that begin with none of ``origins``; returns how many."""
        return await self._database.execute("bury_callbacks", origins=list(origins))

    async def find(self, tenant: str, state: str, most: int) -> list[tuple[UUID, Callback]]:
        """The newest callbacks of a tenant in a state, each with its task's id."""
        if state == "dead":
            rows = await self._database.rows("list_dead_callbacks", tenant=tenant, limit=most)
        else:
            rows = await self._database.rows("list_callbacks", tenant=tenant, state=state, limit=most)
        return [(plain_uuid(row["task_id"]), CALLBACK.read(row)) for row in rows]

    async def redeliver(self, task_id: UUID, tenant: str) -> Callback | None:
        """Make a final task's callback due once more; ``None`` when it has none."""
        rows = await self._database.rows("redeliver_callback", task_id=task_id, tenant=tenant)
        return CALLBACK.read(rows[0]) if rows else None


def _storable(error: str | None) -> str | None:
    """A reason as PostgreSQL's text can hold it."""
    return None if error is None else error.replace("\x00", "\\x00")[:MAX_REASON_CHARACTERS]
