"""Ends asyncio tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 1.0
"""So long a cancelled task has for its own ending before it is cancelled again."""


async def end_tasks(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until each has ended, whichever way: how a task failed is not raised, nor logged.

    One cancellation is not enough. In Python 3.11 ``asyncio.wait_for`` loses one that comes in the moment in which what
    it waits for ends (https://github.com/python/cpython/issues/86296), and redis-py sends each command through it. A
    task that goes round for ever would go on for ever, and whoever waits for it, too: a worker that never stops.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asyncio logs a failure that nobody has asked for
