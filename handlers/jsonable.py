"""The JSON rule: which Python values a result may hold, and what each becomes; README.md has it as a table.

One pass over the value. What has no form under the rule is an error that names its path; nothing is ever ``repr()``-ed
into a result, because what a reader cannot rely on is worse than an error.
"""

from __future__ import annotations

import array
import base64
import collections
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import io
import itertools
import pathlib
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from handlers import pictures
from handlers.text import clean_text, encode_json, type_name

MAX_DEPTH = 64
"""Arrays and objects inside each other, the outermost included."""

MAX_SAFE_INTEGER = 2**53 - 1
"""Beyond it JavaScript's numbers are not exact, so the integer becomes a string."""

_NONE = type(None)
_PLAIN = frozenset({str, float, bool, _NONE})
"""Types that msgspec writes just as the rule says (NaN and Infinity as null)."""
_PLAIN_OR_INT = _PLAIN | {int}


class NoJsonForm(Exception):  # noqa: N818 the value's lack, not our error
    """A value has no form under the JSON rule. Says which, where, and what to do."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__()
        self._code = code
        self._reason = reason
        self._steps: list[str] = []
        self._containers: list[int] = []

    def inside(self, step: str, container: object) -> None:
        """Note on the way out that the value lies in ``container`` at ``step``, e.g. ``[3]``."""
        self._steps.append(step)
        self._containers.append(id(container))

    @property
    def code(self) -> str:
        """``too_deep``, ``cycle``, ``no_json_form``, ``key_collision`` or ``integer_too_long``."""
        return "cycle" if self._cycle_length() else self._code

    def __str__(self) -> str:
        steps, reason = self._steps[::-1], self._reason
        if length := self._cycle_length():
            steps, reason = steps[:length], "what is there contains itself"
        place = "".join(steps) if len(steps) <= 10 else "".join(steps[:8]) + "…" + steps[-1]
        return f"The result has no JSON form at `${place}`: {reason}."

    def _cycle_length(self) -> int:
        """How many steps lead from the outermost value to the first that was met before; 0 without a cycle."""
        seen: set[int] = set()
        for length, container in enumerate(reversed(self._containers)):
            if container in seen and self._code == "too_deep":
                return length
            seen.add(container)
        return 0

    def describe(self) -> bytes:
        """As the JSON that the sandbox passes on."""
        return encode_json(
            {"type": "InvalidResult", "message": clean_text(str(self)), "traceback": None, "code": self.code}
        )


def encode(value: object) -> bytes:
    """The value as JSON under the rule.

    Raises:
        NoJsonForm: the rule has no form for it.
    """
    plain = jsonable(value)
    try:
        return encode_json(plain)
    except UnicodeEncodeError:
        return encode_json(_without_surrogates(plain))


def jsonable(value: object) -> Any:
    """The value in ``None``, ``bool``, ``int``, ``float``, ``str``, ``list``, ``tuple`` and ``dict`` with ``str`` keys.

    Integers are within ±``MAX_SAFE_INTEGER``; floats may be NaN or infinite and strings may hold surrogates, which
    ``encode`` deals with.

    Raises:
        NoJsonForm: the rule has no form for it.
    """
    return _convert(value, MAX_DEPTH)


def _convert(value: Any, room: int) -> Any:
    """``room`` is how many containers may still be opened."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else _long_integer(value)
    if kind is dict:
        return _object(value.items(), room, value)
    if kind is list or kind is tuple:
        return _array(value, room, value)
    return _convert_other(value, room)


