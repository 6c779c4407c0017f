"""Finds out in which encoding a text is, for documents, files of data and web pages alike.

A byte order mark, what the text is said to be, and whole UTF-8 are certain. Text of which nearly all is UTF-8 is UTF-8
with errors. Everything else is a guess by chardetng (the detector of Firefox), and is told with a confidence.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from w3lib.encoding import resolve_encoding

_MARKS = (
    # UTF-32's first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_NO_ENCODINGS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7"})
"""Of what Python decodes to text: names of hosts, source code, and a form that browsers refuse."""
_SAMPLE_BYTES = 1 << 20
_ZEROS_SAMPLE_BYTES = 4096
_LEAST_ZEROS = 0.2
"""Share of zeros in UTF-16 whose other bytes are ASCII."""
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_ISO_2022_JP = re.compile(rb"\x1b(?:\$[@B]|\([JI])")
"""What switches to Japanese in a text of seven bits."""
_MARKUP = re.compile(rb"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>")
_CONFIDENCES = ((4, 0.6), (10, 0.8), (30, 0.9), (100, 0.95))
"""Bytes beyond ASCII → the confidence that is stated for a guess from so few; README.md has how often it was right."""
_MOST_CONFIDENCE = 0.98


class Decoded(NamedTuple):
    """A text, and how it was read."""

    text: str
    encoding: str
    """Python's name."""
    confidence: float
    """1 where it is certain, else how sure the guess is."""
    unreadable: int
    """Bytes or groups of bytes that are none of the encoding; U+FFFD stands in their places."""


def decode(content: bytes, *, declared: str | None = None, markup: bool = False) -> Decoded | None:
    """The text of some bytes; None if they are none, as they hold zeros.

    Args:
        content: the bytes.
        declared: the encoding that they are said to be in; one that is none of text counts as none.
        markup: whether it is HTML or XML, whose tags and scripts tell nothing of the language.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return _as(content, name, 1)
    if declared and (known := resolve_encoding(declared)) is not None and _is_of_text(known):
        return _as(content, known, 1)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _guess(content, markup=markup)
    if "\x1b" in text and (japanese := _seven_bits(content)) is not None:
        return japanese
    return _guess(content, markup=markup) if "\0" in text else Decoded(text, "utf-8", 1, 0)


def _seven_bits(content: bytes) -> Decoded | None:
    """Japanese in seven bits (RFC 1468), which is ASCII otherwise; None if it is not that."""
    if not content.isascii() or not _ISO_2022_JP.search(content):
        return None
    try:
        return Decoded(content.decode("iso2022_jp_ext"), "iso2022_jp", _MOST_CONFIDENCE, 0)
    except UnicodeDecodeError:
        return None


def _is_of_text(name: str) -> bool:
    """Whether a codec is an encoding: Python's know transformations too, which a page could ask for by name."""
    try:
        known = codecs.lookup(name).name
        bytes(range(256)).decode(known, "replace")
    except (LookupError, ValueError):
        return False
    return known not in _NO_ENCODINGS


def _as(content: bytes, name: str, confidence: float) -> Decoded:
    text = content.decode(name, "replace")
    return Decoded(text, codecs.lookup(name.removesuffix("-sig")).name, confidence, text.count("\ufffd"))


def _guess(content: bytes, *, markup: bool) -> Decoded | None:
    if b"\0" in content:
        return _wide(content)
    nearly = content.decode("utf-8", "replace")
    wrong = nearly.count("\ufffd")
    right = sum(not sign.isascii() for sign in nearly) - wrong
    if right > wrong:
        return Decoded(nearly, "utf-8", round(right / (right + wrong), 4), wrong)
    import chardetng_py  # noqa: PLC0415 only where it must be guessed

    sample = content[:_SAMPLE_BYTES]
    if markup:
        sample = _MARKUP.sub(b" ", sample)
    if sample.isascii():
        sample = content
    detector = chardetng_py.EncodingDetector()
    detector.feed(sample, last=True)
    name = resolve_encoding(detector.guess(tld=None, allow_utf8=False)) or "cp1252"
    count = sum(byte > 127 for byte in sample)
    confidence = next((value for most, value in _CONFIDENCES if count <= most), _MOST_CONFIDENCE)
    return _as(content, name, confidence)


def _wide(content: bytes) -> Decoded | None:
    """UTF-16 or UTF-32 without a mark, by where the zeros are; None if it is neither."""
    sample = content[:_ZEROS_SAMPLE_BYTES]
    if sample.count(0) < len(sample) * _LEAST_ZEROS and _is_plain(sample.replace(b"\0", b"")):
        return None  # bytes of a text with a zero here and there, which would be signs of Chinese in pairs
    starts = []
    for name in _WIDE:
        try:
            start = codecs.getincrementaldecoder(name)().decode(sample)  # which may end within a sign
        except UnicodeDecodeError:
            continue
        if (
            start
            and "\0" not in start
            and sum(sign.isprintable() or sign.isspace() for sign in start) > 0.9 * len(start)
        ):
            starts.append((sum(map(str.isascii, start)) / len(start), name))
    if not starts:
        return None
    # in the wrong order of bytes spaces, digits and line ends are signs of Chinese
    name = max(starts, key=lambda one: one[0])[1]
    found = _as(content, name, 0.95)
    return None if "\0" in found.text else found


def _is_plain(content: bytes) -> bool:
    """Whether bytes are UTF-8 without controls, which letters of other scripts have as one of their two bytes."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if error.start <= len(content) - 4:  # not just a sign that the sample cuts off
            return False
    return _CONTROLS.search(content) is None
