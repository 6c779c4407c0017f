"""Text and JSON that can be written whatever a script left behind: odd strings, hostile classes, no memory."""

from __future__ import annotations

import msgspec

_encode_into = msgspec.json.Encoder().encode_into
_name_of_type = type.__dict__["__name__"].__get__


def encode_json(value: object) -> bytes:
    """The value as JSON; NaN and Infinity as null.

    By way of a buffer: ``Encoder.encode`` of msgspec 0.22 crashes the process when memory runs out, this raises.

    Raises:
        MemoryError: no room for the text.
        UnicodeEncodeError: a string has surrogates.
    """
    buffer = bytearray()
    _encode_into(value, buffer)
    return bytes(buffer)


def clean_text(text: str) -> str:
    """Text that UTF-8 can carry: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def type_name(value: object) -> str:
    """Name of the value's class, as it was given in its definition; a metaclass has no say in it."""
    return clean_text(_name_of_type(type(value)))[:200]
