"""What a task may ask for: one Struct per task type, in the names of the service's interface.

The API validates with these and shows them on its OpenAPI page; inside the sandbox the handlers decode with the very
same types. Standard library and msgspec only, because the API imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py")
"""A ``script`` that matches this as a whole names a file of the scripts directory; any other is Python source."""

MAX_SCRIPT_CHARACTERS = 1 << 20

Scalar = str | int | float | bool | None
"""A value of a field. Nested arrays and objects are refused."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sandbox hands to ``handlers.entry.main``, as JSON."""

    task_type: str
    parameters: msgspec.Raw
    source: str | None = None
    """Python source of the named script; only for a ``custom_script`` that names a file."""
    source_name: str | None = None
    """Name of that file, e.g. ``data_analysis.py``."""


class DataProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums, averages, counts, statistics and correlations over numbers or over objects."""

    operation: Annotated[
        Literal["sum", "average", "count", "statistics", "correlation"],
        Meta(description="What to compute. `correlation` needs objects.", examples=["statistics"]),
    ]
    data: Annotated[
        list[int | float | dict[str, Scalar] | None],
        Meta(
            description="An array of numbers (null for a missing one), or an array of objects whose fields are text, "
            "numbers, booleans or null. A field that an object lacks counts as null. Not both sorts in one array.",
            examples=[
                [3, 5.5, None, 8],
                [{"value": 10, "category": "A"}, {"value": 20, "category": "B"}, {"value": 15, "category": "A"}],
            ],
        ),
    ]

    def __post_init__(self) -> None:
        _refuse_mixture(self.data)


class CustomScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python script that nobody has read, or one of the named scripts."""

    script: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_SCRIPT_CHARACTERS,
            description="Python source, or the name of a file in the scripts directory (letters, digits, `_` and `-`, "
            "then `.py`). The result is what it assigns to `result`, or what its `main(args)` returns.",
            examples=["result = sum(args)", "data_analysis.py"],
        ),
    ]
    args: Annotated[
        msgspec.Raw,
        Meta(
            description="Any JSON; the script finds it in its global `args`.",
            examples=[[1, 2, 3], {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}],
        ),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


PARAMETERS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {"custom_script": CustomScript, "data_processing": DataProcessing}
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
        raise msgspec.ValidationError(_with_field_name(str(error), raw)) from None


def decode_json(raw: msgspec.Raw | bytes, type_: Any = Any) -> Any:
    """``msgspec.json.decode`` with one sort of exception for all faults of the input.

    Raises:
        msgspec.ValidationError: not UTF-8, not JSON, nested too deep, or not of the type.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise msgspec.ValidationError(str(error)) from None
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"JSON is not UTF-8: {error.reason} (byte {error.start})") from None
    except RecursionError:
        raise msgspec.ValidationError("JSON is nested too deep") from None


def _refuse_mixture(data: list[Any]) -> None:
    kinds = set(map(type, data))
    if dict not in kinds or len(kinds) == 1:
        return
    is_object = isinstance(data[0], dict)
    index = next(index for index, item in enumerate(data) if isinstance(item, dict) is not is_object)
    expected, got = ("object", "null" if data[index] is None else "number") if is_object else ("number", "object")
    raise ValueError(f"Expected `{expected}`, got `{got}`: an array has one sort only - at `$.data[{index}]`")


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
