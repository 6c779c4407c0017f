"""The parameters of ``ml_inference``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from handlers.parameters.patterns import MODEL_NAME

MAX_TEXTS = 1000


MAX_INPUT_CHARACTERS = 100_000
"""Longest text that models are asked about."""


MAX_CATEGORIES = 100
FEWEST_CATEGORIES = 2


Category = Annotated[str, Meta(min_length=1, max_length=200)]


def spelled(category: str) -> str:
    """What two spellings of one category have in common: capital letters and spaces make no other one."""
    return " ".join(category.split()).casefold()


class MlInference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks models about texts: sentiment, categories, names, language and readability."""

    model_type: Annotated[
        Literal["sentiment", "classification", "entity_extraction", "text_analysis"],
        Meta(
            description="What to find out. `sentiment`: positive, neutral or negative (English). `classification`: one "
            "of some categories (English). `entity_extraction`: names of people, places, dates … and their positions "
            "(English). `text_analysis`: language and counts of any text; readability and key phrases of an English "
            "one. Each answer has the text's language; what a model does not know is null.",
            examples=["sentiment"],
        ),
    ]
    input_data: Annotated[
        Annotated[str, Meta(max_length=MAX_INPUT_CHARACTERS)]
        | Annotated[list[Annotated[str, Meta(max_length=MAX_INPUT_CHARACTERS)]], Meta(max_length=MAX_TEXTS)],
        Meta(
            description="A text, or an array of at most 1,000 texts, each of at most 100,000 characters. The answer "
            "has the same form: one answer for a text, an array of answers for an array, in its order.",
            examples=["This product is absolutely amazing!", ["I love it.", "It broke after two days."]],
        ),
    ]
    categories: Annotated[
        Annotated[list[Category], Meta(min_length=FEWEST_CATEGORIES, max_length=MAX_CATEGORIES)] | None,
        Meta(
            description="For `classification`: your own categories, in words. Unless given: business, education, "
            "entertainment, environment, health, politics, science, sports, technology, travel. Capital letters and "
            "spaces make no other category: `Billing` and `billing` are one.",
            examples=[["billing", "delivery", "product quality"]],
        ),
    ] = None
    multi_label: Annotated[
        bool,
        Meta(
            description="For `classification`: a text may belong to several categories, or to none. The answer has "
            "`labels`, and each score stands for itself. A `model` of the operator's decides that itself.",
            examples=[True],
        ),
    ] = False
    model: Annotated[
        Annotated[str, Meta(pattern=MODEL_NAME, max_length=100)] | None,
        Meta(
            description="For `sentiment` and `classification`: a text classifier that the operator has put into "
            "MODELS_DIR. It has categories of its own.",
            examples=["support-tickets"],
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, owners in (("categories", ("classification",)), ("model", ("sentiment", "classification"))):
            if getattr(self, name) is not None and self.model_type not in owners:
                known = " and ".join(f"`{owner}`" for owner in owners)
                raise ValueError(f"`{name}` goes with {known} only, not with `{self.model_type}` - at `$.{name}`")
        if self.multi_label and (self.model_type != "classification" or self.model is not None):
            raise ValueError("`multi_label` goes with `classification` without a `model` only - at `$.multi_label`")
        if self.model is not None and self.categories is not None:
            raise ValueError("A `model` has categories of its own; leave one of the two out - at `$.categories`")
        for index, category in enumerate(self.categories or ()):
            if not category.strip():
                raise ValueError(f"The category {category!r} is empty - at `$.categories[{index}]`")
        if self.categories is not None and len(set(map(spelled, self.categories))) < FEWEST_CATEGORIES:
            raise ValueError("All categories are the same one; name two at least - at `$.categories`")
