"""data_processing changes no value: each comes out as it went in, is refused by name, or is marked."""

from __future__ import annotations

import base64
import csv
import io
import json
from decimal import Decimal, InvalidOperation
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
from handlers.failures import Refusal
from handlers.parameters.registry import Request, decode


def process(**parameters: Any) -> Any:
    """The answer as JSON has it, of parameters that the API would accept."""
    text = json.dumps(parameters).encode()
    decode("data_processing", text)
    request = Request(task_type="data_processing", parameters=msgspec.Raw(text))
    return json.loads(jsonable.encode(data_processing.run(request)))


def select(data: dict[str, Any], *fields: str, **more: Any) -> list[dict[str, Any]]:
    return list(process(operation="select", data=data, fields=fields, **more)["data"])


def of_bytes(content: bytes, form: str = "csv", **options: Any) -> dict[str, Any]:
    return {"format": form, "base64": base64.b64encode(content).decode(), **options}


def refusal(**parameters: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        process(**parameters)
    return caught.value


# ---- what a text of a CSV becomes ---------------------------------------------------------------------------------

KEPT = {
    "leading zeros": ["007", "1"],
    "hex": ["0x00AB", "0x1F"],
    "hex beyond 64 bits": ["0x60d24054e17a0698", "0xd5e79d89856e4f12"],
    "sexes": ["F", "F"],
    "T and F": ["T", "F"],
    "telephone numbers": ["+4930", "+4931"],
    "underscores": ["1_000", "2"],
    "words for numbers": ["nan", "1"],
    "infinities": ["inf", "1"],
    "yes and no": ["yes", "no"],
    "dates of people": ["10-11-12", "1/2/03"],
    "times": ["9:05", "10:00"],
    "UUIDs with capitals": ["BBD05AE7-0000-0000-0000-00000000ABCD"],
    "offsets": ["2024-09-17T06:37:50+02:00", "2024-09-17T06:37:50+05:30"],
    "spaces": [" 1", "2"],
    "a number and a word": ["1", "one"],
    "integers of 39 digits": ["1" * 39],
    "integers beyond all doubles": ["9" * 400, "1"],
    "an integer of many zeros": ["1" + "0" * 40],
    "more digits than a number has": ["12345678901234567890.5", "1e3"],
    "a list": ["[1, 2]"],
    "a formula": ["=1+1"],
    "a point at the end": ["5.", "6."],
}


@pytest.mark.parametrize("name", KEPT)
def test_a_text_that_no_number_is_stays_as_it_is_written(name: str) -> None:
    """Codes, dates, and whatever would come back as another text."""
    text = "v,w\n" + "".join(f'"{value}",x\n' for value in KEPT[name])
    assert KEPT[name] == [row["v"] for row in select({"format": "csv", "text": text}, "v")]


NUMBERS: dict[str, tuple[list[str], list[Any]]] = {
    "integers": (["1", "-2", "0"], [1, -2, 0]),
    "integers beyond 64 bits": (["9223372036854775808", "1"], ["9223372036854775808", 1]),
    "decimals": (["9.99", "10"], [9.99, 10.0]),
    "decimals that no double holds": (["0.1234567890123456789", "1"], ["0.1234567890123456789", 1.0]),
    "decimals as doubles are printed": (["0.30000000000000004", "123456.7"], [0.30000000000000004, 123456.7]),
    "exponents": (["1e5", "2.5E-3"], [100000.0, 0.0025]),
    "without a zero": ([".5", "-.25"], [0.5, -0.25]),
    "truth": (["true", "False", "TRUE"], [True, False, True]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_of_numbers_keeps_their_values(name: str) -> None:
    """As a number where JSON's reader gets the very value, else as text."""
    texts, expected = NUMBERS[name]
    text = "v,w\n" + "".join(f"{value},x\n" for value in texts)
    assert expected == [row["v"] for row in select({"format": "csv", "text": text}, "v")]


def is_beyond(text: str) -> bool:
    """Whether a text is a number that no double is: such a column is refused, which a test below shows."""
    try:
        size = abs(Decimal(text.strip()))
    except InvalidOperation:
        return False
    return size.is_finite() and size != 0 and not Decimal("4.9e-324") <= size <= Decimal("1.8e308")


CELLS = st.text(st.sampled_from("0123456789.-+eExXtrufalsTF,;\"' \n\r\tä€"), max_size=8).filter(
    lambda text: not is_beyond(text)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6))
def test_every_cell_of_any_csv_comes_back_as_python_reads_it(rows: list[tuple[str, str]]) -> None:
    """The csv module says which texts there are; each comes back itself, or as the number that it is."""
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("a", "b"), *rows])
    answer = select({"format": "csv", "text": file.getvalue(), "delimiter": ","}, "a", "b")
    for texts, row in zip(rows, answer, strict=True):
        for text, value in zip(texts, row.values(), strict=True):
            if isinstance(value, bool):
                assert text.lower() == json.dumps(value)
            elif isinstance(value, int | float):
                assert Decimal(text) == Decimal(repr(value))
            else:
                assert (text or None) == value


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e-400"])
def test_a_number_beyond_all_numbers_is_refused(value: str) -> None:
    """It would become infinite, or zero."""
    for data in ({"format": "csv", "text": f"a\n{value}\n2\n"}, {"format": "csv", "text": f"a\n2\n{value}\n"}):
        assert "number_out_of_range" == refusal(operation="select", data=data, fields=["a"]).code
    lines = {"format": "jsonl", "text": '{"a":1e400}\n{"a":2}\n'}
    assert "number_out_of_range" == refusal(operation="select", data=lines, fields=["a"]).code


