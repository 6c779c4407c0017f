"""Puts a text into one of some categories, without training: the one whose name is nearest to it.

The sentence encoder makes a vector of the text and of a sentence about each category; the nearest wins.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from handlers import models

CATEGORIES = (
    "business", "education", "entertainment", "environment", "health", "politics", "science", "sports", "technology",
    "travel",
)  # fmt: skip
"""The categories unless a request names its own."""
HYPOTHESIS = "This text is about {}."
SCALE = 20.0
"""Turns cosines into logits: what the encoder was trained with (its model card, scaled cosine similarity)."""
MAX_SHOWN = 20


def classify(text: str, categories: tuple[str, ...] = CATEGORIES) -> dict[str, Any]:
    """The best category, and the probabilities of the 20 best; no label for a text of nothing but space."""
    if not text.strip():
        return best({})
    cosines = _directions(categories) @ models.encoder().embed(text)
    shares = models.softmax(SCALE * cosines.astype(np.float64))
    return best(dict(zip(categories, shares.tolist(), strict=True)))


def best(scores: dict[str, float]) -> dict[str, Any]:
    """``label`` and ``score`` of the likeliest, and ``scores`` of the likeliest 20, best first."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])[:MAX_SHOWN]
    label, score = ranked[0] if ranked else (None, 0.0)
    return {"label": label, "score": round(score, 4), "scores": {name: round(share, 4) for name, share in ranked}}


@functools.cache
def _directions(categories: tuple[str, ...]) -> models.Vector:
    """One vector for each category."""
    return np.stack([models.encoder().embed(HYPOTHESIS.format(category)) for category in categories])
