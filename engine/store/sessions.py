"""Sessions of browsers. A session's id is a secret, so only its hash is stored."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from engine.store.database import Database


class SessionKey(NamedTuple):
    """The API key that a session was made from."""

    key_id: str
    key_sha256: str


class Sessions:
    """The sessions that have not ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, key: SessionKey, lasts_s: float) -> str:
        """Make a session that lasts so many seconds; its id, which nobody guesses and no client chooses.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        session_id = secrets.token_urlsafe(32)
        await self._database.execute(
            "insert_session", session_sha256=_sha256(session_id), lasts_s=lasts_s, **key._asdict()
        )
        return session_id

    async def find(self, session_id: str) -> SessionKey | None:
        """The key of a session, or ``None`` when it has ended or never was.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        rows = await self._database.rows("get_session", session_sha256=_sha256(session_id))
        return SessionKey(rows[0]["key_id"], rows[0]["key_sha256"]) if rows else None

    async def delete(self, session_id: str) -> None:
        """End a session.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        await self._database.execute("delete_session", session_sha256=_sha256(session_id))


def _sha256(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()
