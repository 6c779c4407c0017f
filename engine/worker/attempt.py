"""One attempt at one task: claim, run, store, announce."""

from __future__ import annotations

import asyncio

import msgspec

from engine.model.task import Claim
from engine.queue.events import AttemptEvents


class Attempt(msgspec.Struct, kw_only=True):
    """An attempt under way here."""

    claim: Claim
    events: AttemptEvents
    stop: asyncio.Event
    """Set to have the run killed: the lease was lost, or this worker stops."""
    claimed_at: float
    """On the clock of ``time.monotonic``, seconds."""
    cancelled: bool = False
    """Its client wants it to end: it is not given back."""
    ended: bool = False
    """The run is over: how it ended is being stored, or is, and a lease that has gone is no surprise."""
