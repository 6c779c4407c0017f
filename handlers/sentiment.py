"""The sentiment of an English text: VADER's lexicon and rules, and a trained head over a sentence encoder.

The head is a multinomial logistic regression (``trained/sentiment.json``) over what VADER says of a text, the text's
words and pairs of words, and the encoder's vector. Where the encoder is not granted, it is over VADER alone. For a text
as people write it in social media, which VADER was made for, VADER's own label counts, too.
tests/quality has the program that trains it, its data and how good it is.

Source: Hutto and Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, 2014.
"""

from __future__ import annotations

import functools
import itertools
import re
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
MAX_WHOLE_CHARACTERS = 280
"""A text of no more is read as a whole, as those were that the head was trained on; a longer one by its sentences."""
MIN_KNOWN_SHARE = 0.5
"""Of the words of a text of an unknown language; where the head knows fewer, it is not English."""
CASUAL_SHARE = 0.3
"""Of VADER's own label in the answer for a casual text; chosen over a fifth of the training's documents."""
VADER_NEUTRAL = 0.05
"""VADER's authors call a compound score beyond ± this positive or negative."""
_CASUAL = re.compile(
    r"[@#]\w|https?:|[:;=8][-o*']?[)(\]\[dDpP/\\|]|<3|[!?]{2}|\.\.|[\u2190-\U0010ffff]|(.)\1\1"
    r"|\b(?:lol|haha+|omg|u|ur|im|lmao|wtf|gonna|gotta|ya|yay|ugh|aww+|rt|thx|xx+)\b",
    re.IGNORECASE,
)
"""Names of users, tags, addresses, emoticons and emoji, marks and letters that are repeated, words of chats."""
_WORD = re.compile(r"[^\W\d_][\w']*|[!?]")
_LEXICON_KEYS = ("compound", "pos", "neg")

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Regression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One logistic regression."""

    weights: list[list[float]]
    """For each label, in the order of ``LABELS``, one for each feature: first the lexicon's three, then the vector."""
    bias: list[float]
    phrases: dict[str, tuple[int, int, int]] = msgspec.field(default_factory=dict)
    """A word or a pair of words → its weight for each label, in thousandths."""


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
    positive less that of negative. The sentences of a longer text count alike. All but ``language`` are null, and
    ``scores`` is empty, where nothing is known: of a language other than English, and of a text of an unknown language
    of which no word and no emoji is in the lexicon, and fewer than half of the words are known to the head.

    Raises:
        Refusal: the encoder cannot be used.
    """
    seen = markup.see(text).text
    spoken = language.detect(seen)
    parts = _parts(seen)
    felt = np.array([_by_lexicon(part) for part in parts])
    if spoken["code"] not in ("en", None) or (spoken["code"] is None and not felt.any() and not _knows(parts)):
        return Sentiment({**_unknown(), "language": spoken}, (lexicon(),))
    # an emoji is nothing to the encoder, but the lexicon knows it
    encoder = _encoder() if any(map(str.isalpha, seen)) else None
    if encoder is None:
        shares = _shares(felt, parts, head().lexicon_only)
    else:
        vectors = np.stack([encoder.embed(part) for part in parts])
        shares = _shares(np.hstack([felt, vectors]), parts, head().with_encoder)
        shares = np.array([_as_it_is_written(*one) for one in zip(parts, felt, shares, strict=True)])
    used = (lexicon(), *([encoder.used] if encoder else []), trained())
    return Sentiment({**_answer(shares.mean(axis=0)), "language": spoken}, used)


def _parts(seen: str) -> list[str]:
    """A short text, or the sentences of a longer one."""
    if len(seen) <= MAX_WHOLE_CHARACTERS:
        return [seen.strip()]
    sentences = [sentence[:MAX_SENTENCE_CHARACTERS] for sentence in prose.sentences(seen, "en") or [seen.strip()]]
    return models.spread(sentences, MAX_SENTENCES)


def _knows(parts: list[str]) -> bool:
    """Whether the head has met most of the words."""
    words = [word for part in parts for word in _WORD.findall(part.casefold()) if word[0].isalpha()]
    known = sum(word in head().with_encoder.phrases for word in words)
    return bool(words) and known >= MIN_KNOWN_SHARE * len(words)


def phrases(text: str) -> set[str]:
    """The words of a text, its marks of exclamation and question, and each two of them that follow each other."""
    words = _WORD.findall(text.casefold())
    return {*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))}


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


def _shares(features: Numbers, parts: list[str], layer: Regression) -> Numbers:
    """A probability for each part and label."""
    worded = np.array([_by_phrases(part, layer) for part in parts])
    return models.softmax(features @ np.array(layer.weights).T + np.array(layer.bias) + worded)


def _as_it_is_written(part: str, felt: Numbers, shares: Numbers) -> Numbers:
    """The shares; of a casual text in part those of VADER's own label."""
    if not _CASUAL.search(part):
        return shares
    own: Numbers = np.eye(len(LABELS))[vader_label(felt[0])]
    return (1 - CASUAL_SHARE) * shares + CASUAL_SHARE * own


def vader_label(compound: float) -> int:
    """What VADER's authors call a compound score, a place in ``LABELS``."""
    return 2 if compound >= VADER_NEUTRAL else 0 if compound <= -VADER_NEUTRAL else 1


def _by_phrases(part: str, layer: Regression) -> Numbers:
    """For each label the sum of the phrases' weights; the more there are, the less each counts."""
    known = [weights for phrase in phrases(part) if (weights := layer.phrases.get(phrase))]
    return np.sum(known, axis=0) / (1000 * np.sqrt(len(known))) if known else np.zeros(len(LABELS))


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
