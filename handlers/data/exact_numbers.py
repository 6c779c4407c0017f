"""Decodes numbers of JSON as they are written, where a double would hold another value than the text says.

Most texts have no such number, which is seen without reading them: none of its numbers has more than 15 digits, nor an
exponent below -99.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import msgspec

from handlers.failures import Refusal

_DOUBLE_DIGITS = 15
"""Significant digits that every double holds."""
_SHAPES = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG, _SMALL = b"0" * (_DOUBLE_DIGITS + 1), b"e-000"
_PIECE = 1 << 20
_encoder = msgspec.json.Encoder(decimal_format="number")


def may_be_inexact(text: bytes | memoryview) -> bool:
    """Whether a text of JSON may have a number that no double holds; also of digits in strings."""
    view = memoryview(text)
    for start in range(0, len(view), _PIECE):
        shape = bytes(view[start : start + _PIECE + len(_LONG)]).translate(_SHAPES)
        if _LONG in shape or _SMALL in shape:
            return True
    return False


def exact_number(text: str) -> float | Decimal:
    """A number with a point or an exponent: a double where that, written with as many digits, is the text again.

    Raises:
        Refusal: it is beyond what a double reaches.
    """
    value = float(text)
    if repr(value) == text:
        return value
    exact = Decimal(text)
    if math.isinf(value) or (exact and not value):
        raise Refusal("number_out_of_range", f"The data has {text:.40}, which is beyond ±1.8e308 or too near to zero.")
    digits = len(exact.as_tuple().digits)
    if digits <= _DOUBLE_DIGITS or Decimal(f"{value:.{digits - 1}e}") == exact:
        return value
    return exact


_decoder = msgspec.json.Decoder(float_hook=exact_number)


def decode_exactly(text: bytes | str | msgspec.Raw) -> Any:
    """Any JSON value.

    Raises:
        msgspec.MsgspecError: not JSON.
        Refusal: a number is beyond what a double reaches.
    """
    return _decoder.decode(text)


def json_text(value: Any) -> str:
    """A value as JSON, numbers of any size included."""
    try:
        return _encoder.encode(value).decode()
    except OverflowError:  # an integer beyond 64 bits
        return _encoder.encode(_as_decimals(value)).decode()


def _as_decimals(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_decimals(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_decimals(one) for one in value]
    return Decimal(value) if type(value) is int else value


def loads_strictly(text: bytes, *, exactly: bool = False) -> Any:
    """``json.loads`` without what is no JSON: words for numbers, and numbers that become infinite.

    Args:
        text: JSON.
        exactly: whether a number that no double holds becomes a decimal.
    Raises:
        ValueError: not JSON.
        Refusal: ``exactly``, and a number is beyond what a double reaches.
    """
    return json.loads(text, parse_constant=_refuse_word, parse_float=exact_number if exactly else _finite)


def _refuse_word(word: str) -> Any:
    raise ValueError(f"JSON is malformed: {word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("Number out of range")
    return value
