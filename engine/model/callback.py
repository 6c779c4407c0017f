"""The callback of a task: its URL, and whether it was delivered."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """The signed POST that reports a task's end, and whether it was delivered."""

    url: str
    state: Literal["waiting", "due", "delivered", "dead"]
    """waiting: the task is not final. dead: tried for ``CALLBACK_GIVE_UP_S``, or a further attempt is pointless."""
    attempts: int = 0
    due_at: datetime | None = None
    """The next attempt is made then, or later."""
    ended_at: datetime | None = None
    last_status: int | None = None
    """The HTTP status that answered the last attempt; ``None`` when there was no answer."""
    last_error: str | None = None
