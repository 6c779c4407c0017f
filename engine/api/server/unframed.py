"""Answers to HTTP/1.0: the end of the connection ends them, never a chunk (RFC 9112, sections 6.1 and 6.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Message = dict[str, Any]


def answer_unframed(cycle: RequestResponseCycle) -> Callable[[Message], Awaitable[None]]:
    """A ``send`` for an answer whose client reads until the connection ends.

    uvicorn sends an answer of unknown length in chunks, whatever the client's version is. An answer that says its
    length is sent as it is.
    """
    send, has_length = cycle.send, True

    async def send_unframed(message: Message) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not has_length:
                cycle.chunked_encoding = False
        elif not has_length:
            # uvicorn holds a body to its length: each part is as long as what is still expected
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)  # type: ignore[arg-type]  # uvicorn's own names for the same dictionaries

    return send_unframed
