"""Inputs of the awkward kind, and what a user would take instead: Python's json, decimal and csv, pandas, numpy.

Each row is one that nobody gave us. What differs on purpose stands in ``WANTED``, at the end, with the reason.
"""

from __future__ import annotations

import io
import json
import math
import re
import statistics
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import openpyxl
import pandas as pd
import pytest

from handlers import jsonable
from handlers.data import data_processing
from handlers.data.exact_numbers import exact_number, is_inexact
from handlers.failures import Refusal
from handlers.parameters.registry import Request
from tests.handlers.test_data_exact import of_bytes, process, refusal, select


def csv(text: str, **options: Any) -> list[dict[str, Any]]:
    """All rows and fields of a CSV."""
    data = {"format": "csv", "text": text, **options}
    return select(data, *process(operation="count", data=data)["count"])


# ---- numbers of JSON ---------------------------------------------------------------------------------------------

LONG = {
    "a fraction of 19 digits": "0.1234567890123456789",
    "cents of a large amount": "123456789012345678.25",
    "17 digits that are no double": "0.12345678901234567",
    "an exponent and many digits": "1.2345678901234567891e5",
    "negative": "-98765432109876543.21",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_number_that_no_double_holds_comes_back_as_its_text(text: str) -> None:
    """In JSON lines and in the request, as Python's decimals read it; beside one that needs no care."""
    lines = {"format": "jsonl", "text": f'{{"a":{text}}}\n{{"a":1.5}}\n'}
    inline = json.loads(json.dumps([{"a": "@"}, {"a": 1.5}]))
    expected = f"{Decimal(text):f}"
    assert [expected, 1.5] == [row["a"] for row in select(lines, "a")]
    body = json.dumps({"operation": "select", "fields": ["a"], "data": inline}).replace('"@"', text)
    assert [expected, 1.5] == [row["a"] for row in ask(body)["data"]]
    columns = json.dumps({"operation": "select", "fields": ["a"], "data": {"columns": {"a": ["@"]}}})
    assert [expected] == [row["a"] for row in ask(columns.replace('"@"', text))["data"]]


def ask(body: str) -> Any:
    """The answer of a request whose numbers stand as they are written here."""
    request = Request(task_type="data_processing", parameters=msgspec.Raw(body.encode()))
    return json.loads(jsonable.encode(data_processing.run(request)))


HELD = ["0.1", "0.30000000000000004", "0.10000000000000001", "0.1000000000000000055511151231257827", "1e23", "1E5",
        "123456789012.5000000000000", "5e-324", "1.7976931348623157e308", "-0.0", "0e-400",
        f"0.0e-{10**20}"]  # fmt: skip


@pytest.mark.parametrize("text", HELD)
def test_a_number_that_a_program_printed_from_a_double_is_that_double(text: str) -> None:
    """With the shortest digits, with 17, or with all that it has: as json.loads reads it."""
    value = exact_number(text)
    assert (float, json.loads(text), math.copysign(1, float(text))) == (type(value), value, math.copysign(1, value))


@pytest.mark.parametrize("text", ["1e400", "1e-400", "0.000000000000000000001e-320", f"-1.5e-{10**20}"])
def test_a_number_of_json_beyond_all_doubles_is_refused(text: str) -> None:
    """It would be infinite, or nothing."""
    lines = {"format": "jsonl", "text": f'{{"a":{text}}}\n'}
    assert "number_out_of_range" == refusal(operation="count", data=lines).code


PRINTED = {
    "short": b'{"a":123456789012345,"b":0.25,"c":"x","d":1e-99}', "shortest": b"[0.30000000000000004,1.5e-300]",
    "with a zero in the exponent": repr([1 / 81234, 2 / 3e6]).encode(), "17 digits": b"[0.10000000000000001]",
    "an integer": b"[12345678901234567890123]", "digits of a string": b'["0012345678901234567","1.2.3.4.5.6.7.8.9"]',
}  # fmt: skip


@pytest.mark.parametrize("text", PRINTED.values(), ids=PRINTED)
def test_a_text_without_such_a_number_is_told_at_once(text: bytes) -> None:
    """Whatever program printed it; also among a million bytes."""
    assert not is_inexact(text)
    assert not is_inexact(text + b"," * (1 << 20) + text)
    for long in (b"0.1234567890123456789", b"1e-400", b"9007199254740993.5"):
        assert is_inexact(text + b"," + long)
        assert is_inexact(b" " * ((1 << 20) - 8) + long + b"," + text)


def test_nested_and_mixed_values_keep_their_digits() -> None:
    """As JSON text, and beside values of other kinds."""
    lines = '{"a":{"x":123456789012345678901234567890,"y":0.1234567890123456789}}\n'
    assert (
        '{"x":123456789012345678901234567890,"y":0.1234567890123456789}'
        == (select({"format": "jsonl", "text": lines}, "a")[0]["a"])
    )
    mixed = '{"a":0.1234567890123456789}\n{"a":"x"}\n{"a":1.5e300}\n'
    assert ["0.1234567890123456789", "x", 1.5e300] == [
        row["a"] for row in select({"format": "jsonl", "text": mixed}, "a")
    ]


def test_words_for_numbers_are_no_json_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader that is taken then knows NaN; the other one refuses it."""
    monkeypatch.setattr("handlers.data.decoding.fits", lambda *_, **__: False)
    for text in ('{"a":NaN}\n', '{"a":1e400}\n', '{"a":-Infinity}\n'):
        with pytest.raises(Refusal):
            process(operation="count", data={"format": "jsonl", "text": text})
    long = {"format": "jsonl", "text": '{"a":0.1234567890123456789}\n'}
    assert "0.1234567890123456789" == select(long, "a")[0]["a"]


# ---- how a CSV is written ----------------------------------------------------------------------------------------

GROUPED: list[tuple[str, dict[str, str], str, Any]] = [
    ("1'234.50", {"thousands": "'"}, "number", 1234.5),
    ("1\u2019234.50", {"thousands": "\u2019"}, "number", 1234.5),
    ("1\u00a0234,50", {"thousands": "\u00a0", "decimal": ","}, "number", 1234.5),
    ("-12\u202f345\u202f678,05", {"thousands": "\u202f", "decimal": ","}, "number", -12345678.05),
    ("+1.234", {"thousands": ".", "decimal": ","}, "integer", 1234),
    ("1234", {"thousands": ","}, "integer", 1234),
]
UNGROUPED: list[tuple[str, dict[str, str], str]] = [
    ("1,5", {"thousands": ","}, "number"), ("1,2,3", {"thousands": ","}, "integer"),
    ("1.50", {"thousands": ".", "decimal": ","}, "number"), ("1.500", {"decimal": ","}, "number"),
    ("12,34,567", {"thousands": ","}, "integer"), ("1,234,5", {"thousands": ","}, "number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marks", "kind", "value"), GROUPED)
def test_marks_between_thousands_are_read_as_said(text: str, marks: dict[str, str], kind: str, value: Any) -> None:
    """Whether the type is given or found; only where each group has three digits."""
    marks = {"delimiter": ";", **marks}
    assert value == csv(f"v;w\n{text};x\n", types={"v": kind}, **marks)[0]["v"]
    if not text.startswith("+"):
        assert value == csv(f"v;w\n{text};x\n", **marks)[0]["v"]


@pytest.mark.parametrize(("text", "marks", "kind"), UNGROUPED)
def test_marks_in_other_places_make_no_number(text: str, marks: dict[str, str], kind: str) -> None:
    """``1,5`` is not 15, as pandas has it: refused where the type is given, else the text that it is."""
    data = {"format": "csv", "text": f"v;w\n{text};x\n", "delimiter": ";", **marks}
    assert "value_of_another_kind" == refusal(operation="count", data={**data, "types": {"v": kind}}).code
    assert text == select(data, "v")[0]["v"]


HEADERS = {
    "lines end with a carriage return": ("a;b\r1,5;2\r3,5;4\r", {}, [{"a": "1,5", "b": 2}, {"a": "3,5", "b": 4}]),
    "such a line is passed over": ("x, y, z\ra;b\r1;2\r", {"skip_lines": 1}, [{"a": 1, "b": 2}]),
    "a name goes on over lines": ('"x,y\nz";b\n1;2\n', {}, [{"x,y\nz": 1, "b": 2}]),
    "a quote in a quoted name": ('"a ""1,2"" b";c\n1;2\n', {}, [{'a "1,2" b': 1, "c": 2}]),
    "separators in quoted names": ('"a,b,c"\t"d,e"\n1\t2\n', {}, [{"a,b,c": 1, "d,e": 2}]),
    "names that come thrice": ("a,a_2,a\n1,2,3\n", {}, [{"a": 1, "a_2": 2, "a_3": 3}]),
    "signs that end lines elsewhere": ("a,b\nx\u2028y\x85z\x0b,2\n", {}, [{"a": "x\u2028y\x85z\x0b", "b": 2}]),
    "digits of other scripts": ("a,b\n\uff11\uff12,\u0663\n", {}, [{"a": "\uff11\uff12", "b": "\u0663"}]),
    "a minus of typography": ("a,b\n\u22125,2\n", {}, [{"a": "\u22125", "b": 2}]),
    "zeros within": ("a,b\nx\0y,2\n", {}, [{"a": "x\0y", "b": 2}]),
}


@pytest.mark.parametrize(("text", "options", "rows"), HEADERS.values(), ids=HEADERS)
def test_a_csv_is_read_as_it_is_written(text: str, options: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The delimiter is found in the first row, however it is written."""
    assert rows == csv(text, **options)


@pytest.mark.parametrize(("encoding", "text"), [
    ("cp932", "名前,値\n表示能力,\uff11\nソ,7\n"), ("gb18030", "姓名,城市\n张\U00020000三丰,北京市\n"),
    ("utf-16-le", "a,b\nJosé,2\n"), ("utf-16-be", "a,b\nplain,2\n"), ("utf-16-be", "名前,値\n日本,7\n"),
    ("utf-32-be", "a,b\nplain,2\n"), ("iso2022_jp", "名前,値\n日本,7\n"),
])  # fmt: skip
def test_an_encoding_of_a_csv_is_found_without_a_mark(encoding: str, text: str) -> None:
    """And told as a guess."""
    data = of_bytes(text.encode(encoding))
    answer = process(operation="count", data=data)
    assert text.partition("\n")[0].split(",") == list(answer["count"])
    assert 0 < answer["files"]["data"]["guessed"]["encoding"] < 1
    rows = [list(map(str, row.values())) for row in select(data, *answer["count"])]
    assert [line.split(",") for line in text.splitlines()[1:]] == rows


def test_a_zero_byte_makes_no_text_of_two_bytes_a_sign() -> None:
    """ASCII in pairs would be signs of Chinese. It is read where its encoding is said."""
    content = b"a,b\nx\0y,2\n"
    assert "invalid_csv" == refusal(operation="count", data=of_bytes(content)).code
    assert [{"a": "x\0y"}] == select(of_bytes(content, encoding="utf-8"), "a")


# ---- what is computed --------------------------------------------------------------------------------------------

HISTOGRAMS = {
    "tenths": [number / 10 for number in range(11)],
    "thirds": [number / 3 for number in range(-7, 20)],
    "as far apart as numbers are": [-1.7e308, 1.7e308, 5.0],
    "large and close": [1e15 + number for number in range(9)],
}


@pytest.mark.parametrize("values", HISTOGRAMS.values(), ids=HISTOGRAMS)
@pytest.mark.parametrize("bins", [1, 3, 10])
def test_a_histogram_counts_by_the_edges_that_it_tells(values: list[float], bins: int) -> None:
    """As numpy counts by them; each value once."""
    found = process(operation="histogram", data=[{"x": value} for value in values], field="x", bins=bins)["bins"]
    edges = [one["from"] for one in found] + [found[-1]["to"]]
    assert np.histogram(values, edges)[0].tolist() == [one["count"] for one in found]
    assert (min(values), max(values), len(values)) == (edges[0], edges[-1], sum(one["count"] for one in found))


def parquet(sql: str, folder: Path) -> dict[str, Any]:
    path = folder / "rows.parquet"
    duckdb.sql(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")
    return of_bytes(path.read_bytes(), "parquet")


def test_infinities_have_no_place_in_a_histogram(tmp_path: Path) -> None:
    """They are counted beside it."""
    data = parquet("SELECT unnest(['inf', '-inf', '1', '2']::DOUBLE[]) AS d", tmp_path)
    found = process(operation="histogram", data=data, field="d", bins=2)
    assert (2, 2, [1, 1]) == (found["count"], found["out_of_range_total"], [one["count"] for one in found["bins"]])


def test_what_is_no_number_is_null_everywhere(tmp_path: Path) -> None:
    """And counted, as pandas leaves it out of each sum; no condition finds it."""
    data = parquet("SELECT unnest(['nan', '1', '2']::DOUBLE[]) AS d", tmp_path)
    answer = process(operation="statistics", data=data)
    numbers = answer["statistics"]["d"]
    assert (1, 1, 3.0, 2.0) == (
        answer["files"]["data"]["not_a_number_total"], numbers["nulls"], numbers["sum"], numbers["max"],
    )  # fmt: skip
    where = [{"field": "d", "op": "gt", "value": 1}]
    assert [{"d": 2.0}] == process(operation="filter", data=data, where=where)["data"]


@pytest.mark.parametrize("start", [0, 10**15, -(10**15), 10**18, 2**70])
def test_what_lies_close_together_keeps_its_spread_and_correlation(start: int) -> None:
    """As Python's statistics have it with exact integers; numpy's doubles have no spread left there."""
    values, others = [start + step for step in (4, 7, 13, 16, 18)], [1, 5, 2, 8, 9]
    data = [{"a": a, "b": b} for a, b in zip(values, others, strict=True)]
    assert statistics.stdev(values) == pytest.approx(
        process(operation="statistics", data=data)["statistics"]["a"]["std"]
    )
    found = process(operation="correlation", data=data)["matrix"]["a"]["b"]
    assert statistics.correlation([4, 7, 13, 16, 18], others) == pytest.approx(found)


def test_groups_of_large_numbers_keep_their_spread() -> None:
    """Of each group by itself; also where the numbers reach from one end to the other."""
    data = [{"g": g, "x": 10**18 + g * 1000 + step} for g in (1, 2) for step in (4, 7, 13, 16)]
    aggregates = [{"function": "std", "field": "x"}]
    found = process(operation="group", data=data, group_by=["g"], aggregates=aggregates)["data"]
    assert [pytest.approx(statistics.stdev([4, 7, 13, 16]))] * 2 == [row["std_x"] for row in found]
    ends = [{"g": 1, "x": -(2**63)}, {"g": 1, "x": 2**63 - 1}]
    wide = process(operation="group", data=ends, group_by=["g"], aggregates=aggregates)["data"]
    assert [pytest.approx(2**63 * math.sqrt(2))] == [row["std_x"] for row in wide]


def test_maps_and_lists_of_parquet_are_json(tmp_path: Path) -> None:
    """Each at its own depth."""
    data = parquet("SELECT MAP {'a': [1, NULL]} AS m, [{'x': 'y'}] AS l", tmp_path)
    row = select(data, "m", "l")[0]
    assert ({"a": [1, None]}, [{"x": "y"}]) == (json.loads(row["m"]), json.loads(row["l"]))


@pytest.mark.parametrize(
    "column", [[1, 2], [1.5, 2.5], [2**100, 1], [1, "x"]], ids=["integers", "doubles", "huge", "mixed"]
)
@pytest.mark.parametrize("value", [10**40, -(10**400)], ids=["beyond 38 digits", "beyond doubles"])
def test_a_condition_takes_an_integer_of_any_size(column: list[Any], value: int) -> None:
    """As Python compares: all numbers are less, or greater; none is equal."""
    data = [{"a": one} for one in column]
    numbers = [one for one in column if not isinstance(one, str)]
    operators: dict[str, Callable[[Any], bool]] = {"lt": lambda one: one < value, "gt": lambda one: one > value,
                                                   "eq": lambda one: one == value}  # fmt: skip
    for op, holds in operators.items():
        if isinstance(value, int) and abs(value) > 10**300 and op != "eq":
            body = json.dumps({"operation": "filter", "data": data, "where": [{"field": "a", "op": op, "value": "@"}]})
            found = ask(body.replace('"@"', str(value)))["data"]
        else:
            found = process(operation="filter", data=data, where=[{"field": "a", "op": op, "value": value}])["data"]
        assert len(list(filter(holds, numbers))) == len(found)


def test_a_pivot_names_booleans_as_json_does() -> None:
    """Not as Python does."""
    rows = [{"i": 1, "c": True, "v": 1}, {"i": 1, "c": False, "v": 2}]
    assert [{"i": 1, "false": 2, "true": 1}] == process(
        operation="pivot", data=rows, index=["i"], columns="c", values="v")["data"]  # fmt: skip


# ---- spreadsheets ------------------------------------------------------------------------------------------------


def workbook(cells: str) -> dict[str, Any]:
    """A sheet whose header is ``a``, ``b``, and one row of cells as XML."""
    book = openpyxl.Workbook()
    book.active.append(["a", "b"])
    buffer, made = io.BytesIO(), io.BytesIO()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                text = re.sub(rb"</row>", b"</row><row r='2'>" + cells.encode() + b"</row>", text)
            new.writestr(name, text)
    return of_bytes(made.getvalue(), "xlsx")


PHONETIC = "<is><r><t>東</t></r><r><t xml:space='preserve'> 京 </t></r><rPh sb='0' eb='1'><t>トウ</t></rPh></is>"
CELLS = {
    "how a word is said": (f"<c r='A2' t='inlineStr'>{PHONETIC}</c>", "東 京 "),
    "all digits of a double": ("<c r='A2'><v>0.30000000000000004</v></c>", 0.30000000000000004),
    "more digits than a double has": (f"<c r='A2'><v>{10**29 + 1}</v></c>", str(10**29 + 1)),
    "spaces around a number": ("<c r='A2'><v> 5 </v></c>", 5),
    "a date as ISO 8601": ("<c r='A2' t='d'><v>2024-01-02T03:04:05.5</v></c>", "2024-01-02T03:04:05.500000"),
    "a letter by its code": ("<c r='A2' t='inlineStr'><is><t>_x0041_</t></is></c>", "A"),
    "no reference": ("<c><v>1E3</v></c>", 1000.0),
}  # fmt: skip


@pytest.mark.parametrize(("cell", "value"), CELLS.values(), ids=CELLS)
def test_a_cell_of_a_workbook_is_what_it_says(cell: str, value: Any) -> None:
    """As Excel shows it, with all digits."""
    found = select(workbook(cell), "a")[0]["a"]
    assert (value, type(value)) == (found, type(found))


@pytest.mark.parametrize("text", ["NaN", "1_0", "0x10", "1,5", "\u0661"])
def test_a_number_of_a_workbook_that_is_none_is_refused(text: str) -> None:
    """Python's float would read most of them."""
    assert "invalid_xlsx" == refusal(operation="count", data=workbook(f"<c r='A2'><v>{text}</v></c>")).code


# ---- what differs on purpose -------------------------------------------------------------------------------------

SPREADSHEET = "urn:oasis:names:tc:opendocument:xmlns"
ODS = (
    f"<o:document-content xmlns:o='{SPREADSHEET}:office:1.0' xmlns:t='{SPREADSHEET}:table:1.0' "
    f"xmlns:x='{SPREADSHEET}:text:1.0'><o:body><o:spreadsheet><t:table><t:table-row>"
    "<t:table-cell o:value-type='string'><x:p>a</x:p></t:table-cell></t:table-row><t:table-row>"
    "<t:table-cell o:value-type='date' "
    "o:date-value='2024-01-02T03:04:05.123456789'/></t:table-row></t:table></o:spreadsheet></o:body></o:document-content>"
)


def ods(content: str) -> dict[str, Any]:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("content.xml", content)
    return of_bytes(made.getvalue(), "ods")


WANTED: dict[str, tuple[str, Callable[[], Any], Any, Any]] = {
    "no double, no sign": (
        "a decimal has no sign where it has no value", lambda: str(csv("a,b\n-0.0,1\n")[0]["a"]), "0.0",
        lambda: str(pd.read_csv(io.StringIO("a,b\n-0.0,1\n"))["a"][0]),
    ),
    "one byte of zero": (
        "bytes with zeros are no text unless the caller says so",
        lambda: refusal(operation="count", data=of_bytes(b"a,b\nx\0y,2\n")).code, "invalid_csv",
        lambda: pd.read_csv(io.BytesIO(b"a,b\nx\0y,2\n"))["a"][0],
    ),
    "nanoseconds of a cell": (
        "no program that writes cells keeps time in more than microseconds",
        lambda: select(ods(ODS), "a")[0]["a"], "2024-01-02T03:04:05.123456",
        lambda: pd.Timestamp("2024-01-02T03:04:05.123456789").isoformat(),
    ),
    "thousands": (
        "1,5 is a slip of the pen, or has a decimal comma; 15 is neither",
        lambda: csv("v;w\n1,5;x\n", delimiter=";", thousands=",")[0]["v"], "1,5",
        lambda: int(pd.read_csv(io.StringIO("v;w\n1,5;x\n"), sep=";", thousands=",")["v"][0]),
    ),
    "a double of 34 digits": (
        "a text that a program printed from a double is that double, not a decimal",
        lambda: select({"format": "jsonl", "text": '{"a":0.1000000000000000055511151231257827}\n'}, "a")[0]["a"], 0.1,
        lambda: Decimal("0.1000000000000000055511151231257827"),
    ),
}  # fmt: skip
"""What differs: the reason, what comes out here, what that is, and what a peer has."""


@pytest.mark.parametrize(("ours", "expected", "theirs"), [row[1:] for row in WANTED.values()], ids=WANTED)
def test_what_differs_on_purpose(ours: Callable[[], Any], expected: Any, theirs: Callable[[], Any]) -> None:
    """A row that differs no longer is to go."""
    assert expected == ours()
    assert expected != theirs()
