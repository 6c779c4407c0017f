"""Reads plain text: from a string, or from bytes whose encoding is found out."""

from __future__ import annotations

import codecs
import re
from typing import Any

import charset_normalizer

from handlers.documents.reading import Allowance, DocumentText, clean, flow, looks_like
from handlers.failures import Refusal

MAX_HEADINGS = 1000
_SAMPLE_BYTES = 1 << 16
_MARKS = (
    # UTF-32's first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_USUAL = "cp1252"
"""Wins over others that fit as well: it is the most widespread by far."""
_GUESSED = [
    _USUAL, "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_2", "iso8859_15", "koi8_r", "cp932", "euc_jp", "gb18030",
    "big5", "euc_kr", "utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be",
]  # fmt: skip
"""Without these bounds short texts are often taken for the encodings of old mainframes and telephones."""
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)


class TxtDocument:
    """A plain text."""

    def __init__(self, content: str | bytes, *, encoding: str | None) -> None:
        """
        Args:
            content: the text, or its bytes.
            encoding: of the bytes; None to find it out.
        Raises:
            Refusal: not text, or not in that encoding.
        """
        self._encoding: str | None = None
        if isinstance(content, str):
            text = content
        else:
            text, self._encoding = _decode(content, encoding)
        self._text = clean(text)
        self._unreadable = text.count("\ufffd") if self._encoding else 0

    def read(self, max_characters: int) -> DocumentText:
        """Its text; ``parts`` say in which encoding it was."""
        allowance = Allowance(max_characters)
        text = allowance.take(self._text)
        return DocumentText(text, allowance.exceeded, flow(text), self._origin())

    def facts(self) -> dict[str, Any]:
        """Facts beside its text. Headings are lines that begin with ``#``, as in Markdown."""
        found = (match for match, _ in zip(_HEADING.finditer(self._text), range(MAX_HEADINGS), strict=False))
        return {
            "lines": len(self._text.splitlines()),
            **self._origin(),
            "metadata": {},
            "headings": [{"level": len(match[1]), "text": match[2]} for match in found],
            "images": {"count": 0, "complete": True, "first": []},
        }

    def _origin(self) -> dict[str, Any]:
        return {"encoding": self._encoding, "unreadable_characters": self._unreadable}


def _decode(content: bytes, encoding: str | None) -> tuple[str, str]:
    """The text, and the encoding that it was in."""
    if (kind := looks_like(content)) is not None:
        raise _no_text(f"looks like {kind}")
    if encoding is not None:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError as error:
            raise Refusal(
                "wrong_encoding",
                f"The content is not {encoding} (byte {error.start}); leave `encoding` out to have it found.",
            ) from None
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    for name in [marked] if marked else ["utf-8"]:
        try:
            text = content.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, name.removesuffix("-sig")
    return _guess(content)


def _guess(content: bytes) -> tuple[str, str]:
    end = len(content)
    if end > _SAMPLE_BYTES:  # at a line's end, so that no character is cut in two
        end = content.rfind(b"\n", 0, _SAMPLE_BYTES) + 1 or _SAMPLE_BYTES
    found = charset_normalizer.from_bytes(content[:end], cp_isolation=_GUESSED)
    best = found.best()
    if best is None:
        raise _no_text("has bytes that are no text in any usual encoding")
    as_good = {one.encoding for one in found if (one.chaos, one.coherence) == (best.chaos, best.coherence)}
    encoding = _USUAL if _USUAL in as_good else best.encoding
    text = content.decode(encoding, errors="replace")
    if "\0" in text:
        raise _no_text("has zero bytes")
    return text, codecs.lookup(encoding).name


def _no_text(found: str) -> Refusal:
    return Refusal(
        "wrong_document_type",
        f"The content is not text: it {found}. Name its type by `document_type`, or its encoding by `encoding`.",
    )
