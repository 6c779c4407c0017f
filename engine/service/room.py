"""Whether PostgreSQL has room for more: it must not stop because its disk is full."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

from engine.config.settings import Settings
from engine.store.database import Database

LOOK_S = 5.0
MIB = 1 << 20


async def find_fullness(settings: Settings, database: Database) -> str | None:
    """Say what is almost full; ``None`` where there is room.

    Raises:
        StoreUnavailableError: PostgreSQL is unreachable.
    """
    [row] = await database.rows("get_room")
    size_mib = row["size_bytes"] // MIB
    if settings.database_max_mib is not None and size_mib >= settings.database_max_mib:
        return f"the database has {size_mib} MiB of {settings.database_max_mib} (DATABASE_MAX_MIB)"
    free_mib = _free_mib(row["folder"]) if row["folder"] and is_local(settings.servers[0]) else None
    if free_mib is not None and free_mib < settings.database_free_mib:
        return f"PostgreSQL's disk has {free_mib} MiB left of {settings.database_free_mib} (DATABASE_FREE_MIB)"
    return None


def is_local(url: str) -> bool:
    """Whether a PostgreSQL listens on a Unix socket of this host, so that its folder is one of ours."""
    parts = urlsplit(url)
    return (parse_qs(parts.query).get("host") or [parts.hostname or ""])[0].startswith("/")


def _free_mib(folder: str) -> int | None:
    """What an ordinary user may still write there; ``None`` where we may not look."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize // MIB
