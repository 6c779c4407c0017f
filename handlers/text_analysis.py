"""Analyzes a text: its language, its size, its readability, its key phrases."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import syllapy

from handlers import english, language, markup, models
from handlers.documents import prose

MAX_PHRASES = 10
MAX_CANDIDATES = 50
"""Noun phrases among which the key phrases are chosen: the most frequent, and of these the first."""
MAX_READ_CHARACTERS = 20_000
"""Key phrases are looked for in so much of a text; parsing it takes half a second."""
NOVELTY = 0.3
"""How much a phrase loses for being like one that was chosen before (maximal marginal relevance, Carbonell 1998)."""
_MAX_WORD_CHARACTERS = 40
_BLANK_LINE = re.compile(r"(?:\r\n|\r|\n)[^\S\r\n]*(?:\r\n|\r|\n)\s*")
"""However a system ends its lines; a line of nothing but spaces is blank."""


def analyze(text: str) -> tuple[dict[str, Any], tuple[models.UsedModel, ...]]:
    """Counts and language of any text; readability and key phrases of English ones, null for others.

    All but ``characters`` is about what a person sees of it, without mark-up.

    Returns:
        The answer, and the models that it rests on.
    """
    seen = markup.see(text).text
    spoken = language.detect(seen)
    words = prose.words(seen)
    code = spoken["code"]
    sentences = len(prose.sentences(seen, code if isinstance(code, str) else None))
    is_english = code == "en" and bool(words)
    answer = {
        "language": spoken,
        "characters": len(text),
        "words": len(words),
        "distinct_words": len({word.casefold() for word in words}),
        "sentences": sentences,
        "paragraphs": sum(1 for part in _BLANK_LINE.split(seen) if part.strip()),
        "words_per_sentence": round(len(words) / max(sentences, 1), 2),
        "characters_per_word": round(sum(map(len, words)) / max(len(words), 1), 2),
        "readability": readability(words, sentences) if is_english else None,
        "key_phrases": key_phrases(seen) if is_english else None,
    }
    return answer, (*_identifiers(), english.used(), models.encoder().used) if is_english else _identifiers()


def _identifiers() -> tuple[models.UsedModel, ...]:
    return (models.UsedModel(name="py3langid", digest=models.digest_of_file(language.LANGID_FILE)),)


def readability(words: list[str], sentences: int) -> dict[str, float]:
    """Readability of an English text, by five published formulas.

    Sources: Flesch 1948; Kincaid et al. 1975; Gunning 1952; Senter and Smith 1967 (ARI); Coleman and Liau 1975.

    Args:
        words: at least one.
        sentences: how many.
    """
    count, sentences = len(words), max(sentences, 1)
    syllables = [count_syllables(word) for word in words]
    length, letters = count / sentences, sum(map(len, words)) / count
    weight = sum(syllables) / count
    hard = sum(1 for number in syllables if number >= 3) / count
    found = {
        "flesch_reading_ease": 206.835 - 1.015 * length - 84.6 * weight,
        "flesch_kincaid_grade": 0.39 * length + 11.8 * weight - 15.59,
        "gunning_fog": 0.4 * (length + 100 * hard),
        "automated_readability_index": 4.71 * letters + 0.5 * length - 21.43,
        "coleman_liau_index": 5.88 * letters - 29.6 / length - 15.8,
    }
    return {name: round(value, 1) for name, value in found.items()}


def count_syllables(word: str) -> int:
    """Syllables of an English word, at least one; its parts between hyphens count for themselves."""
    return sum(max(syllapy.count(part[:_MAX_WORD_CHARACTERS]), 1) for part in word.split("-"))


def key_phrases(text: str) -> list[dict[str, Any]]:
    """The noun phrases nearest to what a text is about, best first, each unlike those before it.

    ``score`` is the cosine between a phrase and the text, ``count`` how often it is there.
    """
    read = text[:MAX_READ_CHARACTERS]
    candidates = _candidates(read)
    if not candidates:
        return []
    encoder = models.encoder()
    directions = np.stack([encoder.embed(phrase) for phrase, _ in candidates])
    nearness = directions @ encoder.embed(read)
    likeness = directions @ directions.T
    return [
        {"text": candidates[at][0], "count": candidates[at][1], "score": round(max(float(nearness[at]), 0.0), 4)}
        for at in _choose(nearness, likeness, min(MAX_PHRASES, len(candidates)))
    ]


def _candidates(text: str) -> list[tuple[str, int]]:
    """(phrase as it is first written, how often it is there)."""
    found: dict[str, tuple[str, int]] = {}
    for lemmas, words in english.noun_phrases(text):
        first, count = found.get(lemmas, (" ".join(words.split()), 0))
        found[lemmas] = (first, count + 1)
    return sorted(found.values(), key=lambda item: -item[1])[:MAX_CANDIDATES]


def _choose(nearness: models.Vector, likeness: models.Vector, count: int) -> list[int]:
    chosen = [int(nearness.argmax())]
    while len(chosen) < count:
        worth = (1 - NOVELTY) * nearness - NOVELTY * likeness[:, chosen].max(axis=1)
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
    return chosen