def _array(items: list[Any] | tuple[Any, ...], room: int, container: object) -> Any:
    if room <= 0:
        raise NoJsonForm("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    kinds = set(map(type, items))
    if kinds <= _PLAIN:
        return items
    if kinds == {int} and min(items) >= -MAX_SAFE_INTEGER and max(items) <= MAX_SAFE_INTEGER:
        return items
    if kinds == {dict} and room > 1 and _are_plain(items):
        return items
    converted: list[Any] = []
    try:
        for item in items:
            converted.append(_convert(item, room - 1))  # noqa: PERF401 its length is the index of what failed
    except NoJsonForm as problem:
        problem.inside(f"[{len(converted)}]", container)
        raise
    return converted


def _are_plain(objects: Iterable[dict[Any, Any]]) -> bool:
    """Whether each is JSON already: names of text, values that the rule leaves as they are. No step of Python for each.

    Records are what most large results are made of: 170,000 of them take a third of the time that a look at each takes.
    """
    if set(map(type, itertools.chain.from_iterable(objects))) != {str}:
        return False
    values = list(itertools.chain.from_iterable(map(dict.values, objects)))
    if not set(map(type, values)) <= _PLAIN_OR_INT:
        return False
    integers = [value for value in values if type(value) is int]
    return not integers or (min(integers) >= -MAX_SAFE_INTEGER and max(integers) <= MAX_SAFE_INTEGER)


def _object(pairs: Iterable[tuple[Any, Any]], room: int, container: object) -> dict[str, Any]:
    if room <= 0:
        raise NoJsonForm("too_deep", f"nested deeper than {MAX_DEPTH} levels")
    converted: dict[str, Any] = {}
    name, count = "", 0
    try:
        for key, value in pairs:
            name = key if type(key) is str else _name(key)
            converted[name] = _convert(value, room - 1)
            count += 1
            if len(converted) != count:
                raise NoJsonForm("key_collision", "two keys have this name in JSON; rename one")  # noqa: TRY301 it gets its path
    except NoJsonForm as problem:
        problem.inside(_step(name), container)
        raise
    return converted


def _name(key: object) -> str:
    """A key as JSON's name: text as it is, any other value as its JSON text."""
    if (pandas := sys.modules.get("pandas")) is not None and isinstance(key, getattr(pandas, "Interval", ())):
        return str(key)  # as every table shows it, "(0, 10]"
    plain = _convert(key, MAX_DEPTH)
    return plain if type(plain) is str else encode_json(_without_surrogates(plain)).decode()


def _step(name: str) -> str:
    if name.isidentifier() and len(name) <= 80:
        return f".{name}"
    return f"[{encode_json(clean_text(name[:80])).decode()}]"


def _long_integer(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        limit = sys.get_int_max_str_digits()
        raise NoJsonForm("integer_too_long", f"an integer of more than {limit} digits; make a string of it") from None


def _without_surrogates(plain: Any) -> Any:
    kind = type(plain)
    if kind is str:
        return clean_text(plain)
    if kind is list or kind is tuple:
        return [_without_surrogates(item) for item in plain]
    if kind is dict:
        cleaned = {clean_text(name): _without_surrogates(value) for name, value in plain.items()}
        if len(cleaned) < len(plain):
            raise NoJsonForm("key_collision", "two names differ in lone surrogates only, which JSON cannot carry")
        return cleaned
    return plain


# ---- values beyond JSON's own -----------------------------------------------------------------------------------


def _convert_other(value: Any, room: int) -> Any:
    # NaT is a datetime, and a numpy.float64 is a float: the libraries' own types go first
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _from_numpy(numpy, value, room)
    packages = {str(base.__module__).partition(".")[0] for base in type(value).__mro__}
    for package in packages & _LIBRARIES.keys() & sys.modules.keys():
        # none is imported here: a value of a library is there only if the script has loaded it
        if (found := _LIBRARIES[package](sys.modules[package], value, room)) is not _NOT_KNOWN:
            return found
    for kind, convert in _FORMS.items():
        if isinstance(value, kind):
            return convert(value, room)
    if not isinstance(value, type):
        if dataclasses.is_dataclass(value):
            return _fields(value, [field.name for field in dataclasses.fields(value)], room)
        if (attributes := getattr(type(value), "__attrs_attrs__", None)) is not None:
            return _fields(value, [attribute.name for attribute in attributes], room)
    if isinstance(value, collections.abc.Iterator) and not isinstance(value, io.IOBase):
        return _array(list(value), room, value)
    raise _unknown(value)


def _unknown(value: object, fix: str = "convert it first") -> NoJsonForm:
    return NoJsonForm("no_json_form", f"`{type_name(value)}` is not a value that the JSON rule knows; {fix}")


_VIEWS = (collections.abc.KeysView, collections.abc.ValuesView, collections.abc.ItemsView)


def _base64(value: Any, _room: int) -> str:
    return base64.b64encode(bytes(value)).decode()


def _iso(value: Any, _room: int) -> str:
    return str(value.isoformat())


def _text(value: Any, _room: int) -> str:
    return str.__str__(str(value))


def _tuple(value: tuple[Any, ...], room: int) -> Any:
    names = getattr(type(value), "_fields", None)
    if isinstance(names, tuple) and len(names) == len(value):
        return _object(zip(names, value, strict=True), room, value)
    return _array(tuple(value), room, value)


def _set(value: Iterable[Any], room: int) -> list[Any]:
    items = list(_array(list(value), room, value))
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: encode_json(_without_surrogates(item)))


def _row(names: Iterable[Any], values: Iterable[Any], room: int, row: object) -> dict[str, Any]:
    """A row of a table as an object; of columns with one name, the second is called ``NAME_2``."""
    return _object(zip(_distinct(names), values, strict=True), room, row)


def _distinct(names: Iterable[Any]) -> list[str]:
    """JSON's names of columns; a name that was there before gets the first number that makes it another."""
    named = [_name(name) for name in names]
    taken, found = set(named), set[str]()
    distinct = []
    for name in named:
        one = name
        if one in found:
            one = next(other for number in itertools.count(2) if (other := f"{name}_{number}") not in taken)
        taken.add(one)
        found.add(one)
        distinct.append(one)
    return distinct


def _fields(value: object, names: Iterable[str], room: int) -> dict[str, Any]:
    return _object(((name, getattr(value, name)) for name in names), room, value)


_FORMS: Mapping[type | tuple[type, ...], Callable[[Any, int], Any]] = MappingProxyType(
    {
        enum.Enum: lambda value, room: _convert(value.value, room),
        # subclasses of JSON's own types, as the value that they extend
        int: lambda value, room: _convert(int.__int__(value), room),
        float: lambda value, _room: float.__float__(value),
        str: lambda value, _room: str.__str__(value),
        dict: lambda value, room: _object(dict.items(value), room, value),
        list: lambda value, room: _array(list(value), room, value),
        tuple: _tuple,
        (bytes, bytearray, memoryview): _base64,
        (dt.date, dt.time): _iso,
        dt.timedelta: lambda value, _room: value.total_seconds(),
        (uuid.UUID, fractions.Fraction, pathlib.PurePath, dt.timezone): _text,
        decimal.Decimal: lambda value, _room: str(value) if value.is_finite() else None,
        complex: lambda value, _room: {"real": value.real, "imag": value.imag},
        _VIEWS: lambda value, room: _array(list(value), room, value),
        collections.abc.Set: _set,
        (collections.deque, range, array.array): lambda value, room: _array(list(value), room, value),
        collections.abc.Mapping: lambda value, room: _object(value.items(), room, value),
        collections.UserString: lambda value, _room: str.__str__(value.data),
        collections.abc.Sequence: lambda value, room: _array(list(value), room, value),
        types.SimpleNamespace: lambda value, room: _object(vars(value).items(), room, value),
        msgspec.Struct: lambda value, room: _fields(value, value.__struct_fields__, room),
    }
)
"""Type → its form; the first that the value is an instance of holds."""


# ---- numpy ------------------------------------------------------------------------------------------------------


def _from_numpy(numpy: Any, value: Any, room: int) -> Any:
    if isinstance(value, numpy.ma.MaskedArray) or value.dtype.kind not in "fmMV":
        plain = value.tolist()
    elif value.dtype.kind == "f":
        plain = value.astype(numpy.float64).tolist()  # float128 has no Python form
    elif value.dtype.kind == "M":
        plain = numpy.where(numpy.isnat(value), None, numpy.datetime_as_string(value)).tolist()
    elif value.dtype.kind == "m":
        plain = _seconds(numpy, value)
    else:
        plain = _records(value)
    if isinstance(plain, numpy.generic):
        raise NoJsonForm("no_json_form", f"`{type_name(plain)}` has no JSON form; convert it first")
    if type(plain) is list:
        return _array(plain, room, value)
    return _convert(plain, room)


def _seconds(numpy: Any, value: Any) -> Any:
    try:
        return (value / numpy.timedelta64(1, "s")).tolist()
    except TypeError:
        raise NoJsonForm("no_json_form", f"`{value.dtype}` is no fixed number of seconds; convert it first") from None


def _records(value: Any) -> Any:
    """Structured values as objects, raw ones as bytes."""
    if value.dtype.names is None:
        return value.tolist() if value.ndim else bytes(value)
    if value.ndim:
        return [_records(item) for item in value]
    return {name: value[name] for name in value.dtype.names}


# ---- pandas -----------------------------------------------------------------------------------------------------


def _from_pandas(pandas: Any, value: Any, room: int) -> Any:
    if isinstance(value, pandas.DataFrame):
        return _frame(pandas, value, room)
    if isinstance(value, pandas.Series):
        return _series(pandas, value, room)
    if isinstance(value, (pandas.Index, pandas.api.extensions.ExtensionArray)):
        return _array(_column(value), room, value)
    return _pandas_scalar(pandas, value, room)


def _pandas_scalar(pandas: Any, value: Any, room: int) -> Any:
    if value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, pandas.Timestamp):
        return value.isoformat()
    if isinstance(value, pandas.Timedelta):
        return value.total_seconds()
    if isinstance(value, pandas.Period):
        return str(value)
    if isinstance(value, pandas.Interval):
        return _fields(value, ("left", "right", "closed"), room)
    return _NOT_KNOWN


