"""The rule for the JSON of a result, held to untrusted bytes: the same that the handlers hold to Python's values.

JSON of RFC 8259 in UTF-8, at most ``MAX_DEPTH`` deep, that every reader understands alike: no integer beyond
±``MAX_SAFE_INTEGER`` (JavaScript would change it without a word), no number that a double cannot hold (Python would
read infinity), none longer than ``MAX_NUMBER_CHARACTERS`` (Python would refuse the whole text), no lone surrogate
(nothing can write it again). An exponent of three digits stands behind one digit and its fraction, as every writer
writes it (``1.5e+300``, not ``150e298``): then the largest numbers can be told from infinity without reading each.

Linear in the payload's length, whatever it is, and no object is built of it. The passes that take long are made slice
by slice: the thread that makes them holds the interpreter's lock for a few milliseconds at a time, so that all else
that the worker does goes on beside it. One promise of the handlers is not checked here: a forged frame may have a name
twice.
"""

from __future__ import annotations

import array
import functools
import itertools
import operator
import re
import sys

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
_LITTLE_E = bytes.maketrans(b"E", b"e")
_NUMBERS = bytes(byte if byte in _NUMBER_CHARACTERS else ord(" ") for byte in range(256)).translate(_LITTLE_E)
"""What is no part of a number → a blank."""
_SHAPES = _NUMBERS.translate(bytes.maketrans(b"123456789", b"000000000"))
"""Digits → 0 as well, so that many numbers have few shapes."""
_SHAPE = re.compile(rb"-?(0+)(\.0+)?(?:e(?:\+?(0+)|-0+))?")
_E_OF_A_WORD = b" e "
"""Of ``true`` and ``false``."""
_AS_LONG_AS_THE_LARGEST = frozenset({b"0" * len(_LARGEST), b"-" + b"0" * len(_LARGEST)})
_DIGITS_OF_A_DOUBLE = 308
"""A number with no more digits before its point, its exponent included, is held by a double."""
_INFINITY = str(2**1024 - 2**970).encode()
"""The smallest number that a double does not hold: halfway from the largest double to the next one there would be."""
_INFINITY_E308 = _INFINITY[:1] + b"." + _INFINITY[1:]
"""Of two such texts the one that comes later in the order of bytes is the larger number."""
_EXPONENT_BEYOND = re.compile(rb"e(?:309|3[1-9][0-9]|[4-9][0-9]{2})")
_E308 = b"\0"
"""Stands for this exponent: before any digit in the order of bytes."""

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UP_OR_DOWN = bytes.maketrans(b"[{]}", b"1100")


@functools.cache
def _climbs() -> tuple[list[int], list[int]]:
    """Of each sixteen brackets, as bits: how many more open (1) than close, and how high they rise at most."""
    rises = [2 * bits.bit_count() - 8 for bits in range(256)]
    steps = ([1 if bits >> place & 1 else -1 for place in range(7, -1, -1)] for bits in range(256))
    heights = [max(0, *itertools.accumulate(of_one)) for of_one in steps]
    pairs = [*itertools.product(range(256), repeat=2)]
    return (
        [rises[first] + rises[second] for first, second in pairs],
        [max(heights[first], rises[first] + heights[second]) for first, second in pairs],
    )


def prepare() -> None:
    """Make the tables, which takes some 30 ms: before the first result is checked, and not at its cost."""
    _climbs()


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
_TOO_LARGE = f"the result has an integer beyond ±{MAX_SAFE_INTEGER}; make a string of it"
_TOO_LONG = f"the result has a number of more than {MAX_NUMBER_CHARACTERS} characters"
_INFINITE = "the result has a number larger than a double can hold, or an exponent above 308; make a string of it"
_ODD = "the result has a number in an unusual form: write a large one with one digit before its point, as 1.5e300"


def _rule_fault(payload: bytes) -> str | None:
    """What JSON allows and the rule does not."""
    text = payload.replace(b"\\\\", b"__")  # from here on a backslash escapes what follows it
    if b"\\u" in text and _has_lone_surrogate(text):
        return "the result has a lone surrogate, which no text can hold"
    text = text.replace(b'\\"', b"__")  # and every quote begins or ends a string
    level, inside, number, numbers = 0, False, b"", _NumberRule()
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
        if (fault := numbers.fault(whole)) is not None:
            return fault
    return numbers.fault(number)


