"""PostgreSQL, the truth about every task: one small class per subject over one ``Database``.

All SQL lies in ``sql/``; each statement has a name and a sentence there.
"""

from __future__ import annotations

import asyncio

from engine.store.callbacks import Outbox
from engine.store.claims import Claims
from engine.store.database import ANSWER_S, Database
from engine.store.files import Files
from engine.store.sessions import Sessions
from engine.store.tasks import Tasks
from engine.store.trail import Trail
from engine.store.waiting import WaitingTasks
from engine.store.workers import Workers


class Store:
    """All that PostgreSQL holds. Opened lazily: while it is unreachable, calls fail and the constructor does not."""

    def __init__(self, dsn: str, *, connections: int, answer_s: float = ANSWER_S) -> None:
        """
        Args:
            dsn: PostgreSQL's URL.
            connections: most connections that are open at the same time.
            answer_s: how long a call waits before PostgreSQL counts as unreachable, seconds; see ``Database``.
        """
        self.database = Database(dsn, connections=connections, answer_s=answer_s)
        self.tasks = Tasks(self.database)
        self.claims = Claims(self.database)
        self.waiting = WaitingTasks(self.database)
        self.files = Files(self.database)
        self.callbacks = Outbox(self.database)
        self.workers = Workers(self.database)
        self.sessions = Sessions(self.database)
        self.trail = Trail(self.database)

    @property
    def opened(self) -> asyncio.Event:
        """Set once ``open`` has succeeded. PostgreSQL may have become unreachable since."""
        return self.database.opened

    async def open(self) -> None:
        """Bring the schema up to date and be ready for calls.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
            SchemaError: its schema is newer than this engine, or was changed by hand.
        """
        await self.database.open()

    @property
    def facts(self) -> dict[str, bool]:
        """What ``open`` has found out, for the log."""
        return {"pooled": self.database.is_pooled}

    async def close(self) -> None:
        """Close every connection."""
        await self.database.close()

    async def ping(self) -> None:
        """Check that PostgreSQL answers.

        Raises:
            StoreUnavailableError: it does not.
        """
        await self.database.ping()
