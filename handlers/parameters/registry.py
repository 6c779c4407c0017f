"""The parameters of all task types: one Struct per task type, or one per operation.

The API validates with these and shows them on its OpenAPI page; inside the sandbox the handlers decode with the very
same types. Standard library and msgspec only, because the API imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

import msgspec

from handlers.parameters.data import DataProcessing, DataSource
from handlers.parameters.decode import decode_json
from handlers.parameters.documents import DocumentProcessing
from handlers.parameters.faults import find_faults, is_json
from handlers.parameters.files import InputFile
from handlers.parameters.images import ImageProcessing
from handlers.parameters.models import MlInference
from handlers.parameters.script import CustomScript
from handlers.parameters.web import WebScraping


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The request that the sandbox hands to ``handlers.entry.main``, as JSON."""

    task_type: str
    parameters: msgspec.Raw
    source: str | None = None
    """Python source of the named script; only for a ``custom_script`` that names a file."""
    source_name: str | None = None
    """Name of that file, e.g. ``data_analysis.py``."""


PARAMETERS: Mapping[str, Any] = MappingProxyType(
    {
        "custom_script": CustomScript,
        "data_processing": DataProcessing,
        "document_processing": DocumentProcessing,
        "image_processing": ImageProcessing,
        "ml_inference": MlInference,
        "web_scraping": WebScraping,
    }
)
"""Task type → type of its parameters: a Struct, or a union of Structs that one field tells apart."""


def structs(task_type: str) -> tuple[type[msgspec.Struct], ...]:
    """The Structs of a task type's parameters: its only one, or all of its union."""
    return get_args(PARAMETERS[task_type]) or (PARAMETERS[task_type],)


def tag_field(task_type: str) -> str | None:
    """The field that tells the Structs of a task type's union apart; ``None`` where there is one Struct."""
    return structs(task_type)[0].__struct_config__.tag_field


def decode(task_type: str, raw: msgspec.Raw | bytes, *, decoder: Callable[[Any], Any] | None = None) -> Any:
    """Parameters of a task type, checked.

    Does more than ``msgspec.json.decode``: every fault is a ``ValidationError``, its path names the field, and where
    a field takes one of a few values, its message lists them.

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
        first = next(iter(find_faults(raw, PARAMETERS[task_type], "$")), None) if is_json(raw) else None
        raise msgspec.ValidationError(f"{first.message} - at `{first.path}`" if first else str(error)) from None


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
