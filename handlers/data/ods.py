"""Reads the sheets of OpenDocument spreadsheets (ods), row by row.

By lxml: the libraries for the format keep each number as a double, or each cell as a tree. The names are those of
OpenDocument 1.3 part 3, chapters 9 and 19.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from handlers.archives import ArchiveRules, broken_is_refused
from handlers.data.sheets import (
    MAX_CELLS,
    MAX_COLUMNS,
    Cells,
    ChosenSheet,
    SheetCounts,
    SheetName,
    choose,
    drop,
    number_of,
    parse,
)
from handlers.failures import Refusal

_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_OF_LIBREOFFICE = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}"
_CELLS = (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell")
_SPACES = {f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}
_DURATION = re.compile(r"(-?)P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+(?:[.,][0-9]+)?)S)?)?")
_MIDNIGHT = dt.datetime(1, 1, 1)  # noqa: DTZ001 cells have no zone
_DATE_ONLY = 10
"""Characters of ``2024-01-31``."""


@contextlib.contextmanager
def open_sheet(content: bytes, wanted: str | int | None, rules: ArchiveRules) -> Iterator[ChosenSheet]:
    """One sheet of a spreadsheet.

    Args:
        content: the archive, which was checked.
        wanted: name of the sheet, or its number from 1; otherwise it is the first visible one.
        rules: of the archive.
    Raises:
        Refusal: the archive is no such spreadsheet, or has no such sheet.
    """
    with broken_is_refused(rules), zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "content.xml" not in archive.namelist():
            raise Refusal(rules.wrong, "The file is no OpenDocument spreadsheet: it has no content.xml.")
        if b"encryption-data" in (archive.read("META-INF/manifest.xml") if _has_manifest(archive) else b""):
            raise Refusal("encrypted_document", "The workbook is encrypted; save it without a password.")
        with archive.open("content.xml") as file:
            names = _names(file)
        if not names:
            raise Refusal(rules.wrong, "The file has no sheets: it is no OpenDocument spreadsheet.")
        place = choose(names, wanted)
        counts = SheetCounts()
        with archive.open("content.xml") as file:
            yield ChosenSheet(names[place].name, [one.name for one in names], _rows(file, place, counts), counts)


def _has_manifest(archive: zipfile.ZipFile) -> bool:
    return "META-INF/manifest.xml" in archive.namelist()


def _names(file: IO[bytes]) -> list[SheetName]:
    names: list[SheetName] = []
    hidden, depth = set(), 0
    style = f"{_STYLE}style"
    for event, element in parse(file, (f"{_TABLE}table", f"{_TABLE}table-row", style)):
        if element.tag == style:
            if event == "end" and (found := element.find(f"{_STYLE}table-properties")) is not None:
                hidden |= {element.get(f"{_STYLE}name")} if found.get(f"{_TABLE}display") == "false" else set()
        elif element.tag == f"{_TABLE}table":
            depth += 1 if event == "start" else -1
            if event == "start" and depth == 1:
                name = element.get(f"{_TABLE}name") or f"Sheet{len(names) + 1}"
                names.append(SheetName(name, element.get(f"{_TABLE}style-name") not in hidden))
        elif event == "end" and depth == 1:
            drop(element)
    return names


def _rows(file: IO[bytes], place: int, counts: SheetCounts) -> Iterator[tuple[int, Cells]]:
    tables, depth, number = 0, 0, 0
    for event, element in parse(file, (f"{_TABLE}table", f"{_TABLE}table-row")):
        if element.tag == f"{_TABLE}table":
            depth += 1 if event == "start" else -1
            tables += event == "start" and depth == 1
        elif event == "end" and depth == 1:
            if tables == place + 1:
                cells, times = _cells(element, counts), _times(element, "rows")
                if cells:
                    if times * len(cells) > MAX_CELLS:
                        raise Refusal(
                            "file_too_large", f"A row stands {times} times; a sheet has {MAX_CELLS} cells at most."
                        )
                    yield from ((number + again, cells) for again in range(1, times + 1))
                number += times
            drop(element)


def _times(element: Any, what: str) -> int:
    return max(int(element.get(f"{_TABLE}number-{what}-repeated") or 1), 1)


def _cells(row: Any, counts: SheetCounts) -> dict[int, Any]:
    column, cells = 0, {}
    for cell in row.iterchildren(*_CELLS):
        times = _times(cell, "columns")
        spans = {cell.get(f"{_TABLE}number-{what}-spanned") for what in ("columns", "rows")}
        counts.merged_cells_total += bool(spans - {None, "1"})
        if (value := _value(cell, counts)) is not None:
            if column + times > MAX_COLUMNS:
                raise Refusal("too_many_fields", f"The sheet has more than {MAX_COLUMNS} columns.")
            cells.update(dict.fromkeys(range(column + 1, column + times + 1), value))
        column += times
    return cells


def _value(cell: Any, counts: SheetCounts) -> Any:
    kind = cell.get(f"{_OFFICE}value-type")
    is_formula = cell.get(f"{_TABLE}formula") is not None
    counts.formulas_total += is_formula
    if cell.get(f"{_OF_LIBREOFFICE}value-type") == "error":
        counts.error_cells_total += 1
        return None
    text = cell.get(f"{_OFFICE}{'value' if kind in ('float', 'percentage', 'currency') else f'{kind}-value'}")
    if kind == "string" or (kind is None and not is_formula):
        return text if text is not None else _text(cell) or None
    if text is None:
        counts.formulas_without_value_total += is_formula
        return None
    return _read(kind, text)


def _read(kind: str, text: str) -> Any:
    if kind == "date":
        return _date(text)
    if kind == "time":
        return _time(text)
    return text == "true" if kind == "boolean" else number_of(text)


def _text(cell: Any) -> str:
    """The paragraphs of a cell, a line each."""
    return "\n".join("".join(_pieces(paragraph)) for paragraph in cell.iterchildren(f"{_TEXT}p", f"{_TEXT}h"))


def _pieces(element: Any) -> Iterator[str]:
    yield element.text or ""
    for child in element.iterchildren():
        if child.tag == f"{_TEXT}s":
            yield " " * min(int(child.get(f"{_TEXT}c") or 1), MAX_CELLS)
        elif child.tag in _SPACES:
            yield _SPACES[child.tag]
        elif isinstance(child.tag, str) and child.tag != f"{_OFFICE}annotation":
            yield from _pieces(child)
        yield child.tail or ""


def _date(text: str) -> dt.date:
    return dt.datetime.fromisoformat(text) if len(text) > _DATE_ONLY else dt.date.fromisoformat(text)


def _time(text: str) -> dt.time | dt.timedelta:
    """A time of day, or what is no such: a duration."""
    if (found := _DURATION.fullmatch(text)) is None:
        raise ValueError(text)
    sign, days, hours, minutes, seconds = found.groups()
    value = dt.timedelta(
        days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0),
        seconds=float((seconds or "0").replace(",", ".")),
    )  # fmt: skip
    if sign or value >= dt.timedelta(days=1):
        return -value if sign else value
    return (_MIDNIGHT + value).time()
