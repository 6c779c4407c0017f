"""Turns rows of JSON into columns of NumPy, which DuckDB scans without copying them."""

from __future__ import annotations

import dataclasses
import decimal
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from handlers.data.decoding import decode_any, decode_data, decode_lines, decode_parameters, fits
from handlers.data.exact_numbers import is_inexact, json_text
from handlers.failures import Refusal
from handlers.parameters.data import DataOperation, DataSource
from handlers.parameters.data_options import Scalar
from handlers.parameters.registry import decode

MAX_FIELDS = 1000
MAX_DIGITS = 38
"""Most digits of DuckDB's exact numbers, HUGEINT and DECIMAL."""
MAX_EXACT_INTEGER = 2**53
"""Below it a double holds every integer, and an integer that becomes one is not below it if it was rounded."""
_TEN_TO_DIGITS = 10**MAX_DIGITS
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
    each value. Booleans: bool, masked where null. Empty, that is nothing but null: None. None also where the database
    stores the table. Numbers that NumPy cannot hold: objects, the text of each."""
    has_nulls: bool
    sql_type: str = ""
    """DuckDB's type of numbers: BIGINT, HUGEINT, DOUBLE or DECIMAL(…)."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The data of a task."""

    rows: int
    columns: tuple[Column, ...]
    is_of_objects: bool
    """Otherwise it is an array of numbers: one column without a name."""
    stored: str | None = None
    """The database's table that has the columns as ``c0`` ``c1`` …; ``None`` where they have their values."""
    origin: Mapping[str, Any] | None = None
    """How a file was read, for the answer: its delimiter, encoding, guesses, and the rows that were short."""


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
        if _has_numbers(whole) and is_inexact(parameters):
            whole = _with_exact_numbers(whole, parameters)
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
        made = tuple(column_of(name, values) for name, values in columns.items())
        return Table(rows, made, is_of_objects=True)
    if not data or not isinstance(data[0], dict):
        return Table(len(data), (_numbers(data),), is_of_objects=False)
    return _table(data, list(dict.fromkeys(itertools.chain.from_iterable(data))), _get_from_dicts)


def _table(rows: list[Any], names: list[str], get: Getter) -> Table:
    if len(names) > MAX_FIELDS:
        raise too_many_fields(len(names))
    columns = tuple(column_of(name, get(rows, position, name)) for position, name in enumerate(names))
    return Table(len(rows), columns, is_of_objects=True)


def distinct_names(names: Iterable[str]) -> list[str]:
    """Names of fields; one that comes again gets a number: ``x``, ``x_2``."""
    taken: dict[str, None] = {}
    numbers: dict[str, int] = {}  # name → the next number to try, so that a name that stands often costs no more
    for name in names:
        again, number = name, numbers.get(name, 2)
        while again in taken:
            again, number = f"{name}_{number}", number + 1
        taken[again], numbers[name] = None, number
    return list(taken)


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
        if names is None or is_inexact(envelope.data):
            return None
        if not fits(envelope.data, object_bytes=40, field_bytes=8):
            return None
        rows = msgspec.json.decode(envelope.data, type=list[_row_type(names)])  # type: ignore[misc]
        asked: DataOperation = decode("data_processing", _without_data(envelope.operation))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the slower path finds out what is wrong, if anything is
    return asked, rows, names


def _has_numbers(asked: DataOperation) -> bool:
    """Whether some of the data stands in the request itself, not in a file."""
    given = [asked.data, getattr(asked, "right", None), *getattr(asked, "tables", {}).values()]
    return any(isinstance(one, list) or (isinstance(one, DataSource) and one.columns is not None) for one in given)


def _with_exact_numbers(asked: DataOperation, parameters: msgspec.Raw) -> DataOperation:
    """The same parameters, their data with decimals where no double holds a number."""
    exact = decode_data(parameters)
    changed: dict[str, Any] = {
        name: _with_values(getattr(asked, name), exact[name]) for name in ("data", "right") if hasattr(asked, name)
    }
    if "tables" in exact:
        changed["tables"] = {
            name: _with_values(given, exact["tables"][name]) for name, given in getattr(asked, "tables", {}).items()
        }
    return msgspec.structs.replace(asked, **changed)


def _with_values(given: Any, exact: Any) -> Any:
    if isinstance(given, list):
        return exact
    return given if given.columns is None else msgspec.structs.replace(given, columns=exact["columns"])