def _series(pandas: Any, series: Any, room: int) -> Any:
    """An object by its labels where it has any; records, as of a table, where a label comes twice."""
    values = _column(series)
    if not has_labels(pandas, series.index):
        return _array(values, room, series)
    if not series.index.is_unique:
        return _frame(pandas, series.to_frame("value" if series.name is None else series.name), room)
    return _object(zip(series.index.tolist(), values, strict=True), room, series)


def _column(values: Any) -> list[Any]:
    """Plain Python values where numpy has them, else whatever the elements are: Timestamp, NA, str."""
    return list(values.tolist())


def has_labels(pandas: Any, index: Any) -> bool:
    """Whether an index says more than a position: it has a name, or levels, or is not the integers from 0 on."""
    if index.nlevels > 1 or index.name is not None:
        return True
    return bool(index.dtype.kind not in "iu" or not index.equals(pandas.RangeIndex(len(index)))) and len(index) > 0


def _frame(pandas: Any, frame: Any, room: int) -> list[dict[str, Any]]:
    """Records; the levels of an index with labels are their first fields."""
    index, labels = frame.index, frame.columns.tolist()
    levels = range(index.nlevels) if has_labels(pandas, index) else range(0)
    # the columns keep their names: a level of the index that has the same name as one of them gets another
    names = _distinct([*labels, *(_level_name(index, level) for level in levels)])
    columns = [index.get_level_values(level).tolist() for level in levels]
    columns += [_column(frame.iloc[:, position]) for position in range(len(labels))]
    return _records_of_columns([*names[len(labels) :], *names[: len(labels)]], columns, len(frame), room, frame)


