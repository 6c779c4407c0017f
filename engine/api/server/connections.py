"""One connection of a client, and what it may take of us before anybody knows who the client is.

uvicorn reads HTTP strictly, but limits neither how long the head of a request is nor how long it takes to come. Here a
connection that waits in vain ends, a head has a longest length, and when there is no room the connection that has
waited longest makes some. What is no HTTP is answered with a problem document, as everything is.

A connection is in one of four states, and each has its end:

    waits         for a request: IDLE_S after the last answer (uvicorn's keep-alive)
    head          of a new connection, or begun: HEAD_S, HEAD_BYTES
    asks          the head is whole: the body's time is that of ``requests``, the answer's that of the call
    is not heard  answered before its body was whole: LINGER_S for the rest, which nobody reads

and in each it must take what it is sent: TAKEN_BYTES in any TAKE_S.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from engine.api.problems import MEDIA_TYPE, RETRY_AFTER_S, make_problem
from engine.api.server.unframed import answer_unframed
from engine.telemetry.logs import get_logger

IDLE_S = 75
HEAD_BYTES = 32 * 1024
TAKEN_BYTES = 64 * 1024
PIPELINED = 16
"""Requests that may wait behind the one that is answered."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long we wait for a client, in seconds."""

    head_s: float = 10.0
    """For the head of a request, from the first byte of the connection or of the request."""
    linger_s: float = 30.0
    """For the rest of a body that nobody reads. To close at once would take the answer from the client, too."""
    take_s: float = 60.0
    """For a client to take ``TAKEN_BYTES`` of its answer, or what is left of it."""
    refused_s: float = 2.0
    """For a client to read why it is refused, while it may still be sending."""


