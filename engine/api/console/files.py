"""Serves the console: its page at ``/``, and what the page loads below ``/console/``. These files need no key.

They are the same for everyone and hold no data: what the page shows it asks for by the calls of the interface, with the
session of whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from engine.api.problems import MEDIA_TYPE, make_problem

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Its own scripts and styles, and pictures that it has fetched itself (``blob:``). No text can become HTML: the page
makes no trusted type, and a browser then refuses ``innerHTML`` and the like (W3C, Trusted Types)."""
FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
POINTER = {
    "service": "UnityAI Python worker",
    "console": "open this address in a browser",
    "interface": "/openapi.json",
    "documentation": "/docs",
    "health": "/health/ready",
}


class Console:
    """The files of the console, read once."""

    def __init__(self) -> None:
        self._files = {
            path.name: (TYPES[path.suffix], path.read_bytes()) for path in FOLDER.iterdir() if path.suffix in TYPES
        }

    @staticmethod
    def has(path: str) -> bool:
        """Whether a path is the console's."""
        return path == "/" or path.startswith("/console/")

    async def answer(self, scope: Scope, send: Send) -> None:
        """Answer a GET or HEAD of one of its paths. A program that asks for ``/`` is told where the interface is."""
        name = scope["path"].removeprefix("/console/")
        if scope["path"] == "/":
            wants_page = any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
            found = self._files["index.html"] if wants_page else (b"application/json", msgspec.json.encode(POINTER))
            await _send(scope, send, 200, *found, (b"vary", b"accept"))
        elif name in self._files:
            await _send(scope, send, 200, *self._files[name])
        else:
            body = msgspec.json.encode(make_problem(404, "There is nothing at this path."))
            await _send(scope, send, 404, MEDIA_TYPE.encode(), body)


async def _send(
    scope: Scope, send: Send, status: int, media_type: bytes, body: bytes, *more: tuple[bytes, bytes]
) -> None:
    head = [(b"content-type", media_type), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
