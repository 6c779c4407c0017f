"""The sentiment of an English text: VADER's lexicon and rules, and a trained head over a sentence encoder.

The head is a multinomial logistic regression (``trained/sentiment.json``) over what VADER says of a sentence and,
where the encoder is granted, its vector. tests/quality has the program that trains it, its data and how good it is.

Source: Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, 2014.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from vaderSentiment import vaderSentiment as vader  # noqa: N813 its own name says the same twice

from handlers import language, markup, models
from handlers.documents import prose

HEAD_FILE = Path(__file__).with_name("trained") / "sentiment.json"
LABELS = ("negative", "neutral", "positive")
MAX_SENTENCES = 64
"""Of a longer text so many sentences are read, spread evenly over it: 1 s of one core."""
MAX_SENTENCE_CHARACTERS = 1000
_LEXICON_KEYS = ("compound", "pos", "neg")

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Regression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One logistic regression."""

    weights: list[list[float]]
    """For each label, in the order of ``LABELS``, one for each feature: first the lexicon's three, then the vector."""
    bias: list[float]


class HeadFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``trained/sentiment.json``."""

    about: str
    encoder: str
    """SHA-256 of the encoder's ``model.onnx`` that it was trained over."""
    with_encoder: Regression
    lexicon_only: Regression


class Sentiment(NamedTuple):
    """The answer for a text, and the models that it rests on."""

    value: dict[str, Any]
    used: tuple[models.UsedModel, ...]


def rate(text: str) -> dict[str, Any]:
    """``label``, ``score``, ``confidence``, ``scores`` and ``language`` of a text; see ``judge``."""
    return judge(text).value


def judge(text: str) -> Sentiment:
    """How a text feels.

    ``scores`` has a probability for each label, ``confidence`` is that of ``label``, ``score`` is the probability of
    positive less that of negative. Several sentences count alike. All but ``language`` are null, and ``scores`` is
    empty, where nothing is known: of a language other than English, and of a text of an unknown language in which no
    word and no emoji is in the lexicon.

    Raises:
        Refusal: the encoder cannot be used.
    """
    seen = markup.see(text).text
    spoken = language.detect(seen)
    sentences = [sentence[:MAX_SENTENCE_CHARACTERS] for sentence in prose.sentences(seen, "en") or [seen.strip()]]
    sentences = models.spread(sentences, MAX_SENTENCES)
    felt = np.array([_by_lexicon(sentence) for sentence in sentences])
    if spoken["code"] not in ("en", None) or (spoken["code"] is None and not felt.any()):
        return Sentiment({**_unknown(), "language": spoken}, (lexicon(),))
    # an emoji is nothing to the encoder, but the lexicon knows it
    encoder = _encoder() if any(map(str.isalpha, seen)) else None
    if encoder is None:
        shares = _shares(felt, head().lexicon_only)
    else:
        vectors = np.stack([encoder.embed(sentence) for sentence in sentences])
        shares = _shares(np.hstack([felt, vectors]), head().with_encoder)
    used = (lexicon(), *([encoder.used] if encoder else []), trained())
    return Sentiment({**_answer(shares.mean(axis=0)), "language": spoken}, used)


def _encoder() -> models.FirstTokenEncoder | None:
    encoder = models.sentiment_encoder()
    if encoder is not None and encoder.used.digest != head().encoder:
        raise models.unusable(encoder.name, f"its model.onnx is not the one that {HEAD_FILE.name} was trained over")
    return encoder


def _answer(shares: Numbers) -> dict[str, Any]:
    scores = {label: round(float(share), 4) for label, share in zip(LABELS, shares, strict=True)}
    label = max(scores, key=lambda name: scores[name])
    score = round(scores["positive"] - scores["negative"], 4)
    return {"label": label, "score": score, "confidence": scores[label], "scores": scores}


def _unknown() -> dict[str, Any]:
    return {"label": None, "score": None, "confidence": None, "scores": {}}


def _shares(features: Numbers, layer: Regression) -> Numbers:
    """A probability for each sentence and label."""
    return models.softmax(features @ np.array(layer.weights).T + np.array(layer.bias))


def _by_lexicon(sentence: str) -> list[float]:
    """What VADER says of a sentence; nothing but zeros where it knows no word of it."""
    found = analyzer().polarity_scores(sentence)
    return [found[key] for key in _LEXICON_KEYS]


def lexicon() -> models.UsedModel:
    """VADER, and the digest of its lexicon."""
    place = Path(vader.__file__).with_name("vader_lexicon.txt")
    return models.UsedModel(name="vader", digest=models.digest_of_file(place))


def trained() -> models.UsedModel:
    """The head, and the digest of its weights."""
    return models.UsedModel(name="sentiment-head", digest=models.digest_of_file(HEAD_FILE))


@functools.cache
def head() -> HeadFile:
    """The trained weights."""
    return msgspec.json.decode(HEAD_FILE.read_bytes(), type=HeadFile)


@functools.cache
def analyzer() -> vader.SentimentIntensityAnalyzer:
    """VADER with its lexicon."""
    return vader.SentimentIntensityAnalyzer()
