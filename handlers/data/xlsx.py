"""Reads the sheets of Excel workbooks (xlsx, also with macros, which are not run) by openpyxl."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.stylesheet import apply_stylesheet
from openpyxl.utils.cell import column_index_from_string
from openpyxl.utils.datetime import from_excel, from_ISO8601
from openpyxl.worksheet._reader import FORMULA_TAG, INLINE_STRING, MERGE_TAG, ROW_TAG, VALUE_TAG, WorkSheetParser

from handlers.archives import ArchiveRules, broken_is_refused, transitional
from handlers.data.sheets import MAX_COLUMNS, Cells, ChosenSheet, SheetCounts, SheetName, choose, drop, number_of, parse
from handlers.failures import Refusal
from handlers.text import clean_text

_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_OTHERS = {
    "content.xml": "an OpenDocument file: its format may be `ods`",
    "xl/workbook.bin": "a binary workbook (xlsb): save it as xlsx",
    "word/document.xml": "a Word document",
}


@contextlib.contextmanager
def open_sheet(content: bytes, wanted: str | int | None, rules: ArchiveRules) -> Iterator[ChosenSheet]:
    """One sheet of a workbook.

    Args:
        content: the archive, which was checked.
        wanted: name of the sheet, or its number from 1; otherwise it is the first visible one.
        rules: of the archive.
    Raises:
        Refusal: the archive is no such workbook, or has no such sheet.
    """
    with broken_is_refused(rules), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions, which change no value
        _refuse_others(content, rules)
        book = _Workbook(transitional(content, rules, {}))
        if not book.sheets:
            raise rules.refuse("The workbook has no sheet of cells")
        name, path = book.sheets[choose([sheet for sheet, _ in book.sheets], wanted)]
        counts = SheetCounts()
        yield ChosenSheet(name.name, [sheet.name for sheet, _ in book.sheets], book.rows(path, counts), counts)


class _Workbook:
    """What is common to all sheets of a workbook: texts, formats, names. No sheet is read yet."""

    def __init__(self, content: bytes) -> None:
        reader = ExcelReader(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        reader.read_manifest()
        reader.read_strings()
        reader.read_workbook()
        apply_stylesheet(reader.archive, reader.wb)
        self._reader = reader
        self.sheets = [
            (SheetName(sheet.name, sheet.state == "visible"), str(relation.target))
            for sheet, relation in reader.parser.find_sheets()
            if relation.target in reader.valid_files and "chartsheet" not in relation.Type
        ]
        """Each sheet of cells and the name of its part."""

    def rows(self, path: str, counts: SheetCounts) -> Iterator[tuple[int, Cells]]:
        """The rows of a sheet that have cells."""
        book = self._reader.wb
        with self._reader.archive.open(path) as source:
            parser = _Parser(
                source,
                self._reader.shared_strings,
                data_only=True,
                epoch=book.epoch,
                date_formats=book._date_formats,  # noqa: SLF001 as the library itself reads a sheet row by row
                timedelta_formats=book._timedelta_formats,  # noqa: SLF001
            )
            parser.counts = counts
            for number, cells in parser.parse():
                filled = {cell["column"]: cell["value"] for cell in cells if cell["value"] is not None}
                if filled:
                    yield number, filled


def _refuse_others(content: bytes, rules: ArchiveRules) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = set(archive.namelist())
    for name, what in _OTHERS.items():
        if name in names:
            raise Refusal(rules.wrong, f"The file is not an xlsx; it looks like {what}.")


class _Parser(WorkSheetParser):  # type: ignore[misc] # the library has no types
    """The library's reader of a sheet; it counts what has no value, and takes each number for what is written."""

    counts: SheetCounts
    col_counter: int

    def parse(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The rows; nothing else of the sheet is read, such as formats and validations, which may be faulty.

        By lxml, since the library's own is in Python; a sheet with a declaration of entities was refused before.
        """
        for _, element in parse(self.source, (ROW_TAG, MERGE_TAG), events=("end",)):
            if element.tag == MERGE_TAG:
                self.counts.merged_cells_total = len(element)
            else:
                yield self.parse_row(element)
                drop(element)

    def parse_cell(self, element: Any) -> dict[str, Any]:
        """One cell: its ``column`` and ``value``."""
        reference = element.get("r")
        self.col_counter = _column_of(reference.rstrip("0123456789")) if reference else self.col_counter + 1
        written, text, is_formula = element.get("t", "n"), None, False
        for child in element:
            if child.tag == VALUE_TAG:
                text = child.text or ""
            elif child.tag == FORMULA_TAG:
                is_formula = True
        value = self._value(element, written, text)
        if is_formula:
            self.counts.formulas_total += 1
            has_value = text is not None and (text or written == "str")
            self.counts.formulas_without_value_total += not has_value
        return {"column": self.col_counter, "value": value}

    def _value(self, element: Any, written: str, text: str | None) -> Any:
        if written == "inlineStr":
            child = element.find(INLINE_STRING)
            return None if child is None else _unescaped(Text.from_tree(child).content)
        if not text:
            return None
        if written == "s":
            return _unescaped(self.shared_strings[int(text)])
        if written == "e":
            self.counts.error_cells_total += 1
            return None
        if written in ("str", "b"):
            return _unescaped(text) if written == "str" else bool(int(text))
        return from_ISO8601(text) if written == "d" else self._number(text, int(element.get("s", 0)))

    def _number(self, text: str, style: int) -> Any:
        number = number_of(text)
        if style not in self.date_formats:
            return number
        try:
            return from_excel(float(number), self.epoch, timedelta=style in self.timedelta_formats)
        except (OverflowError, ValueError):
            return number  # no date can be it


@functools.lru_cache(maxsize=MAX_COLUMNS)
def _column_of(letters: str) -> int:
    return int(column_index_from_string(letters))


def _unescaped(text: str) -> str:
    """ECMA-376 part 1, 22.9.2.19: how a file writes what XML cannot have."""
    if "_x" not in text:
        return text
    return clean_text(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), text))
