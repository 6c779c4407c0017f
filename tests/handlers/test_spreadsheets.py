"""data_processing reads and writes xlsx and ods: each cell comes out as it stands in the file, or is counted."""

# ruff: noqa: DTZ001 cells have no zone

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import openpyxl
import pandas as pd
import pytest

from handlers import jsonable
from handlers.data import data_processing, sheets
from handlers.failures import Refusal
from handlers.parameters.registry import Request, decode

ODS = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0" office:version="1.3">
 <office:body><office:spreadsheet>{}</office:spreadsheet></office:body></office:document-content>"""


def process(**parameters: Any) -> Any:
    """The answer as JSON has it, of parameters that the API would accept."""
    text = json.dumps(parameters).encode()
    decode("data_processing", text)
    request = Request(task_type="data_processing", parameters=msgspec.Raw(text))
    return json.loads(jsonable.encode(data_processing.run(request)))


def refusal(**parameters: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        process(**parameters)
    return caught.value


def given(content: bytes, form: str = "xlsx", **options: Any) -> dict[str, Any]:
    return {"format": form, "base64": base64.b64encode(content).decode(), **options}


def rows(data: dict[str, Any]) -> Any:
    """All rows, as the file has them, and what is told of it."""
    fields = list(process(operation="count", data=data)["count"])
    answer = process(operation="select", data=data, fields=fields)
    return answer["data"], answer["files"]["data"]


def workbook(*tables: Iterable[Iterable[Any]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for number, table in enumerate(tables, 1):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in table:
            sheet.append(list(row))
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def edited(content: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """An archive with each part changed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return made.getvalue()


def with_cells(xml: str) -> bytes:
    """A workbook whose only sheet has these rows."""
    found = re.compile(rb"<sheetData.*</sheetData>|<sheetData ?/>", re.DOTALL)
    return edited(
        workbook([["v"]]),
        lambda name, part: (
            found.sub(f"<sheetData>{xml}</sheetData>".encode(), part) if name.startswith("xl/worksheets/") else part
        ),
    )