def test_all_values_decide_not_the_first_ones() -> None:
    """A late decimal, a late word, a late field: 30,000 rows further down."""
    many = 30_000
    late = {"format": "csv", "text": "price\n" + "10\n" * many + "9.99\n" * 2}
    assert {"price": 300019.98} == process(operation="sum", data=late)["sum"]
    word = {"format": "csv", "text": "v\n" + "10\n" * many + "ten\n"}
    assert [{"v": "10"}, {"v": "ten"}] == select(word, "v", offset=many - 1)
    lines = {"format": "jsonl", "text": '{"c":7}\n' * many + '{"c":1.5,"late":2}\n'}
    assert [{"c": 7, "late": None}, {"c": 1.5, "late": 2}] == select(lines, "c", "late", offset=many - 1)


def test_sums_of_decimals_are_exact() -> None:
    """Money: pandas' doubles are off, Python's decimals are not."""
    prices = [f"{n % 100}.{n % 97:02d}" for n in range(1000)]
    text = "v\n" + "\n".join(prices) + "\n"
    exact = sum(map(Decimal, prices))
    found = process(operation="sum", data={"format": "csv", "text": text})["sum"]["v"]
    assert exact == Decimal(str(found))
    by_query = process(operation="query", sql="SELECT sum(v) = 49179.35 AS e FROM data",
                       data={"format": "csv", "text": "v\n49179.25\n0.10\n"})  # fmt: skip
    assert [{"e": True}] == by_query["data"]


# ---- how a CSV is written ----------------------------------------------------------------------------------------


