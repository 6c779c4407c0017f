"""Tasks that wait: which of them should be in the queue, which are held, and how fast they are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.model.status import Priority
from engine.model.task import OLDEST, OverduePage, QueueDepth, QueueItem, Throughput
from engine.store.columns import plain_uuid
from engine.store.database import Database


class WaitingTasks:
    """The tasks that are queued, as PostgreSQL knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def overdue(
        self, older_than_s: float, page: int, after: tuple[datetime, UUID] = OLDEST
    ) -> AsyncIterator[OverduePage]:
        """Pages of the tasks that have waited longer than ``older_than_s`` seconds, the oldest first."""
        while True:
            time, task_id = after
            rows = await self._database.rows(
                "overdue_tasks", older_than_s=older_than_s, limit=page, after_time=time, after_id=task_id
            )
            is_last = len(rows) < page
            after = OLDEST if is_last else (rows[-1]["due_at"], rows[-1]["task_id"])
            yield OverduePage([_item(row) for row in rows], after)
            if is_last:
                return

    async def release_held(self, tenant: str | None = None) -> list[QueueItem]:
        """Take out of the held tasks as many of each tenant (or of this one) as may run now, to be queued."""
        return [_item(row, had_turn=True) for row in await self._database.rows("release_held", tenant=tenant)]

    async def throughput(self, within_s: float, alive_within_s: float) -> Throughput:
        """How fast tasks are taken, by those that ended in the last ``within_s`` seconds.

        Args:
            within_s: seconds.
            alive_within_s: a worker whose last heartbeat is older, in seconds, counts no slots.
        """
        [row] = await self._database.rows("get_throughput", within_s=within_s, alive_within_s=alive_within_s)
        return Throughput(row["slot_s"], row["slots"])

    async def depth(self) -> QueueDepth:
        """How many tasks wait and run."""
        [row] = await self._database.rows("queue_depth")
        return QueueDepth(row["queued"], row["oldest_wait_s"], row["running"])


def _item(row: Mapping[str, Any], *, had_turn: bool = False) -> QueueItem:
    return QueueItem(
        plain_uuid(row["task_id"]), row["tenant"], Priority(row["priority"]), had_turn, row["memory_limit_mib"]
    )
