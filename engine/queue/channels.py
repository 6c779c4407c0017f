"""Listens on channels of Redis, for messages between processes that nothing keeps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from engine.model.unreachable import ServerUnreachableError, ignore_unreachable, named_if_unreachable
from engine.telemetry.logs import get_logger

BACKOFF_S = (0.05, 2.0)

# redis-py's clients are generic in its stubs only; arq's is one of them
Client = Any


async def hear(
    connect: Callable[[], Client],
    channel: str,
    heard: Callable[[str], None],
    listening: Callable[[bool], Awaitable[None]],
) -> None:
    """Call ``heard`` with each message on a channel, until cancelled. Connects again by itself.

    Args:
        connect: makes a client without a time limit for its answers.
        channel: where to listen.
        heard: is given the message, which may be any text.
        listening: awaited with ``True`` each time that listening begins, and with ``False`` when it breaks off.
    """
    pause, is_known = BACKOFF_S[0], False
    while True:
        client = connect()
        try:
            with named_if_unreachable():
                async with client.pubsub() as subscription:
                    await subscription.subscribe(channel)
                    async for message in subscription.listen():
                        if message["type"] == "subscribe":
                            pause, is_known = BACKOFF_S[0], False
                            await listening(True)
                        elif message["type"] == "message":
                            heard(message["data"].decode("ascii", "replace"))
        except ServerUnreachableError as error:
            if not is_known:
                get_logger().warning("Redis is unreachable", channel=channel, reason=str(error))
            is_known = True  # one line for an outage
            pause = min(pause * 2, BACKOFF_S[1])
        finally:
            await listening(False)
            await close(client)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  so that not all come back at once


async def close(client: Client) -> None:
    """Close every connection of a client, whether or not Redis is reachable."""
    with ignore_unreachable():
        await client.aclose()
        await client.connection_pool.disconnect()
