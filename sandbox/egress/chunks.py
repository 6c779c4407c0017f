"""Decodes the chunked coding of a body, more strictly than RFC 9112, 7.1. What is relayed is encoded anew."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_MAX_LINE_BYTES: Final = 1024
_MAX_TRAILER_BYTES: Final = 16 << 10
_FREE_CHUNKS: Final = 4096
_MEAN_BYTES: Final = 8
"""Beyond ``_FREE_CHUNKS``, chunks must hold so much on the average: each costs time, however small it is."""


class ChunkDecoder:
    """Decodes one body. Extensions and trailers are read and dropped.

    Attributes:
        done: whether the last chunk and the trailers were read. What follows is not touched.
    """

    def __init__(self) -> None:
        self.done = False
        self._buffer = bytearray()
        self._left = 0
        """Of the chunk that is being read, its line end included; 0 between chunks."""
        self._chunks = self._payload_bytes = self._trailer_bytes = 0
        self._in_trailers = False

    def feed(self, data: bytes | memoryview) -> bytes:
        """The payload in ``data``, which goes on from where the last call ended.

        Raises:
            ValueError: it is not chunked; one sentence.
        """
        self._buffer += data
        payload = bytearray()
        while not self.done and (self._read_payload(payload) if self._left else self._read_line()):
            pass
        return bytes(payload)

    def _read_payload(self, payload: bytearray) -> bool:
        taken = self._buffer[: max(self._left - 2, 0)]
        payload += taken
        del self._buffer[: len(taken)]
        self._left -= len(taken)
        if self._left > 2 or len(self._buffer) < 2:
            return False
        if not self._buffer.startswith(b"\r\n"):
            raise ValueError("a chunk is longer than it says")
        del self._buffer[:2]
        self._left = 0
        return True

    def _read_line(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end > _MAX_LINE_BYTES or (end < 0 and len(self._buffer) > _MAX_LINE_BYTES):
            raise ValueError("a line between chunks is too long")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._in_trailers:
            self._read_trailer(line)
        else:
            self._read_size(line)
        return True

    def _read_size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise ValueError("the size of a chunk is not a hexadecimal number")
        size = int(found[1], 16)
        self._chunks += 1
        self._payload_bytes += size
        if self._chunks > _FREE_CHUNKS + self._payload_bytes // _MEAN_BYTES:
            raise ValueError("it comes in too many small chunks")
        self._in_trailers = size == 0
        self._left = size + 2 if size else 0

    def _read_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER_BYTES:
            raise ValueError("its trailers are too long")
        self.done = not line


def chunk(payload: bytes) -> bytes:
    """One chunk; of no payload, the end of the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
