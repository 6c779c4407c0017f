"""data_processing: rows in every form, and every operation that answers with rows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers import jsonable
from handlers.data import data_processing
from handlers.data import rows as data_rows
from handlers.failures import Refusal
from handlers.parameters.registry import Request, decode, file_ids, structs

ROWS: list[dict[str, Any]] = [
    {"v": 10, "c": "A", "m": 1, "b": True},
    {"v": 20.5, "c": "B", "m": "x", "b": False},
    {"v": 15, "c": "A"},
    {"v": None, "c": None, "m": [1][0], "b": True, "only": "here"},
]
CSV = "v,c\n10,A\n20.5,B\n15,A\n,\n"
JSONL = '{"v":10,"c":"A"}\n{"v":20.5,"c":"B"}\n{"v":15,"c":"A"}\n{}\n'


def process(**parameters: Any) -> Any:
    """The answer as JSON has it."""
    raw = msgspec.Raw(json.dumps(parameters).encode())
    return json.loads(jsonable.encode(data_processing.run(Request(task_type="data_processing", parameters=raw))))


def rows(**parameters: Any) -> list[dict[str, Any]]:
    return list(process(**parameters)["data"])


def refused(**parameters: Any) -> str | None:
    with pytest.raises(Refusal) as caught:
        process(**parameters)
    return caught.value.code


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    duckdb.sql(f"COPY (SELECT * FROM (VALUES (10, 'A'), (20.5, 'B'), (15, 'A'), (NULL, NULL)) t(v, c)) TO '{path}'")
    return base64.b64encode(path.read_bytes()).decode()


# ---- forms of data ----------------------------------------------------------------------------------------------


def test_every_form_of_the_same_rows_has_the_same_statistics(parquet: str) -> None:
    """Rows, columns, CSV, JSON lines and Parquet."""
    plain = [{"v": row["v"], "c": row["c"]} for row in ROWS]
    expected = process(operation="statistics", data=plain)
    forms = [
        {"columns": {"v": [10, 20.5, 15, None], "c": ["A", "B", "A", None]}},
        {"format": "csv", "text": CSV},
        {"format": "csv", "text": CSV.replace(",", ";"), "delimiter": ";"},
        {"format": "csv", "base64": base64.b64encode(CSV.encode()).decode()},
        {"format": "jsonl", "text": JSONL},
        {"format": "parquet", "base64": parquet},
    ]
    for form in forms:
        answer = process(operation="statistics", data=form)
        answer.pop("files", None)  # how it was read
        assert expected == answer, form


def test_types_of_a_file_become_what_json_has() -> None:
    """Dates as ISO 8601, decimals as numbers, nested values as their text, an empty column as empty."""
    text = "d,t,n,e\n2020-01-02,2020-01-02 03:04:05,1.50,\n"
    assert [{"d": "2020-01-02", "t": "2020-01-02 03:04:05", "n": 1.5, "e": None}] == rows(
        operation="select", fields=["d", "t", "n", "e"], data={"format": "csv", "text": text}
    )
    nested = process(operation="select", fields=["a"], data={"format": "jsonl", "text": '{"a":{"b":[1]}}\n'})
    assert isinstance(nested["data"][0]["a"], str)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"format": "csv", "text": 'a,b\n1,"2\n'}, "invalid_csv"),
        ({"format": "csv", "text": "a,b\n1\n2,3,4\n", "delimiter": ","}, "invalid_csv"),
        ({"format": "csv", "base64": base64.b64encode(b"a\n\xff\xfe\n").decode(), "encoding": "utf-8"}, "invalid_csv"),
        ({"format": "jsonl", "text": '{"a":1}\n{"a":\n'}, "invalid_jsonl"),
        ({"format": "parquet", "text": "PAR1"}, "invalid_parquet"),
        ({"format": "parquet", "base64": "!"}, "invalid_base64"),
        (
            {"format": "csv", "text": ",".join(f"c{n}" for n in range(1001)) + "\n" + "1," * 1000 + "1\n"},
            "too_many_fields",
        ),
        ({"columns": {f"c{n}": [1] for n in range(1001)}}, "too_many_fields"),
    ],
)
def test_file_that_is_none_is_refused(form: dict[str, Any], code: str) -> None:
    """With a stable code, and never with a path of ours."""
    with pytest.raises(Refusal) as caught:
        process(operation="count", data=form)
    assert code == caught.value.code
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"columns": {"a": [1]}, "format": "csv", "text": "a"},
        {"format": "csv"},
        {"format": "csv", "text": "a", "base64": "YQ=="},
        {"format": "xml", "text": "a"},
        {"columns": {"a": [1], "b": []}},
        {"format": "jsonl", "text": "", "delimiter": ";"},
        {"format": "csv", "path": "../x"},
        {"columns": {"a": [[1]]}},
    ],
)
def test_data_of_another_form_is_no_parameter(data: Any) -> None:
    """Refused where parameters are checked, before anything runs."""
    with pytest.raises(msgspec.ValidationError):
        decode("data_processing", json.dumps({"operation": "count", "data": data}).encode())


def test_files_of_every_table_are_known_to_the_engine() -> None:
    """Whatever place of the parameters names an uploaded file, it is handed to the run."""
    ids = [f"file_{number:032x}" for number in range(3)]
    files = [{"format": "csv", "file_id": file_id} for file_id in ids]
    query = {"operation": "query", "sql": "SELECT 1", "data": files[0], "tables": {"a": [1], "b": files[1], "c": [2]}}
    assert set(ids[:2]) == set(file_ids(decode("data_processing", json.dumps(query).encode())))
    join = {"operation": "join", "on": ["a"], "data": [], "right": files[2]}
    assert (ids[2],) == file_ids(decode("data_processing", json.dumps(join).encode()))


# ---- rows out ---------------------------------------------------------------------------------------------------


def test_select_filter_and_sort_are_one_question() -> None:
    """Fields in the order asked for, rows that fit, sorted; whichever of the three names it has."""
    asked = {
        "fields": ["c", "v"], "where": [{"field": "v", "op": "ge", "value": 12}],
        "by": [{"field": "v", "descending": True}],
    }  # fmt: skip
    for operation in ("select", "filter", "sort"):
        answer = process(operation=operation, data=ROWS, **asked)
        assert [{"c": "B", "v": 20.5}, {"c": "A", "v": 15.0}] == answer["data"]
        assert (4, 2, False, ["c", "v"]) == tuple(answer[key] for key in ("rows", "rows_returned", "more", "fields"))


FILTERS: dict[str, tuple[list[dict[str, Any]], list[int]]] = {
    "eq": ([{"field": "c", "op": "eq", "value": "A"}], [0, 2]),
    "ne leaves nulls out": ([{"field": "c", "op": "ne", "value": "A"}], [1]),
    "lt": ([{"field": "v", "op": "lt", "value": 15}], [0]),
    "le": ([{"field": "v", "op": "le", "value": 15.0}], [0, 2]),
    "gt": ([{"field": "v", "op": "gt", "value": 15}], [1]),
    "in": ([{"field": "v", "op": "in", "value": [10, 15, None]}], [0, 2]),
    "in nothing": ([{"field": "v", "op": "in", "value": []}], []),
    "not in": ([{"field": "v", "op": "not_in", "value": [10]}], [1, 2]),
    "not in nothing": ([{"field": "v", "op": "not_in", "value": []}], [0, 1, 2]),
    "contains": ([{"field": "c", "op": "contains", "value": "A"}], [0, 2]),
    "contains takes no pattern": ([{"field": "c", "op": "contains", "value": "%"}], []),
    "starts with": ([{"field": "c", "op": "starts_with", "value": "B"}], [1]),
    "ends with": ([{"field": "c", "op": "ends_with", "value": "B"}], [1]),
    "null": ([{"field": "v", "op": "is_null"}], [3]),
    "not null": ([{"field": "only", "op": "not_null"}], [3]),
    "boolean": ([{"field": "b", "op": "eq", "value": True}], [0, 3]),
    "mixed": ([{"field": "m", "op": "eq", "value": "x"}], [1]),
    "mixed number": ([{"field": "m", "op": "in", "value": [1]}], [0, 3]),
    "two": ([{"field": "c", "op": "eq", "value": "A"}, {"field": "v", "op": "gt", "value": 10}], [2]),
    "injection is a text": ([{"field": "c", "op": "eq", "value": "A' OR '1'='1"}], []),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filter_keeps_what_its_conditions_say(name: str) -> None:
    """Values are bound, so that a text is a text whatever is in it."""
    where, expected = FILTERS[name]
    data = [row | {"at": place} for place, row in enumerate(ROWS)]
    assert expected == [row["at"] for row in rows(operation="filter", data=data, where=where)]


def test_any_condition_is_enough_where_asked_for() -> None:
    """match = any."""
    where = [{"field": "v", "op": "eq", "value": 10}, {"field": "c", "op": "eq", "value": "B"}]
    assert 2 == len(rows(operation="filter", data=ROWS, where=where, match="any"))


def test_rows_come_back_as_they_went_in() -> None:
    """Every sort of value, absent fields as null, in their order."""
    fields = ["v", "c", "m", "b", "only"]
    assert [{field: row.get(field) for field in fields} for row in ROWS] == rows(
        operation="select", data=ROWS, fields=fields
    )


def test_sort_is_by_first_things_first_and_nulls_where_asked_for() -> None:
    """Two keys, one descending."""
    by = [{"field": "c", "nulls": "first"}, {"field": "v", "descending": True}]
    assert [None, 15, 10, 20.5] == [row["v"] for row in rows(operation="sort", data=ROWS, by=by)]


def test_limit_and_offset_page_and_say_so() -> None:
    """``more`` says that rows are left."""
    data = [{"x": number} for number in range(25)]
    answer = process(operation="sort", data=data, by=[{"field": "x"}], limit=10, offset=10)
    assert (list(range(10, 20)), True) == ([row["x"] for row in answer["data"]], answer["more"])
    answer = process(operation="query", data=data, sql="SELECT x FROM data ORDER BY x", limit=10, offset=20)
    assert (list(range(20, 25)), False) == ([row["x"] for row in answer["data"]], answer["more"])


def test_group_tells_of_each_group() -> None:
    """As pandas has it; nulls are a group; without fields all rows are one."""
    functions = ["count", "sum", "mean", "median", "min", "max", "std", "distinct"]
    aggregates = [{"function": function, "field": "v"} for function in functions]
    found = rows(
        operation="group", data=ROWS, group_by=["c"], aggregates=[*aggregates, {"function": "count", "name": "n"}]
    )
    assert [
        ("A", 2, 25.0, 12.5, 10.0, 15.0, 2),
        ("B", 1, 20.5, 20.5, 20.5, 20.5, 1),
        (None, 0, None, None, None, None, 1),
    ] == [tuple(row[key] for key in ("c", "count_v", "sum_v", "mean_v", "min_v", "max_v", "n")) for row in found]
    assert [{"count": 4}] == rows(operation="group", data=ROWS, group_by=[], aggregates=[{"function": "count"}])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("inner", ["A", "A"]),
        ("left", ["A", "A", "B", None]),
        ("right", ["A", "A", "Z"]),
        ("full", ["A", "A", "B", "Z", None]),
    ],
)
def test_join_pairs_rows(how: str, expected: list[str | None]) -> None:
    """Rows without a partner stay as asked for; a null is nobody's partner; equal names are told apart."""
    right = [{"c": "A", "v": "first"}, {"c": "Z", "v": "last"}, {"c": None, "v": "none"}]
    found = rows(operation="join", data=ROWS, right=right[: 2 if how in ("right", "full") else 3], on=["c"], how=how)
    assert sorted(expected, key=str) == sorted((row["c"] for row in found), key=str)
    assert {"c", "v", "m", "b", "only", "v_2"} == found[0].keys()
    assert {"first"} == {row["v_2"] for row in found if row["c"] == "A"}


