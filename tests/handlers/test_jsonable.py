"""The JSON rule: every row of the table in handlers/README.md, and that any value at all gives strict JSON."""

from __future__ import annotations

import array
import collections
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import io
import ipaddress
import json
import math
import pathlib
import sqlite3
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import jsonable

BIG = 2**53


class Colour(enum.Enum):
    RED = "red"
    NESTED = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Thing:
    name: str
    parts: set[int]


class Record(msgspec.Struct):
    a: int


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not me"


class Number(int):
    pass


class Words(dict[str, int]):
    def items(self) -> Any:
        raise AssertionError


class Sequence(collections.abc.Sequence[str]):
    def __getitem__(self, position: Any) -> Any:
        return "ab"[position]

    def __len__(self) -> int:
        return 2


def _row() -> sqlite3.Row:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("SELECT 1 AS a, 2 AS a").fetchone()
    finally:
        connection.close()


ROW = _row()
UTC = dt.UTC
MASKED = np.ma.array([1, 2, 3], mask=[False, True, False])
STRUCTURED = np.array([(1, 2.5)], dtype=[("a", int), ("b", float)])
FRAME = pd.DataFrame({"k": ["a", "b", "a"], "x": [1, 2, 3], "y": [1.5, None, 2.5]})

FORMS: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "true": (True, True),
    "text": ("é\u0000\u2028", "é\u0000\u2028"),
    "subclass of text": (Text("me"), "me"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "lone surrogate at the end": (["a\udbff"], ["a\ufffd"]),
    "surrogate pair": ("\ud83d\ude00", "😀"),
    "surrogate in a key": ({"\udc00": 1}, {"\ufffd": 1}),
    "largest safe integer": (BIG - 1, BIG - 1),
    "smallest safe integer": (1 - BIG, 1 - BIG),
    "unsafe integer": (BIG, str(BIG)),
    "unsafe negative integer": (-BIG, str(-BIG)),
    "unsafe among safe": ([1, BIG, 2], [1, str(BIG), 2]),
    "unsafe among others": ([1, "x", BIG], [1, "x", str(BIG)]),
    "subclass of int": (Number(BIG), str(BIG)),
    "float": (0.1, 0.1),
    "nan": (math.nan, None),
    "infinity in a list": ([math.inf, -math.inf, 1.5], [None, None, 1.5]),
    "tuple": ((1, (2,)), [1, [2]]),
    "empty list": ([], []),
    "set": ({3, 1, 2}, [1, 2, 3]),
    "set of several sorts": (frozenset({"b", 1, None}), ["b", 1, None]),
    "deque": (collections.deque([1, 2]), [1, 2]),
    "range": (range(3), [0, 1, 2]),
    "array": (array.array("d", [1.5]), [1.5]),
    "keys view": ({"b": 1, "a": 2}.keys(), ["b", "a"]),
    "values view": ({"b": 1, "a": 2}.values(), [1, 2]),
    "items view": ({"b": 1}.items(), [["b", 1]]),
    "dict": ({"a": {"b": []}}, {"a": {"b": []}}),
    "int keys": ({1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
    "float key": ({1.5: 1}, {"1.5": 1}),
    "bool and null keys": ({True: 1, None: 2}, {"true": 1, "null": 2}),
    "unsafe integer key": ({BIG: 1}, {str(BIG): 1}),
    "tuple key": ({("a", 1): 1}, {'["a",1]': 1}),
    "date key": ({dt.date(2024, 1, 2): 1}, {"2024-01-02": 1}),
    "enum key": ({Colour.RED: 1}, {"red": 1}),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "subclass of dict": (Words(a=1), {"a": 1}),
    "mapping": (types.MappingProxyType({"a": (1,)}), {"a": [1]}),
    "chain map": (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
    "user list": (collections.UserList([1]), [1]),
    "user dict": (collections.UserDict(a=1), {"a": 1}),
    "user string": (collections.UserString("a"), "a"),
    "sequence": (Sequence(), ["a", "b"]),
    "namespace": (types.SimpleNamespace(a={1}), {"a": [1]}),
    "row of sqlite": (ROW, {"a": 1, "a_2": 2}),
    "address": (ipaddress.ip_address("::1"), "::1"),
    "network": (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    "zone": (zoneinfo.ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
    "fixed zone": (UTC, "UTC"),
    "named tuple": (Point(1, math.nan), {"x": 1, "y": None}),
    "dataclass": (Thing("t", {2, 1}), {"name": "t", "parts": [1, 2]}),
    "msgspec struct": (Record(1), {"a": 1}),
    "bytes": (b"\x00\xff", "AP8="),
    "bytearray": (bytearray(b"ab"), "YWI="),
    "memoryview": (memoryview(b"ab"), "YWI="),
    "date": (dt.date(2024, 1, 2), "2024-01-02"),
    "naive datetime": (dt.datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),  # noqa: DTZ001 on purpose
    "aware datetime": (dt.datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
    "time": (dt.time(1, 2), "01:02:00"),
    "timedelta": (dt.timedelta(days=1, milliseconds=5), 86400.005),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "decimal nan": (decimal.Decimal("nan"), None),
    "fraction": (fractions.Fraction(1, 3), "1/3"),
    "uuid": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "enum": (Colour.RED, "red"),
    "enum of a tuple": (Colour.NESTED, [1, 2]),
    "int enum": (Level.HIGH, 3),
    "complex": (1 + 2j, {"real": 1.0, "imag": 2.0}),
    "numpy bool": (np.bool_(True), True),
    "numpy int": (np.int8(-3), -3),
    "numpy uint64": (np.uint64(2**64 - 1), str(2**64 - 1)),
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy float64 nan": (np.float64("nan"), None),
    "numpy longdouble": (np.longdouble(1.5), 1.5),
    "numpy complex": (np.complex64(1j), {"real": 0.0, "imag": 1.0}),
    "numpy text": (np.str_("a"), "a"),
    "numpy bytes": (np.bytes_(b"ab"), "YWI="),
    "numpy datetime": (np.datetime64("2024-01-02T03:04"), "2024-01-02T03:04"),
    "numpy NaT": (np.datetime64("NaT", "s"), None),
    "numpy timedelta": (np.timedelta64(1500, "ms"), 1.5),
    "numpy timedelta NaT": (np.timedelta64("NaT", "s"), None),
    "numpy void": (np.void(b"ab"), "YWI="),
    "numpy structured scalar": (STRUCTURED[0], {"a": 1, "b": 2.5}),
    "array of ints": (np.arange(3), [0, 1, 2]),
    "array of floats": (np.array([[1, np.nan]]), [[1.0, None]]),
    "array of unsafe ints": (np.array([BIG]), [str(BIG)]),
    "array without dimension": (np.array(7), 7),
    "empty array": (np.zeros((0, 3)), []),
    "array of text": (np.array(["a", "bc"]), ["a", "bc"]),
    "array of objects": (np.array([1, {2}, None], dtype=object), [1, [2], None]),
    "array of datetimes": (np.array(["2024-01-02", "NaT"], dtype="M8[D]"), ["2024-01-02", None]),
    "array of timedeltas": (np.array([1, "NaT"], dtype="m8[s]"), [1.0, None]),
    "array of longdoubles": (np.array([1.5], dtype=np.longdouble), [1.5]),
    "masked array": (MASKED, [1, None, 3]),
    "masked": (np.ma.masked, None),
    "structured array": (STRUCTURED, [{"a": 1, "b": 2.5}]),
    "NaT": (pd.NaT, None),
    "NA": (pd.NA, None),
    "timestamp": (pd.Timestamp("2024-01-02", tz="UTC"), "2024-01-02T00:00:00+00:00"),
    "pandas timedelta": (pd.Timedelta("1s"), 1.0),
    "period": (pd.Period("2024-01", "M"), "2024-01"),
    "interval": (pd.Interval(1, 2), {"left": 1, "right": 2, "closed": "right"}),
    "series": (FRAME["y"], [1.5, None, 2.5]),
    "series of text": (FRAME["k"], ["a", "b", "a"]),
    "series with labels": (FRAME[["x", "y"]].mean(), {"x": 2.0, "y": 2.0}),
    "series by group": (FRAME.groupby("k")["x"].sum(), {"a": 4, "b": 2}),
    "series by two groups": (FRAME.groupby(["k", "x"])["y"].count(), {'["a",1]': 1, '["a",3]': 1, '["b",2]': 0}),
    "series by interval": (pd.Series([4], index=[pd.Interval(1, 2)]), {"(1, 2]": 4}),
    "filtered series": (FRAME["x"][FRAME["x"] > 1], {"1": 2, "2": 3}),
    "sorted series": (FRAME["x"].sort_values(ascending=False), {"2": 3, "1": 2, "0": 1}),
    "counts of years": (pd.Series([2020, 2020, 2021]).value_counts(), {"2020": 2, "2021": 1}),
    "labels from 1 on": (pd.Series([5, 6], index=pd.RangeIndex(1, 3)), {"1": 5, "2": 6}),
    "labels that are positions": (pd.Series([5, 6], index=[0, 1]), [5, 6]),
    "float labels": (pd.Series([5, 6], index=[0.0, 1.0]), {"0.0": 5, "1.0": 6}),
    "dates as labels": (
        pd.Series([5], index=pd.DatetimeIndex(["2024-01-02"])), {"2024-01-02T00:00:00": 5},
    ),
    "empty series": (pd.Series([], dtype=float), []),
    "labels that come twice": (
        pd.Series([1, 2], index=["a", "a"], name="n"), [{"index": "a", "n": 1}, {"index": "a", "n": 2}],
    ),
    "positions that come twice": (
        pd.concat([FRAME["x"].head(1)] * 2), [{"index": 0, "x": 1}, {"index": 0, "x": 1}],
    ),
    "levels that come twice": (
        pd.Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("a", 1)])),
        [{"level_0": "a", "level_1": 1, "value": 1}, {"level_0": "a", "level_1": 1, "value": 2}],
    ),
    "nullable series": (pd.Series([1, None], dtype="Int64"), [1, None]),
    "series of datetimes": (
        pd.Series(pd.to_datetime(pd.Series(["2024-01-02", None]))), ["2024-01-02T00:00:00", None],
    ),
    "categorical": (pd.Categorical(["a", None]), ["a", None]),
    "index": (pd.Index([1, 2]), [1, 2]),
    "multi index": (pd.MultiIndex.from_tuples([("a", 1)]), [["a", 1]]),
    "frame": (FRAME.head(2), [{"k": "a", "x": 1, "y": 1.5}, {"k": "b", "x": 2, "y": None}]),
    "frame by group": (FRAME.groupby("k")[["x"]].sum(), [{"k": "a", "x": 4}, {"k": "b", "x": 2}]),
    "correlation matrix": (FRAME[["x"]].corr(), [{"index": "x", "x": 1.0}]),
    "filtered frame": (FRAME[FRAME["x"] > 2][["k"]], [{"index": 2, "k": "a"}]),
    "frame with like columns": (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "a_2"]), [{"a": 1, "a_3": 2, "a_2": 3}]),
    "frame with like columns but for their type": (pd.DataFrame([[1, 2]], columns=[1, "1"]), [{"1": 1, "1_2": 2}]),
    "frame whose index is a column, too": (
        FRAME.head(1).set_index("k", drop=False)[["k"]], [{"k_2": "a", "k": "a"}],
    ),
    "frame with levels of columns": (
        FRAME.groupby("k").agg({"x": ["sum"]}), [{"k": "a", '["x","sum"]': 4}, {"k": "b", '["x","sum"]': 2}],
    ),
    "frame without columns": (pd.DataFrame(index=range(2)), [{}, {}]),
    "frame without rows": (FRAME.head(0), []),
    "frame with int columns": (pd.DataFrame([[1, 2]]), [{"0": 1, "1": 2}]),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), FORMS.values(), ids=FORMS)
