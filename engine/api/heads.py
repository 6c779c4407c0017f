"""HEAD wherever GET is: the headers of the GET, and no body (RFC 9110, section 9.3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from engine.model.cancel import end_tasks

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]


async def answer_head(
    app: Any, scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Ask for the GET, pass its head on, and end it there.

    A GET that never ends by itself, such as one of events, is broken off as if its client had gone.
    """
    head = asyncio.Event()

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            head.set()

    asked: Scope = {**scope, "method": "GET"}
    answering, told = asyncio.ensure_future(app(asked, receive, send_head)), asyncio.ensure_future(head.wait())
    try:
        await asyncio.wait([answering, told], return_when=asyncio.FIRST_COMPLETED)
        if not head.is_set():
            await answering
    finally:
        await end_tasks(answering, told)
        scope.update({name: value for name, value in asked.items() if name != "method"})  # what was noted on the way