def ods(*tables: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        named = "".join(f'<table:table table:name="T{n}">{one}</table:table>' for n, one in enumerate(tables, 1))
        archive.writestr("content.xml", ODS.format(named))
    return made.getvalue()


def ods_row(*cells: str, times: int = 1) -> str:
    return f'<table:table-row table:number-rows-repeated="{times}">{"".join(cells)}</table:table-row>'


def number(value: str, kind: str = "float", more: str = "") -> str:
    return f'<table:table-cell office:value-type="{kind}" office:value="{value}" {more}/>'


def text(value: str) -> str:
    return f'<table:table-cell office:value-type="string"><text:p>{value}</text:p></table:table-cell>'


# ---- what a cell becomes ------------------------------------------------------------------------------------------

COLUMNS: dict[str, tuple[list[Any], list[Any]]] = {
    "integers": ([1, 2, -3], [1, 2, -3]),
    "numbers": ([9.99, 10, 0.5], [9.99, 10, 0.5]),
    "texts that look like numbers": (["007", "12"], ["007", "12"]),
    "a text in a column of numbers": ([1, "x", 2.5], [1, "x", 2.5]),
    "booleans": ([True, False], [True, False]),
    "dates": ([dt.datetime(2024, 1, 31), dt.date(1999, 12, 31)], ["2024-01-31", "1999-12-31"]),
    "dates with times": (
        [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 13, 5, 7)],
        ["2024-01-31T00:00:00", "2024-01-31T13:05:07"],
    ),
    "times": ([dt.time(8, 30), dt.time(23, 59, 59)], ["08:30:00", "23:59:59"]),
    "durations": ([dt.timedelta(hours=30), dt.timedelta(seconds=90)], [108_000, 90]),
    "a date beside a word": ([dt.datetime(2024, 1, 31), "later"], ["2024-01-31", "later"]),
    "texts that look like dates": (["2024-01-31", "10-11-12"], ["2024-01-31", "10-11-12"]),
    "gaps": ([1, None, 3], [1, None, 3]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_cell_of_a_workbook_keeps_its_value(name: str) -> None:
    """Numbers as numbers, dates as dates, and texts as texts, whatever they look like."""
    values, expected = COLUMNS[name]
    found, _ = rows(given(workbook([["v", "w"], *([value, 1] for value in values)])))
    assert expected == [row["v"] for row in found]


WRITTEN = {
    "12345678901234567890": "12345678901234567890",
    "0.30000000000000004": 0.30000000000000004,
    "1E+30": 1e30,
    "123456789.123456789123456789": "123456789.123456789123456789",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_number_of_a_workbook_keeps_every_digit(written: str) -> None:
    """Also those that no double holds, as text."""
    content = with_cells(
        f'<row r="1"><c r="A1" t="str"><v>v</v></c></row><row r="2"><c r="A2"><v>{written}</v></c></row>'
    )
    assert [{"v": WRITTEN[written]}] == rows(given(content))[0]


def test_a_number_beyond_all_numbers_is_refused() -> None:
    """It would become infinite, or zero."""
    for written in ("1E+400", "1E-400"):
        content = with_cells(f'<row r="1"><c r="A1" t="str"><v>v</v></c></row><row r="2"><c><v>{written}</v></c></row>')
        assert "number_out_of_range" == refusal(operation="count", data=given(content)).code


def test_what_has_no_value_is_counted() -> None:
    """Formulas that nobody has computed, errors, empty rows, merged cells, columns without a name."""
    content = with_cells(
        '<row r="2"><c r="B2" t="str"><v>a</v></c><c r="C2" t="str"><v>b</v></c></row>'
        '<row r="3"><c r="B3"><f>1+1</f><v>2</v></c><c r="C3"><f>NOW()</f><v></v></c></row>'
        '<row r="6"><c r="B6" t="e"><f>1/0</f><v>#DIV/0!</v></c><c r="C6" t="str"><f>""</f><v></v></c></row>'
        '<row r="7"><c r="B7"><v>5</v></c><c r="D7"><v>6</v></c></row>'
    )
    merged = b'</sheetData><mergeCells count="1"><mergeCell ref="B3:B4"/></mergeCells>'
    content = edited(content, lambda _, part: part.replace(b"</sheetData>", merged))
    found, origin = rows(given(content))
    assert [
        {"a": 2, "b": None, "column_3": None},
        {"a": 5, "b": None, "column_3": 6},
    ] == found
    told = {"formulas_total": 4, "formulas_without_value_total": 1, "error_cells_total": 1, "merged_cells_total": 1}
    assert told.items() <= origin.items()
    assert (4, 1) == (origin["empty_rows_total"], origin["unnamed_fields_total"])


def test_escapes_of_a_workbook_are_the_characters_that_they_stand_for() -> None:
    """Excel writes a carriage return so; shared and inline texts, also in pieces."""
    content = with_cells(
        '<row r="1"><c t="str"><v>v</v></c></row><row r="2"><c t="str"><v>a_x000D_b</v></c></row>'
        '<row r="3"><c t="inlineStr"><is><r><t>two </t></r><r><t>pieces</t></r></is></c></row>'
    )
    assert [{"v": "a\rb"}, {"v": "two pieces"}] == rows(given(content))[0]


# ---- which sheet, which rows --------------------------------------------------------------------------------------


def test_a_sheet_is_named_or_numbered_or_the_first_visible_one() -> None:
    """The answer tells which, and that there are others."""
    book = openpyxl.load_workbook(io.BytesIO(workbook([["a"], [1]], [["b"], [2]], [["c"], [3]])))
    book.worksheets[0].sheet_state = "hidden"
    content = saved(book)
    found, origin = rows(given(content))
    assert [{"b": 2}] == found
    assert ("Sheet 2", 3, ["Sheet 1", "Sheet 2", "Sheet 3"]) == (
        origin["sheet"], origin["sheets_total"], origin["sheets"],
    )  # fmt: skip
    assert [{"a": 1}] == rows(given(content, sheet=1))[0]
    assert [{"c": 3}] == rows(given(content, sheet="Sheet 3"))[0]
    for sheet in ("Sheet 4", 4):
        fault = refusal(operation="count", data=given(content, sheet=sheet))
        assert "no_such_sheet" == fault.code
        assert "'Sheet 3'" in str(fault)


def test_options_say_what_the_header_and_the_values_are() -> None:
    """As for a CSV."""
    content = workbook([["Report"], ["zip", "n", "note"], [1234, "5", "-"], [777, "6", "x"]])
    found, _ = rows(given(content, skip_lines=1, nulls=["-"], types={"zip": "text", "n": "integer"}))
    assert [{"zip": "1234", "n": 5, "note": None}, {"zip": "777", "n": 6, "note": "x"}] == found
    assert {"column_1": "Report", "column_2": None, "column_3": None} == rows(given(content, header=False))[0][0]
    fault = refusal(operation="count", data=given(content, skip_lines=1, types={"note": "number"}))
    assert "value_of_another_kind" == fault.code
    assert "unknown_field" == refusal(operation="count", data=given(content, types={"q": "text"})).code


def test_late_values_decide_on_a_column_too() -> None:
    """Thousands of rows further down."""
    found, _ = rows(given(workbook([["v", "d"], *([10, dt.datetime(2024, 1, 1)] for _ in range(3000)), [0.5, "?"]])))
    assert ({"v": 10.0, "d": "2024-01-01"}, {"v": 0.5, "d": "?"}) == (found[0], found[-1])


def test_pandas_reads_the_same_cells(tmp_path: Path) -> None:
    """What users would take instead; dates are texts here, and gaps null."""
    frame = pd.DataFrame(
        {"n": range(50), "x": [n / 7 for n in range(50)], "t": [f"ä{n}" for n in range(50)],
         "b": [n % 2 == 0 for n in range(50)],
         "d": pd.date_range("2020-02-27 05:06:07", periods=50, freq="37h")},
    )  # fmt: skip
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    content = (tmp_path / "a.xlsx").read_bytes()
    theirs = pd.read_excel(io.BytesIO(content))
    ours = pd.DataFrame(rows(given(content))[0])
    assert theirs["d"].dt.strftime("%Y-%m-%dT%H:%M:%S").tolist() == ours["d"].tolist()
    assert theirs.drop(columns="d").to_dict("list") == ours.drop(columns="d").to_dict("list")


# ---- OpenDocument -------------------------------------------------------------------------------------------------


def test_cells_of_an_opendocument_sheet_keep_their_values() -> None:
    """Numbers by their digits, dates and times, texts with their spaces, repeated and merged cells."""
    date = '<table:table-cell office:value-type="date" office:date-value="{}"/>'
    time = '<table:table-cell office:value-type="time" office:time-value="{}"/>'
    boolean = '<table:table-cell office:value-type="boolean" office:boolean-value="true"/>'
    content = ods(
        ods_row(*map(text, ("n", "d", "t", "s", "b", "m")), number("2024"))
        + ods_row("<table:table-cell/>", times=3)
        + ods_row(
            number("12345678901234567890"), date.format("2024-01-31"), time.format("PT08H30M00S"),
            text('a<text:s text:c="2"/>b<text:tab/><text:span>c</text:span>'), boolean,
            number("1", more='table:number-columns-spanned="2"'), "<table:covered-table-cell/>",
        )
        + ods_row(number("0.5", "percentage"), date.format("2024-02-01T10:00:00"), time.format("PT30H00M00S"), times=2)
        + ods_row("<table:table-cell/>", times=1_000_000),
    )  # fmt: skip
    found, origin = rows(given(content, "ods"))
    assert [
        {
            "n": "12345678901234567890.0",
            "d": "2024-01-31T00:00:00",
            "t": 30600,
            "s": "a  b\tc",
            "b": True,
            "m": 1,
            "2024": None,
        },
        *[{"n": 0.5, "d": "2024-02-01T10:00:00", "t": 108000, "s": None, "b": None, "m": None, "2024": None}] * 2,
    ] == found
    assert (3, 1) == (origin["empty_rows_total"], origin["merged_cells_total"])


def test_formulas_and_errors_of_an_opendocument_sheet_are_counted() -> None:
    """Nothing is computed."""
    error = '<table:table-cell table:formula="of:=1/0" office:value-type="string" calcext:value-type="error"/>'
    content = ods(
        ods_row(text("a"), text("b"), text("c"))
        + ods_row(number("2", more='table:formula="of:=1+1"'), '<table:table-cell table:formula="of:=X()"/>', error)
    )
    found, origin = rows(given(content, "ods"))
    assert [{"a": 2, "b": None, "c": None}] == found
    assert (3, 1, 1) == (
        origin["formulas_total"], origin["formulas_without_value_total"], origin["error_cells_total"],
    )  # fmt: skip


# ---- hostile and wrong files --------------------------------------------------------------------------------------


def bomb(name: str) -> bytes:
    """An archive whose one part says that it is 2 GiB when unpacked."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b" " * 1000)
    content = bytearray(made.getvalue())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 2 << 30)  # APPNOTE.TXT 4.3.12
    return bytes(content)


ENTITY = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e "eeee">]>'
HOSTILE: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "a zip bomb": (lambda: bomb("xl/workbook.xml"), "xlsx", "file_too_large"),
    "a zip bomb of OpenDocument": (lambda: bomb("content.xml"), "ods", "file_too_large"),
    "entities": (
        lambda: edited(workbook([["a"]]), lambda n, part: ENTITY + part if "sheet1" in n else part),
        "xlsx", "invalid_xlsx",
    ),
    "a row that stands a billion times": (
        lambda: ods(ods_row(text("a")) + ods_row(number("1"), times=10**9)), "ods", "file_too_large",
    ),
    "a cell that stands a billion times": (
        lambda: ods(ods_row(number("1", more='table:number-columns-repeated="1000000000"'))), "ods", "too_many_fields",
    ),
    "an archive cut off": (lambda: workbook([["a"], [1]])[:-100], "xlsx", "invalid_xlsx"),
    "an archive of something else": (lambda: ods(""), "xlsx", "invalid_xlsx"),
    "a workbook as OpenDocument": (lambda: workbook([["a"]]), "ods", "invalid_ods"),
    "no archive": (lambda: b"a,b\n1,2\n", "xlsx", "invalid_xlsx"),
    "an old or encrypted workbook": (
        lambda: bytes.fromhex("d0cf11e0a1b11ae1") + "EncryptedPackage".encode("utf-16-le"),
        "xlsx", "encrypted_document",
    ),
    "a text that is not there": (
        lambda: with_cells('<row r="1"><c t="s"><v>77</v></c></row>'), "xlsx", "invalid_xlsx",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_spreadsheet_is_refused(name: str) -> None:
    """With a stable code and a sentence."""
    make, form, code = HOSTILE[name]
    assert code == refusal(operation="count", data=given(make(), form)).code


def test_a_claim_of_a_huge_sheet_costs_nothing() -> None:
    """The dimensions that a sheet claims are not looked at; a cell at its far end is one cell."""
    content = with_cells(
        '<row r="1"><c r="A1" t="str"><v>v</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    )
    content = edited(
        content, lambda _, part: re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1:XFD1048576"', part)
    )
    found, origin = rows(given(content))
    assert [{"v": None, "column_16384": 1}] == found
    assert 1_048_574 == origin["empty_rows_total"]


def test_more_cells_than_a_task_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted as they come, so that no claim decides."""
    monkeypatch.setattr(sheets, "MAX_CELLS", 10)
    assert "file_too_large" == refusal(operation="count", data=given(workbook([["a"], *([n] for n in range(12))]))).code


def test_macros_and_links_of_a_workbook_stay_unread() -> None:
    """An xlsm is read like an xlsx; what its parts of other kinds hold does not matter."""
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    macros = b"application/vnd.ms-excel.sheet.macroEnabled.main+xml"
    content = edited(workbook([["a"], [1]]), lambda _, part: part.replace(kind, macros))
    made = io.BytesIO(content)
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"\xff" * 100)
        archive.writestr("xl/externalLinks/externalLink1.xml", b"<no xml")
    assert [{"a": 1}] == rows(given(made.getvalue()))[0]


def test_a_strict_workbook_is_read() -> None:
    """ISO 29500-1 has other names."""
    office = b"http://schemas.openxmlformats.org/"

    def strict(_: str, part: bytes) -> bytes:
        part = part.replace(office + b"spreadsheetml/2006/main", b"http://purl.oclc.org/ooxml/spreadsheetml/main")
        return part.replace(
            office + b"officeDocument/2006/relationships", b"http://purl.oclc.org/ooxml/officeDocument/relationships"
        )

    assert [{"a": 1}] == rows(given(edited(workbook([["a"], [1]]), strict)))[0]


# ---- out ----------------------------------------------------------------------------------------------------------


def written(monkeypatch: pytest.MonkeyPatch, folder: Path, **parameters: Any) -> tuple[Any, list[list[Any]]]:
    """The answer, and the cells of ``result.xlsx``, as openpyxl has them."""
    monkeypatch.chdir(folder)
    answer = process(output="xlsx", **parameters)
    sheet = openpyxl.load_workbook(folder / "artifacts" / answer["artifact"]).worksheets[0]
    return answer, [[(cell.value, cell.data_type) for cell in row] for row in sheet]


def test_a_workbook_that_is_written_has_exact_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numbers that no double holds are texts, and are counted; a double keeps its 17 digits."""
    data = [{"i": 1, "big": 9007199254740993, "x": 0.1 + 0.2, "b": True, "n": None}]
    answer, cells = written(monkeypatch, tmp_path, operation="select", data=data, fields=["i", "big", "x", "b", "n"])
    assert 1 == answer["numbers_as_text_total"]
    assert [(1, "n"), ("9007199254740993", "s"), (0.30000000000000004, "n"), (True, "b"), (None, "n")] == cells[1]


def test_no_text_of_a_workbook_is_a_formula(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor in the header; errors are words, too."""
    texts = ["=1+1", "+1", "-1", "@A1", "=HYPERLINK(\"http://x\")", "#N/A", "plain"]  # fmt: skip
    data = [{"=a": text} for text in texts]
    _, cells = written(monkeypatch, tmp_path, operation="select", data=data, fields=["=a"])
    assert {"s"} == {kind for row in cells for _, kind in row}
    assert ["=a", *texts] == [row[0][0] for row in cells]
    again = (tmp_path / "artifacts" / "result.xlsx").read_bytes()
    assert texts == [row["=a"] for row in rows(given(again))[0]]


def test_any_text_comes_back_from_a_workbook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Control characters, escapes, spaces and line ends included; one too long for a cell is refused."""
    texts = ["\x01", "_x0041_", " a ", "a\r\nb", "\ufffe", "😀", "a\tb"]
    monkeypatch.chdir(tmp_path)
    process(operation="select", data=[{"v": one} for one in texts], fields=["v"], output="xlsx")
    assert texts == [row["v"] for row in rows(given(Path("artifacts/result.xlsx").read_bytes()))[0]]
    long = [{"v": "x" * 32_768}]
    assert "text_too_long" == refusal(operation="select", data=long, fields=["v"], output="xlsx").code


def test_nested_values_are_json_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not what Python would print."""
    sql = "SELECT {'a': [1, NULL]} AS s"
    _, cells = written(monkeypatch, tmp_path, operation="query", data=[{"x": 1}], sql=sql)
    assert '{"a":[1,null]}' == cells[1][0][0]
    process(operation="query", data=[{"x": 1}], sql=sql, output="csv")
    assert '"{""a"":[1,null]}"' in Path("artifacts/result.csv").read_text()


TEXTS = [" a  b ", "a\tb", "a\nb\n\nc", "a\r\nb", "<&>\"'", "=1+1", "007", "true", "1e5", "2024-01-02", "😀", "x "]


def test_rows_come_back_from_an_opendocument_sheet_that_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each with its type; numbers that no double holds are texts, and are counted."""
    monkeypatch.chdir(tmp_path)
    data: list[dict[str, Any]] = [{"v": text, "x": 0.1 + 0.2, "b": True, "n": -5} for text in TEXTS]
    data.append({"v": None, "x": 1e-300, "b": False, "n": 9007199254740993})
    answer = process(operation="select", data=data, fields=["v", "x", "b", "n"], output="ods")
    content = Path("artifacts", answer["artifact"]).read_bytes()
    found, origin = rows(given(content, "ods"))
    data[-1]["n"] = "9007199254740993"
    assert data == found
    assert (1, 0) == (answer["numbers_as_text_total"], origin["formulas_total"])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first = archive.infolist()[0]
        assert ("mimetype", zipfile.ZIP_STORED) == (first.filename, first.compress_type)
        assert "opendocument.spreadsheet" in archive.read("mimetype").decode()


@pytest.mark.parametrize(("text", "code"), [("a\x01b", "unwritable_text"), ("x" * 32_768, "text_too_long")])
def test_a_text_that_an_opendocument_sheet_cannot_have_is_refused(
    text: str, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says where."""
    monkeypatch.chdir(tmp_path)
    found = refusal(operation="select", data=[{"v": "ok"}, {"v": text}], fields=["v"], output="ods")
    assert (code, True) == (found.code, "row 2" in str(found))