class Connections:
    """All open connections of one API process. Called by uvicorn, it makes the protocol of a new one."""

    def __init__(self, most: int, patience: Patience = Patience()) -> None:  # noqa: B008  it is frozen
        self._most = most
        self._patience = patience
        self._waiting: dict[Connection, None] = {}
        """Those that no answer is made for, the one that has waited longest first."""

    def __call__(self, **given: Any) -> Connection:
        """The protocol of a new connection, as uvicorn asks for it."""
        return Connection(self, self._patience, **given)

    def have_room(self, count: int) -> bool:
        """Whether each of ``count`` connections may stay; if not all may, the one that has waited longest ends."""
        if count <= self._most:
            return True
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            oldest.end()
        return oldest is not None

    def note_waiting(self, connection: Connection) -> None:
        """Record that no answer is being made for a connection: it may have to make room for a new one."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def note_busy(self, connection: Connection) -> None:
        """Record that an answer is being made for a connection, or that it has closed: it no longer makes room."""
        self._waiting.pop(connection, None)


class Connection(HttpToolsProtocol):
    """One client's connection: uvicorn's HTTP/1.1 protocol, with limits on times, sizes and pipelining."""

    def __init__(self, all_: Connections, patience: Patience, **given: Any) -> None:
        super().__init__(**given)
        self._all = all_
        self._patience = patience
        self._deadline: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._fault: tuple[int, str] | None = None
        self._head_bytes = 0
        self._mute_bytes = 0
        self._is_mute = True
        self._in_head = True
        self._body_is_due = False
        self._is_refused = False

    # ---- what the client sends --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client has come."""
        super().connection_made(transport)
        self._all.have_room(len(self.connections))
        self._all.note_waiting(self)  # and is one too many until it asks, when all others are busy
        self._allow(self._patience.head_s)

    def data_received(self, data: bytes) -> None:
        """A piece of a request, or several."""
        if self._is_refused or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._is_mute = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # we stay with HTTP/1.1, and the parser stops here
        except httptools.HttpParserError:
            self._refuse(*(self._fault or (400, "This is no HTTP request.")))
        if self._is_refused:
            return
        self._mute_bytes = self._mute_bytes + len(data) if self._is_mute else 0
        if self._mute_bytes > HEAD_BYTES:
            self._refuse(431, _TOO_LONG)
        elif self._deadline is None and not self._is_asking:
            self._allow(self._patience.linger_s if self._body_is_due else self._patience.head_s)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._is_mute = False
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the first line's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a field behind the body, which is dropped: no proxy before us has seen it among the headers."""
        if self._in_head:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)
        self._is_mute = False

    def on_headers_complete(self) -> None:
        """The head is whole."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            raise self._at_fault(400, "A request must have the header Host, once.")
        if len(self.pipeline) >= PIPELINED:
            raise self._at_fault(400, "Wait for the answers.")
        self._all.note_busy(self)
        if not self._all.have_room(len(self.connections)):
            raise self._at_fault(503, "As many clients are connected as may. Try again.")
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            self.cycle.send = answer_unframed(self.cycle)  # type: ignore[method-assign, assignment]  # of this one answer
        self._in_head, self._is_mute, self._body_is_due = False, False, True
        self._allow(None)

    def on_chunk_header(self) -> None:
        """The length of a piece of the body."""
        self._is_mute = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body has arrived."""
        self._is_mute = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_mute, self._body_is_due = False, False
        if not self._is_asking:
            self._allow(None)
        super().on_message_complete()

    # ---- what we send -----------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """The answer has been written, though perhaps not sent."""
        super().on_response_complete()
        if not self._is_asking:
            self._all.note_waiting(self)
        if self.transport.is_closing() and self._taking is None:
            self._watch()

    def pause_writing(self) -> None:
        """The client takes less than we have."""
        super().pause_writing()
        if self._taking is None:
            self._watch()

    def resume_writing(self) -> None:
        """The client has taken most of what was waiting."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._unwatch()

    def timeout_keep_alive_handler(self) -> None:
        """The client has sent no further request within the keep-alive time: end the connection."""
        self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: forget it and its timers."""
        self._allow(None)
        self._unwatch()
        self._all.note_busy(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops."""
        if self._is_refused:
            self.end()
        super().shutdown()

    def end(self) -> None:
        """End it at once: with what was sent already, unless the client does not take it."""
        self._all.note_busy(self)
        self.connections.discard(self)  # whoever it makes room for may ask before it is lost
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def _is_asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, detail: str) -> None:
        """Listen no more, say why if that can be told from another answer, and end."""
        get_logger().info("connection refused", status=status, reason=detail)
        self._is_refused = True
        if self._is_asking and not self._body_is_due:
            self.cycle.keep_alive = False  # what was asked before is answered, and that is the end
        elif self._body_is_due and (not self._is_asking or self.pipeline or self.cycle.response_started):
            self.transport.close()
            self._watch()
        else:
            if self._body_is_due:  # whoever reads the body hears that it breaks off
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_answer(status, detail))
            self.transport.write_eof()
            self._all.note_waiting(self)
            self._allow(self._patience.refused_s)  # what still comes is read, or the answer would be lost

    def _count(self, more: int) -> None:
        self._is_mute = False
        self._head_bytes += more
        if self._head_bytes > HEAD_BYTES:
            raise self._at_fault(431, _TOO_LONG)

    def _at_fault(self, status: int, detail: str) -> _FaultError:
        self._fault = status, detail
        return _FaultError()

    def _allow(self, time_s: float | None) -> None:
        """The client has so long for what it is at; ``None`` when it is at nothing that we wait for."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if time_s is None else self.loop.call_later(time_s, self.end)

    def _watch(self) -> None:
        """See to it that the client takes what it is sent."""
        self._unwatch()
        left = self.transport.get_write_buffer_size()
        if left:
            self._taking = self.loop.call_later(self._patience.take_s, self._look, left)

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and before - left < TAKEN_BYTES:
            self.transport.abort()
        else:
            self._watch()

    def _unwatch(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
        self._taking = None


class _FaultError(Exception):
    """Stops the parser; ``Connection`` knows why."""


def _answer(status: int, detail: str) -> bytes:
    body = msgspec.json.encode(make_problem(status, detail))
    retry = b"retry-after: %d\r\n" % RETRY_AFTER_S if status == 503 else b""
    head = (
        b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\nx-content-type-options: nosniff\r\n"
        b"cache-control: no-store\r\n%b\r\n" % (MEDIA_TYPE.encode(), len(body), retry)
    )
    return STATUS_LINE[status] + head + body


_TOO_LONG = f"The head of a request has {HEAD_BYTES // 1024} KiB at most."
