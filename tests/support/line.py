"""TCP lines that tests spoil: between a client and the API, between each part and its servers, before a receiver.

All lines of a test are on one event loop, in a thread of its own. What is spoilt is spoilt for one direction or both:
``TO`` what is behind the line, or ``BACK`` from it. A line never changes a byte and then goes on: what comes after a
spoilt byte would be taken for something else, which TCP's checksums prevent. A connection that was spoilt is reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Literal, Self

RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER on, for 0 seconds: close(2) resets the connection (socket(7))."""
PIECE = 1 << 16
BACKLOG = 256
TURNS = 10

Direction = Literal["to", "back"]
TO: Direction = "to"
BACK: Direction = "back"
BOTH: tuple[Direction, ...] = (TO, BACK)


class Lines:
    """The event loop of some lines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines")
        self._lines: list[Line] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.refuse()
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """End what came while the lines were closed, and give each transport the turns in which it closes.

        A call that has not begun yet is not cancelled: it would never close its connection. It begins, and is cut in
        the next turn.
        """
        for _ in range(TURNS):
            await asyncio.sleep(0)
            for line in self._lines:
                await line.cut_all()

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the loop do something, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def open(self, behind: Path | int) -> Line:
        """A new line.

        Args:
            behind: a server's socket, or its port on the loopback.
        """
        line = Line(self, behind)
        self.run(line.listen())
        self._lines.append(line)
        return line


class Line:
    """Passes bytes on until a test wants otherwise. Its methods are called from any thread but that of the loop."""

    def __init__(self, lines: Lines, behind: Path | int) -> None:
        self._lines = lines
        self._behind = behind
        self._server: asyncio.Server | None = None
        self.port = 0
        self._ways = {TO: _Way(), BACK: _Way()}
        self._calls: dict[_Call, asyncio.Task[None]] = {}

    # ---- what goes wrong -------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection; new ones pass."""
        self._lines.run(self.cut_all())

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones until ``listen_again``."""
        self._lines.run(self._refuse())

    def listen_again(self) -> None:
        """Take connections again, at the same port."""
        self._lines.run(self.listen())

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody is let in; who was in is out."""
        self.refuse()
        try:
            yield
        finally:
            self.listen_again()

    @contextlib.contextmanager
    def hanging(self, *directions: Direction) -> Iterator[None]:
        """Nothing passes, and all of it later, as when packets are lost and sent again."""
        self._lines.run(self._set(directions, gate=False))
        try:
            yield
        finally:
            self._lines.run(self._set(directions, gate=True))

    @contextlib.contextmanager
    def slow(self, delay_s: float, *directions: Direction) -> Iterator[None]:
        """Each piece comes later."""
        self._lines.run(self._set(directions, delay_s=delay_s))
        try:
            yield
        finally:
            self._lines.run(self._set(directions, delay_s=0.0))

    @contextlib.contextmanager
    def losing(self, *directions: Direction) -> Iterator[None]:
        """What is sent gets lost, and nobody learns of it until the connection is reset, in the end."""
        with self._spoiling(b"", directions):
            yield

    @contextlib.contextmanager
    def garbling(self, junk: bytes, *directions: Direction, is_answered: bool = True) -> Iterator[None]:
        """Junk comes instead of the next piece, and nothing after it; what is said of it may get lost, too."""
        with self._spoiling(junk, directions, is_answered=is_answered):
            yield

    # ---- the loop's side -------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(
            self._pass, "127.0.0.1", self.port, backlog=BACKLOG, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    @contextlib.contextmanager
    def _spoiling(self, junk: bytes, directions: tuple[Direction, ...], *, is_answered: bool = True) -> Iterator[None]:
        self._lines.run(self._set(directions, junk=junk, is_answered=is_answered))
        try:
            yield
        finally:
            self._lines.run(self._set(directions, junk=None, is_answered=True))
            self._lines.run(self._cut(lambda call: call.spoilt))

    async def _set(self, directions: tuple[Direction, ...], **change: Any) -> None:
        for direction in directions:
            self._ways[direction].set(**change)

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # A server that is closed does not take in a connection that it has just accepted: asyncio raises inside,
            # tells nobody, and forgets the open socket. So the line stops accepting first, and closes the server a
            # turn later, when it has taken in all that it had accepted.
            asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
            await asyncio.sleep(0)
            server.close()
        await self.cut_all()

    async def cut_all(self) -> None:
        """Reset every connection that has begun."""
        await self._cut(lambda _: True)

    async def _cut(self, chosen: Callable[[_Call], bool]) -> None:
        ending = [task for call, task in self._calls.items() if chosen(call)]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = _Call()
        task = asyncio.current_task()
        assert task is not None
        self._calls[call] = task
        ends = [writer]
        try:
            there = await self._connect()
            ends.append(there[1])
            ways = [
                asyncio.create_task(self._pump(reader, there[1], self._ways[TO], call)),
                asyncio.create_task(self._pump(there[0], writer, self._ways[BACK], call)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            for end in ends:
                _reset(end)
        except OSError:  # nobody is behind the line
            _reset(writer)
        finally:
            del self._calls[call]
            for end in ends:
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._behind, int):
            return await asyncio.open_connection("127.0.0.1", self._behind, limit=PIECE)
        return await asyncio.open_unix_connection(str(self._behind), limit=PIECE)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way, call: _Call) -> None:
        """Pass on what one end says, until it ends."""
        is_lost = False
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if way.delay_s:
                    await asyncio.sleep(way.delay_s)
                await way.gate.wait()
                if is_lost or call.is_mute:
                    continue
                if way.junk is not None:
                    is_lost = call.spoilt = True
                    call.is_mute = not way.is_answered
                    piece = way.junk
                writer.write(piece)
                await writer.drain()
            if is_lost or call.is_mute:  # who waits for an answer is not told, either
                await asyncio.Event().wait()


class _Way:
    """How one direction of a line is just now."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.delay_s = 0.0
        self.junk: bytes | None = None
        self.is_answered = True

    def set(self, **change: Any) -> None:
        if "gate" in change:
            (self.gate.set if change.pop("gate") else self.gate.clear)()
        for name, value in change.items():
            setattr(self, name, value)


class _Call:
    """One connection."""

    def __init__(self) -> None:
        self.spoilt = False
        self.is_mute = False


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