def test_options_say_how_a_csv_is_written() -> None:
    """Encoding, delimiter, quote, decimal mark, thousands, nulls, header, lines before it, types."""
    german = of_bytes("n;v\nJosé;1.234,5\nKöln;2,25\n".encode("cp1252"), encoding="windows-1252", delimiter=";",
                      decimal=",", thousands=".")  # fmt: skip
    assert [{"n": "José", "v": 1234.5}, {"n": "Köln", "v": 2.25}] == select(german, "n", "v")
    quoted = {"format": "csv", "text": "a,b\n'x,y',NA\n'it''s',-\n", "quote": "'", "nulls": ["NA", "-"]}
    assert [{"a": "x,y", "b": None}, {"a": "it's", "b": None}] == select(quoted, "a", "b")
    bare = {"format": "csv", "text": "1,2\n3,4\n", "header": False}
    assert [{"column_2": 2}, {"column_2": 4}] == select(bare, "column_2")
    preamble = {"format": "csv", "text": "A report, of May\n\nx,y\n1,2\n", "skip_lines": 2}
    assert [{"x": 1, "y": 2}] == select(preamble, "x", "y")
    typed = {"format": "csv", "text": "zip,n,d,t\n01234,007,2024-01-02,2024-01-02 03:04\n",
             "types": {"n": "integer", "d": "date", "t": "datetime"}}  # fmt: skip
    expected = {"zip": "01234", "n": 7, "d": "2024-01-02", "t": "2024-01-02T03:04:00"}
    assert [expected] == select(typed, "zip", "n", "d", "t")


def test_a_value_that_is_not_of_its_given_type_is_refused_with_its_row() -> None:
    """Never null instead."""
    wrong = [("integer", "1.5"), ("number", "nan"), ("number", "0x1f"), ("boolean", "maybe"), ("date", "soon")]
    for kind, value in wrong:
        data = {"format": "csv", "text": f'v\n\n""\n{value}\n', "types": {"v": kind}}
        found = refusal(operation="count", data=data)
        assert ("value_of_another_kind", True) == (found.code, value in str(found) and "row 2" in str(found))
    unknown = {"format": "csv", "text": "v\n1\n", "types": {"w": "text"}}
    assert "unknown_field" == refusal(operation="count", data=unknown).code


def test_encodings_that_say_what_they_are_need_no_option() -> None:
    """A byte order mark, or bytes that are UTF-8."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        answer = process(
            operation="select", data=of_bytes("name\tcity\nJosé\tKöln\n".encode(encoding)), fields=["name"]
        )
        assert [{"name": "José"}] == answer["data"]
        assert {"delimiter": "\t", "short_rows_total": 0} == {
            name: value for name, value in answer["files"]["data"].items() if name in ("delimiter", "short_rows_total")
        }
        assert "guessed" not in answer["files"]["data"]


def test_an_encoding_that_is_guessed_is_reported_as_a_guess() -> None:
    """With a confidence; the same bytes with their encoding said are read without one. What is no character counts."""
    content = "name;city\nJosé;Köln\nZoë;Zürich\n".encode("cp1252")
    guessed = process(operation="count", data=of_bytes(content))["files"]["data"]
    assert 0 < guessed["guessed"]["encoding"] < 1
    said = process(operation="count", data=of_bytes(content, encoding="windows-1252"))["files"]["data"]
    assert ("windows-1252", False) == (said["encoding"], "guessed" in said)
    broken = "name;city\n" + "Zoë;Zürich\n" * 50
    one_bad = process(operation="count", data=of_bytes(broken.encode() + b"\xff;x\n"))["files"]["data"]
    assert ("utf-8", 1) == (one_bad["encoding"], one_bad["unreadable_characters_total"])


def test_short_rows_are_filled_and_counted_long_ones_refused() -> None:
    """With the number of the line, lines within quotes included."""
    answer = process(operation="select", data={"format": "csv", "text": 'a,b\n"x\ny",2\n3\n'}, fields=["a", "b"])
    assert [{"a": "x\ny", "b": 2}, {"a": "3", "b": None}] == answer["data"]
    assert 1 == answer["files"]["data"]["short_rows_total"]
    found = refusal(operation="count", data={"format": "csv", "text": 'a,b\n"x\ny",2\n3,4,5\n'})
    assert ("invalid_csv", True) == (found.code, "line 4: it has 3 columns, and the header has 2" in str(found))
    empty = {"format": "csv", "text": "a,b,\n1,2,\n3,4,,,\n"}  # what is beyond the header is nothing
    assert [{"a": 1, "b": 2}, {"a": 3, "b": 4}] == select(empty, "a", "b")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_any_sort_end_lines(end: str) -> None:
    """Also several sorts in one file, and none after the last row."""
    assert [{"a": 1}, {"a": 3}] == select({"format": "csv", "text": f"a,b{end}1,2{end}3,4"}, "a")
    assert [{"a": 1}, {"a": 3}] == select({"format": "csv", "text": f"a,b\n1,2{end}3,4\r\n"}, "a")


def test_names_that_come_twice_or_are_missing_get_one() -> None:
    """No column is lost."""
    assert ["a", "a_2", "column_3"] == list(process(
        operation="count", data={"format": "csv", "text": "a,a,\n1,2,3\n"})["count"])  # fmt: skip


def test_a_delimiter_that_is_guessed_among_others_is_reported_as_a_guess() -> None:
    """With the share of it among the header's delimiters."""
    mixed = {"format": "csv", "text": "a;b;c,d\n1;2;3\n"}
    assert {"delimiter": 0.67} == process(operation="count", data=mixed)["files"]["data"]["guessed"]
    said = {**mixed, "delimiter": ";"}
    assert "guessed" not in process(operation="count", data=said)["files"]["data"]


