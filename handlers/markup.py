"""Takes the mark-up out of a text: models read what a person would see of it.

A text has mark-up if a tag of HTML or a character reference is in it; ``a < b`` and ``x <y> z`` are none.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from typing import NamedTuple

_BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|div|dl|dt|fieldset|figcaption|figure|footer|form|"
    "h[1-6]|head|header|hr|html|legend|li|main|nav|ol|option|p|pre|section|select|table|tbody|td|textarea|tfoot|th|"
    "thead|title|tr|ul"
)
_INLINE = (
    "a|abbr|acronym|audio|b|bdi|bdo|big|button|canvas|cite|code|data|del|dfn|em|embed|font|i|iframe|img|input|ins|"
    "kbd|label|link|mark|meta|object|q|rp|rt|ruby|s|samp|small|source|span|strike|strong|sub|sup|svg|template|time|"
    "tt|u|var|video|wbr"
)
_MARKUP = re.compile(
    r"<(?P<hidden>script|style)\b[^<>]*>.*?(?:</(?P=hidden)\s*>|\Z)"
    r"|<!--.*?(?:-->|\Z)|<!doctype\b[^<>]*>"
    rf"|</?(?P<block>{_BLOCKS})(?:\s[^<>]*)?/?>|</?(?:{_INLINE})(?:\s[^<>]*)?/?>"
    r"|&(?P<sign>\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});",
    re.DOTALL | re.IGNORECASE,
)
_WRAPS = re.compile(r"(?<![ \t])[ \t]*\r?\n[ \t]*")  # only from the first of a run of spaces, or it is quadratic
_LINE_WORDS = 3
"""A shorter line is an item of a list or a line of an address, rather than prose that goes on."""


class Piece(NamedTuple):
    """A part of what is seen that stands as it is in the source, or stands for something there."""

    text: str
    start: int
    end: int
    """Where it stands in the source."""


class Seen(NamedTuple):
    """What a person sees of a text, and where it stands there."""

    text: str
    pieces: tuple[Piece, ...]
    begins: tuple[int, ...]
    """Where each piece begins in ``text``."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The place in the source of ``text[start:end]``, which has a character at least."""
        return self._place(start)[0], self._place(end - 1)[1]

    def _place(self, at: int) -> tuple[int, int]:
        number = bisect_right(self.begins, at) - 1
        piece = self.pieces[number]
        if len(piece.text) != piece.end - piece.start:  # a reference, or the end of a line
            return piece.start, piece.end
        first = piece.start + at - self.begins[number]
        return first, first + 1


def see(text: str) -> Seen:
    """Leave tags out, put signs in the place of references and a blank line in that of a block's tag."""
    return _joined(_pieces(text))


def unwrap(text: str) -> Seen:
    """The same, and a line of prose that goes on in the next is one line with it: names do not end at a line's end."""
    pieces = []
    for piece in _pieces(text):
        if len(piece.text) != piece.end - piece.start:
            pieces.append(piece)
            continue
        done = 0
        for wrap in _WRAPS.finditer(piece.text):
            line = piece.text[max(piece.text.rfind("\n", done, wrap.start()) + 1, done) : wrap.start()]
            if _goes_on(line, piece.text[wrap.end() : wrap.end() + 1]):
                pieces.append(Piece(piece.text[done : wrap.start()], piece.start + done, piece.start + wrap.start()))
                pieces.append(Piece(" ", piece.start + wrap.start(), piece.start + wrap.end()))
                done = wrap.end()
        pieces.append(Piece(piece.text[done:], piece.start + done, piece.end))
    return _joined(pieces)


def _goes_on(line: str, after: str) -> bool:
    return bool(after.strip()) and len(line.split()) >= _LINE_WORDS and line[-1] not in ".!?:;"


def _pieces(text: str) -> list[Piece]:
    pieces, done = [], 0
    for found in _MARKUP.finditer(text):
        shown = _shown(found)
        if shown is None:
            continue
        pieces.append(Piece(text[done : found.start()], done, found.start()))
        pieces.append(Piece(shown, found.start(), found.end()))
        done = found.end()
    pieces.append(Piece(text[done:], done, len(text)))
    return pieces


def _shown(found: re.Match[str]) -> str | None:
    """What stands in the place of a tag or a reference; None if it is neither."""
    if found["sign"]:
        sign = html.unescape(found[0])
        return None if sign == found[0] else sign.replace("\xa0", " ")
    return "\n\n" if found["block"] else ""


def _joined(pieces: list[Piece]) -> Seen:
    kept, begins, length = [], [], 0
    for piece in pieces:
        if piece.text:
            kept.append(piece)
            begins.append(length)
            length += len(piece.text)
    return Seen("".join(piece.text for piece in kept), tuple(kept), tuple(begins))
