"""Several models over the same texts in one run: sentiment, topic, names, language, and which texts are alike.

Send it with ``"policy": "custom_script_ml"``: it grants the sentence encoder, and has every model loaded. Without that
``topic`` and ``similarity`` are left out, and the others take two seconds more.

Example args: ``{"texts": ["I love the new office in Berlin.", "The delivery was late."], "query": "shipping"}``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from handlers import english, language, models, sentiment, zero_shot

ARGS: dict[str, Any] = {
    "type": "object",
    "required": ["texts"],
    "additionalProperties": False,
    "properties": {
        "texts": {
            "type": "array",
            "items": {"type": "string", "maxLength": 100_000},
            "minItems": 1,
            "maxItems": 200,
        },
        "models": {
            "type": "array",
            "items": {"enum": ["sentiment", "topic", "entities", "language", "similarity"]},
            "description": "Which to ask. Default: all that the policy grants.",
        },
        "categories": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 2,
            "description": "Of `topic`; those of ml_inference unless given.",
        },
        "query": {
            "type": "string",
            "description": "Of `similarity`: ranks the texts by how near they are to it. Without it, each text is "
            "compared with each other.",
        },
    },
}
"""JSON Schema of ``args``."""

KNOWN: list[str] = ARGS["properties"]["models"]["items"]["enum"]
MAX_TEXTS: int = ARGS["properties"]["texts"]["maxItems"]


NEED_ENCODER = ("topic", "similarity")


def main(args: Any) -> dict[str, Any]:
    """Do what ``args`` asks for, see ``ARGS``.

    Returns:
        ``results``, one object for each text with the answer of each model; ``similarity``, if it is asked for;
        ``left_out``, the models that the policy does not grant.
    """
    check(args)
    granted = [name for name in KNOWN if name not in NEED_ENCODER or models.folder().is_dir()]
    wanted = args.get("models", granted)
    if refused := [name for name in wanted if name not in granted]:
        raise ValueError(
            f'{" and ".join(refused)}: send "policy": "custom_script_ml" with the task, it grants the model'
        )
    texts, categories = args["texts"], zero_shot.merged(args.get("categories", zero_shot.CATEGORIES))
    asked = {name: ask for name, ask in ASK.items() if name in wanted}
    answer: dict[str, Any] = {
        "results": [{name: ask(text, categories) for name, ask in asked.items()} for text in texts],
        "left_out": [name for name in KNOWN if name not in granted],
    }
    if "similarity" in wanted:
        answer["similarity"] = rank(texts, args["query"]) if "query" in args else compare(texts)
    return answer


def check(args: Any) -> None:
    """Refuse what ``ARGS`` does not describe, in words that say what to do."""
    if not isinstance(args, dict) or not is_texts(args.get("texts"), 1, MAX_TEXTS):
        raise ValueError(f'args must be an object with "texts", an array of 1 to {MAX_TEXTS} texts')
    if unknown := sorted(set(args) - set(ARGS["properties"])):
        raise ValueError(f"args has unknown fields: {', '.join(unknown)}")
    if not is_texts(args.get("models", []), 0, len(KNOWN)) or not set(args.get("models", [])) <= set(KNOWN):
        raise ValueError(f"args.models must be an array of {', '.join(KNOWN)}")
    if not is_texts(args.get("categories", KNOWN), 2, 100):
        raise ValueError("args.categories must be an array of 2 to 100 texts")
    if not is_texts([args.get("query", "")], 1, 1):
        raise ValueError("args.query must be a text")


def is_texts(value: Any, fewest: int, most: int) -> bool:
    """Whether a value is an array of so many texts."""
    return isinstance(value, list) and fewest <= len(value) <= most and all(isinstance(text, str) for text in value)


ASK: Mapping[str, Callable[[str, tuple[str, ...]], Any]] = MappingProxyType(
    {
        "sentiment": lambda text, _: sentiment.rate(text),
        "topic": zero_shot.classify,
        "entities": lambda text, _: english.entities(text, language.detect(text)),
        "language": lambda text, _: language.detect(text),
    }
)
"""Model → what it says of one text."""


def rank(texts: list[str], query: str) -> list[dict[str, Any]]:
    """The texts by their nearness to a query, nearest first; ``score`` is a cosine."""
    encoder = models.encoder()
    goal = encoder.embed(query)
    scored = [
        {"index": index, "score": round(float(encoder.embed(text) @ goal), 4)} for index, text in enumerate(texts)
    ]
    return sorted(scored, key=lambda item: -item["score"])


def compare(texts: list[str]) -> list[dict[str, Any]]:
    """The pairs of texts that are most alike, at most 20, nearest first."""
    directions = np.stack([models.encoder().embed(text) for text in texts])
    cosines = directions @ directions.T
    first, second = np.triu_indices(len(texts), k=1)
    nearest = np.argsort(-cosines[first, second], kind="stable")[:20]
    return [
        {"pair": [int(first[at]), int(second[at])], "score": round(float(cosines[first[at], second[at]]), 4)}
        for at in nearest
    ]
