"""Words and sentences of a text, by sentencex, offline."""

from __future__ import annotations

import re
from typing import Any

import sentencex

from handlers import language

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:(?:['\u2019-]|(?<=\d)[.,](?=\d))[^\W_{_CJK}]+)*")


def words(text: str) -> list[str]:
    """Runs of letters and digits, with apostrophes, hyphens and decimal points inside them.

    Each Chinese or Japanese sign is one.
    """
    return _WORD.findall(text)


def sentences(text: str, code: str | None) -> list[str]:
    """The sentences of a text that have a word in them.

    Args:
        code: language, ISO 639-1; None if unknown.
    """
    found = (sentence.strip() for sentence in sentencex.segment(code or "en", text))
    return [sentence for sentence in found if _WORD.search(sentence)]


def measure(text: str) -> dict[str, Any]:
    """Characters, words and sentences of a text, and its language."""
    spoken = language.detect(text)
    return {
        "characters": len(text),
        "words": sum(1 for _ in _WORD.finditer(text)),
        "sentences": len(sentences(text, known_code(spoken))),
        "language": spoken,
    }


def known_code(spoken: dict[str, str | float | None]) -> str | None:
    """The code of a language that ``language.detect`` found; None where it found none."""
    code = spoken["code"]
    return code if isinstance(code, str) else None
