"""Goes through many items on the event loop without keeping everybody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")
AT_ONCE = 25


async def taking_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The same items; after every few of them the loop does what else there is to do."""
    for number, item in enumerate(items, 1):
        yield item
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