def _records_of_columns(
    names: list[str], columns: list[list[Any]], rows: int, room: int, container: object
) -> list[dict[str, Any]]:
    # as an object of columns first: it checks names and values once for each column, not once for each record
    converted = _object(zip(names, columns, strict=True), room, container)
    if not converted:
        return [{} for _ in range(rows)]
    return [dict(zip(converted, record, strict=True)) for record in zip(*converted.values(), strict=True)]


def _level_name(index: Any, level: int) -> Any:
    name = index.names[level]
    if name is not None:
        return name
    return "index" if index.nlevels == 1 else f"level_{level}"


# ---- other libraries --------------------------------------------------------------------------------------------


def _picture(_library: Any, value: Any, _room: int) -> Any:
    """An object that names the artifact which it becomes."""
    if isinstance(value, type):
        return _NOT_KNOWN
    if (figure := pictures.figure_of(value)) is not None:
        return pictures.kept().figure(figure)
    return pictures.kept().image(value) if pictures.is_image(value) else _NOT_KNOWN


def _from_polars(polars: Any, value: Any, room: int) -> Any:
    if isinstance(value, polars.DataFrame):
        columns = [column.to_list() for column in value.get_columns()]
        return _records_of_columns(list(value.columns), columns, value.height, room, value)
    if isinstance(value, polars.Series):
        return _array(value.to_list(), room, value)
    if isinstance(value, polars.LazyFrame):
        raise _unknown(value, "collect() it first")
    return _NOT_KNOWN


