"""Decodes numbers of JSON as they are written, where a double would hold another value than the text says.

Most texts have no such number, which is seen without reading them: none of their numbers has more than 15 digits, nor
an exponent below -99.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec

from handlers.failures import Refusal

_DOUBLE_DIGITS = 15
"""Significant digits that every double holds."""
_SHAPES = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG, _SMALL = b"0" * (_DOUBLE_DIGITS + 1), b"e-000"
_LONG_NUMBER = re.compile(rb"[0-9.]{16,}(?:[eE][-+]?[0-9]+)?")
_SMALL_NUMBER = re.compile(rb"[0-9.]{1,40}[eE]-[0-9]{3,}")
_PIECE = 1 << 20
_encoder = msgspec.json.Encoder(decimal_format="number")


def is_inexact(raw: bytes | memoryview | msgspec.Raw) -> bool:
    """Whether a text of JSON has a number that no double holds.

    Numbers that were printed from doubles are read and written again many at once, and looked at one by one where that
    gives another text.
    """
    text, start = bytes(raw), 0
    while start < len(text):
        end = text.find(b",", start + _PIECE) + 1 or len(text)  # no number goes on behind a comma
        piece = text[start:end]
        shape = piece.translate(_SHAPES)
        found = _LONG_NUMBER.findall(piece) if _LONG in shape else []
        found += _SMALL_NUMBER.findall(piece) if _SMALL in shape else []
        if any(map(_is_other, _changed(found))):
            return True
        start = end
    return False


def _changed(numbers: list[bytes]) -> list[bytes]:
    """Those that are another text when they have been read and written."""
    joined = b",".join(numbers)
    try:
        again = _encoder.encode(msgspec.json.decode(b"[" + joined + b"]"))[1:-1]
    except (msgspec.DecodeError, OverflowError):  # some are parts of strings, or larger than the library writes
        return numbers
    if again == joined:
        return []
    return [one for one, other in zip(numbers, again.split(b","), strict=True) if one != other]


def _is_other(number: bytes) -> bool:
    """Whether a double is another number; an integer is read as it is, and what is no number is of a string."""
    if number.isdigit():
        return False
    try:
        return type(exact_number(number.decode())) is not float
    except Refusal:
        return True
    except ValueError:
        return False


def exact_number(text: str) -> float | Decimal:
    """A number with a point or an exponent: a double where that, written with as many digits, is the text again.

    Raises:
        Refusal: it is beyond what a double reaches.
    """
    value = float(text)
    if repr(value) == text:
        return value
    is_zero = not text.lower().partition("e")[0].strip("-0.")
    if math.isinf(value) or (not value and not is_zero):
        raise Refusal("number_out_of_range", f"The data has {text:.40}, which is beyond ±1.8e308 or too near to zero.")
    if is_zero:
        return value
    exact = Decimal(text)
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
