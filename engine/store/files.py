"""Files that clients upload, and files that tasks leave behind (artifacts)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.model.errors import QuotaError, StoreUnavailableError
from engine.model.principal import Quotas
from engine.model.result import ArtifactFacts
from engine.model.task import ListedFile, NewFile
from engine.store.admission import UNLIMITED, refuse_bytes
from engine.store.copying import copy_row
from engine.store.database import ARTIFACT, LISTED_FILE, NEW_FILE, Database, bulk_of, transaction

PART_BYTES = 1 << 20
DELETED_AT_ONCE = 20


class Files:
    """The contents that PostgreSQL keeps beside the tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, file: NewFile, ttl_s: float, quotas: Quotas = UNLIMITED) -> datetime:
        """Keep an uploaded file for ``ttl_s`` seconds; returns when it expires.

        Raises:
            QuotaError: its tenant may not store it just now.
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        values = NEW_FILE.values(file)
        bulk = bulk_of("copy_file", values.values())
        async with self._database.connection(bulk) as connection, transaction(connection):
            refusal = await self._refusal(connection, file.tenant, quotas, len(file.content))
            if refusal is None:
                end = self._database.statement("get_end_of_file")
                expires_at: datetime = await connection.fetchval(end.sql, *end.bind({"ttl_s": ttl_s}))
                facts = {**values, "size_bytes": len(file.content), "expires_at": expires_at}
                facts["content"] = facts.pop("content")  # it comes last
                await connection.copy_to_table("files", columns=list(facts), source=copy_row(facts), format="binary")
                return expires_at
        raise refusal

    async def _refusal(self, connection: Any, tenant: str, quotas: Quotas, size_bytes: int) -> QuotaError | None:
        """Why a file cannot be kept; otherwise no other one of this tenant is until the transaction ends."""
        if quotas.files_per_minute is None and quotas.stored_mib is None:
            return None
        return await refuse_bytes(self._database, connection, tenant, quotas, more_files=1, more_bytes=size_bytes)

    async def stored_bytes(self, tenant: str) -> int:
        """How many bytes a tenant has stored: files, artifacts and tasks."""
        stored: int = await self._database.value("get_stored_bytes", tenant=tenant)
        return stored

    async def find(self, tenant: str, limit: int) -> list[ListedFile]:
        """A tenant's files, the newest first."""
        return [LISTED_FILE.read(row) for row in await self._database.rows("list_files", tenant=tenant, limit=limit)]

    async def delete(self, file_id: str, tenant: str) -> bool:
        """Delete a file; ``False`` when the tenant has none such, or a task waits for it."""
        return bool(await self._database.execute("delete_file", file_id=file_id, tenant=tenant))

    async def known(self, file_ids: Sequence[str], tenant: str) -> set[str]:
        """Those of the files that this tenant has."""
        rows = await self._database.rows("known_files", file_ids=list(file_ids), tenant=tenant)
        return {row["file_id"] for row in rows}

    async def read(self, file_ids: Sequence[str], tenant: str) -> dict[str, bytes]:
        """File id → content, of those that this tenant has."""
        rows = await self._database.rows("read_files", file_ids=list(file_ids), tenant=tenant)
        return {row["file_id"]: row["content"] for row in rows}

    async def delete_old(self) -> int:
        """Delete files whose time is over; returns how many."""
        return await self._database.execute_until_done("delete_old_files", limit=DELETED_AT_ONCE)

    async def artifact(self, task_id: UUID, name: str, tenant: str) -> ArtifactFacts | None:
        """One artifact of a task, ``None`` when this tenant has none of this name there."""
        rows = await self._database.rows("get_artifact", task_id=task_id, name=name, tenant=tenant)
        return ARTIFACT.read(rows[0]) if rows else None

    async def delete_artifacts(self, task_id: UUID, tenant: str, name: str | None = None) -> int | None:
        """Delete an artifact of a tenant's task, or all of them: how many there were; ``None`` without such a task."""
        deleted: int | None = await self._database.value("delete_artifacts", task_id=task_id, tenant=tenant, name=name)
        return deleted

    async def artifact_was_deleted(self, task_id: UUID, tenant: str, name: str) -> bool:
        """Whether a tenant's task had an artifact of this name, which the tenant has deleted."""
        deleted: bool = await self._database.value("was_artifact_deleted", task_id=task_id, tenant=tenant, name=name)
        return deleted

    async def artifact_parts(self, task_id: UUID, name: str, tenant: str, size_bytes: int) -> AsyncIterator[bytes]:
        """The content of an artifact, a MiB at a time.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable, or the artifact was deleted meanwhile.
        """
        for start in range(1, size_bytes + 1, PART_BYTES):
            part: bytes | None = await self._database.value(
                "get_artifact_part", task_id=task_id, name=name, tenant=tenant, start=start, length=PART_BYTES
            )
            if part is None:
                raise StoreUnavailableError("the artifact has just been deleted")
            yield part