def test_pivot_makes_fields_of_values() -> None:
    """One field for each value, filled by the function."""
    data = [{"r": "x", "c": "A", "v": 1}, {"r": "x", "c": "A", "v": 2}, {"r": "y", "c": "B", "v": 5}]
    asked = {"operation": "pivot", "data": data, "index": ["r"], "columns": "c", "values": "v"}
    assert [{"r": "x", "A": 3, "B": None}, {"r": "y", "A": None, "B": 5}] == rows(**asked)
    assert [{"r": "x", "A": 2, "B": 0}, {"r": "y", "A": 0, "B": 1}] == rows(**asked, function="count")


def test_histogram_counts_every_number_once() -> None:
    """The last bin holds its upper end; a constant has one bin; nothing has none."""
    answer = process(operation="histogram", field="x", bins=4, data=[{"x": x} for x in [0, 1, 2, 3, 4, 4, None]])
    assert ([1, 1, 1, 3], 6, 1) == ([one["count"] for one in answer["bins"]], answer["count"], answer["nulls"])
    assert (0, 4) == (answer["bins"][0]["from"], answer["bins"][-1]["to"])
    constant = process(operation="histogram", field="x", data=[{"x": 7}] * 3)
    assert [{"from": 7.0, "to": 7.0, "count": 3}] == constant["bins"]
    assert [] == process(operation="histogram", field="x", data=[{"x": None}])["bins"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_histogram_of_any_numbers_is_whole(numbers: list[float], bins: int) -> None:
    """All numbers are in some bin."""
    answer = process(operation="histogram", field="x", bins=bins, data=[{"x": x} for x in numbers])
    assert len(numbers) == sum(one["count"] for one in answer["bins"])


def test_query_reads_its_tables_by_their_own_names() -> None:
    """Fields with odd names are quoted; a file is a table like any other."""
    data = [{"a b": 1, 'q"uote': "x"}, {"a b": 2, 'q"uote': "y"}]
    sql = 'SELECT "a b" + 1 AS n, name FROM data JOIN names ON "q""uote" = short ORDER BY 1'
    tables = {"names": {"format": "csv", "text": "short,name\nx,Xaver\ny,Yvonne\n"}}
    assert [{"n": 2, "name": "Xaver"}, {"n": 3, "name": "Yvonne"}] == rows(
        operation="query", data=data, tables=tables, sql=sql
    )


def test_query_answers_json_of_every_type() -> None:
    """Dates, decimals, lists, structs and what has no JSON form of its own."""
    sql = "SELECT DATE '2020-01-02' AS d, 1.5::DECIMAL(9,2) AS n, [1, 2] AS l, {'a': 1} AS s, 'nan'::DOUBLE AS x"
    (row,) = rows(operation="query", data=ROWS, sql=sql)
    assert {"d": "2020-01-02", "n": 1.5, "l": [1, 2], "s": {"a": 1}, "x": None} == row


def test_csv_is_an_artifact_without_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA-16: a text that a spreadsheet would run begins with an apostrophe; numbers stay numbers."""
    monkeypatch.chdir(tmp_path)
    data = [{"=f": "=cmd|' /C calc'!A0", "n": -5, "t": 'a,"b'}, {"=f": "@x", "n": None, "t": "line\nbreak"}]
    answer = process(operation="select", fields=["=f", "n", "t"], data=data, output="csv")
    assert ("result.csv", False) == (answer["artifact"], "data" in answer)
    text = (tmp_path / "artifacts" / "result.csv").read_text()
    assert '\'=f,n,t\n\'=cmd|\' /C calc\'!A0,-5,"a,""b"\n\'@x,,"line\nbreak"\n' == text.replace("\r\n", "\n")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "numbers": ({"operation": "select", "data": [1, 2], "fields": ["x"]}, "objects_required"),
    "unknown field": ({"operation": "select", "data": ROWS, "fields": ["x"]}, "unknown_field"),
    "unknown key": ({"operation": "sort", "data": ROWS, "by": [{"field": "x"}]}, "unknown_field"),
    "text as number": ({"operation": "filter", "data": ROWS, "where": [{"field": "v", "op": "eq", "value": "1"}]},
                       "value_of_another_kind"),
    "mean of text": ({"operation": "group", "data": ROWS, "group_by": [],
                      "aggregates": [{"function": "mean", "field": "c"}]}, "number_required"),
    "histogram of text": ({"operation": "histogram", "data": ROWS, "field": "c"}, "number_required"),
    "join of kinds": ({"operation": "join", "data": ROWS, "right": [{"c": 1}], "on": ["c"]}, "field_of_another_kind"),
    "too wide a pivot": ({"operation": "pivot", "data": [{"a": n, "b": n} for n in range(1001)], "index": ["a"],
                          "columns": "b", "values": "a"}, "too_many_fields"),
    "names alike to SQL": ({"operation": "query", "data": [{"a": 1, "A": 2}], "sql": "SELECT 1"}, "ambiguous_field"),
    "no SQL": ({"operation": "query", "data": ROWS, "sql": "SELEC 1"}, "invalid_sql"),
    "unknown table": ({"operation": "query", "data": ROWS, "sql": "SELECT * FROM other"}, "invalid_sql"),
    "two statements": ({"operation": "query", "data": ROWS, "sql": "SELECT 1; SELECT 2"}, "one_select_only"),
    "nothing": ({"operation": "query", "data": ROWS, "sql": " -- no\n"}, "one_select_only"),
    "bytes": ({"operation": "query", "data": ROWS, "sql": "SELECT 'a'::BLOB"}, "invalid_sql"),
    "table data twice": ({"operation": "query", "data": ROWS, "tables": {"data": ROWS}, "sql": "SELECT 1"},
                         "invalid_sql"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_data_is_refused(name: str) -> None:
    """With a stable code."""
    parameters, code = REFUSED[name]
    assert code == refused(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"operation": "select"},
        {"operation": "sum", "fields": ["a"]},
        {"operation": "query", "sql": "SELECT 1", "where": []},
        {"operation": "filter", "where": []},
        {"operation": "filter", "where": [{"field": "a", "op": "in", "value": 1}]},
        {"operation": "filter", "where": [{"field": "a", "op": "eq"}]},
        {"operation": "filter", "where": [{"field": "a", "op": "is_null", "value": 1}]},
        {"operation": "filter", "where": [{"field": "a", "op": "contains", "value": 1}]},
        {"operation": "group", "group_by": [], "aggregates": [{"function": "mean"}]},
        {"operation": "histogram", "field": "a", "bins": 0},
        {"operation": "select", "fields": ["a"], "limit": 0},
        {"operation": "query", "sql": "SELECT 1", "tables": {"A b": []}},
        {"operation": "join", "on": ["a"], "right": [{"a": 1}, 2]},
    ],
)
def test_parameters_of_another_operation_are_none(parameters: dict[str, Any]) -> None:
    """Each operation has its own; what is missing or too much is said where parameters are checked."""
    with pytest.raises(msgspec.ValidationError):
        decode("data_processing", json.dumps({"data": [{"a": 1}], **parameters}).encode())


def test_every_operation_is_done_by_something() -> None:
    """The parameters allow exactly the operations that the handlers know."""
    names = {struct.__struct_config__.tag for struct in structs("data_processing")}
    assert names == {*data_processing.OPERATIONS, *data_rows.OPERATIONS}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5) | st.none()), min_size=2, max_size=30))
def test_spearman_is_as_pandas_has_it(pairs: list[tuple[int, int | None]]) -> None:
    """Ranks among the rows that have both, ties shared."""
    frame = pd.DataFrame(pairs, columns=["x", "y"], dtype="float64").dropna()
    answer = process(operation="correlation", method="spearman", data=[{"x": x, "y": y} for x, y in pairs])
    if "y" not in answer["fields"]:
        return
    value = answer["pairs"][0]["correlation"]
    expected = frame["x"].rank().corr(frame["y"].rank()) if len(frame) > 1 else float("nan")
    assert (value is None) if pd.isna(expected) else value == pytest.approx(expected, abs=1e-9)
