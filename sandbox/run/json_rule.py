"""The rule for the JSON of a result, held to untrusted bytes: the same that the handlers hold to Python's values.

JSON of RFC 8259 in UTF-8, at most ``MAX_DEPTH`` deep, that every reader understands alike: no integer beyond
±``MAX_SAFE_INTEGER`` (JavaScript would change it without a word), no number that a double cannot hold (Python would
read infinity), none longer than ``MAX_NUMBER_CHARACTERS`` (Python would refuse the whole text), no lone surrogate
(nothing can write it again).

Linear in the payload's length, whatever it is, and no object is built of it. The passes that take long are made slice
by slice: the thread that makes them holds the interpreter's lock for a few milliseconds at a time, so that all else
that the worker does goes on beside it. One promise of the handlers is not checked here: a forged frame may have a name
twice.
"""

from __future__ import annotations

import itertools
import math
import operator
import re

import msgspec

from sandbox.untrusted import meets_untrusted

MAX_DEPTH = 64
"""Arrays and objects inside each other, the outermost included."""
MAX_SAFE_INTEGER = 2**53 - 1
_LARGEST = str(MAX_SAFE_INTEGER).encode()
MAX_NUMBER_CHARACTERS = 4300
"""Digits that Python reads as an integer: ``sys.int_info.default_max_str_digits``."""
_SLICE_BYTES = 1 << 18

_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
)
_PAIR_BYTES = 12
_NUMBER_CHARACTERS = b"0123456789+-.eE"
# both begin at the first digit, behind the sign: what is compared is the size
_LONG_NUMBER = re.compile(rb"[0-9][0-9.eE+-]{15,}")
_LARGE_EXPONENT = re.compile(rb"[0-9][0-9.]*[eE]\+?[0-9]{3,}")
_SHAPES = bytes(
    ord("0" if chr(byte) in "0123456789" else "e" if chr(byte) in "eE" else chr(byte) if chr(byte) in "+-." else " ")
    for byte in range(256)
)
"""Digits → 0, so that one search finds a number of a shape; what is no part of a number → a blank."""
_LONG_INTEGERS = (b" " + b"0" * 16, b" -" + b"0" * 16)
_LARGE_EXPONENTS = (b"e000", b"e+000")

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UP_OR_DOWN = bytes.maketrans(b"[{]}", b"1100")


def _rise(bits: int) -> int:
    """Brackets that open less those that close, of eight."""
    return 2 * bits.bit_count() - 8


def _height(bits: int) -> int:
    """The most that eight brackets rise above where they begin."""
    steps = (1 if bits >> place & 1 else -1 for place in range(7, -1, -1))
    return max(0, *itertools.accumulate(steps))


_RISES = tuple(map(_rise, range(256)))
_HEIGHTS = tuple(map(_height, range(256)))


@meets_untrusted
def json_fault(payload: bytes) -> str | None:
    """Why a payload is not JSON under the rule, or ``None`` when it is."""
    try:
        payload.isascii() or payload.decode()
    except UnicodeDecodeError as error:
        return f"the result is not UTF-8: {error.reason} at byte {error.start}"
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except RecursionError:
        return _TOO_DEEP
    except msgspec.MsgspecError as error:
        return f"the result is not JSON: {error}"
    return _rule_fault(payload)


_TOO_DEEP = f"the result is nested more than {MAX_DEPTH} levels deep"
_TOO_LONG = f"the result has a number of more than {MAX_NUMBER_CHARACTERS} characters"


def _rule_fault(payload: bytes) -> str | None:
    """What JSON allows and the rule does not."""
    text = payload.replace(b"\\\\", b"__")  # from here on a backslash escapes what follows it
    if b"\\u" in text and _has_lone_surrogate(text):
        return "the result has a lone surrogate, which no text can hold"
    text = text.replace(b'\\"', b"__")  # and every quote begins or ends a string
    level, inside, number = 0, False, b""
    for start in range(0, len(text), _SLICE_BYTES):
        parts = text[start : start + _SLICE_BYTES].split(b'"')
        outside = number + b'"' * inside + b'"'.join(parts[inside::2])
        inside ^= len(parts) % 2 == 0
        # a number at the end may go on in the next slice
        whole = outside.rstrip(_NUMBER_CHARACTERS) if not inside else outside
        number = outside[len(whole) :]
        if len(number) > MAX_NUMBER_CHARACTERS:
            return _TOO_LONG
        level, highest = _climb(whole, level)
        if highest > MAX_DEPTH:
            return _TOO_DEEP
        if (fault := _number_fault(whole)) is not None:
            return fault
    return _number_fault(number)


def _has_lone_surrogate(text: bytes) -> bool:
    """Whether half of a surrogate pair stands alone, as an escape: RFC 8259, section 8.2."""
    for start in range(0, len(text), _SLICE_BYTES):
        found = _LONE_SURROGATE.search(text, start, start + _SLICE_BYTES + _PAIR_BYTES)
        if found is not None and found.start() < start + _SLICE_BYTES:
            return True
    return False


def _climb(outside: bytes, level: int) -> tuple[int, int]:
    """The level behind a text without strings, and the highest in it, given the level before it.

    Eight brackets are looked up at once: as bits of a byte, of which tables know the rise and the height.
    """
    brackets = outside.translate(_UP_OR_DOWN, _NOT_BRACKETS)
    if not brackets:
        return level, level
    spare = -len(brackets) % 8
    # brackets that close below the end change no height, and are taken off the level again
    bits = int(brackets + b"0" * spare, 2).to_bytes((len(brackets) + spare) // 8, "big")
    levels = list(itertools.accumulate(map(_RISES.__getitem__, bits), initial=level))
    highest = max(map(operator.add, levels, map(_HEIGHTS.__getitem__, bits)))
    return levels[-1] + spare, highest


def _number_fault(outside: bytes) -> str | None:
    """What is wrong with the numbers of a text without strings. Only those of a doubtful shape are looked at."""
    shapes = b" " + outside.translate(_SHAPES)
    long = _LONG_NUMBER.findall(outside) if any(shape in shapes for shape in _LONG_INTEGERS) else []
    large = _LARGE_EXPONENT.findall(outside) if any(shape in shapes for shape in _LARGE_EXPONENTS) else []
    if max(map(len, itertools.chain(long, large)), default=0) > MAX_NUMBER_CHARACTERS:
        return _TOO_LONG
    # all have as many digits or more, and texts of one length compare as their numbers do
    integers = set(filter(bytes.isdigit, long))
    if max(map(len, integers), default=0) > len(_LARGEST) or max(integers, default=b"") > _LARGEST:
        return f"the result has an integer beyond ±{MAX_SAFE_INTEGER}; make a string of it"
    if not math.isfinite(max(map(float, {*long, *large}), default=0.0)):
        return "the result has a number that is larger than a double can hold; make a string of it"
    return None