def _has_lone_surrogate(text: bytes) -> bool:
    """Whether half of a surrogate pair stands alone, as an escape: RFC 8259, section 8.2."""
    for start in range(0, len(text), _SLICE_BYTES):
        found = _LONE_SURROGATE.search(text, start, start + _SLICE_BYTES + _PAIR_BYTES)
        if found is not None and found.start() < start + _SLICE_BYTES:
            return True
    return False


def _climb(outside: bytes, level: int) -> tuple[int, int]:
    """The level behind a text without strings, and the highest in it, given the level before it.

    Sixteen brackets are looked up at once: as bits, of which tables know the rise and the height.
    """
    brackets = outside.translate(_UP_OR_DOWN, _NOT_BRACKETS)
    if not brackets:
        return level, level
    spare = -len(brackets) % 16
    # brackets that close below the end change no height, and are taken off the level again
    bits = int(brackets + b"0" * spare, 2).to_bytes((len(brackets) + spare) // 8, "big")
    sixteens = array.array("H", bits)
    if sys.byteorder == "little":
        sixteens.byteswap()
    rises, heights = _climbs()
    levels = list(itertools.accumulate(map(rises.__getitem__, sixteens), initial=level))
    highest = max(map(operator.add, levels, map(heights.__getitem__, sixteens)))
    return levels[-1] + spare, highest


class _NumberRule:
    """What is wrong with the numbers of texts without strings. A value is looked at only if its shape is doubtful."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._large: set[bytes] = set()
        """Shapes of numbers that a double may not hold."""

    @meets_untrusted
    def fault(self, outside: bytes) -> str | None:
        """The first fault in a text; every call is about the same payload."""
        shapes = set(outside.translate(_SHAPES).replace(_E_OF_A_WORD, b" ").split())
        new = shapes - self._known
        self._known |= new
        for shape in new:
            if (fault := self._learn(shape)) is not None:
                return fault
        if not shapes.isdisjoint(_AS_LONG_AS_THE_LARGEST) and _has_integer_beyond(outside):
            return _TOO_LARGE
        return None if shapes.isdisjoint(self._large) else _fault_of_doubles(outside)

    def _learn(self, shape: bytes) -> str | None:
        """What is wrong with every number of a shape."""
        found = _SHAPE.fullmatch(shape)
        if found is None:  # the e of true and false
            return None
        if len(shape) - shape.startswith(b"-") > MAX_NUMBER_CHARACTERS:
            return _TOO_LONG
        digits, exponent = found[1], found[3] or b""
        if len(shape) == found.end(1):  # an integer
            return _TOO_LARGE if len(digits) > len(_LARGEST) else None
        if len(exponent) == 3 and len(digits) == 1:
            self._large.add(shape)
            return None
        return _ODD if len(digits) + 10 ** min(len(exponent), 3) - 1 > _DIGITS_OF_A_DOUBLE else None


@meets_untrusted
def _has_integer_beyond(outside: bytes) -> bool:
    """Whether an integer of a text without strings, of as many digits as the largest, is larger."""
    words = (b" " + outside.translate(_NUMBERS)).replace(b" -", b" ").split()
    return max([word for word in words if len(word) == len(_LARGEST) and word.isdigit()], default=b"") > _LARGEST


def _fault_of_doubles(outside: bytes) -> str | None:
    """Whether a number of a text without strings is larger than a double holds: of those in the form of ``_ODD``."""
    numbers = b" " + outside.translate(_NUMBERS).replace(b"e+", b"e") + b" "
    if _EXPONENT_BEYOND.search(numbers):
        return _INFINITE
    numbers = numbers.replace(_E_OF_A_WORD, b" ").replace(b" -", b" ").replace(b"e308", _E308)
    largest = max([number for number in numbers.split() if number.endswith(_E308)], default=_E308)
    return _INFINITE if largest >= _INFINITY_E308 else None
