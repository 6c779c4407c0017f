"""Asks models about texts: their sentiment, their category, the names in them, their language and readability.

README.md beside this file says what each answer holds, and how an operator adds models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from handlers import english, language, models, progress, sentiment, text_analysis, zero_shot
from handlers.parameters.models import MlInference
from handlers.parameters.registry import Request, decode


class TextAnswer(NamedTuple):
    """The answer for one text, and the models that it rests on."""

    value: dict[str, Any]
    used: tuple[models.UsedModel, ...]


AskModel = Callable[[str], TextAnswer]
"""Asks about one text."""

_EXAMPLE = msgspec.Raw(b'{"model_type": "sentiment", "input_data": "This product is absolutely amazing!"}')
_TEXTS = ["Tim Cook opened an office in Berlin.", ""]


def run(request: Request) -> dict[str, Any]:
    """Do one ``ml_inference`` task.

    Raises:
        Refusal: the model that is named does not exist, or does not work.
    """
    parameters: MlInference = decode("ml_inference", request.parameters)
    ask = MODEL_TYPES[parameters.model_type](parameters)
    given = parameters.input_data
    texts = [given] if isinstance(given, str) else given
    answers = [ask(text) for text in progress.through(texts, len(texts), "texts")]
    values = [answer.value for answer in answers]
    return {
        "model_type": parameters.model_type,
        parameters.model_type: values[0] if isinstance(given, str) else values,
        "models": list(dict.fromkeys(used for answer in answers for used in answer.used)),
    }


def rehearse() -> None:
    """Load every model once, in the zygote; later, in a child, do the smallest task, which touches its memory."""
    _load_everything()
    run(Request(task_type="ml_inference", parameters=_EXAMPLE))


@functools.cache
def _load_everything() -> None:
    """Use each model, so that it and its digest are in memory. Starts no thread, so that a fork may follow."""
    for model_type in MODEL_TYPES:
        parameters = msgspec.json.encode({"model_type": model_type, "input_data": _TEXTS})
        run(Request(task_type="ml_inference", parameters=msgspec.Raw(parameters)))
    models.preload_classifiers()


# ---- model types ------------------------------------------------------------------------------------------------


def _sentiment(parameters: MlInference) -> AskModel:
    if parameters.model is not None:
        return _of_operator(parameters.model)
    return lambda text: TextAnswer(*sentiment.judge(text))


def _classification(parameters: MlInference) -> AskModel:
    if parameters.model is not None:
        return _of_operator(parameters.model)
    categories = zero_shot.merged(parameters.categories or zero_shot.CATEGORIES)
    classify = zero_shot.classify_each if parameters.multi_label else zero_shot.classify
    return lambda text: TextAnswer(classify(text, categories), (models.encoder().used,))


def _entity_extraction(_: MlInference) -> AskModel:
    def ask(text: str) -> TextAnswer:
        spoken = language.detect(text)
        return TextAnswer({"entities": english.entities(text, spoken), "language": spoken}, (english.used(),))

    return ask


def _text_analysis(_: MlInference) -> AskModel:
    return lambda text: TextAnswer(*text_analysis.analyze(text))


def _of_operator(name: str) -> AskModel:
    classifier = models.classifier(name)
    return lambda text: TextAnswer(
        {**zero_shot.best(classifier.scores(text)), "language": language.detect(text)}, (classifier.used,)
    )


MODEL_TYPES: Mapping[str, Callable[[MlInference], AskModel]] = MappingProxyType(
    {
        "sentiment": _sentiment,
        "classification": _classification,
        "entity_extraction": _entity_extraction,
        "text_analysis": _text_analysis,
    }
)
"""Model type → function that makes, from the parameters, the function that asks about one text."""
