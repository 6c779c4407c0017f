"""Who ran what: tasks as an auditor looks for them, their attempts, and what those were denied.

A filter that lets few tasks through would read all of them for one page. So a page walks through ``WALKED`` tasks at
most, says where that ended, and may be short: whoever wants more asks for the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from engine.model.trail import (
    AttemptRecord,
    Denial,
    Denied,
    EndedMinute,
    SubmittedTask,
    Submitter,
    TenantLoad,
    Tenants,
    TrailFilter,
    TrailItem,
    TrailPage,
)
from engine.store.columns import plain_uuid
from engine.store.database import ATTEMPT, AUDITED_TASK, SUBMITTED_TASK, SUBMITTER, TENANT_LOAD, Database
from engine.store.tasks import states_of
from sandbox import PolicyFile

WALKED = 2000
"""So many tasks are walked through for one page; of several tenants a part of it, for as many are read of each."""
SOURCES = 10
"""So many sources may begin with the same characters; further ones are not found by them."""
TENANTS = 1000
"""So many tenants are looked at for one answer."""


class Trail:
    """The record of all tenants' tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, tenants: Sequence[str], wanted: TrailFilter) -> TrailPage:
        """The newest tasks of some tenants that a filter lets through, or the next of them."""
        before_time, before_id = wanted.before or (None, None)
        arguments = {
            **states_of(wanted),
            "tenants": list(tenants),
            "labels": msgspec.json.encode(wanted.labels).decode(),
            "policy": wanted.policy,
            "only_denied": wanted.only_denied,
            "created_after": wanted.created_after,
            "created_before": wanted.created_before,
            "before_time": before_time,
            "before_id": before_id,
            "limit": wanted.limit,
            "walked": max(WALKED // max(1, len(tenants)), wanted.limit),
        }
        rows = await self._walk(tenants, wanted, arguments)
        found = [_item(row) for row in rows if row["task_id"] is not None]
        if len(found) == wanted.limit:
            return TrailPage(found, (found[-1].task.created_at, found[-1].task.task_id))
        goes_on = bool(rows) and rows[0]["walked"] == arguments["walked"]
        return TrailPage(found, (rows[0]["end_time"], plain_uuid(rows[0]["end_id"])) if goes_on else None)

    async def _walk(self, tenants: Sequence[str], wanted: TrailFilter, arguments: dict[str, Any]) -> list[Any]:
        if wanted.source is not None:
            lowest, highest = wanted.source
            rows = await self._database.rows(
                "find_sources", tenants=list(tenants), lowest=lowest, highest=highest, limit=SOURCES
            )
            sources = [row["source"] for row in rows]
            return await self._database.rows("walk_tasks_of_source", sources=sources, key_id=wanted.key_id, **arguments)
        if wanted.key_id is not None:
            return await self._database.rows("walk_tasks_of_key", key_id=wanted.key_id, **arguments)
        return await self._database.rows("walk_tasks", **arguments)

    async def submitter(self, task_id: UUID, tenant: str) -> Submitter | None:
        """Who submitted a task; ``None`` when this tenant has none with this id."""
        rows = await self._database.rows("get_submitter", task_id=task_id, tenant=tenant)
        return SUBMITTER.read(rows[0]) if rows else None

    async def request(self, task_id: UUID, tenant: str) -> SubmittedTask | None:
        """A task's request; ``None`` when this tenant has no task with this id."""
        rows = await self._database.rows("get_request", task_id=task_id, tenant=tenant)
        return SUBMITTED_TASK.read(rows[0]) if rows else None

    async def attempts(self, task_id: UUID, tenant: str) -> list[AttemptRecord]:
        """The attempts at a task that have ended, the first one first."""
        rows = await self._database.rows("list_attempts", task_id=task_id, tenant=tenant)
        return [AttemptRecord(ATTEMPT.read(row), _denied(row["denied"]) if row["denied"] else None) for row in rows]

    async def denials(self, policy: str, tenants: Sequence[str], most: int) -> list[Denial]:
        """What runs of these tenants under a policy were denied, the last one first."""
        rows = await self._database.rows("list_denials", policy=policy, tenants=list(tenants), limit=most)
        return [
            Denial(plain_uuid(row["task_id"]), row["attempt"], row["tenant"], row["denied_at"], _denied(row["denied"]))
            for row in rows
        ]

    async def keep_policies(self, files: Sequence[PolicyFile]) -> None:
        """Keep the texts of policy files, so that they can be compared with later ones."""
        await self._database.execute(
            "keep_policy_files",
            digests=[file.policy.digest for file in files],
            names=[file.policy.name for file in files],
            contents=[file.text for file in files],
        )

    async def policy_text(self, name: str, digest: str) -> str | None:
        """The text of a policy's file with this digest; ``None`` when no API has had it in force."""
        found: str | None = await self._database.value("get_policy_file", name=name, digest=digest)
        return found

    async def tenants(self) -> Tenants:
        """The tenants that have something stored, or had, ``TENANTS`` at most."""
        names = [row["tenant"] for row in await self._database.rows("list_tenants", limit=TENANTS + 1)]
        return Tenants(names[:TENANTS], are_all=len(names) <= TENANTS)

    async def loads(self, tenants: Sequence[str]) -> list[TenantLoad]:
        """What each of these tenants has that waits, runs and is stored."""
        return [TENANT_LOAD.read(row) for row in await self._database.rows("count_by_tenant", tenants=list(tenants))]

    async def ended(self, since: datetime, until: datetime) -> list[tuple[str | None, EndedMinute]]:
        """The minutes between two times in which tasks ended, of each tenant and (``None``) of all."""
        rows = await self._database.rows("count_ended", since=since, until=until)
        return [(row["tenant"], _minute(row)) for row in rows]

    async def now(self) -> datetime:
        """PostgreSQL's time."""
        found: datetime = await self._database.value("get_time")
        return found


def _minute(row: Mapping[str, Any]) -> EndedMinute:
    return EndedMinute(
        minute=row["minute"],
        ended=row["ended"],
        failed=row["failed"],
        cancelled=row["cancelled"],
        took_s=tuple(row["took_s"]),
        waited_s=tuple(row["waited_s"]),
    )


def _item(row: Mapping[str, Any]) -> TrailItem:
    return TrailItem(AUDITED_TASK.read(row), row["policy_digest"], tuple(_denied(text) for text in row["denied"]))


def _denied(text: str) -> Denied:
    return msgspec.json.decode(text, type=Denied)
