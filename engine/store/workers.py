"""The last report of each worker."""

from __future__ import annotations

from uuid import UUID

import msgspec

from engine.model.worker_state import Heartbeat, WorkerState
from engine.store.database import Database
from engine.telemetry.logs import get_logger


class Workers:
    """The workers that are alive, or were a moment ago."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, worker_id: UUID, state: str) -> None:
        """Store a worker's heartbeat: a ``WorkerState`` as JSON."""
        await self._database.execute("beat", worker_id=worker_id, state=state)

    async def note_stuck(self, worker_id: UUID) -> None:
        """Keep a worker that is still there, and does not answer, among those that are shown as silent."""
        await self._database.execute("note_stuck", worker_id=worker_id)

    async def forget(self, worker_id: UUID) -> None:
        """Delete a worker that has stopped."""
        await self._database.execute("forget_worker", worker_id=worker_id)

    async def forget_lost(self, silent_s: float) -> None:
        """Delete workers that have been silent for longer than ``silent_s`` seconds, and are not known to be there."""
        await self._database.execute("forget_lost_workers", silent_s=silent_s)

    async def heartbeats(self, within_s: float) -> list[Heartbeat]:
        """The last heartbeat of each worker that was there within ``within_s`` seconds, as far as it can be read."""
        found = []
        for row in await self._database.rows("heartbeats", within_s=within_s):
            try:
                state = msgspec.json.decode(row["state"], type=WorkerState)
            except msgspec.ValidationError as error:  # of a newer engine; health reports the others all the same
                get_logger().warning("heartbeat not understood", worker_id=str(row["worker_id"]), reason=str(error))
            else:
                found.append(Heartbeat(state=state, age_s=row["age_s"]))
        return found
