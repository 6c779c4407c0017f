"""The shared parts of the document readers: the form of their answers, how text is cut, how content is recognized."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Protocol

PDF = "a PDF document"
ZIP = "a zip archive, as docx files are"
OLE = "an old or an encrypted Office document"

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", PDF),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLE),
    (b"{\\rtf", "a Rich Text document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x1f\x8b\x08", "gzip-compressed"),
    (b"\xfd7zXZ\x00", "xz-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"\x7fELF", "a program"),
)
FIRST_EAST_ASIAN = 0x2E80
"""Signs from here on are written without spaces, and may stand below each other."""
UNREADABLE = "\ufffd"
"""Stands for a sign whose meaning the document does not say."""
# control characters other than tab and line feed, and what no text may hold: pdfium marks a broken word by the first
_NOT_TEXT = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127, 0xFFFE, 0xFFFF])


def looks_like(content: bytes) -> str | None:
    """Name the kind of content by its first bytes; None if they are not known."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP image"
    if content[4:8] == b"ftyp" and content[8:12] in (b"avif", b"avis"):
        return "an AVIF image"
    if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "a HEIC image"
    return next((name for beginning, name in _BEGINNINGS if content.startswith(beginning)), None)


def clean(text: str, *, keep: str = "") -> str:
    """Text with line feeds only, and no other control characters than tabs and those to ``keep``."""
    left_out = {code: None for code in _NOT_TEXT if chr(code) not in keep} if keep else _NOT_TEXT
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(left_out)


def flow(text: str) -> str:
    """Join lines that were broken for a page: single line feeds become spaces, empty lines part paragraphs."""
    lines = map(str.strip, text.split("\n"))
    return "\n\n".join(" ".join(group) for has_text, group in itertools.groupby(lines, key=bool) if has_text)


@dataclasses.dataclass(frozen=True)
class DocumentText:
    """The text of a document."""

    text: str
    truncated: bool
    """Whether there was more than asked for."""
    prose: str
    """The text without tables and without the line feeds of a page; paragraphs are parted by empty lines."""
    parts: dict[str, Any]
    """The same text by what the document is made of, e.g. ``{"pages": […]}``."""
    beside: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Those of the parts that are facts beside the text, too."""


class Document(Protocol):
    """The interface of a reader of one document type."""

    def read(self, max_characters: int) -> DocumentText:
        """Its text.

        Args:
            max_characters: no more is read.
        Raises:
            Refusal: a part of it is broken.
        """

    def facts(self) -> dict[str, Any]:
        """Facts beside its text: ``metadata``, ``headings``, ``images`` and counts of its document type."""


class Allowance:
    """Counts down how many characters may still be taken."""

    def __init__(self, characters: int) -> None:
        self._left = characters
        self.exceeded = False

    def take(self, text: str) -> str:
        """As much of a text as there is room for."""
        if len(text) > self._left:
            self.exceeded = True
            text = text[: self._left]
        self._left -= len(text)
        return text
