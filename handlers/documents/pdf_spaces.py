"""Puts spaces back that pdfium loses: between two words that are set apart by more than letters are.

pdfium writes a space where the file has one, and mostly where two letters stand apart. Not where the file widens all
letters of a piece of text (ISO 32000-1, 9.3.2), as Ghostscript does instead of a space: ``given as a`` came out as
``givenasa``. Here two letters of one line belong to two words if the gap between them is wide, by itself and beside the
other gaps of that line, so that a heading whose letters are all set apart stays one word. There pdfium puts spaces
where there are none, before the last letter of a word: these go.
"""

from __future__ import annotations

import ctypes
import re
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from handlers.documents.reading import FIRST_EAST_ASIAN

WIDE = 0.2
"""Of the height of a letter: a space has about 0.25 to 0.3, and letters have less than 0.05 between them."""
_APART, _EVEN = 0.1, 0.05
"""Of the height: the gap of letters that are all set apart; and how much more none of them has within a word."""
_MOST_OF_A_LINE = 0.8
"""Of the letters of a line that is set as a typewriter sets it, so many are equally far from the next."""
_MOST_RAISED = 12
"""Characters that are raised or lowered together, such as the numbers of notes."""
_NEAR = 0.6
"""Of the height: what follows a raised sign in its line stands no further away."""
_LEVEL = 0.1
"""Of the height: letters whose baselines differ by no more stand in one line."""


class _Gap(NamedTuple):
    place: int
    """Index of the character behind it."""
    width: float
    """Of the height of the letter before it."""
    advance: float
    """From the origin of that letter to the next one's, likewise."""
    space: int | None = None
    """Index of the space that pdfium has put there."""


def restore(text_page: pypdfium2.PdfTextPage, text: str) -> str:
    """The text of a page, with a space at each wide gap that has none.

    Args:
        text: as pdfium gives it, with a character for each of the page's. Any other text stays as it is.
    """
    if len(text) != text_page.count_chars():
        return text
    dropped = {place for end in _false_ends(text_page, text) for place in (end, end + 1)}
    lost: set[int] = set()
    for line in _lines(text_page, text):
        wide, even = _wide_and_even(line)
        lost.update(wide)
        dropped.update(even)
    if not dropped and not lost:
        return text
    return "".join("" if place in dropped else f" {sign}" if place in lost else sign for place, sign in enumerate(text))


def _false_ends(text_page: pypdfium2.PdfTextPage, text: str) -> list[int]:
    """Where pdfium ends a line behind a raised or lowered sign, and the line goes on: places of its line ends."""
    ends = (end for end in re.finditer(r"\r\n", text) if end.start() > 0 and end.end() < len(text))
    return [end.start() for end in ends if _goes_on(text_page, text, end)]


def _goes_on(text_page: pypdfium2.PdfTextPage, text: str, end: re.Match[str]) -> bool:
    raised, after = _Placed.of(text_page, end.start() - 1), _Placed.of(text_page, end.end())
    if abs(after.base - raised.base) <= _LEVEL * after.size or raised.size >= after.size:
        return False
    begin = max(text.rfind("\n", 0, end.start()) + 1, end.start() - _MOST_RAISED)
    for place in range(end.start() - 2, begin - 1, -1):
        before = _Placed.of(text_page, place)
        if abs(before.base - raised.base) > _LEVEL * before.size:
            is_level = abs(before.base - after.base) <= _LEVEL * before.size and before.size > raised.size
            return is_level and -_NEAR <= (after.left - raised.right) / after.size <= _NEAR
    return False


class _Placed(NamedTuple):
    """Where a character stands."""

    left: float
    right: float
    base: float
    size: float

    @classmethod
    def of(cls, text_page: pypdfium2.PdfTextPage, place: int) -> _Placed:
        """One of a page's characters."""
        box, x, y = pdfium.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
        pdfium.FPDFText_GetLooseCharBox(text_page, place, box)
        pdfium.FPDFText_GetCharOrigin(text_page, place, x, y)
        return cls(box.left, box.right, y.value, max(box.top - box.bottom, 0.001))


def _wide_and_even(line: list[_Gap]) -> tuple[list[int], list[int]]:
    """Where words end that no space ends; and the spaces that stand between letters no further apart than others."""
    between = [gap for gap in line if gap.space is None]
    if not between:
        return [], []
    usual = max(statistics.median_low(gap.width for gap in between), 0.0)
    wide = [gap.place for gap in between if gap.width - usual >= WIDE]
    if usual < _APART:
        return wide, []
    pitch = statistics.median_low(gap.advance for gap in between)
    is_typed = sum(_is_near(gap.advance, pitch) for gap in between) >= _MOST_OF_A_LINE * len(between)
    even = [
        gap.space
        for gap in line
        if gap.space is not None and (gap.width - usual < _EVEN or (is_typed and _is_near(gap.advance, pitch)))
    ]
    return wide, even


def _is_near(advance: float, pitch: float) -> bool:
    return abs(advance - pitch) <= _EVEN * abs(pitch)


def _lines(text_page: pypdfium2.PdfTextPage, text: str) -> Iterator[list[_Gap]]:
    """The gaps between neighbours of each line; none at a space, nor beside East Asian signs."""
    box, x, y = pdfium.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
    line: list[_Gap] = []
    right = height = base = at = 0.0
    before, space = " ", None
    for place, sign in enumerate(text):
        if sign in "\r\n":
            if line:
                yield line
            line, before = [], " "
            continue
        if sign == " " and pdfium.FPDFText_IsGenerated(text_page, place) == 1:
            space = place
            continue
        pdfium.FPDFText_GetLooseCharBox(text_page, place, box)
        pdfium.FPDFText_GetCharOrigin(text_page, place, x, y)
        if _is_letter(before) and _is_letter(sign) and height > 0 and abs(y.value - base) <= _LEVEL * height:
            line.append(_Gap(place, (box.left - right) / height, (x.value - at) / height, space))
        space = None
        before, right, height, base, at = sign, box.right, box.top - box.bottom, y.value, x.value
    if line:
        yield line


def _is_letter(sign: str) -> bool:
    return not sign.isspace() and sign.isprintable() and ord(sign) < FIRST_EAST_ASIAN