def test_form(value: Any, expected: Any) -> None:
    """Each sort of value has the form that the table says, alone and inside others."""
    assert expected == decode(jsonable.encode(value))
    assert {"a": [expected]} == decode(jsonable.encode({"a": (value,)}))


ITERATORS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (number for number in range(2)),
    "map": lambda: map(int, "01"),
    "cursor": lambda: iter([0, 1]),
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_is_an_array(make: Callable[[], Any]) -> None:
    """Of what it gives, to its end."""
    assert [0, 1] == decode(jsonable.encode(make()))


def test_what_an_iterator_raises_is_not_swallowed() -> None:
    """It is the failure of whoever wrote it."""
    with pytest.raises(ZeroDivisionError):
        jsonable.encode(1 // number for number in (1, 0))


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def cycle() -> Any:
    inner: list[Any] = []
    value = {"a": {"b": inner}}
    inner.append(value["a"])
    return value


def cycle_of_objects() -> Any:
    thing = Thing("t", set())
    thing.parts = thing  # type: ignore[assignment]
    return [thing]


REFUSED: dict[str, tuple[Any, str, str]] = {
    "too deep": (nested(65), "too_deep", "`$.a[0].a[0].a[0].a[0]…[0]`"),
    "deep inside a tuple": ((nested(64),), "too_deep", "deeper than 64"),
    "deep array": ([np.zeros((1,) * 64)], "too_deep", "deeper than 64"),
    "cycle": (cycle(), "cycle", "`$.a.b[0]`: what is there contains itself"),
    "cycle of objects": (cycle_of_objects(), "cycle", "`$[0].parts`"),
    "object": ({"a": [1, object()]}, "no_json_form", "`$.a[1]`: `object` is not"),
    "in a set": ({object()}, "no_json_form", "`$[0]`: `object`"),
    "key": ({object(): 1}, "no_json_form", "`object` is not"),
    "strange name": ({"a b": object()}, "no_json_form", '`$["a b"]`'),
    "class": (Thing, "no_json_form", "`type` is not"),
    "exception": (ValueError("x"), "no_json_form", "`ValueError` is not"),
    "object in a generator": ((object() for _ in "ab"), "no_json_form", "`$[0]`: `object`"),
    "file": (io.StringIO("a"), "no_json_form", "`StringIO`"),
    "zone class": (zoneinfo.ZoneInfo, "no_json_form", "`type`"),
    "same names": ({"1": 0, 1: 0}, "key_collision", '`$["1"]`'),
    "same names in a mapping": (types.MappingProxyType({None: 0, "null": 0}), "key_collision", "`$.null`"),
    "same names but for surrogates": (dict.fromkeys(["\ud800", "\ud801"]), "key_collision", "lone surrogates"),
    "labels with one name": (pd.Series([1, 2], index=[1, "1"]), "key_collision", '`$["1"]`'),
    "long integer": ([10**4300], "integer_too_long", "more than 4300 digits"),
    "months": (np.timedelta64(1, "M"), "no_json_form", "no fixed number of seconds"),
    "group by": (FRAME.groupby("k"), "no_json_form", "`DataFrameGroupBy`"),
    "frame of objects": (pd.DataFrame({"a": [object()]}), "no_json_form", "`$.a[0]`: `object`"),
}


@pytest.mark.parametrize(("value", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(value: Any, code: str, message: str) -> None:
    """A value without a JSON form is refused with a code, the path and the type's name."""
    with pytest.raises(jsonable.NoJsonForm) as raised:
        jsonable.encode(value)
    assert code == raised.value.code
    assert message in str(raised.value)
    assert code == decode(raised.value.describe())["code"]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"a": 1, "b": None}, {"a": 2.5, "b": "x"}], b'[{"a":1,"b":null},{"a":2.5,"b":"x"}]'),
        ([{"a": 1}, {"a": 2**53}], b'[{"a":1},{"a":"9007199254740992"}]'),
        ([{"a": -(2**53)}, {}], b'[{"a":"-9007199254740992"},{}]'),
        ([{"a": 1}, {2: True}], b'[{"a":1},{"2":true}]'),
        ([{"a": [1]}, {"a": {"b": (2,)}}], b'[{"a":[1]},{"a":{"b":[2]}}]'),
        ([{"a": float("nan")}, {"a": "\ud800"}], '[{"a":null},{"a":"\ufffd"}]'.encode()),
        ([{"a": 1}, {"a": decimal.Decimal("1.10")}], b'[{"a":1},{"a":"1.10"}]'),
        ([{}, {}], b"[{},{}]"),
    ],
)
def test_records_are_what_each_of_them_is(records: list[Any], expected: bytes) -> None:
    """Those that are JSON already are passed on as they are; one that is not has each looked at."""
    assert expected == jsonable.encode(records)
    assert expected[1:-1] == b",".join(jsonable.encode(one) for one in records)


