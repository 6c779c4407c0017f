"""Reads plain text: from a string, or from bytes whose encoding is found out."""

from __future__ import annotations

import re
from typing import Any

from handlers.documents.reading import Allowance, DocumentText, clean, flow, looks_like
from handlers.encodings import Decoded, decode
from handlers.failures import Refusal

MAX_HEADINGS = 1000
_CONTROLS = frozenset(map(chr, (*range(9), *range(14, 27), *range(28, 32), 127)))
_SAMPLE = 100_000
_MOST_CONTROLS = 0.01
"""The share of control characters from which on content is no text."""
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
        self._found = None if isinstance(content, str) else _read(content, encoding)
        self._text = clean(content if isinstance(content, str) else self._found.text if self._found else "")

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
        if self._found is None:
            return {"encoding": None, "encoding_confidence": None, "unreadable_characters": 0}
        return {
            "encoding": self._found.encoding,
            "encoding_confidence": self._found.confidence,
            "unreadable_characters": self._found.unreadable,
        }


def _read(content: bytes, encoding: str | None) -> Decoded:
    """The text, and the encoding that it is in.

    Raises:
        Refusal: it is none, or not in the encoding that is given.
    """
    if (kind := looks_like(content)) is not None:
        raise _no_text(f"looks like {kind}")
    if encoding is not None:
        try:
            return Decoded(content.decode(encoding), encoding, 1, 0)
        except UnicodeDecodeError as error:
            raise Refusal(
                "wrong_encoding",
                f"The content is not {encoding} (byte {error.start}); leave `encoding` out to have it found.",
            ) from None
    found = decode(content)
    if found is None:
        raise _no_text("has zero bytes")
    if sum(sign in _CONTROLS for sign in found.text[:_SAMPLE]) > _MOST_CONTROLS * min(len(found.text), _SAMPLE):
        raise _no_text("has bytes that are no text in any usual encoding")
    return found


def _decode(content: bytes, encoding: str | None) -> tuple[str, str]:
    """The text, and the name of its encoding."""
    found = _read(content, encoding)
    return found.text, found.encoding


def _no_text(found: str) -> Refusal:
    return Refusal(
        "wrong_document_type",
        f"The content is not text: it {found}. Name its type by `document_type`, or its encoding by `encoding`.",
    )
