"""Writes rows to files: CSV, Excel workbooks, and OpenDocument spreadsheets."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from handlers.data.cell_values import MAX_CELL_CHARACTERS, cell_value, flat, too_long

FOLDER = "artifacts"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# what XML cannot have or changes, and what would be taken for such an escape: ECMA-376 part 1, 22.9.2.19
_TO_ESCAPE = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def _write_csv(names: list[str], rows: Iterable[list[Any]]) -> dict[str, Any]:
    """Texts that a spreadsheet would take for formulas get an apostrophe in front."""
    with open(_path("result.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(_harmless, names))
        writer.writerows([_harmless(value) for value in row] for row in rows)
    return {"artifact": "result.csv"}


def _harmless(value: Any) -> Any:
    value = flat(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_xlsx(names: list[str], rows: Iterable[list[Any]]) -> dict[str, Any]:
    """Every text is a cell of text, so that none is a formula; so is a number that no double holds.

    Raises:
        Refusal: a text is longer than a cell can be.
    """
    from openpyxl import Workbook  # noqa: PLC0415 few tasks ask for it

    book = Workbook(write_only=True)
    sheet = book.create_sheet("data")
    sheet.freeze_panes = "A2"
    texts = _XlsxTexts(sheet)
    try:
        sheet.append(list(texts.cells(names, "the header")))
        for number, row in enumerate(rows, 1):
            sheet.append(list(texts.cells(row, f"row {number}")))
    except BaseException:
        sheet.close()  # it has begun a file
        raise
    book.save(_path("result.xlsx"))
    return {"artifact": "result.xlsx", "numbers_as_text_total": texts.numbers}


def _write_ods(names: list[str], rows: Iterable[list[Any]]) -> dict[str, Any]:
    """Texts are cells of text, as in an xlsx.

    Raises:
        Refusal: a text is longer than a cell can be, or has a character that XML has not.
    """
    from handlers.data.ods_files import write_ods  # noqa: PLC0415 few tasks ask for it

    return {"artifact": "result.ods", "numbers_as_text_total": write_ods(_path("result.ods"), names, rows)}


class _XlsxTexts:
    """Makes cells of a sheet."""

    def __init__(self, sheet: Any) -> None:
        from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415

        self._sheet, self._cell = sheet, WriteOnlyCell
        self.numbers = 0

    def cells(self, values: Iterable[Any], where: str) -> Iterator[Any]:
        """A row; ``where`` it is, for a refusal."""
        for given in values:
            value, is_number_as_text = cell_value(given)
            if is_number_as_text:
                self.numbers += 1
                yield self._text(value, is_plain=False)
            elif isinstance(value, str):
                text = _escaped(value)
                if len(text) > MAX_CELL_CHARACTERS or len(text.encode("utf-16-le")) > 2 * MAX_CELL_CHARACTERS:
                    raise too_long(where)
                yield self._text(text, is_plain=not text.startswith(_FORMULA))
            elif isinstance(value, float) and float(f"{value:.16g}") != value:
                yield self._number(value)
            else:
                yield value

    def _number(self, value: float) -> Any:
        """A double of 17 digits, of which the library would write 16."""
        cell = self._cell(self._sheet, repr(value))
        cell.data_type = "n"
        return cell

    def _text(self, text: str, *, is_plain: bool) -> Any:
        cell = self._cell(self._sheet, text)
        cell.data_type = "s"  # whatever it looks like
        if not is_plain:
            cell.number_format = "@"  # so that it stays text when somebody edits the cell
        return cell


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def _path(name: str) -> str:
    os.makedirs(FOLDER, exist_ok=True)
    return os.path.join(FOLDER, name)


TABLE_FILES: Mapping[str, Callable[[list[str], Iterable[list[Any]]], dict[str, Any]]] = MappingProxyType(
    {"csv": _write_csv, "xlsx": _write_xlsx, "ods": _write_ods}
)
"""Output → what writes rows to its file, and says which; with the names of the fields, and the rows."""
