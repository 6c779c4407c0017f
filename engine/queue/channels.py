"""Listens on channels of Redis, for what is said between processes and kept nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

AWAY = (RedisError, OSError, TimeoutError)
"""What says that Redis cannot be asked."""
BACKOFF_S = (0.05, 2.0)

# redis-py's clients are generic in its stubs only; arq's is one of them
Client = Any


async def hear(
    connect: Callable[[], Client],
    channel: str,
    heard: Callable[[str], None],
    listening: Callable[[bool], Awaitable[None]],
) -> None:
    """Call ``heard`` with whatever is said on a channel, until cancelled. Connects again by itself.

    Args:
        connect: makes a client without a time limit for its answers.
        channel: where to listen.
        heard: is given the text, which may be anything.
        listening: is told each time that it begins, and that it breaks off.
    """
    pause = BACKOFF_S[0]
    while True:
        client = connect()
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(channel)
                async for message in subscription.listen():
                    if message["type"] == "subscribe":
                        pause = BACKOFF_S[0]
                        await listening(True)
                    elif message["type"] == "message":
                        heard(message["data"].decode("ascii", "replace"))
        except AWAY:
            pause = min(pause * 2, BACKOFF_S[1])
        finally:
            await listening(False)
            await close(client)
        await asyncio.sleep(pause)


async def close(client: Client) -> None:
    """Close every connection of a client, be Redis there or not."""
    with contextlib.suppress(*AWAY):
        await client.aclose()
        await client.connection_pool.disconnect()
