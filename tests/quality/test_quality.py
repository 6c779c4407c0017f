"""Floors of quality on small samples of what others labelled; README.md has the figures over all of it.

The samples are fixed, so that a figure moves only when a model, its weights or our rules do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers import sentiment, zero_shot
from tests.quality import measure
from tests.quality.sources import Rated
from tests.support.entry_process import ROOT

SAMPLES = Path(__file__).with_name("samples")


@pytest.fixture(autouse=True, scope="module")
def gathered() -> Iterator[None]:
    """The folder that ``make models`` fills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELS_DIR", str(ROOT / "models"))
        yield


def sample(name: str) -> list[list[str]]:
    """Rows of a sample."""
    rows: list[list[str]] = json.loads((SAMPLES / name).read_text(encoding="utf-8"))
    return rows


def rated(*named: str) -> list[Rated]:
    """The rated sentences of some sources, all for tests only."""
    rows = [Rated(source, document, float(rating), text) for source, document, rating, text in sample("rated.json")]
    assert all(row.for_test for row in rows)
    return [row for row in rows if row.source in named]


@pytest.mark.parametrize("source", ["films", "products"])
def test_sentiment_of_reviews(source: str) -> None:
    """In two classes at least 80 of 100 of a small sample; README.md has the figure over all of it."""
    rows = rated(source)
    assert 60 == len(rows)
    assert measure.two_classes(rows, measure.felt(rows)) >= 0.8


def test_sentiment_by_the_lexicon_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a policy grants no models it is no worse than VADER as its authors use it, over tweets and editorials."""
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    rows = rated("tweets", "editorials")
    ours, peer = (measure.three_classes(rows, how(rows)) for how in (measure.felt, measure.felt_by_lexicon))
    assert ours >= peer - 0.02


def test_the_language_of_short_texts() -> None:
    """Of texts of user interfaces at least 90 of 100 answers are right, and 8 of 10 texts are answered."""
    rows = [(language, text) for language, text in sample("interface.json")]
    given, right = measure.answered(rows, measure.answer_of)
    assert len(rows) > 300
    assert right >= 0.9
    assert given >= 0.8


def test_topics_of_one_line() -> None:
    """Among 15 sections of Debian half of the one-line descriptions at least, three times as many as by their words."""
    rows = [(category, text) for category, text, _ in sample("topics.json")][::4]
    figure = measure.of_topics(rows, "a quarter")
    assert figure.ours >= 0.5
    assert figure.ours >= 2 * figure.peer


def test_several_topics_of_one_line() -> None:
    """Where a category is said to hold, it does in two of three cases (descriptions that set no number)."""
    rows = json.loads((SAMPLES / "works_with.json").read_text(encoding="utf-8"))
    categories = tuple(sorted({category for held, _, _ in rows for category in held}))
    said = [(set(held), set(zero_shot.classify_each(text, categories)["labels"] or ())) for held, text, _ in rows[::2]]
    right, given = sum(len(held & found) for held, found in said), sum(len(found) for _, found in said)
    assert given > 20
    assert right / given >= 0.6


def test_the_confidence_of_a_sentiment_is_earned() -> None:
    """The surest half is right more often than the other half."""
    rows = rated("films", "products")
    answers = [sentiment.rate(row.text) for row in rows]
    ranked = sorted(zip(rows, answers, strict=True), key=lambda pair: -(pair[1]["confidence"] or 0))
    halves = ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]
    surer, other = (measure.share(row.label == answer["label"] for row, answer in half) for half in halves)
    assert surer > other
