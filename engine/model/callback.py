"""The callback of a task: whom it is due to, and whether it was delivered."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """Whether whoever wanted to be told of a task's end has been told."""

    url: str
    state: Literal["waiting", "due", "delivered", "dead"]
    """waiting: the task is not final. dead: it was tried for ``CALLBACK_GIVE_UP_S``, or there is no sense in trying."""
    attempts: int = 0
    due_at: datetime | None = None
    """Not to be tried before."""
    ended_at: datetime | None = None
    last_status: int | None = None
    """What the last attempt was answered with; ``None`` when it was not answered."""
    last_error: str | None = None
