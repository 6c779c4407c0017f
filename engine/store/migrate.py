"""Brings the schema up to date."""

from __future__ import annotations

import hashlib

import asyncpg

from engine.model.errors import SchemaError

MIGRATION_LOCK = 0x756E697479  # any number that every version of the engine agrees on


async def migrate(connection: asyncpg.Connection, schema: list[tuple[str, str]]) -> None:
    """Apply the schema files that this database has not seen, one process at a time, all or nothing."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions (version integer PRIMARY KEY, name text NOT NULL,"
            " sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = {row["version"]: row for row in await connection.fetch("SELECT * FROM schema_versions")}
        for name, text in schema:
            await _apply(connection, name, text, applied.pop(int(name[:4]), None))
    if applied:
        raise SchemaError(
            f"the database has schema version {max(applied)}, which this engine does not know: "
            "start the newer engine that made it"
        )


async def _apply(connection: asyncpg.Connection, name: str, text: str, seen: asyncpg.Record | None) -> None:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if seen is None:
        await connection.execute(text)
        statement = "INSERT INTO schema_versions (version, name, sha256) VALUES ($1, $2, $3)"
        await connection.execute(statement, int(name[:4]), name, sha256)
    elif seen["sha256"] != sha256:
        raise SchemaError(f"{name} was changed after it had been applied: undo that, and add a new file instead")
