"""Results of ml_inference, one type per model type."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType


class TextLanguage(msgspec.Struct, kw_only=True):
    """The language of a text."""

    code: Annotated[str | None, Meta(description="ISO 639-1; null where it is not known.")]
    confidence: float


class AskedModel(msgspec.Struct, kw_only=True):
    """A model that was asked."""

    name: str
    digest: str


class ModelResult(msgspec.Struct, kw_only=True, tag_field="model_type"):
    """What every model type answers."""

    models: list[AskedModel]


class TextSentiment(msgspec.Struct, kw_only=True):
    """Of one text. What the model does not know is null."""

    label: Annotated[str | None, Meta(description="`positive`, `neutral` or `negative`; of another model its own.")]
    score: Annotated[float | None, Meta(description="Of the own model: positive less negative.")]
    confidence: float | UnsetType | None = UNSET
    scores: dict[str, float] | None
    language: TextLanguage


class SentimentResult(ModelResult, kw_only=True, tag="sentiment"):
    """Positive, neutral or negative."""

    sentiment: Annotated[
        TextSentiment | list[TextSentiment], Meta(description="One for a text, an array for an array.")
    ]


class Classification(msgspec.Struct, kw_only=True):
    """Of one text. What the model does not know is null."""

    label: str | UnsetType | None = UNSET
    score: float | UnsetType | None = UNSET
    labels: Annotated[list[str] | UnsetType | None, Meta(description="With `multi_label`, instead of `label`.")] = UNSET
    scores: dict[str, float] | None
    language: TextLanguage


class ClassificationResult(ModelResult, kw_only=True, tag="classification"):
    """The category."""

    classification: Annotated[
        Classification | list[Classification], Meta(description="One for a text, an array for an array.")
    ]


class Entity(msgspec.Struct, kw_only=True):
    """A name in a text."""

    text: str
    label: Annotated[str, Meta(examples=["PERSON"])]
    start: Annotated[int, Meta(description="In Unicode code points, as `end`.")]
    end: int


class TextEntities(msgspec.Struct, kw_only=True):
    """The names of one text; null where the language is not known to the model."""

    entities: list[Entity] | None
    language: TextLanguage


class EntitiesResult(ModelResult, kw_only=True, tag="entity_extraction"):
    """Names of people, places, dates …"""

    entity_extraction: Annotated[
        TextEntities | list[TextEntities], Meta(description="One for a text, an array for an array.")
    ]


class Readability(msgspec.Struct, kw_only=True):
    """Published formulas."""

    flesch_reading_ease: float
    flesch_kincaid_grade: float
    gunning_fog: float
    automated_readability_index: float
    coleman_liau_index: float


class KeyPhrase(msgspec.Struct, kw_only=True):
    """Words that a text is about."""

    text: str
    count: int
    score: float


class TextCounts(msgspec.Struct, kw_only=True):
    """Of one text."""

    language: TextLanguage
    characters: int
    words: int
    distinct_words: int
    sentences: int
    paragraphs: int
    words_per_sentence: float
    characters_per_word: float
    readability: Annotated[Readability | None, Meta(description="Of an English text.")]
    key_phrases: Annotated[list[KeyPhrase] | None, Meta(description="Of an English text.")]


class TextAnalysisResult(ModelResult, kw_only=True, tag="text_analysis"):
    """Language, counts, readability and key phrases."""

    text_analysis: Annotated[TextCounts | list[TextCounts], Meta(description="One for a text, an array for an array.")]
