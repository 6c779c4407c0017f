"""data_processing: each operation on each sort of data, and against pandas on data of any shape."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import duckdb
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import jsonable
from handlers.data import columns, data_processing
from handlers.failures import Refusal
from handlers.parameters.registry import Request
from tests.support.entry_process import ROOT


def process(operation: str, data: Any) -> Any:
    """The answer as JSON has it."""
    raw = msgspec.Raw(json.dumps({"operation": operation, "data": data}).encode())
    return json.loads(jsonable.encode(data_processing.run(Request(task_type="data_processing", parameters=raw))))


EXAMPLE = [{"value": 10, "category": "A"}, {"value": 20, "category": "B"}, {"value": 15, "category": "A"}]
MIXED: list[dict[str, Any]] = [
    {"n": 1, "t": "x", "b": True, "m": 1, "e": None},
    {"n": 2.5, "t": "12", "b": False, "m": "1", "N": 7},
    {"n": None, "t": "x", "m": 1},
]
SKIPPED = {"t": "text", "b": "boolean", "m": "mixed", "e": "empty"}
NO_NUMBERS = {
    "type": "number", "count": 0, "nulls": 0, "distinct": 0, "sum": 0, "mean": None, "std": None, "min": None,
    "max": None, "median": None, "quartiles": {"q1": None, "q2": None, "q3": None},
}  # fmt: skip
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sum of integers": ("sum", [1, 2, 3], {"rows": 3, "sum": 6}),
    "sum of numbers": ("sum", [1, 2.5, None], {"rows": 3, "sum": 3.5}),
    "sum of nothing": ("sum", [], {"rows": 0, "sum": 0}),
    "sum of nulls": ("sum", [None], {"rows": 1, "sum": 0}),
    "sum without rounding": ("sum", [0.1] * 10, {"rows": 10, "sum": 1.0}),
    "sum beyond 64 bits": ("sum", [2**63 - 1, 2**63 - 1], {"rows": 2, "sum": str(2**64 - 2)}),
    "integers beyond 64 bits": ("sum", [10**30, 1], {"rows": 2, "sum": str(10**30 + 1)}),
    "integers beside numbers": ("sum", [2**53 + 1, 0.5], {"rows": 2, "sum": "9007199254740993.5"}),
    "a field's sum beyond all numbers": (
        "sum", [{"a": 1e308, "b": 1}, {"a": 1e308, "b": 2}],
        {"rows": 2, "sum": {"a": None, "b": 3}, "skipped": {}, "out_of_range": ["a"]},
    ),
    "sum of objects": ("sum", MIXED, {"rows": 3, "sum": {"n": 3.5, "N": 7}, "skipped": SKIPPED}),
    "sum without number fields": ("sum", [{"t": "x"}], {"rows": 1, "sum": {}, "skipped": {"t": "text"}}),
    "average": ("average", [1, 2, None], {"rows": 3, "average": 1.5}),
    "average of nothing": ("average", [], {"rows": 0, "average": None}),
    "average of objects": ("average", MIXED, {"rows": 3, "average": {"n": 1.75, "N": 7.0}, "skipped": SKIPPED}),
    "average of large integers": ("average", [2**62, 2**62], {"rows": 2, "average": float(2**62)}),
    "count": ("count", [1, None, 2], {"rows": 3, "count": 2}),
    "count of nothing": ("count", [], {"rows": 0, "count": 0}),
    "count of objects": ("count", MIXED, {"rows": 3, "count": {"n": 2, "t": 3, "b": 2, "m": 3, "e": 0, "N": 1}}),
    "count of empty objects": ("count", [{}, {}], {"rows": 2, "count": {}}),
    "statistics of nothing": ("statistics", [], {"rows": 0, "statistics": NO_NUMBERS}),
    "statistics of nulls": ("statistics", [None, None], {"rows": 2, "statistics": {**NO_NUMBERS, "nulls": 2}}),
    "statistics of one": (
        "statistics", [3],
        {"rows": 1, "statistics": {
            "type": "number", "count": 1, "nulls": 0, "distinct": 1, "sum": 3, "mean": 3.0, "std": None,
            "min": 3, "max": 3, "median": 3.0, "quartiles": {"q1": 3.0, "q2": 3.0, "q3": 3.0}}},
    ),
    "statistics of the README": (
        "statistics", EXAMPLE,
        {"rows": 3, "statistics": {
            "value": {
                "type": "number", "count": 3, "nulls": 0, "distinct": 3, "sum": 45, "mean": 15.0, "std": 5.0, "min": 10,
                "max": 20, "median": 15.0, "quartiles": {"q1": 12.5, "q2": 15.0, "q3": 17.5}},
            "category": {
                "type": "text", "count": 3, "nulls": 0, "distinct": 2,
                "top": [{"value": "A", "count": 2}, {"value": "B", "count": 1}]}}},
    ),
    "statistics of other sorts": (
        "statistics", [{key: row.get(key) for key in "tbme"} for row in MIXED],
        {"rows": 3, "statistics": {
            "t": {"type": "text", "count": 3, "nulls": 0, "distinct": 2,
                  "top": [{"value": "x", "count": 2}, {"value": "12", "count": 1}]},
            "b": {"type": "boolean", "count": 2, "nulls": 1, "distinct": 2,
                  "top": [{"value": False, "count": 1}, {"value": True, "count": 1}]},
            "m": {"type": "mixed", "count": 3, "nulls": 0, "distinct": 2,
                  "top": [{"value": 1, "count": 2}, {"value": "1", "count": 1}]},
            "e": {"type": "empty", "count": 0, "nulls": 3, "distinct": 0}}},
    ),
    "correlation": (
        "correlation", [{"x": 1, "y": 2}, {"x": 3, "y": 4}],
        {"rows": 2, "method": "pearson", "fields": ["x", "y"],
         "matrix": {"x": {"x": 1.0, "y": 1.0}, "y": {"x": 1.0, "y": 1.0}},
         "pairs": [{"fields": ["x", "y"], "correlation": 1.0, "count": 2}], "skipped": {}},
    ),
    "correlation with a constant": (
        "correlation", [{"x": 1, "y": 2, "t": "a"}, {"x": 3, "y": 2}],
        {"rows": 2, "method": "pearson", "fields": ["x", "y"],
         "matrix": {"x": {"x": 1.0, "y": None}, "y": {"x": None, "y": None}},
         "pairs": [{"fields": ["x", "y"], "correlation": None, "count": 2}], "skipped": {"t": "text"}},
    ),
    "correlation of nothing": (
        "correlation", [],
        {"rows": 0, "method": "pearson", "fields": [], "matrix": {}, "pairs": [], "skipped": {}},
    ),
    "correlation of one field": (
        "correlation", [{"x": 1}, {"x": 2}],
        {"rows": 2, "method": "pearson", "fields": ["x"], "matrix": {"x": {"x": 1.0}}, "pairs": [], "skipped": {}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("operation", "data", "expected"), CASES.values(), ids=CASES)
def test_answer(operation: str, data: Any, expected: dict[str, Any]) -> None:
    """Each operation answers as the README of the handlers says."""
    assert {"operation": operation, **expected} == process(operation, data)


REFUSED = {
    "correlation of numbers": ("correlation", [1, 2], "objects_required"),
    "a number that is none": ("sum", [10**400], "number_out_of_range"),
    "a sum that is none": ("sum", [1e308, 1e308], "number_out_of_range"),
    "statistics of numbers whose sum is none": ("statistics", [1e308, 1e308], "number_out_of_range"),
    "an integer of 39 digits": ("sum", [10**38], "number_out_of_range"),
    "numbers of quite another size": ("sum", [2**53 + 1, 1e-30], "number_out_of_range"),
    "too many fields": ("count", [{str(n): 1 for n in range(1001)}], "too_many_fields"),
    "too many to correlate": ("correlation", [{str(n): 1 for n in range(101)}], "too_many_fields"),
}


@pytest.mark.parametrize(("operation", "data", "code"), REFUSED.values(), ids=REFUSED)
def test_refusal(operation: str, data: Any, code: str) -> None:
    """The handler refuses what it cannot answer, with a stable code."""
    with pytest.raises(Refusal) as raised:
        process(operation, data)
    assert code == raised.value.code


NAMES = ["c0", "C0", "c1", "value; DROP TABLE data", '"', "", "é", "a\u0000b", "data", "Value", "value", "SELECT"]


def test_field_names_are_only_names() -> None:
    """Names that mean something in SQL, or differ in case only, are fields like any other."""
    expected = {name: number for number, name in enumerate(NAMES)}
    assert expected == process("sum", [expected])["sum"]


def test_long_text_is_cut() -> None:
    """A common value is shown up to 256 characters; counting sees all of it."""
    found = process("statistics", [{"t": "x" * 1000 + str(n)} for n in range(2)])["statistics"]["t"]
    expected = (2, ["x" * 255 + "…"] * 2)
    assert expected == (found["distinct"], [item["value"] for item in found["top"]])


# ---- against pandas ---------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.none(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).map(lambda number: round(number, 3)),
)  # fmt: skip


@given(st.lists(NUMBERS, max_size=40))
@settings(max_examples=150, deadline=None)
def test_statistics_as_pandas(data: list[Any]) -> None:
    """Statistics over numbers with nulls agree with pandas."""
    series = pd.Series(data, dtype="float64")
    quartiles = series.quantile([0.25, 0.5, 0.75]).tolist()
    expected = {
        "count": int(series.count()), "nulls": int(series.isna().sum()), "distinct": int(series.nunique()),
        "sum": series.sum(), "mean": series.mean(), "std": series.std(), "min": series.min(), "max": series.max(),
        "median": series.median(), "q1": quartiles[0], "q2": quartiles[1], "q3": quartiles[2],
    }  # fmt: skip
    found = process("statistics", data)["statistics"]
    found = {**found, **found.pop("quartiles")}
    assert_close(expected, {name: found[name] for name in expected})


ROWS = st.lists(st.fixed_dictionaries({}, optional={"x": NUMBERS, "y": NUMBERS, "z": NUMBERS}), max_size=30)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_correlation_as_pandas(data: list[dict[str, Any]]) -> None:
    """Correlations agree with pandas, over ragged rows too."""
    found = process("correlation", data)["matrix"]
    frame = pd.DataFrame(data, columns=list(found), dtype="float64")
    with np.errstate(all="ignore"):
        expected = frame.corr()
    for a in found:
        for b in found:
            both = frame[[a, b]].dropna() if a != b else frame[[a]].dropna()
            constant = both.empty or bool((both.nunique() < 2).any())
            assert_close({"r": math.nan if constant else expected.loc[a, b]}, {"r": found[a][b]}, tolerance=1e-6)


def assert_close(expected: dict[str, Any], found: dict[str, Any], tolerance: float = 1e-9) -> None:
    """Equal but for rounding; NaN is null."""
    for name, value in expected.items():
        if isinstance(value, float) and math.isnan(value):
            assert found[name] is None, name
        else:
            assert value == pytest.approx(found[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("ragged", [False, True])
def test_large_data_as_pandas(ragged: bool) -> None:
    """The way that large data takes, with and without fields that come late, gives what pandas gives."""
    random = np.random.default_rng(1)
    rows = [
        {"x": float(a), "n": int(b), "t": f"t{b}"}
        for a, b in zip(random.normal(size=9000), random.integers(9, size=9000), strict=True)
    ]
    if ragged:
        rows += [{"x": 1.0, "late": True}, {}]
    found = process("statistics", rows)["statistics"]
    frame = pd.DataFrame(rows)
    assert list(frame.columns) == list(found)
    for name in ("x", "n"):
        series = frame[name]
        expected = {"count": series.count(), "distinct": series.nunique(), "mean": series.mean(), "std": series.std()}
        assert_close(expected, found[name])
    assert frame["t"].value_counts().max() == found["t"]["top"][0]["count"]
    assert frame["t"].nunique() == found["t"]["distinct"]


def test_constant_over_many_threads() -> None:
    """The spread of a constant is zero and it correlates with nothing, also where threads share the rows."""
    rows = [{"a": 0.1, "b": n * 0.7} for n in range(300_000)]
    std = process("statistics", rows)["statistics"]["a"]["std"]
    correlation = process("correlation", rows)["pairs"][0]["correlation"]
    assert (std, correlation) == (0.0, None)


@pytest.mark.parametrize("wrong", [[1], {"b": 1}, True])
def test_large_data_is_checked_as_small_is(wrong: Any) -> None:
    """The fast way accepts nothing that the exact way refuses."""
    rows: list[Any] = [{"a": n} for n in range(20_000)]
    with pytest.raises(msgspec.ValidationError, match=r"\$\.data\[20000\]\.a"):
        process("sum", [*rows, {"a": wrong} if not isinstance(wrong, bool) else {"a": [wrong]}])
    with pytest.raises(msgspec.ValidationError, match=r"\$\.operation"):
        process("nope", rows)


# ---- the database is locked -------------------------------------------------------------------------------------

SQL = {
    "read a file": "SELECT * FROM read_text('/etc/passwd')",
    "read a csv file": "SELECT * FROM '/etc/passwd'",
    "list files": "SELECT * FROM glob('/etc/*')",
    "out of the folder": "SELECT * FROM read_text('/work/tmp/../../etc/passwd')",
    "the web": "SELECT * FROM 'http://127.0.0.1:1/x.csv'",
    "install": "INSTALL httpfs",
    "load": "LOAD '/work/tmp/x.duckdb_extension'",
    "attach": "ATTACH '/etc/x.db'",
    "copy": "COPY (SELECT 1) TO '/etc/x.csv'",
    "a variable of ours": "SELECT * FROM SECRETS",
    "environment": "SELECT getenv('HOME')",
    "external access": "SET enable_external_access = true",
    "unlock": "SET lock_configuration = false",
    "memory": "SET memory_limit = '1TB'",
}
SECRETS = pd.DataFrame({"secret": [1]})


@pytest.mark.parametrize("sql", SQL.values(), ids=SQL)
def test_locked(sql: str) -> None:
    """DuckDB itself refuses files, the web, extensions, Python's variables and any change of this."""
    process("sum", [1])
    with pytest.raises(duckdb.Error):
        data_processing._locked_database().execute(sql)