def test_a_file_without_rows_has_none() -> None:
    """Of 0 or 1 byte, or a header alone."""
    for form in ("csv", "jsonl"):
        for text in ("", "\n"):
            assert 0 == process(operation="count", data={"format": form, "text": text})["rows"]
    assert {"rows": 0, "count": {"a": 0}} == {
        key: value for key, value in process(operation="count", data={"format": "csv", "text": "a\n"}).items()
        if key in ("rows", "count")
    }  # fmt: skip


# ---- JSON lines, Parquet, SQL ------------------------------------------------------------------------------------


def test_a_text_of_json_lines_stays_itself() -> None:
    """Whatever it looks like; nested values come as JSON text, and no record is a row, too."""
    row = {
        "part": "10-11-12",
        "id": "BBD05AE7-0000-0000-0000-00000000ABCD",
        "t": "9:05",
        "d": "2024-09-17T06:37:50+02:00",
    }
    lines = json.dumps(row) + "\n"
    assert [row] == select({"format": "jsonl", "text": lines}, *row)
    where = [{"field": "part", "op": "eq", "value": "10-11-12"}]
    assert 1 == len(process(operation="filter", data={"format": "jsonl", "text": lines}, where=where)["data"])
    nested = select({"format": "jsonl", "text": '{"s":{"x":1,"y":"a"}}\n{"s":[1,{"z":null}]}\n'}, "s")
    assert [{"x": 1, "y": "a"}, [1, {"z": None}]] == [json.loads(each["s"]) for each in nested]
    empty = process(
        operation="query", data={"format": "jsonl", "text": "{}\n{}\n"}, sql="SELECT count(*) AS n FROM data"
    )
    assert [{"n": 2}] == empty["data"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":1}\n[1]\n', "line 2: it is not an object"),
        ('{"a":1}\n{"a":\n', "line 2"),
        ('{"a":1}\n\n{"a" 1}\n', "line 3"),
        ('{"a":1},{"b":2}\n', "line 1"),
    ],
)
def test_json_lines_that_are_none_are_refused_with_the_line(text: str, said: str) -> None:
    """Two objects with a comma between them are no line, either."""
    found = refusal(operation="count", data={"format": "jsonl", "text": text})
    assert ("invalid_jsonl", True) == (found.code, said in str(found))


