"""Estimates how long a queued task waits."""

from __future__ import annotations

import time

from engine.model.task import Throughput
from engine.service.health import ALIVE_WITHIN_S
from engine.store.store import Store

MEASURED_OVER_S, CACHED_FOR_S = 600.0, 2.0


class WaitEstimator:
    """How long a place in line takes, by how long tasks kept a slot of late; asked for every few seconds at most."""

    def __init__(self) -> None:
        self._pace = Throughput(None, 0)
        self._known_until_s = 0.0

    async def wait_s(self, store: Store, place: int) -> float | None:
        """Seconds until the task in this place (1 is the next) is taken; ``None`` when nothing tells.

        Raises:
            StoreUnavailableError: PostgreSQL is unreachable.
        """
        if time.monotonic() > self._known_until_s:
            self._known_until_s = time.monotonic() + CACHED_FOR_S  # whoever asks meanwhile is told what was
            self._pace = await store.waiting.throughput(MEASURED_OVER_S, ALIVE_WITHIN_S)
        slot_s, slots = self._pace
        return round(place * slot_s / slots, 1) if slots and slot_s is not None else None
