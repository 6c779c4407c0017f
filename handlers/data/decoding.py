"""Decodes large JSON in a process whose memory is limited.

msgspec 0.22 crashes the process when memory runs out while it makes a string, and a crash does not look like a memory
limit. So it decodes only what surely fits. The standard library decodes the rest: it is slower, but it raises.
"""

from __future__ import annotations

import mmap
from typing import Any

import msgspec

from handlers.data.exact_numbers import decode_exactly, exact_number, is_inexact, loads_strictly
from handlers.parameters.decode import decode_json
from handlers.parameters.registry import decode

_LARGE_BYTES = 1 << 20
_STRING_BYTES = 56
_NUMBER_BYTES = 40
"""At most, with its place in a list."""


def decode_any(raw: msgspec.Raw) -> Any:
    """Any JSON value.

    Raises:
        msgspec.ValidationError: not JSON.
        MemoryError: it does not fit.
    """
    return decode_json(raw) if fits(raw) else _decode_slowly(raw)


def decode_lines(content: bytes) -> list[dict[str, Any]]:
    """JSON objects, one a line, with decimals where no double holds a number.

    Raises:
        msgspec.MsgspecError: a line is not JSON, or not an object.
        Refusal: a number is beyond what a double reaches.
        MemoryError: they do not fit.
    """
    hook = exact_number if is_inexact(content) else None
    if fits(msgspec.Raw(content)):
        return msgspec.json.Decoder(dict[str, Any], float_hook=hook).decode_lines(content)
    lines = (line for line in content.split(b"\n") if line.strip())
    decoded = [_decode_slowly(msgspec.Raw(line), exactly=hook is not None) for line in lines]
    return msgspec.convert(decoded, list[dict[str, Any]])


def decode_data(raw: msgspec.Raw) -> dict[str, Any]:
    """The parameters of a task that were decoded before, with decimals where no double holds a number.

    Raises:
        Refusal: a number is beyond what a double reaches.
        MemoryError: they do not fit.
    """
    decoded: dict[str, Any] = decode_exactly(raw) if fits(raw) else _decode_slowly(raw, exactly=True)
    return decoded


def decode_parameters(task_type: str, raw: msgspec.Raw) -> Any:
    """``handlers.parameters.registry.decode`` within the memory that there is.

    Raises:
        msgspec.ValidationError: not what the task type takes.
        MemoryError: they do not fit.
    """
    if fits(raw):
        return decode(task_type, raw)
    return decode(task_type, raw, decoder=lambda type_: msgspec.convert(_decode_slowly(raw), type_))


def fits(raw: msgspec.Raw, *, object_bytes: int = 256, field_bytes: int = 128) -> bool:
    """Whether there is surely room for what the JSON text becomes.

    Args:
        raw: JSON text.
        object_bytes: what an object takes at most, without its fields; the default is a dict's.
        field_bytes: what a field takes at most, without its value.
    """
    text = bytes(raw)
    if len(text) < _LARGE_BYTES:
        return True
    objects = text.count(b"{") + text.count(b"[")
    values = text.count(b",") + objects
    needed = objects * object_bytes + text.count(b":") * field_bytes + values * _NUMBER_BYTES
    needed += text.count(b'"') // 2 * _STRING_BYTES + len(text) * (1 if text.isascii() else 4)
    try:
        mmap.mmap(-1, needed, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


def _decode_slowly(raw: msgspec.Raw, *, exactly: bool = False) -> Any:
    try:
        return loads_strictly(bytes(raw), exactly=exactly)
    except RecursionError:
        raise msgspec.ValidationError("JSON is nested too deep") from None
    except ValueError as error:
        raise msgspec.ValidationError(str(error)) from None
