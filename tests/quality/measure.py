"""How good the models are on labelled texts, beside what one would use instead on the same texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from handlers import english, language, sentiment, zero_shot
from tests.quality.sources import Named, Rated

NEGATION = re.compile(r"\b(?:not|no|never|nothing|nobody|none|hardly|without|cannot)\b|n't\b", re.IGNORECASE)


class Figure(NamedTuple):
    """A line of the report."""

    about: str
    texts: int
    ours: float
    peer: float
    peer_name: str

    def __str__(self) -> str:
        return f"| {self.about} | {self.texts:,} | {self.ours:.1%} | {self.peer:.1%} ({self.peer_name}) |"


def share(right: Iterable[bool]) -> float:
    """Of how many something holds."""
    found = list(right)
    return sum(found) / max(len(found), 1)


# ---- sentiment --------------------------------------------------------------------------------------------------


def felt(rows: Sequence[Rated]) -> list[tuple[float, str]]:
    """(score, label) of each; a text that is not answered has the score 0 and counts as neutral."""
    answers = [sentiment.rate(row.text) for row in rows]
    return [(answer["score"] or 0.0, answer["label"] or "neutral") for answer in answers]


def felt_by_lexicon(rows: Sequence[Rated]) -> list[tuple[float, str]]:
    """The same by VADER as its authors use it."""
    scores = [sentiment.analyzer().polarity_scores(row.text)["compound"] for row in rows]
    return [(score, sentiment.LABELS[sentiment.vader_label(score)]) for score in scores]


def two_classes(rows: Sequence[Rated], answers: Sequence[tuple[float, str]]) -> float:
    """Right of those that people did not feel to be exactly neutral: the sign of the score is that of the rating."""
    pairs = [(row.rating, score) for row, (score, _) in zip(rows, answers, strict=True) if row.rating]
    return share(score * rating > 0 for rating, score in pairs)


def three_classes(rows: Sequence[Rated], answers: Sequence[tuple[float, str]]) -> float:
    """Right of all; a mean rating beyond ±0.5 is not neutral."""
    return share(row.label == label for row, (_, label) in zip(rows, answers, strict=True))


def of_sentiment(rows: Sequence[Rated], about: str) -> list[Figure]:
    """Two classes, three classes, and two where the sentence has a negation."""
    ours, peer = felt(rows), felt_by_lexicon(rows)
    at = [number for number, row in enumerate(rows) if NEGATION.search(row.text)]
    negated = [rows[number] for number in at]
    ours_there, peer_there = ([said[number] for number in at] for said in (ours, peer))
    return [
        Figure(f"sentiment, {about}, two classes", len(rows), two_classes(rows, ours),
               two_classes(rows, peer), "VADER"),
        Figure(f"sentiment, {about}, three classes", len(rows), three_classes(rows, ours),
               three_classes(rows, peer), "VADER"),
        Figure(f"sentiment, {about}, two classes, with a negation", len(negated), two_classes(negated, ours_there),
               two_classes(negated, peer_there), "VADER"),
    ]  # fmt: skip


# ---- language ---------------------------------------------------------------------------------------------------

Detector = Callable[[str], str | None]


def by_langid(text: str) -> str | None:
    """py3langid alone, which always answers."""
    return str({"nb": "no", "nn": "no"}.get(code := language._identifier().classify(text)[0], code))


def answer_of(text: str) -> str | None:
    """The code that is answered."""
    code = language.detect(text)["code"]
    return None if code is None else str(code)


def answered(texts: Sequence[tuple[str, str]], detect: Detector) -> tuple[float, float]:
    """(how many are answered, how many of these are right) of (language, text)."""
    found = [(code, detect(text)) for code, text in texts]
    given = [(code, said) for code, said in found if said is not None]
    return len(given) / max(len(found), 1), share(code == said for code, said in given)


# ---- topics -----------------------------------------------------------------------------------------------------


def by_words(text: str, categories: Sequence[str]) -> str:
    """The first category of which a word is in the text; the first of all without any."""
    words = set(re.findall(r"\w+", text.casefold()))
    return next((name for name in categories if words & set(re.findall(r"\w{3,}", name.casefold()))), categories[0])


def of_topics(rows: Sequence[tuple[str, str]], about: str) -> Figure:
    """One category for each text of (category, text)."""
    categories = tuple(sorted({category for category, _ in rows}))
    said = [zero_shot.classify(text, categories)["label"] for _, text in rows]
    peer = [by_words(text, categories) for _, text in rows]
    wanted = [category for category, _ in rows]
    right, by_peer = (share(one == two for one, two in zip(wanted, given, strict=True)) for given in (said, peer))
    return Figure(f"classification, {about}", len(rows), right, by_peer, "a word of the category in the text")


# ---- names ------------------------------------------------------------------------------------------------------

KINDS = {"PERSON": "person", "GPE": "geo-loc", "LOC": "geo-loc"}
"""spaCy's labels that mean the same as those of the tweets; a company is only a part of ORG."""
_CAPITALS = re.compile(r"\b[A-Z][a-z]+(?: [A-Z][a-z]+)*")


def f1(wanted: Sequence[set[tuple[int, int, str]]], given: Sequence[set[tuple[int, int, str]]]) -> float:
    """F1 of names with kind and exact place."""
    right = sum(len(one & two) for one, two in zip(wanted, given, strict=True))
    return 2 * right / max(sum(map(len, wanted)) + sum(map(len, given)), 1)


def of_names(rows: Sequence[Named]) -> Figure:
    """People and places; the peer takes each run of words with capitals for a person."""
    wanted = [{name for name in row.names if name[2] in KINDS.values()} for row in rows]
    said = [
        {(name["start"], name["end"], KINDS[name["label"]]) for name in found if name["label"] in KINDS}
        for found in (english.entities(row.text, language.detect(row.text)) or [] for row in rows)
    ]
    peer = [{(run.start(), run.end(), "person") for run in _CAPITALS.finditer(row.text)} for row in rows]
    count = sum(map(len, wanted))
    return Figure("entities, people and places in tweets, F1", count, f1(wanted, said), f1(wanted, peer), "capitals")
