"""Reads spreadsheets (xlsx, ods) into tables: one sheet, its cells with the types that they have.

``xlsx`` and ``ods`` read the formats; here a sheet is chosen, and its cells become fields. README.md has the rule.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import IO, Any, NamedTuple

import duckdb
import numpy as np
from lxml import etree

from handlers.archives import ArchiveRules, check_archive
from handlers.data.cells import Notation, give_column
from handlers.data.columns import MAX_FIELDS, Column, Table, column_of, distinct_names, too_many_fields
from handlers.failures import Refusal
from handlers.parameters.data import DataSource

MAX_CELLS = 5_000_000
MAX_COLUMNS = 16_384
"""Of Excel's sheets, and of LibreOffice's."""
MAX_NAMES = 20
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?")
_NO_DIGITS = re.compile(r"[+-]|[.]|[eE].*$")
_DOUBLE_DIGITS = 17
"""Significant digits after which a double is told from every other; what has more was no double."""

Cells = Mapping[int, Any]
"""Column, from 1 → value: a number, text, boolean, date, datetime, time or timedelta. Empty cells are not there."""


@dataclasses.dataclass
class SheetCounts:
    """What stands in a sheet and is no value; for the answer."""

    formulas_total: int = 0
    formulas_without_value_total: int = 0
    """The program that wrote the file has not computed them; here nothing is computed."""
    error_cells_total: int = 0
    merged_cells_total: int = 0
    """Groups of cells that are merged to one; the first of them has the value."""


class SheetName(NamedTuple):
    """A sheet of a workbook."""

    name: str
    is_visible: bool


class ChosenSheet(NamedTuple):
    """The rows of one sheet that have cells, each with its number from 1; and the names of all sheets."""

    name: str
    names: list[str]
    rows: Iterable[tuple[int, Cells]]
    counts: SheetCounts


def rules_of(form: str) -> ArchiveRules:
    """What an archive of a spreadsheet may have."""
    return ArchiveRules(
        what="workbook", broken=f"invalid_{form}", too_large="file_too_large", wrong=f"invalid_{form}",
        max_entries=10_000, max_inflated_mib=512, max_xml_mib=256,
    )  # fmt: skip


def read_sheet(source: DataSource, content: bytes, database: duckdb.DuckDBPyConnection) -> Table:
    """The rows of one sheet.

    Args:
        source: the options of the file.
        content: its bytes.
        database: finds out whether values are of the types that the caller gives.
    Raises:
        Refusal: the file is no spreadsheet of its format, has no such sheet, or a value has not the type of ``types``.
    """
    form = str(source.format)
    rules = rules_of(form)
    check_archive(content, rules)
    if form == "xlsx":
        from handlers.data.xlsx import open_sheet  # noqa: PLC0415 its library is for few tasks
    else:
        from handlers.data.ods import open_sheet  # noqa: PLC0415
    with open_sheet(content, source.sheet, rules) as sheet:
        grid = _gather(sheet.rows, source)
        origin = _origin(sheet, grid)
    return Table(grid.rows, tuple(_columns(source, grid, database)), is_of_objects=True, origin=origin)


def choose(names: list[SheetName], wanted: str | int | None) -> int:
    """The place of the sheet that is asked for; of the first visible one where none is.

    Raises:
        Refusal: there is no such sheet.
    """
    if wanted is None:
        return next((place for place, sheet in enumerate(names) if sheet.is_visible), 0)
    if isinstance(wanted, int) and wanted <= len(names):
        return wanted - 1
    for place, sheet in enumerate(names):
        if sheet.name == wanted:
            return place
    known = ", ".join(repr(sheet.name) for sheet in names[:MAX_NAMES]) or "none"
    raise Refusal("no_such_sheet", f"`sheet` is {wanted!r}; the workbook has {len(names)}: {known}.")


def parse(
    file: IO[bytes], tags: tuple[str, ...], *, events: tuple[str, ...] = ("start", "end")
) -> Iterator[tuple[str, Any]]:
    """The beginnings and ends of some elements of a part; nothing outside of the file is loaded.

    Raises:
        etree.XMLSyntaxError: the part is not XML.
    """
    found: Iterator[tuple[str, Any]] = etree.iterparse(
        file, events=events, tag=tags, resolve_entities=False, no_network=True, huge_tree=True
    )
    return found


def drop(element: Any) -> None:
    """Free a row that has been read, and those before it."""
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]


def number_of(text: str) -> int | float | Decimal:
    """A number as a file writes it, with the very value.

    Raises:
        ValueError: it is none.
        Refusal: no number of JSON can be it.
    """
    text = text.strip()
    if _INTEGER.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"no number: {text:.40}")
    value = float(text)
    significant = _NO_DIGITS.sub("", text).strip("0") if len(text) > _DOUBLE_DIGITS or not value else ""
    if math.isinf(value) or (not value and significant):
        raise Refusal("number_out_of_range", f"A cell has {text:.40}, which is beyond ±1.8e308 or too near to zero.")
    return Decimal(text) if len(significant) > _DOUBLE_DIGITS else value


class _Grid:
    """The values of a sheet by column, with the first row of them as header."""

    def __init__(self) -> None:
        self.header: Cells | None = None
        self.columns: dict[int, list[Any]] = {}
        self.rows = 0
        self.empty_rows = 0
        self._cells = 0

    def add(self, cells: Cells) -> None:
        """Add a row."""
        self._cells += len(cells)
        if self._cells > MAX_CELLS:
            raise Refusal("file_too_large", f"The sheet has more than {MAX_CELLS} cells; split it, or send it as csv.")
        for place, value in cells.items():
            if (column := self.columns.get(place)) is None:
                column = self.columns[place] = []
            column.extend([None] * (self.rows - len(column)))
            column.append(value)
        self.rows += 1

    def fields(self) -> list[tuple[str, list[Any]]]:
        """Each field and its values, all of one length; a column has none where it has no values and no name."""
        header = self.header or {}
        places = sorted(self.columns.keys() | header.keys())
        if len(places) > MAX_FIELDS:
            raise too_many_fields(len(places))
        first = places[0] if places else 0
        names = distinct_names(
            (_text_of(header[place]) if place in header else "") or f"column_{place - first + 1}" for place in places
        )
        for column in self.columns.values():
            column.extend([None] * (self.rows - len(column)))
        empty = [None] * self.rows
        return [(name, self.columns.get(place, empty)) for name, place in zip(names, places, strict=True)]

    @property
    def unnamed(self) -> int:
        """Columns with values that the header has no name for."""
        return len(self.columns.keys() - (self.header or {}).keys())


def _gather(rows: Iterable[tuple[int, Cells]], source: DataSource) -> _Grid:
    grid, skip, nulls = _Grid(), source.skip_lines or 0, {"", *(source.nulls or ())}
    previous, has_header = skip, source.header is not False
    for number, cells in rows:
        if number <= skip:
            continue
        grid.empty_rows += max(number - previous - 1, 0)
        previous = number
        if has_header and grid.header is None:
            grid.header = cells
        else:
            filled = {place: value for place, value in cells.items() if not (type(value) is str and value in nulls)}
            if filled:
                grid.add(filled)
            else:
                grid.empty_rows += 1
    return grid


def _origin(sheet: ChosenSheet, grid: _Grid) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "sheet": sheet.name, "sheets": sheet.names[:MAX_NAMES], "sheets_total": len(sheet.names),
        "empty_rows_total": grid.empty_rows,
    }  # fmt: skip
    if grid.header is not None:
        origin["unnamed_fields_total"] = grid.unnamed
    return origin | dataclasses.asdict(sheet.counts)


def _columns(source: DataSource, grid: _Grid, database: duckdb.DuckDBPyConnection) -> Iterator[Column]:
    wanted, fields = source.types or {}, grid.fields()
    names = [name for name, _ in fields]
    if unknown := sorted(set(wanted) - set(names)):
        known = ", ".join(names[:20])
        raise Refusal("unknown_field", f"`types` names the field {unknown[0]!r}; the sheet has: {known}.")
    for name, values in fields:
        plain = _without_dates(values)
        if name in wanted:
            texts = np.fromiter((None if value is None else _text_of(value) for value in plain), dtype=object)
            yield give_column(database, name, texts, wanted[name], Notation())
        else:
            yield column_of(name, plain)


def _without_dates(values: list[Any]) -> list[Any]:
    """The values, with dates and times as ISO 8601 texts, and durations as seconds.

    A column of dates alone has no times where all of them are midnight; a column of times has none where one is longer
    than a day.
    """
    kinds = set(map(type, values)) - {type(None)}
    if not kinds & {dt.date, dt.datetime, dt.time, dt.timedelta}:
        return values
    if kinds <= {dt.date, dt.datetime}:
        has_time = any(type(value) is dt.datetime and value.time() != dt.time() for value in values)
        return [None if value is None else _date_text(value, has_time=has_time) for value in values]
    if kinds == {dt.time, dt.timedelta}:
        values = [_duration(value) if type(value) is dt.time else value for value in values]
    return [_plain(value) for value in values]


def _date_text(value: dt.date, *, has_time: bool) -> str:
    if not has_time:
        return value.isoformat()[:10]
    return (value if isinstance(value, dt.datetime) else dt.datetime.combine(value, dt.time())).isoformat()


def _duration(value: dt.time) -> dt.timedelta:
    return dt.timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)


def _plain(value: Any) -> Any:
    if isinstance(value, dt.timedelta):
        seconds = value.total_seconds()
        return int(seconds) if seconds.is_integer() else seconds
    if isinstance(value, dt.datetime):
        return _date_text(value, has_time=value.time() != dt.time())
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


def _text_of(value: Any) -> str:
    """A value as text, as a file of texts would have it."""
    value = _plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