def test_out_of_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB's own out-of-memory error has Python's name."""

    def exhausted(*_: Any) -> None:
        raise duckdb.OutOfMemoryException("no more")

    monkeypatch.setattr(data_processing, "OPERATIONS", {"sum": exhausted})
    with pytest.raises(MemoryError, match="no more"):
        process("sum", [1])


FORK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from handlers import entry
entry.find_hook("rehearse", "data_processing")()
threads = len(os.listdir("/proc/self/task"))
request = b'{"task_type": "data_processing", "parameters": {"operation": "sum", "data": [1, 2]}}'
failed = 0
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        entry.find_hook("rehearse", "data_processing")()
        os._exit(0 if entry.main(request)[0] == "result" and len(os.listdir("/proc/self/task")) > 0 else 1)
    failed += os.waitpid(pid, 0)[1] != 0
print(json.dumps([threads, failed]))
"""


def test_rehearsed_database_survives_a_fork() -> None:
    """A rehearsal leaves one thread, and every fork after it answers."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", FORK, str(ROOT)]
    found = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=100)
    expected = [1, 0]
    assert expected == json.loads(found.stdout)


def test_column_kinds() -> None:
    """A field is what its values are."""
    raw = msgspec.Raw(json.dumps({"operation": "sum", "data": MIXED}).encode())
    expected = {"n": "number", **SKIPPED, "N": "number"}
    table, _ = columns.read(raw)
    assert table is not None
    assert expected == {column.name: column.kind for column in table.columns}
