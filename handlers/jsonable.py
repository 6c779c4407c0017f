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
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

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
    converted: list[Any] = []
    try:
        for item in items:
            converted.append(_convert(item, room - 1))  # noqa: PERF401 its length is the index of what failed
    except NoJsonForm as problem:
        problem.inside(f"[{len(converted)}]", container)
        raise
    return converted


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
    pandas = sys.modules.get("pandas")
    # NaT is a datetime, and a numpy.float64 is a float: the libraries' own types go first
    if pandas is not None and _is_from(value, "pandas"):
        return _from_pandas(pandas, value, room)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _from_numpy(numpy, value, room)
    for kind, convert in _FORMS.items():
        if isinstance(value, kind):
            return convert(value, room)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, [field.name for field in dataclasses.fields(value)], room)
    if isinstance(value, collections.abc.Iterator):
        raise NoJsonForm("no_json_form", f"`{type_name(value)}` is an iterator; make a list of it with list(…)")
    raise NoJsonForm("no_json_form", f"`{type_name(value)}` is not a value that the JSON rule knows; convert it first")


def _is_from(value: object, package: str) -> bool:
    return any(str(base.__module__).partition(".")[0] == package for base in type(value).__mro__)


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
        (uuid.UUID, fractions.Fraction, pathlib.PurePath): _text,
        decimal.Decimal: lambda value, _room: str(value) if value.is_finite() else None,
        complex: lambda value, _room: {"real": value.real, "imag": value.imag},
        _VIEWS: lambda value, room: _array(list(value), room, value),
        collections.abc.Set: _set,
        (collections.deque, range, array.array): lambda value, room: _array(list(value), room, value),
        collections.abc.Mapping: lambda value, room: _object(value.items(), room, value),
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


def _from_pandas(pandas: Any, value: Any, room: int) -> Any:  # noqa: PLR0911 one for each row of the table
    if value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, pandas.DataFrame):
        return _frame(pandas, value, room)
    if isinstance(value, pandas.Series):
        values = _column(value)
        if not _has_labels(pandas, value.index):
            return _array(values, room, value)
        return _object(zip(value.index.tolist(), values, strict=True), room, value)
    if isinstance(value, (pandas.Index, pandas.api.extensions.ExtensionArray)):
        return _array(_column(value), room, value)
    if isinstance(value, pandas.Timestamp):
        return value.isoformat()
    if isinstance(value, pandas.Timedelta):
        return value.total_seconds()
    if isinstance(value, pandas.Period):
        return str(value)
    if isinstance(value, pandas.Interval):
        return _fields(value, ("left", "right", "closed"), room)
    raise NoJsonForm("no_json_form", f"`{type_name(value)}` is not a value that the JSON rule knows; convert it first")


def _column(values: Any) -> list[Any]:
    """Plain Python values where numpy has them, else whatever the elements are: Timestamp, NA, str."""
    return list(values.tolist())


def _has_labels(pandas: Any, index: Any) -> bool:
    """Whether an index says more than a position: it has a name, or levels, or is not made of integers."""
    if isinstance(index, pandas.RangeIndex):
        return index.name is not None
    return index.nlevels > 1 or index.name is not None or index.dtype.kind not in "iu"


def _frame(pandas: Any, frame: Any, room: int) -> list[dict[str, Any]]:
    """Records; the levels of an index with labels are their first fields."""
    columns: list[tuple[Any, list[Any]]] = []
    if _has_labels(pandas, frame.index):
        names = [_level_name(frame.index, level) for level in range(frame.index.nlevels)]
        columns += [(name, frame.index.get_level_values(level).tolist()) for level, name in enumerate(names)]
    columns += [(label, _column(frame.iloc[:, position])) for position, label in enumerate(frame.columns.tolist())]
    # as an object of columns first: it checks names and values once for each column, not once for each record
    converted = _object(columns, room, frame)
    if not converted:
        return [{} for _ in range(len(frame))]
    return [dict(zip(converted, record, strict=True)) for record in zip(*converted.values(), strict=True)]


def _level_name(index: Any, level: int) -> Any:
    name = index.names[level]
    if name is not None:
        return name
    return "index" if index.nlevels == 1 else f"level_{level}"
