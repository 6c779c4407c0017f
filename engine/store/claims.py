"""Attempts as their workers meet them: a task is claimed, its lease renewed, its result stored, by one worker alone.

A task is ``queued`` until one worker's conditional UPDATE claims it. The claim carries a lease, which the worker
renews, and an attempt number, without which no result can be stored: a worker that lost its lease writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from engine.model.result import CANCELLED, TaskResult
from engine.model.status import Status
from engine.model.task import Claim, ClaimRefused, LostTask
from engine.model.trail import denied_by
from engine.store.columns import plain_uuid
from engine.store.database import CLAIM, LOST_TASK, Database, bulk_of, transaction, unreachable_is_unavailable
from engine.store.results import encode_result
from sandbox import Result

CLOCK_S = 1.0


class Claims:
    """Which worker has which task, and for how long."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, task_id: UUID, worker_id: UUID, lease_s: float) -> Claim | ClaimRefused | None:
        """Take a queued task for ``lease_s`` seconds; ``None`` when it cannot be claimed."""
        try:
            rows = await self._database.rows("claim_task", task_id=task_id, worker_id=worker_id, lease_s=lease_s)
            limited = None if rows else await self._claim_limited(task_id, worker_id, lease_s)
        except asyncpg.UniqueViolationError:  # one_suspect_per_worker: the sweeper queues it again within seconds
            return None
        if limited is not None:
            if limited["claimed"] is False:
                return ClaimRefused(limited["tenant"])
            if not limited["claimed"]:
                return None
            rows = await self._database.rows("get_claim", task_id=task_id, worker_id=worker_id)
        if not rows:
            return None
        [row] = rows
        return CLAIM.read(row, attempt=row["attempt"], queue_s=row["queue_s"], age_s=row["age_s"])

    async def _claim_limited(self, task_id: UUID, worker_id: UUID, lease_s: float) -> Mapping[str, Any]:
        [limited] = await self._database.rows(
            "claim_limited_task", task_id=task_id, worker_id=worker_id, lease_s=lease_s
        )
        return limited  # type: ignore[no-any-return]

    async def renew(
        self, worker_id: UUID, task_ids: Sequence[UUID], lease_s: float, *, unsaid_s: float = 0.0
    ) -> dict[UUID, bool]:
        """Renew the leases of a worker's tasks.

        Args:
            worker_id: whose.
            task_ids: those that it is known to run.
            lease_s: for how long from now, seconds.
            unsaid_s: those that it claimed within so many seconds are its own although they are not named.

        Returns:
            Those that are still its own → whether a client asked for their end.
        """
        rows = await self._database.rows(
            "renew_leases", worker_id=worker_id, task_ids=list(task_ids), lease_s=lease_s, unsaid_s=unsaid_s
        )
        return {plain_uuid(row["task_id"]): row["cancel_asked"] for row in rows}

    async def finish(self, claim: Claim, result: TaskResult) -> bool:
        """Store how an attempt ended; ``False`` when its lease was lost meanwhile and nothing was stored.

        Artifacts for which its tenant has no room are not stored; the result names each of them as refused.
        """
        limit, ended = claim.stored_bytes_limit, _ended(claim, result)
        if limit is None or not result.files:
            return bool(await self._database.rows("finish_task", **ended))
        lock, stored, finish = map(self._database.statement, ("lock_stored_bytes", "get_stored_bytes", "finish_task"))
        whose = {"tenant": claim.tenant}
        bulk = bulk_of("finish_task", ended.values())
        async with self._database.connection(bulk) as connection, transaction(connection):
            # two statements: the second sees what was stored by whoever had the lock before
            await connection.execute(lock.sql, *lock.bind(whose))
            stored_bytes = await connection.fetchval(stored.sql, *stored.bind(whose))
            fitting = result.within(limit - stored_bytes - len(ended["outcome"]))
            ended = ended if fitting is result else _ended(claim, fitting)
            return bool(await connection.fetch(finish.sql, *finish.bind(ended)))

    async def release(self, claim: Claim) -> Status | None:
        """Give a task back without spending an attempt, because its worker stops.

        Returns:
            ``QUEUED``, or ``CANCELLED`` where that was asked for; ``None`` when the lease was lost.
        """
        return await self._give_back(claim, "released", "the worker stopped", more_attempts=1)

    async def retry(self, claim: Claim, message: str, *, delay_s: float, counts: bool = True) -> Status | None:
        """Queue a task again after our own failure.

        Args:
            claim: the attempt.
            message: what failed.
            delay_s: not to be queued again before, seconds.
            counts: whether it costs the task one of its attempts.

        Returns:
            ``QUEUED``, or ``CANCELLED`` where that was asked for; ``None`` when no attempt or no lease is left.
        """
        text = message.replace("\x00", "\\x00")
        return await self._give_back(claim, "sandbox_failed", text, delay_s=delay_s, more_attempts=0 if counts else 1)

    async def _give_back(
        self, claim: Claim, ended: str, message: str, *, more_attempts: int, delay_s: float = 0.0
    ) -> Status | None:
        rows = await self._database.rows(
            "give_back_task",
            task_id=claim.task_id,
            attempt=claim.attempt,
            worker_id=claim.worker_id,
            delay_s=delay_s,
            more_attempts=more_attempts,
            ended=ended,
            message=message,
            cancelled=encode_result(CANCELLED),
        )
        return Status(rows[0]["status"]) if rows else None

    async def sweep_lost(self, lost: TaskResult) -> list[LostTask]:
        """Take back the tasks of lost workers; those without an attempt left end with the result ``lost``.

        A task that was lost for the first time, and not alone, pays no attempt. It is a suspect from then on: a worker
        runs one of those at a time, and when that worker is lost too, the suspect pays.

        PostgreSQL is asked for its time first, and must answer soon. A server that hangs carries a statement out when
        it goes on, perhaps long after we gave it up, when leases have run out because no worker could renew them: the
        statement then compares with the time that was asked for before.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable, or the answer took longer than ``CLOCK_S``.
        """
        with unreachable_is_unavailable():
            async with asyncio.timeout(CLOCK_S):
                now = await self._database.value("get_time")
        rows = await self._database.rows(
            "sweep_lost_tasks", lost=encode_result(lost), cancelled=encode_result(CANCELLED), now=now
        )
        return [LOST_TASK.read(row) for row in rows]


def _ended(claim: Claim, result: TaskResult) -> dict[str, Any]:
    """The arguments of ``finish_task``."""
    denied = denied_by(result)
    return {
        "task_id": claim.task_id,
        "attempt": claim.attempt,
        "worker_id": claim.worker_id,
        "status": result.status.value,
        "exit_reason": result.exit_reason.value,
        "outcome": encode_result(result),
        "script_sha256": result.script.sha256 if result.script else None,
        "policy_digest": result.run.policy_digest if isinstance(result.run, Result) else None,
        "denied": msgspec.json.encode(denied).decode() if denied else None,
        "names": [artifact.name for artifact in result.files],
        "hashes": [artifact.sha256 for artifact in result.files],
        "contents": [artifact.content for artifact in result.files],
    }