def parquet(tmp_path: Path, sql: str) -> dict[str, Any]:
    path = tmp_path / "rows.parquet"
    duckdb.sql(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
    return of_bytes(path.read_bytes(), "parquet")


def test_parquet_keeps_decimals_integers_and_nested_values(tmp_path: Path) -> None:
    """As pandas and Python's decimals have them."""
    data = parquet(
        tmp_path,
        "SELECT unnest([0.10, 0.20])::DECIMAL(18, 2) AS d, 18446744073709551615::UBIGINT AS u, {'x': 1} AS s, "
        "TIMESTAMP '2024-01-02 03:04:05' AS t, 'a'::BLOB AS b",
    )
    query = process(operation="query", data=data, sql="SELECT sum(d) = 0.3 AS e, sum(d) AS s FROM data")
    assert [{"e": True, "s": 0.3}] == query["data"]
    row = select(data, "d", "u", "s", "t", "b")[0]
    assert {"d": 0.1, "u": "18446744073709551615", "s": '{"x":1}', "t": "2024-01-02T03:04:05", "b": "YQ=="} == row


def test_infinity_spoils_its_own_field_only(tmp_path: Path) -> None:
    """The other fields are answered, and what has no number is marked."""
    data = parquet(tmp_path, "SELECT * FROM (VALUES ('inf'::DOUBLE, 1), (1.0, 2)) AS t(d, e)")
    answer = process(operation="statistics", data=data)["statistics"]
    assert (1.5, None) == (answer["e"]["mean"], answer["d"]["mean"])
    assert {"sum", "mean", "max"} <= set(answer["d"]["out_of_range"])
    assert ["Infinity", 1.0] == [row["d"] for row in select(data, "d")]


HUGE = [{"g": "a", "x": 1.7e308}, {"g": "a", "x": 1.6e308}, {"g": "b", "x": 1.5}]
"""Numbers of which the sum is beyond what a double holds."""


@pytest.mark.parametrize("function", ["sum", "mean", "std"])
def test_an_overflow_of_a_group_is_null_and_marked(function: str) -> None:
    """As it is in `sum`, `average` and `statistics`; the other groups are answered, or all of it is refused."""
    asked = {"operation": "group", "data": HUGE, "group_by": ["g"]}
    answer = process(**asked, aggregates=[{"function": function, "field": "x"}, {"function": "max", "field": "x"}])
    name = f"{function}_x"
    assert [None, None if function == "std" else 1.5] == [row[name] for row in answer["data"]]
    assert [1.7e308, 1.5] == [row["max_x"] for row in answer["data"]]
    assert [name] == answer["out_of_range"]


def test_an_overflow_of_a_pivot_or_a_correlation_is_null_and_marked() -> None:
    """A cell of a pivot by its field, a pair by itself; a constant's correlation is null without a mark."""
    pivot = process(operation="pivot", data=HUGE, index=["g"], columns="g", values="x", function="sum")
    assert [{"g": "a", "a": None, "b": None}, {"g": "b", "a": None, "b": 1.5}] == pivot["data"]
    assert ["a"] == pivot["out_of_range"]
    far = [{"a": 1.7e308, "b": 1, "c": 1}, {"a": -1.7e308, "b": 2, "c": 1}, {"a": 1.5, "b": 4, "c": 1}]
    of_a_and_b, of_a_and_c, _ = process(operation="correlation", data=far)["pairs"]
    assert (None, True) == (of_a_and_b["correlation"], of_a_and_b["out_of_range"])
    assert None is of_a_and_c["correlation"]
    assert "out_of_range" not in of_a_and_c


def test_exact_sums_that_need_too_many_digits_are_refused() -> None:
    """Of a group, whose integers have 38 digits: no number stands in for the sum."""
    for data in ([{"x": 10**38 - 1}] * 3, [{"x": 10**37 * 9}] * 10**3):
        asked = {"operation": "group", "data": data, "group_by": []}
        assert "number_out_of_range" == refusal(**asked, aggregates=[{"function": "sum", "field": "x"}]).code


def test_an_integer_beside_a_huge_number_is_a_number() -> None:
    """A double holds both, though no decimal does."""
    assert {"x": 1.5e300} == process(operation="sum", data=[{"x": 1.5e300}, {"x": 1}])["sum"]
    assert [1, 1.5e300] == [row["x"] for row in select({"format": "jsonl", "text": '{"x":1}\n{"x":1.5e300}\n'}, "x")]


def test_sql_answers_dates_and_intervals_as_they_are() -> None:
    """Python's types have no infinite date, and no month."""
    sql = "SELECT 'infinity'::DATE AS d, INTERVAL 1 MONTH AS i, [DATE '2024-01-02'] AS l, 1 AS n -- a comment"
    answer = process(operation="query", data=[{"x": 1}], sql=sql)["data"]
    assert [{"d": "infinity", "i": "1 month", "l": ["2024-01-02"], "n": 1}] == answer
    ordered = process(operation="query", data=[{"x": n} for n in (3, 1, 2)],
                      sql="SELECT x, DATE '2024-01-01' + x::INT AS d FROM data ORDER BY x;")  # fmt: skip
    assert [1, 2, 3] == [row["x"] for row in ordered["data"]]


def test_integers_of_any_size_are_apart() -> None:
    """In arrays of objects, too: neighbours beyond 64 bits are two groups, and sums are exact."""
    big = 2**63
    data = [{"id": big}, {"id": big + 1}, {"id": 10**40}]
    groups = process(
        operation="group", data=data[:2], group_by=["id"], aggregates=[{"function": "count", "field": "id"}]
    )
    assert [str(big), str(big + 1)] == [row["id"] for row in groups["data"]]
    assert {"id": str(2 * big + 1)} == process(operation="sum", data=data[:2])["sum"]
    assert [str(10**40)] == [row["id"] for row in process(operation="select", data=data, fields=["id"])["data"][2:]]


# ---- mixed fields ------------------------------------------------------------------------------------------------

MIXED = [{"c": 10}, {"c": "x"}, {"c": 2}, {"c": 9}, {"c": True}, {"c": "10"}, {"c": None}, {"c": 2.5}]


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("gt", 5, [10, 9]),
        ("le", 2.5, [2, 2.5]),
        ("eq", 10.0, [10]),
        ("eq", "10", ["10"]),
        ("ge", "a", ["x"]),
        ("ne", 10, ["x", 2, 9, True, "10", 2.5]),
        ("in", [2, "x"], ["x", 2]),
        ("not_in", [2, "x", True], [10, 9, "10", 2.5]),
        ("eq", True, [True]),
        ("contains", "1", ["10"]),
    ],
)
def test_a_mixed_field_compares_values_of_one_kind(op: str, value: Any, expected: list[Any]) -> None:
    """As Python compares the values that it can compare; never by the letters of a number."""
    where = [{"field": "c", "op": op, "value": value}]
    found = [row["c"] for row in process(operation="filter", data=MIXED, where=where)["data"]]
    assert expected == found
    assert [type(each) for each in expected] == [type(each) for each in found]


