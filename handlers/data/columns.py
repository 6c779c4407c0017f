"""Turns rows of JSON into columns of NumPy, which DuckDB scans without copying them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
import numpy as np

from handlers.data.decoding import decode_parameters, fits
from handlers.failures import Refusal
from handlers.parameters.data import DataOperation, DataSource
from handlers.parameters.data_options import Scalar
from handlers.parameters.registry import decode

MAX_FIELDS = 1000
_LARGE_BYTES = 1 << 16
"""From this size on a row type is made for the data: it decodes in half the time to half the memory of dicts."""

FieldKind = Literal["number", "text", "boolean", "mixed", "empty"]
Getter = Callable[[list[Any], int, str], list[Any]]
_NONE = type(None)
_NEXT_OBJECT = re.compile(r"\s*[\[,]\s*(?=\{)")
_PARSE_NEXT = json.JSONDecoder().raw_decode


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    operation: str
    data: msgspec.Raw


@dataclasses.dataclass(frozen=True)
class Column:
    """One field over all rows."""

    name: str
    kind: FieldKind
    values: np.ndarray[Any, Any] | None
    """Numbers: int64 (masked where null) or float64 (NaN where null). Text: objects. Mixed: objects, the JSON text of
    each value. Booleans: bool, masked where null. Empty, that is nothing but null: None."""
    has_nulls: bool


@dataclasses.dataclass(frozen=True)
class Table:
    """The data of a task."""

    rows: int
    columns: tuple[Column, ...]
    is_of_objects: bool
    """Otherwise it is an array of numbers: one column without a name."""


def read(parameters: msgspec.Raw) -> tuple[Table | None, DataOperation]:
    """The data of a ``data_processing`` task, and all that it asks for.

    Returns:
        The table, ``None`` where the data is a file; and the parameters, whose ``data`` may be empty where the table
        has it.
    Raises:
        msgspec.ValidationError: the parameters are not what the task type takes.
        Refusal: too many fields, or a number that a double cannot hold.
    """
    fast = _decode_uniform(parameters) if len(memoryview(parameters)) >= _LARGE_BYTES else None
    if fast is None:
        whole: DataOperation = decode_parameters("data_processing", parameters)
        is_file = isinstance(whole.data, DataSource) and whole.data.format is not None
        return (None if is_file else table_of(whole.data)), whole
    asked, rows, names = fast
    return _table(rows, names, _get_from_structs), asked


def table_of(data: list[Any] | DataSource) -> Table:
    """The table of data that is not a file.

    Raises:
        Refusal: too many fields, or a number that a double cannot hold.
    """
    if isinstance(data, DataSource):
        columns = data.columns or {}
        if len(columns) > MAX_FIELDS:
            raise too_many_fields(len(columns))
        rows = len(next(iter(columns.values()), []))
        made = tuple(_column(name, values) for name, values in columns.items())
        return Table(rows, made, is_of_objects=True)
    if not data or not isinstance(data[0], dict):
        return Table(len(data), (_numbers(data),), is_of_objects=False)
    return _table(data, list(dict.fromkeys(itertools.chain.from_iterable(data))), _get_from_dicts)


def _table(rows: list[Any], names: list[str], get: Getter) -> Table:
    if len(names) > MAX_FIELDS:
        raise too_many_fields(len(names))
    columns = tuple(_column(name, get(rows, position, name)) for position, name in enumerate(names))
    return Table(len(rows), columns, is_of_objects=True)


def too_many_fields(count: int) -> Refusal:
    """The refusal of data with so many fields."""
    return Refusal(
        "too_many_fields", f"The objects have {count} different fields; at most {MAX_FIELDS} can be processed."
    )


def _get_from_dicts(rows: list[Any], _position: int, name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _get_from_structs(rows: list[Any], position: int, _name: str) -> list[Any]:
    return list(map(operator.attrgetter(f"field_{position}"), rows))


def _decode_uniform(parameters: msgspec.Raw) -> tuple[DataOperation, list[Any], list[str]] | None:
    """Decode objects that have no other fields than the first of them show; None where that does not hold."""
    try:
        envelope = msgspec.json.decode(parameters, type=_Envelope)
        names = _fields_of_head(envelope.data)
        if names is None:
            return None
        if not fits(envelope.data, object_bytes=40, field_bytes=8):
            return None
        fields = [(f"field_{position}", Scalar, None) for position in range(len(names))]
        rename = {f"field_{position}": name for position, name in enumerate(names)}
        row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)
        rows = msgspec.json.decode(envelope.data, type=list[row])  # type: ignore[valid-type]
        asked: DataOperation = decode("data_processing", _without_data(envelope.operation))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the slower path finds out what is wrong, if anything is
    return asked, rows, names


def _without_data(operation: str) -> bytes:
    return msgspec.json.encode({"operation": operation, "data": []})


def _fields_of_head(data: msgspec.Raw) -> list[str] | None:
    """Fields of the objects that lie whole in the first bytes, in order of appearance."""
    head = bytes(memoryview(data)[:_LARGE_BYTES]).decode(errors="replace")
    names: dict[str, None] = {}
    end = 0
    while (start := _NEXT_OBJECT.match(head, end)) is not None:
        try:
            row, end = _PARSE_NEXT(head, start.end())
        except (ValueError, RecursionError):
            break  # cut off here
        names.update(dict.fromkeys(row))
    return list(names) or None


def _column(name: str, values: list[Any]) -> Column:
    kinds = set(map(type, values))
    has_nulls = _NONE in kinds
    kinds.discard(_NONE)
    if not kinds:
        return Column(name, "empty", None, has_nulls)
    if kinds <= {int, float}:
        return Column(name, "number", _number_array(name, values, kinds, has_nulls), has_nulls)
    if kinds == {str}:
        return Column(name, "text", _object_array(values), has_nulls)
    if kinds == {bool}:
        booleans = np.ma.MaskedArray(np.array(values, dtype=bool), [value is None for value in values])
        return Column(name, "boolean", booleans, has_nulls)
    texts = [None if value is None else msgspec.json.encode(value).decode() for value in values]
    return Column(name, "mixed", _object_array(texts), has_nulls)


def _numbers(values: list[Any]) -> Column:
    kinds = set(map(type, values))
    has_nulls = _NONE in kinds
    return Column("", "number", _number_array("", values, kinds - {_NONE}, has_nulls), has_nulls)


def _number_array(name: str, values: list[Any], kinds: set[type], has_nulls: bool) -> np.ndarray[Any, Any]:
    try:
        if kinds == {int}:
            return _integer_array(values, has_nulls)
    except OverflowError:
        pass  # past 64 bits: as doubles
    try:
        return np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        place = f"The field {name!r}" if name else "The data"
        raise Refusal(
            "number_out_of_range", f"{place} has a number beyond ±1.8e308; leave it out or scale it."
        ) from None


def _integer_array(values: list[Any], has_nulls: bool) -> np.ndarray[Any, Any]:
    if not has_nulls:
        return np.array(values, dtype=np.int64)
    filled = np.array([0 if value is None else value for value in values], dtype=np.int64)
    return np.ma.MaskedArray(filled, [value is None for value in values])


def count_distinct(column: Column) -> int:
    """Different numbers in a column of numbers. By sorting, which is four times as fast as DuckDB's hashing."""
    values = column.values
    if values is None:
        return 0
    if isinstance(values, np.ma.MaskedArray):
        values = values.compressed()
    elif column.has_nulls:
        values = values[~np.isnan(values)]
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (len(ordered) > 0)


def _object_array(values: Iterable[Any]) -> np.ndarray[Any, Any]:
    return np.fromiter(values, dtype=object)
