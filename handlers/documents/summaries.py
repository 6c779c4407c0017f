"""Summaries of a text: sentences of its own, chosen by sumy's TextRank, offline.

Apart from ``prose``, which every handler of texts has: sumy imports all of nltk, which imports scipy and scikit-learn
where they are, as in the zygote of scripts that ask models. That is 1.5 s of processor time and 65 MiB for nothing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
from sumy.nlp.stemmers import Stemmer, null_stemmer
from sumy.summarizers.text_rank import TextRankSummarizer
from sumy.utils import get_stop_words

from handlers import language
from handlers.documents.prose import known_code, sentences, words

MAX_CANDIDATES = 3000
"""Sentences that a summary is chosen from: the first so many."""
MAX_SENTENCE_CHARACTERS = 1000
_BLOCK = 100
"""TextRank compares each sentence with each other, so that 100 take 0.1 s and 1,000 would take 10."""
_LEAST_WORDS = 3


def summarize(text: str, count: int) -> dict[str, Any]:
    """The ``count`` most telling sentences of a text, in its order; fewer if there are no more.

    TextRank within blocks of sentences, then among the best of each, until one block is left.
    """
    spoken = language.detect(text)
    code = known_code(spoken)
    found = sentences(text, code)
    candidates = list(dict.fromkeys(sentence for sentence in found if len(words(sentence)) >= _LEAST_WORDS))
    considered = (candidates or list(dict.fromkeys(found)))[:MAX_CANDIDATES]
    chosen = list(map(_shortened, considered))
    while len(chosen) > _BLOCK:
        blocks = (chosen[start : start + _BLOCK] for start in range(0, len(chosen), _BLOCK))
        chosen = [sentence for block in blocks for sentence in _best(block, count, code)]
    chosen = _best(chosen, count, code)
    return {
        "summary": " ".join(chosen),
        "sentences": chosen,
        "sentences_total": len(found),
        "sentences_considered": len(considered),
        "language": spoken,
    }


class _Tokenizer:
    """Splits into words for sumy, whose own tokenizer needs files of nltk that are not installed."""

    @staticmethod
    def to_words(sentence: str) -> tuple[str, ...]:
        return tuple(words(sentence))


class _Ranks(TextRankSummarizer):  # type: ignore[misc]  # sumy has no types
    """TextRank without the last digits, which differ from run to run and would choose among equals at random."""

    def rate_sentences(self, document: ObjectDocumentModel) -> dict[Sentence, float]:
        return {sentence: round(float(rank), 9) for sentence, rank in super().rate_sentences(document).items()}


def _best(candidates: list[str], count: int, code: str | None) -> list[str]:
    stem, stop_words = _stemmer(code), _stop_words(code)
    candidates = _connected(candidates, count, stem, stop_words)
    if len(candidates) <= count:
        return candidates
    summarizer = _Ranks(stem)
    summarizer.stop_words = stop_words
    document = ObjectDocumentModel([Paragraph([Sentence(sentence, _Tokenizer) for sentence in candidates])])
    return [str(sentence) for sentence in summarizer(document, count)]


def _connected(candidates: list[str], count: int, stem: Callable[[str], str], stop_words: frozenset[str]) -> list[str]:
    """Without the sentences that share no word with another, if enough remain.

    A sentence is a neighbour of itself to sumy, and one that has no other neighbour keeps the whole of its rank.
    """
    stems = [{stem(word) for word in map(str.lower, words(one)) if word not in stop_words} for one in candidates]
    times = Counter(itertools.chain.from_iterable(stems))
    sharing = [one for one, own in zip(candidates, stems, strict=True) if any(times[word] > 1 for word in own)]
    return sharing if len(sharing) >= count else candidates


def _stemmer(code: str | None) -> Any:
    try:
        return Stemmer(code or "und")
    except LookupError:
        return null_stemmer


def _stop_words(code: str | None) -> frozenset[str]:
    try:
        found: frozenset[str] = get_stop_words(code or "und")
    except LookupError:
        return frozenset()
    return found


def _shortened(sentence: str) -> str:
    if len(sentence) <= MAX_SENTENCE_CHARACTERS:
        return sentence
    return sentence[: MAX_SENTENCE_CHARACTERS - 1] + "…"