def test_a_mixed_field_sorts_numbers_then_texts_then_booleans() -> None:
    """Each kind in its own order; nulls where asked for."""
    answer = process(operation="sort", data=MIXED, by=[{"field": "c"}])["data"]
    assert [2, 2.5, 9, 10, "10", "x", True, None] == [row["c"] for row in answer]


def test_a_mixed_field_has_no_least_value() -> None:
    """Refused by name."""
    aggregates = [{"function": "min", "field": "c"}]
    assert "field_of_another_kind" == refusal(operation="group", data=MIXED, group_by=[], aggregates=aggregates).code


def test_numbers_of_a_csv_are_those_of_pandas() -> None:
    """Statistics of a file without traps, beside pandas on the same file."""
    text = "a,b\n" + "".join(f"{n},{n * 37 % 101 / 4}\n" for n in range(500))
    frame = pd.read_csv(io.StringIO(text))
    found = process(operation="statistics", data={"format": "csv", "text": text})["statistics"]
    for name in ("a", "b"):
        peer = frame[name].describe()
        for ours, theirs in (("mean", "mean"), ("std", "std"), ("min", "min"), ("max", "max"), ("median", "50%")):
            assert found[name][ours] == pytest.approx(peer[theirs], rel=1e-12)
        assert frame[name].nunique() == found[name]["distinct"]