def test_deepest_that_is_allowed() -> None:
    """64 levels pass, whatever they are made of; scalars are no level."""
    assert nested(64) == decode(jsonable.encode(nested(64)))
    assert pd.DataFrame({"a": [1]}).to_dict("records") == decode(jsonable.encode(pd.DataFrame({"a": [1]})))


def decode(text: bytes) -> Any:
    """Strict JSON: no NaN, no repeated names, UTF-8."""

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    return json.loads(text.decode("utf-8"), parse_constant=no_constant, object_pairs_hook=unique)


def depth_of(value: Any) -> int:
    if isinstance(value, (dict, list)):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


def integers_of(value: Any) -> list[int]:
    if isinstance(value, (dict, list)):
        return [n for item in (value.values() if isinstance(value, dict) else value) for n in integers_of(item)]
    return [value] if type(value) is int else []


KEYS = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.dates(), st.tuples(st.integers()))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary(), st.datetimes(),
    st.dates(), st.times(), st.timedeltas(), st.uuids(), st.decimals(), st.fractions(), st.complex_numbers(),
    st.floats(width=32).map(np.float32), st.integers(0, 2**64 - 1).map(np.uint64), st.just(pd.NaT), st.just(pd.NA),
    st.lists(st.floats()).map(np.array), st.lists(st.integers(-(2**63), 2**63 - 1)).map(pd.Series),
    st.builds(object),
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner), st.frozensets(KEYS),
        st.lists(inner).map(collections.deque),
    ),
    max_leaves=30,
)  # fmt: skip


@given(ANYTHING)
@settings(max_examples=400, deadline=None)
def test_anything_is_strict_json_or_refused(value: Any) -> None:
    """Any value is refused by name or becomes strict JSON, no deeper and with no larger integers than promised."""
    try:
        found = decode(jsonable.encode(value))
    except jsonable.NoJsonForm as problem:
        found = decode(problem.describe())
    assert depth_of(found) <= jsonable.MAX_DEPTH
    assert all(abs(number) <= jsonable.MAX_SAFE_INTEGER for number in integers_of(found))


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(1 - BIG, BIG - 1), st.floats(allow_nan=False, allow_infinity=False),
              st.text(st.characters(exclude_categories=["Cs"]))),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)),
    max_leaves=50,
)  # fmt: skip


@given(PLAIN)
@settings(max_examples=300, deadline=None)
def test_plain_json_is_unchanged(value: Any) -> None:
    """A value that is JSON already comes back unchanged."""
    assert value == decode(jsonable.encode(value))
