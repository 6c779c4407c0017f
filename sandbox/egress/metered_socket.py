"""Sockets of the worker's loop: bounded in memory, metered, and fair to what else runs there.

asyncio's transports are not used: with plain sockets there is exactly one buffer for each direction, nothing is read
before it is asked for, and no more is read than can be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from sandbox.egress import heads
from sandbox.egress.chunks import ChunkDecoder, chunk
from sandbox.egress.decisions import Decision, Refused

BUFFER_BYTES: Final = 64 << 10
CHUNKS_BYTES: Final = 16 << 10
"""Read at once of a chunked body: to decode tiny chunks takes some time, in which nothing else runs."""
_AT_ONCE: Final = 8
"""Reads that may follow each other without a turn of the loop."""
_SMALL_BYTES: Final = 512
_SMALL_READS: Final = 256
"""After so many small reads in a row the next waits for ``_GATHER_S``, so that bytes gather: each costs as much as a
big one."""
_GATHER_S: Final = 0.001
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class ByteBudget:
    """Bytes that a run may still move in one direction, over all its connections."""

    def __init__(self, limit_bytes: int, key: str) -> None:
        """``key``: of the policy, for the message."""
        self.left = limit_bytes
        self._key = key

    def spend(self, count: int) -> None:
        """Take ``count`` bytes off.

        Raises:
            Refused: ``bytes_limit``, when fewer are left; then none is left.
        """
        if count > self.left:
            self.left = 0
            raise Refused(Decision.BYTES_LIMIT, f"the run has used up network.{self._key} of its policy")
        self.left -= count


class MeteredSocket:
    """One connected socket, with the bytes that were read from it and not yet used.

    Attributes:
        received, sent: bytes so far.
    """

    def __init__(
        self,
        sock: socket.socket,
        lost: Callable[[], Exception],
        *,
        into: ByteBudget | None = None,
        out: ByteBudget | None = None,
    ) -> None:
        """
        Args:
            sock: connected, not blocking; belongs to this object from now on.
            lost: makes the exception for a connection that broke.
            into, out: what is received and sent is taken off these.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._lost = lost
        self._into, self._out = into, out
        self._pending = bytearray()
        self._turns = self._small_reads = 0
        self.received = self.sent = 0

    async def read_head(self, limit_bytes: int) -> bytes:
        """Everything up to and with the first empty line; what comes after stays to be read.

        Without that line as much as there is, as soon as it is clear that no head will come of it: more than
        ``limit_bytes``, bytes that no head may hold, or the end. Empty when nothing has come before the end.
        """
        looked_at = 0
        while (end := self._pending.find(heads.END, max(looked_at - 3, 0))) < 0:
            if len(self._pending) > limit_bytes or heads.is_hopeless(self._pending, looked_at):
                return self._take(len(self._pending))
            looked_at = len(self._pending)
            if not await self.read_ahead():
                return self._take(looked_at)
        return self._take(end + len(heads.END))

    @property
    def ahead(self) -> bytes:
        """The bytes that were read and not yet used."""
        return bytes(self._pending)

    async def read_ahead(self) -> int:
        """Read some more without using it. Returns the number of bytes, 0 at the end."""
        buffer = bytearray(BUFFER_BYTES)
        count = await self._receive(memoryview(buffer))
        self._pending += memoryview(buffer)[:count]
        return count

    async def receive_into(self, buffer: memoryview) -> int:
        """Read what there is into ``buffer``. Returns the number of bytes, 0 at the end only."""
        if not self._pending:
            return await self._receive(buffer)
        count = min(len(buffer), len(self._pending))
        buffer[:count] = self._take(count)
        return count

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""
        if self._out is not None:
            self._out.spend(len(data))
        view = memoryview(data)
        try:
            try:
                sent = self._sock.send(view)
            except BlockingIOError:
                sent = 0
            if sent < len(view):
                await self._loop.sock_sendall(self._sock, view[sent:])
        except OSError as error:
            raise self._lost() from error
        self.sent += len(data)

    def finish(self) -> None:
        """Shut down the sending side: nothing more will be sent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close by a reset, so that the peer does not take what it has for the whole: SO_LINGER of socket(7)."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._sock.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _take(self, count: int) -> bytes:
        data = bytes(self._pending[:count])
        del self._pending[:count]
        return data

    async def _receive(self, buffer: memoryview) -> int:
        await self._be_fair()
        if self._into is not None:
            buffer = buffer[: self._into.left + 1]
        try:
            try:
                count = self._sock.recv_into(buffer)
            except BlockingIOError:
                self._turns = 0
                count = await self._loop.sock_recv_into(self._sock, buffer)
        except OSError as error:
            raise self._lost() from error
        if self._into is not None:
            self._into.spend(count)
        self.received += count
        self._small_reads = self._small_reads + 1 if count < _SMALL_BYTES else 0
        return count

    async def _be_fair(self) -> None:
        """Give the loop a turn now and then, however fast the peer sends."""
        self._turns += 1
        if self._small_reads > _SMALL_READS:
            await asyncio.sleep(_GATHER_S)
        elif self._turns > _AT_ONCE:
            self._turns = 0
            await asyncio.sleep(0)


async def relay(source: MeteredSocket, sink: MeteredSocket, length: int | None) -> None:
    """Relay ``length`` bytes, or all until the end.

    Raises:
        EOFError: the end came before ``length`` bytes.
    """
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while length is None or length > 0:
        count = await source.receive_into(buffer if length is None else buffer[:length])
        if not count:
            break
        await sink.send(buffer[:count])
        length = None if length is None else length - count
    if length:
        raise EOFError


async def relay_chunks(source: MeteredSocket, sink: MeteredSocket) -> None:
    """Relay a chunked body, in chunks of our own.

    Raises:
        EOFError: the end came before the last chunk.
        ValueError: it is not chunked; one sentence.
    """
    decoder, buffer = ChunkDecoder(), memoryview(bytearray(CHUNKS_BYTES))
    while not decoder.done:
        count = await source.receive_into(buffer)
        if not count:
            raise EOFError
        if payload := decoder.feed(buffer[:count]):
            await sink.send(chunk(payload))
    await sink.send(chunk(b""))
