"""The sentiment of an English text, by VADER's lexicon and rules. Its package has the lexicon.

Source: Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, 2014.
"""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any

from vaderSentiment import vaderSentiment as vader  # noqa: N813 its own name says the same twice

from handlers import models
from handlers.documents import prose

THRESHOLD = 0.05
"""Beyond it a text is positive or negative. The value is VADER's authors' own."""


def used() -> models.UsedModel:
    """VADER, and the digest of its lexicon."""
    return models.UsedModel(
        name="vader", digest=models.digest_of_file(Path(vader.__file__).with_name("vader_lexicon.txt"))
    )


def rate(text: str) -> dict[str, Any]:
    """``label``, ``score`` from -1 (negative) to 1, and ``scores``: the shares of positive, neutral and negative words.

    VADER is made for sentences: of several, the means are taken.
    """
    rated = [_analyzer().polarity_scores(sentence) for sentence in prose.sentences(text, "en") or [text]]
    means = {key: statistics.fmean(sentence[key] for sentence in rated) for key in ("compound", "pos", "neu", "neg")}
    score = round(means["compound"], 4)
    return {
        "label": "positive" if score >= THRESHOLD else "negative" if score <= -THRESHOLD else "neutral",
        "score": score,
        "scores": {name: round(means[name[:3]], 4) for name in ("positive", "neutral", "negative")},
    }


@functools.cache
def _analyzer() -> vader.SentimentIntensityAnalyzer:
    return vader.SentimentIntensityAnalyzer()
