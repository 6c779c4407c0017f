"""Files that clients upload, and files that tasks leave behind (artifacts)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from uuid import UUID

from engine.model.errors import StoreUnavailableError
from engine.model.result import ArtifactFacts
from engine.model.task import NewFile
from engine.store.database import ARTIFACT, NEW_FILE, Database

PART_BYTES = 1 << 20
DELETED_AT_ONCE = 20


class Files:
    """The contents that PostgreSQL keeps beside the tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, file: NewFile, ttl_s: float) -> datetime:
        """Keep an uploaded file for ``ttl_s`` seconds; returns when it expires."""
        expires_at: datetime = await self._database.value(
            "insert_file", **NEW_FILE.values(file), size_bytes=len(file.content), ttl_s=ttl_s
        )
        return expires_at

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
        deleted = 0
        while count := await self._database.execute("delete_old_files", limit=DELETED_AT_ONCE):
            deleted += count
        return deleted

    async def artifact(self, task_id: UUID, name: str, tenant: str) -> ArtifactFacts | None:
        """One artifact of a task, ``None`` when this tenant has none of this name there."""
        rows = await self._database.rows("get_artifact", task_id=task_id, name=name, tenant=tenant)
        return ARTIFACT.read(rows[0]) if rows else None

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
