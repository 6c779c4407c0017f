"""Puts the columns of vertical writing in the order in which they are read: from right to left.

pdfium reads columns that begin at one height as it reads the words of a line: from left to right.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from handlers.documents.reading import FIRST_EAST_ASIAN

_BESIDE = 0.3
"""Of the size of a sign: what is drawn no further aside stands in one column, or no further up or down in one line."""
_MOST = 0.5
"""The share of neighbours that stand below each other, from which on a page is written so."""


class _Sign(NamedTuple):
    text: str
    x: float
    y: float
    size: float
    place: int


class _Piece:
    """Signs that stand below each other, or beside."""

    def __init__(self, first: _Sign) -> None:
        self.signs = [first]
        self.is_column = False

    def takes(self, sign: _Sign, *, is_next: bool) -> bool:
        """Add a sign, if it goes on where this ends; ``is_next`` if no line ended between."""
        last, near = self.signs[-1], self.signs[-1].size * _BESIDE
        below = abs(sign.x - last.x) <= near and sign.y < last.y
        beside = abs(sign.y - last.y) <= near and sign.x > last.x
        if not is_next or not (below or (beside and not self.is_column)) or (below and self._is_line):
            return False
        self.is_column = self.is_column or below
        self.signs.append(sign)
        return True

    @property
    def _is_line(self) -> bool:
        return len(self.signs) > 1 and not self.is_column

    def stands_beside(self, other: _Piece) -> bool:
        """Whether both are columns, and some of each is at one height."""
        if not (self.is_column and other.is_column):
            return False
        return self.signs[0].y > other.signs[-1].y and other.signs[0].y > self.signs[-1].y

    @property
    def text(self) -> str:
        """What they say."""
        return "".join(sign.text for sign in self.signs).strip()


def in_order(text_page: pypdfium2.PdfTextPage, text: str) -> str | None:
    """The text of a page that is written vertically, a column a line; None if it is not.

    Args:
        text_page: of pdfium.
        text: as pdfium gives it, with a character for each of the page's.
    """
    if len(text) != text_page.count_chars() or not any(map(_is_east_asian, text)):
        return None
    pieces, below, all_pairs = _pieces(_signs(text_page, text))
    if not below or below < _MOST * all_pairs:
        return None
    return "\n".join(piece.text for group in _groups(pieces) for piece in group)


def _signs(text_page: pypdfium2.PdfTextPage, text: str) -> Iterator[_Sign]:
    x, y = ctypes.c_double(), ctypes.c_double()
    for place, sign in enumerate(text):
        if sign not in "\r\n" and pdfium.FPDFText_IsGenerated(text_page, place) != 1:
            pdfium.FPDFText_GetCharOrigin(text_page, place, x, y)
            size = pdfium.FPDFText_GetFontSize(text_page, place)
            yield _Sign(sign, x.value, y.value, size, place)


def _pieces(signs: Iterator[_Sign]) -> tuple[list[_Piece], int, int]:
    """The pieces; and of the pairs of East Asian neighbours how many stand below each other, and how many there are."""
    pieces: list[_Piece] = []
    below = pairs = 0
    for sign in signs:
        last = pieces[-1].signs[-1] if pieces else None
        is_next = last is not None and sign.place == last.place + 1
        taken = last is not None and pieces[-1].takes(sign, is_next=is_next)
        if not taken:
            pieces.append(_Piece(sign))
        if last is not None and is_next and _is_east_asian(sign.text) and _is_east_asian(last.text):
            pairs += taken
            below += taken and pieces[-1].is_column
    return pieces, below, pairs


def _groups(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Columns that stand beside each other, from right to left; anything else by itself."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and not group[-1].stands_beside(piece):
            yield sorted(group, key=lambda one: -one.signs[0].x)
            group = []
        group.append(piece)
    yield sorted(group, key=lambda one: -one.signs[0].x)


def _is_east_asian(sign: str) -> bool:
    return ord(sign[0]) >= FIRST_EAST_ASIAN
