"""What a task may ask for: one Struct per task type, in the names of the service's interface.

The API validates with these and shows them on its OpenAPI page; inside the sandbox the handlers decode with the very
same types. Standard library and msgspec only, because the API imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from handlers.parameters.data import (
    DataProcessing,
    DataSource,
)
from handlers.parameters.data_options import Scalar
from handlers.parameters.decode import decode_json
from handlers.parameters.documents import DocumentProcessing
from handlers.parameters.files import InputFile
from handlers.parameters.images import ImageProcessing
from handlers.parameters.models import MlInference
from handlers.parameters.patterns import (
    _in_words,
)
from handlers.parameters.script import CustomScript
from handlers.parameters.web import WebScraping


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sandbox hands to ``handlers.entry.main``, as JSON."""

    task_type: str
    parameters: msgspec.Raw
    source: str | None = None
    """Python source of the named script; only for a ``custom_script`` that names a file."""
    source_name: str | None = None
    """Name of that file, e.g. ``data_analysis.py``."""


PARAMETERS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "custom_script": CustomScript,
        "data_processing": DataProcessing,
        "document_processing": DocumentProcessing,
        "image_processing": ImageProcessing,
        "ml_inference": MlInference,
        "web_scraping": WebScraping,
    }
)
"""Task type → type of its parameters."""


def decode(task_type: str, raw: msgspec.Raw | bytes, *, decoder: Callable[[Any], Any] | None = None) -> Any:
    """Parameters of a task type, checked.

    Does more than ``msgspec.json.decode``: every fault is a ``ValidationError``, and its path names the field.

    Args:
        task_type: a key of ``PARAMETERS``.
        raw: the parameters as JSON.
        decoder: decodes ``raw`` to the type that it is given; default ``decode_json``.
    Raises:
        msgspec.ValidationError: not JSON, or not what the task type takes; says where, relative to the parameters.
    """
    try:
        return decoder(PARAMETERS[task_type]) if decoder else decode_json(raw, PARAMETERS[task_type])
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(_with_field_name(_in_words(str(error)), raw)) from None


_FEW = 32


def file_ids(parameters: Any) -> tuple[str, ...]:
    """The uploaded files that parameters name, each once. Looks into Structs, and into arrays and objects of Structs.

    Data without a Struct in it is not walked through, however large it is.
    """
    found: dict[str, None] = {}
    waiting = [parameters]
    while waiting:
        value = waiting.pop()
        if isinstance(value, InputFile | DataSource):
            found |= {value.file_id: None} if value.file_id else {}
        elif isinstance(value, msgspec.Struct):
            waiting += [getattr(value, name) for name in value.__struct_fields__]
        elif isinstance(value, list | tuple | dict) and value:
            inner = list(value.values()) if isinstance(value, dict) else value
            shown = inner if len(inner) <= _FEW else (inner[0], inner[-1])
            if any(isinstance(one, msgspec.Struct) for one in shown):
                waiting += inner
    return tuple(found)


def _with_field_name(message: str, raw: msgspec.Raw | bytes) -> str:
    """Replace msgspec's ``[...]``, which stands for some value of an object, by the field's name."""
    place = re.search(r"at `\$\.data\[(\d+)\]\[\.\.\.\]`$", message)
    if place is None:
        return message

    class Rows(msgspec.Struct):
        data: list[msgspec.Raw]

    row = msgspec.json.decode(msgspec.json.decode(raw, type=Rows).data[int(place[1])], type=dict[str, msgspec.Raw])
    for name, value in row.items():
        try:
            msgspec.json.decode(value, type=Scalar)
        except msgspec.ValidationError:
            return message.replace("[...]`", f".{name}`")
    return message