def table_of_lines(content: bytes) -> Table:
    """The table of JSON lines: one object each, whose values may be nested.

    Raises:
        Refusal: too many fields; a line is not JSON, or not an object: says which; a number that a double cannot hold.
        MemoryError: it takes more memory than there is.
    """
    rows = _decode_uniform_lines(content) if len(content) >= _LARGE_BYTES and not is_inexact(content) else None
    if rows is not None:
        return _table(*rows, _get_from_structs)
    try:
        objects = decode_lines(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _bad_line(content) from None
    return table_of(objects)


def _decode_uniform_lines(content: bytes) -> tuple[list[Any], list[str]] | None:
    """Decode lines that have no other fields than the first of them show; None where that does not hold."""
    names: dict[str, None] = {}
    try:
        for line in content[:_LARGE_BYTES].splitlines()[:-1]:
            names.update(dict.fromkeys(json.loads(line) if line.strip() else ()))
        if not names or len(names) > MAX_FIELDS or not fits(msgspec.Raw(content), object_bytes=40, field_bytes=8):
            return None
        return msgspec.json.Decoder(_row_type(list(names))).decode_lines(content), list(names)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None  # the slower path finds out what is wrong, if anything is


def _bad_line(content: bytes) -> Refusal:
    """Name the first line that is not a JSON object."""
    place, reason = "the file", "it is not JSON lines"
    for number, line in enumerate(content.split(b"\n"), 1):
        if (fault := _fault_of_line(line)) is not None:
            place, reason = f"line {number}", fault
            break
    code = "number_out_of_range" if "out of range" in reason else "invalid_jsonl"
    return Refusal(code, f"The file cannot be read as jsonl: {place}: {reason}.")


def _fault_of_line(line: bytes) -> str | None:
    try:
        if not line.strip() or isinstance(decode_any(msgspec.Raw(line)), dict):
            return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return "it is not an object"


def _row_type(names: list[str]) -> type[msgspec.Struct]:
    """A Struct with these fields, named ``field_0`` ``field_1`` … in Python."""
    fields = [(f"field_{position}", Scalar, None) for position in range(len(names))]
    rename = {f"field_{position}": name for position, name in enumerate(names)}
    return msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True, gc=False)


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


def column_of(name: str, values: list[Any]) -> Column:
    """A field by all its values: JSON's, and decimals that no double holds."""
    kinds = set(map(type, values))
    has_nulls = _NONE in kinds
    kinds.discard(_NONE)
    if not kinds:
        return Column(name, "empty", None, has_nulls)
    if kinds <= {int, float, decimal.Decimal}:
        numbers = _number_array(values, kinds, has_nulls)
        if numbers is not None:
            return Column(name, "number", numbers[0], has_nulls, numbers[1])
    if kinds == {str}:
        return Column(name, "text", _object_array(values), has_nulls)
    if kinds == {bool}:
        booleans = np.ma.MaskedArray(np.array(values, dtype=bool), [value is None for value in values])
        return Column(name, "boolean", booleans, has_nulls)
    texts = [None if value is None else json_text(value) for value in values]
    is_nested = kinds <= {dict, list}
    return Column(name, "text" if is_nested else "mixed", _object_array(texts), has_nulls)


def _numbers(values: list[Any]) -> Column:
    kinds = set(map(type, values))
    has_nulls = _NONE in kinds
    numbers = _number_array(values, kinds - {_NONE}, has_nulls)
    if numbers is None:
        raise Refusal(
            "number_out_of_range",
            "The data has numbers that no common type holds exactly: integers of more than 38 digits, or beside "
            "numbers of quite another size. Leave them out, or send them as texts.",
        )
    return Column("", "number", numbers[0], has_nulls, numbers[1])


def _number_array(values: list[Any], kinds: set[type], has_nulls: bool) -> tuple[np.ndarray[Any, Any], str] | None:
    """The numbers, and their type in DuckDB; None where none of its types holds each of them exactly."""
    if kinds == {int}:
        try:
            return _integer_array(values, has_nulls), "BIGINT"
        except OverflowError:
            return _exact_array(values)
    if decimal.Decimal in kinds:
        return _exact_array(values)
    try:
        doubles = np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        return _exact_array(values)
    if int in kinds and not np.all(np.abs(doubles[~np.isnan(doubles)]) < MAX_EXACT_INTEGER):
        exact = _exact_array(values)  # a double may have rounded one of the integers
        is_rounded = any(type(value) is int and not -MAX_EXACT_INTEGER < value < MAX_EXACT_INTEGER for value in values)
        return exact if exact is not None or is_rounded else (doubles, "DOUBLE")
    return doubles, "DOUBLE"


def _exact_array(values: list[Any]) -> tuple[np.ndarray[Any, Any], str] | None:
    """Numbers as texts, for the types of DuckDB that NumPy lacks."""
    texts = [None if value is None else _plain_number(value) for value in values]
    parts = [text.lstrip("-").partition(".") for text in texts if text is not None]
    whole = max((len(part[0]) for part in parts), default=0)
    scale = max((len(part[2]) for part in parts), default=0)
    if whole + scale > MAX_DIGITS:
        return None
    return _object_array(texts), f"DECIMAL({MAX_DIGITS}, {scale})" if scale else "HUGEINT"


def _plain_number(value: float | decimal.Decimal) -> str:
    """A number without an exponent; a double by its shortest decimals."""
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, int):
        return str(value) if -_TEN_TO_DIGITS < value < _TEN_TO_DIGITS else "9" * (MAX_DIGITS + 1)
    text = f"{decimal.Decimal(repr(value)):f}"
    return text.removesuffix(".0")


def _integer_array(values: list[Any], has_nulls: bool) -> np.ndarray[Any, Any]:
    if not has_nulls:
        return np.array(values, dtype=np.int64)
    filled = np.array([0 if value is None else value for value in values], dtype=np.int64)
    return np.ma.MaskedArray(filled, [value is None for value in values])


def count_distinct(values: np.ndarray[Any, Any]) -> int:
    """Different numbers in an array of int64 or float64. By sorting, four times as fast as DuckDB's hashing."""
    if isinstance(values, np.ma.MaskedArray):
        values = values.compressed()
    elif values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + (len(ordered) > 0)


def _object_array(values: Iterable[Any]) -> np.ndarray[Any, Any]:
    return np.fromiter(values, dtype=object)
