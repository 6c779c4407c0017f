"""Puts a text into one of some categories, without training: the one whose name is nearest to it.

The sentence encoder makes a vector of the text and of a sentence about each category; the nearest wins.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from handlers import language, markup, models
from handlers.parameters.models import spelled

CATEGORIES = (
    "business", "education", "entertainment", "environment", "health", "politics", "science", "sports", "technology",
    "travel",
)  # fmt: skip
"""The categories unless a request names its own."""
HYPOTHESIS = "This text is about {}."
SCALE = 20.0
"""Turns cosines into logits: what the encoder was trained with (its model card, scaled cosine similarity)."""
INDEPENDENT_SCALE, INDEPENDENT_MIDDLE = 12.0, 0.336
"""The logistic curve from a cosine to the probability that a category holds, whatever the others do.

Fitted to 400 descriptions of Debian packages with 15 categories, tests/quality says how well it does on 400 others.
"""
LEAST_SHARE = 0.5
"""A category holds from here on, where several can."""
MAX_SHOWN = 20


def classify(text: str, categories: tuple[str, ...] = CATEGORIES) -> dict[str, Any]:
    """The best category, and the probabilities of the 20 best, which sum to 1 over all; and the text's ``language``.

    Nothing but the language is known of a text without words, and of one in another language than English.
    """
    seen, spoken = _read(text)
    if seen is None:
        return {**best({}), "language": spoken}
    shares = models.softmax(SCALE * _cosines(seen, categories))
    return {**best(dict(zip(categories, shares.tolist(), strict=True))), "language": spoken}


def classify_each(text: str, categories: tuple[str, ...] = CATEGORIES) -> dict[str, Any]:
    """Each category for itself: ``labels`` are those that hold, best first, ``scores`` are independent."""
    seen, spoken = _read(text)
    if seen is None:
        return {"labels": None, "scores": {}, "language": spoken}
    shares = 1 / (1 + np.exp(-INDEPENDENT_SCALE * (_cosines(seen, categories) - INDEPENDENT_MIDDLE)))
    scores = best(dict(zip(categories, shares.tolist(), strict=True)))["scores"]
    return {"labels": [name for name, share in scores.items() if share >= LEAST_SHARE], "scores": scores,
            "language": spoken}  # fmt: skip


def merged(categories: Iterable[str]) -> tuple[str, ...]:
    """Each category once, as it is first written: capital letters and spaces make no other one."""
    found: dict[str, str] = {}
    for category in categories:
        found.setdefault(spelled(category), " ".join(category.split()))
    return tuple(found.values())


def best(scores: dict[str, float]) -> dict[str, Any]:
    """``label`` and ``score`` of the likeliest, and ``scores`` of the likeliest 20, best first; null without any."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])[:MAX_SHOWN]
    label, score = ranked[0] if ranked else (None, None)
    shown = {name: round(share, 4) for name, share in ranked}
    return {"label": label, "score": None if score is None else round(score, 4), "scores": shown}


def _read(text: str) -> tuple[str | None, dict[str, Any]]:
    """(what the encoder is to read, the text's language); None where it would understand nothing."""
    seen = markup.see(text).text.strip()
    spoken = language.detect(seen)
    return (seen if any(map(str.isalnum, seen)) and spoken["code"] in ("en", None) else None), spoken


def _cosines(seen: str, categories: tuple[str, ...]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (_directions(categories) @ models.encoder().embed(seen)).astype(np.float64)
    return found


@functools.cache
def _directions(categories: tuple[str, ...]) -> models.Vector:
    """One vector for each category."""
    return np.stack([models.encoder().embed(HYPOTHESIS.format(category)) for category in categories])