def _from_pyarrow(pyarrow: Any, value: Any, room: int) -> Any:
    if isinstance(value, (pyarrow.Table, pyarrow.RecordBatch)):
        columns = [value.column(position).to_pylist() for position in range(value.num_columns)]
        return _records_of_columns(_distinct(value.schema.names), columns, value.num_rows, room, value)
    if isinstance(value, (pyarrow.Array, pyarrow.ChunkedArray)):
        return _array(value.to_pylist(), room, value)
    return _convert(value.as_py(), room) if isinstance(value, pyarrow.Scalar) else _NOT_KNOWN


def _from_sqlalchemy(sqlalchemy: Any, value: Any, room: int) -> Any:
    if isinstance(value, sqlalchemy.Row):
        return _row(value._fields, tuple(value), room, value)
    mapper = getattr(sqlalchemy.inspect(value, raiseerr=False), "mapper", None)
    if mapper is None or isinstance(value, type):
        return _NOT_KNOWN
    return _fields(value, [attribute.key for attribute in mapper.column_attrs], room)


def _from_sqlite(sqlite3: Any, value: Any, room: int) -> Any:
    return _row(value.keys(), tuple(value), room, value) if isinstance(value, sqlite3.Row) else _NOT_KNOWN


def _from_pydantic(pydantic: Any, value: Any, room: int) -> Any:
    if not isinstance(value, pydantic.BaseModel):
        return _NOT_KNOWN
    return _convert(value.model_dump() if hasattr(value, "model_dump") else value.dict(), room)


def _from_sympy(sympy: Any, value: Any, room: int) -> Any:
    if isinstance(value, sympy.MatrixBase):
        return _array(value.tolist(), room, value)
    if isinstance(value, sympy.Integer):
        return _convert(int(value), room)
    if isinstance(value, sympy.Float):
        return float(value)
    return str(value) if isinstance(value, sympy.Basic) else _NOT_KNOWN


_NOT_KNOWN = object()
"""A value of a library that has no form of its own, so that of its base holds."""

_LIBRARIES: Mapping[str, Callable[[Any, Any, int], Any]] = MappingProxyType(
    {
        "PIL": _picture,
        "matplotlib": _picture,
        "seaborn": _picture,
        "ipaddress": lambda _, value, room: _text(value, room),
        "pandas": _from_pandas,
        "polars": _from_polars,
        "pyarrow": _from_pyarrow,
        "pydantic": _from_pydantic,
        "sqlalchemy": _from_sqlalchemy,
        "sqlite3": _from_sqlite,
        "sympy": _from_sympy,
        "zoneinfo": lambda _, value, room: _NOT_KNOWN if isinstance(value, type) else _text(value, room),
    }
)
"""Package → the form of its values."""
