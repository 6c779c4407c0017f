"""Reads the first message of a TLS client: that it is one, and which name it asks for (RFC 8446, RFC 6066)."""

from __future__ import annotations

from typing import Final

from sandbox.egress.decisions import Decision, Refused
from sandbox.egress.hosts import EgressHost, parse_host
from sandbox.untrusted import meets_untrusted

_HANDSHAKE: Final = b"\x16"
_CLIENT_HELLO: Final = b"\x01"
_SERVER_NAME: Final = 0
_ENCRYPTED_HELLO: Final = 0xFE0D
_MAX_RECORD_BYTES: Final = 1 << 14
_MAX_RECORDS: Final = 8
"""Clients use one to three; each is looked at again whenever more has come."""

WRONG_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"
"""The fatal alert ``unrecognized_name``, RFC 8446, 6."""


class _Reader:
    """Takes bytes from the front. A field that is cut short makes the greeting invalid."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise ValueError("a field of it is cut short")
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def block(self, width: int) -> bytes:
        """Read a length of ``width`` bytes, then that many bytes."""
        return self.take(self.number(width))

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def is_whole(data: bytes | bytearray) -> bool:
    """Whether the whole ClientHello is there, of however many records.

    Raises:
        Refused: ``not_tls``, as soon as it cannot become one.
    """
    return _hello(bytes(data)) is not None


@meets_untrusted
def check(data: bytes | bytearray, host: EgressHost) -> None:
    """Compare the name that a whole ClientHello asks for with the host of the CONNECT before it.

    Raises:
        Refused: ``name_mismatch``; or ``not_tls`` when it is malformed, or hides the name (encrypted ClientHello).
    """
    try:
        name = _server_name(_hello(bytes(data)) or b"")
        asked = parse_host(name) if name is not None else host
    except ValueError as error:
        raise Refused(Decision.NOT_TLS, f"the TLS greeting cannot be read: {error}") from error
    if asked != host:
        raise Refused(Decision.NAME_MISMATCH, "the TLS greeting asks for another name than CONNECT did")


def _hello(data: bytes) -> bytes | None:
    """The body of the ClientHello, put together from its records; ``None`` while more is to come."""
    message, at = b"", 0
    for _ in range(_MAX_RECORDS):
        header = data[at : at + 5]
        if header[:1] not in (b"", _HANDSHAKE) or header[1:2] not in (b"", b"\x03"):
            raise Refused(Decision.NOT_TLS, "only TLS may follow CONNECT")
        if len(header) < 5:
            return None
        length = int.from_bytes(header[3:], "big")
        if not 0 < length <= _MAX_RECORD_BYTES:
            raise Refused(Decision.NOT_TLS, "only TLS may follow CONNECT")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if message[:1] not in (b"", _CLIENT_HELLO):
            raise Refused(Decision.NOT_TLS, "a TLS connection must begin with a ClientHello")
        end = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= max(end, 4):
            return message[4:end]
    raise Refused(Decision.NOT_TLS, f"the TLS greeting comes in more than {_MAX_RECORDS} records")


def _server_name(hello: bytes) -> str | None:
    reader = _Reader(hello)
    reader.take(2 + 32)
    reader.block(1)  # session id
    reader.block(2)  # cipher suites
    reader.block(1)  # compression
    if not reader.left:
        return None
    extensions = _Reader(reader.block(2))
    if reader.left:
        raise ValueError("something follows the extensions")
    names = []
    while extensions.left:
        kind, value = extensions.number(2), extensions.block(2)
        if kind == _ENCRYPTED_HELLO:
            raise ValueError("an encrypted ClientHello hides the name that it asks for")
        if kind == _SERVER_NAME:
            names.append(_only_name(value))
    if len(names) > 1:
        raise ValueError("it asks for more than one name")
    return names[0] if names else None


def _only_name(value: bytes) -> str:
    names = _Reader(_Reader(value).block(2))
    kind, name = names.number(1), names.block(2)
    if kind != 0 or names.left or len(value) != len(name) + 5:
        raise ValueError("it asks for more than one name")
    return name.decode("ascii")