# ---- types that the caller gives ----------------------------------------------------------------------------------

GIVEN: dict[str, tuple[str, str, Any]] = {
    "an offset": ("datetime", "2024-09-17T06:37:50+02:00", "2024-09-17T06:37:50+02:00"),
    "an offset of hours": ("datetime", "2024-10-27 02:30:00+01", "2024-10-27T02:30:00+01:00"),
    "an offset without a colon": ("datetime", "2024-09-17T06:37:50.5-0330", "2024-09-17T06:37:50.5-03:30"),
    "UTC": ("datetime", "2024-09-17T06:37:50Z", "2024-09-17T06:37:50Z"),
    "no offset": ("datetime", "2024-09-17 06:37", "2024-09-17T06:37:00"),
    "zeros beyond microseconds": ("datetime", "2024-09-17T06:37:50.123456000", "2024-09-17T06:37:50.123456"),
    "midnight": ("date", "2024-09-17T00:00:00", "2024-09-17"),
    "slashes": ("date", "2024/9/7", "2024-09-07"),
    "more digits than a double has": ("number", "0.1234567890123456789", "0.1234567890123456789"),
    "a large integer as number": ("number", "12345678901234567890", "12345678901234567890"),
    "a double": ("number", "1e5", 100000.0),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_type_that_is_given_changes_no_value(name: str) -> None:
    """Offsets stay, and digits; only the way of writing becomes ISO 8601."""
    wanted, text, expected = GIVEN[name]
    data = {"format": "csv", "text": f"v,w\n{text},x\n", "types": {"v": wanted}}
    assert [{"v": expected}] == select(data, "v")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("date", "2024-09-17 23:59"), ("date", "24-09-17"), ("date", "infinity"), ("date", "2024-02-30"),
        ("datetime", "2024-09-17T06:37:50.123456789"), ("datetime", "epoch"), ("integer", "1.5"), ("number", "0x1F"),
    ],
)  # fmt: skip
def test_a_value_that_a_given_type_would_change_is_refused(wanted: str, text: str) -> None:
    """A time would be cut, a year guessed, nanoseconds lost."""
    data = {"format": "csv", "text": f"v,w\n{text},x\n", "types": {"v": wanted}}
    assert "value_of_another_kind" == refusal(operation="select", data=data, fields=["v"]).code


def test_a_group_sums_doubles_as_a_sum_does() -> None:
    """Ten times a tenth is one."""
    rows = [{"g": "a", "x": 0.1}] * 10
    aggregates = [{"function": "sum", "field": "x"}, {"function": "mean", "field": "x"}]
    answer = process(operation="group", data=rows, group_by=["g"], aggregates=aggregates)
    assert [{"g": "a", "sum_x": 1.0, "mean_x": 0.1}] == answer["data"]
    assert {"x": 1.0} == process(operation="sum", data=rows)["sum"]
    pivoted = process(operation="pivot", data=rows, index=["g"], columns="g", values="x")
    assert [{"g": "a", "a": 1.0}] == [{"g": row["g"], "a": list(row.values())[1]} for row in pivoted["data"]]


def test_a_pivot_tells_of_rows_that_have_no_field() -> None:
    """A null of `columns` names none."""
    rows = [{"i": 1, "c": "a", "v": 1}, {"i": 1, "c": None, "v": 5}]
    answer = process(operation="pivot", data=rows, index=["i"], columns="c", values="v")
    assert ([{"i": 1, "a": 1}], 1) == (answer["data"], answer["rows_left_out_total"])
