"""The last hour by the minute: how many tasks ended, and how long they took. PostgreSQL is asked for a minute once.

A minute that is over does not change, so it is kept, for all tenants at once: whoever asks next, it is known. The first
to ask after a start has the hour worked out, the newest part first, as far as that takes no longer than ``PATIENCE_S``;
the next to ask has the rest of it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

from engine.model.trail import EndedMinute
from engine.store.trail import Trail

MINUTES = 60
PART = 5
"""So many minutes are asked for at once."""
SETTLED_S = 10.0
"""So long after its end a minute may still change: a transaction gives its tasks the time of its own beginning."""
PATIENCE_S = 2.0


Minute = dict[str | None, EndedMinute]
"""Tenant (``None``: all together) → its tasks. Those that had none end then are missing."""


class History:
    """How tasks ended within the last hour, of each tenant and of all together."""

    def __init__(self) -> None:
        self._known: dict[datetime, Minute] = {}
        self._turn = asyncio.Lock()

    async def last_hour(self, trail: Trail, tenant: str | None) -> list[EndedMinute | None]:
        """The minutes of the last hour, the oldest first; ``None`` for one that is not worked out yet.

        Args:
            trail: the record.
            tenant: whose tasks; ``None`` for those of all tenants.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        async with self._turn:
            now = await trail.now()
            last = now.replace(second=0, microsecond=0)
            minutes = [last - timedelta(minutes=back) for back in range(MINUTES - 1, -1, -1)]
            found = await self._look(trail, minutes)
            settled = now - timedelta(seconds=SETTLED_S)
            self._known = {minute: one for minute, one in found.items() if minute + timedelta(minutes=1) <= settled}
        return [
            found[minute].get(tenant) or EndedMinute(minute=minute) if minute in found else None for minute in minutes
        ]

    async def _look(self, trail: Trail, minutes: list[datetime]) -> dict[datetime, Minute]:
        """All that is known of these minutes, and those that it is time for."""
        found = {minute: self._known[minute] for minute in minutes if minute in self._known}
        missing = [minute for minute in reversed(minutes) if minute not in found]
        started_s = time.monotonic()
        while missing and time.monotonic() - started_s < PATIENCE_S:
            part, missing = missing[:PART], missing[PART:]
            asked = await trail.ended(part[-1], part[0] + timedelta(minutes=1))
            found |= {minute: {} for minute in part}
            for tenant, one in asked:
                if one.minute in part:
                    found[one.minute][tenant] = one
        return found
