"""Writes rows to OpenDocument spreadsheets (ods), row by row.

The names are those of OpenDocument 1.3 part 3, chapters 6, 9 and 19; the archive is that of part 2.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from handlers.data.cell_values import MAX_CELL_CHARACTERS, cell_value, too_long
from handlers.failures import Refusal

_MEDIA_TYPE = "application/vnd.oasis.opendocument.spreadsheet"
_NAMESPACE = "urn:oasis:names:tc:opendocument:xmlns"
_MANIFEST = (
    f'<?xml version="1.0" encoding="UTF-8"?><manifest:manifest xmlns:manifest="{_NAMESPACE}:manifest:1.0" '
    f'manifest:version="1.3"><manifest:file-entry manifest:full-path="/" manifest:media-type="{_MEDIA_TYPE}"/>'
    '<manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/></manifest:manifest>'
)
_BEGIN = (
    f'<?xml version="1.0" encoding="UTF-8"?><office:document-content xmlns:office="{_NAMESPACE}:office:1.0" '
    f'xmlns:table="{_NAMESPACE}:table:1.0" xmlns:text="{_NAMESPACE}:text:1.0" office:version="1.3">'
    '<office:body><office:spreadsheet><table:table table:name="data">'
)
_END = "</table:table></office:spreadsheet></office:body></office:document-content>"
_EMPTY = "<table:table-cell/>"
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SPACES = re.compile("^ +| (?= )| +$|\t", re.MULTILINE)
"""Spaces that a reader would leave out, and tabs: each is written as an element."""


def write_ods(path: str, names: list[str], rows: Iterable[list[Any]]) -> int:
    """Write a sheet, the names of the fields first.

    Args:
        path: of the new file.
        names: of the fields.
        rows: a value for each field.
    Returns:
        How many numbers are texts, since no double holds them.
    Raises:
        Refusal: a text is longer than a cell can be, or has a character that XML has not.
    """
    cells = _Cells()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", _MEDIA_TYPE, compress_type=zipfile.ZIP_STORED)  # the first, as it is: part 2, 3.3
        archive.writestr("META-INF/manifest.xml", _MANIFEST)
        with archive.open("content.xml", "w", force_zip64=True) as content:
            content.write(_BEGIN.encode())
            content.write(cells.row(names, "the header").encode())
            for number, row in enumerate(rows, 1):
                content.write(cells.row(row, f"row {number}").encode())
            content.write(_END.encode())
    return cells.numbers_as_text


class _Cells:
    """Makes rows of cells."""

    def __init__(self) -> None:
        self.numbers_as_text = 0

    def row(self, values: Iterable[Any], where: str) -> str:
        """A row; ``where`` it is, for a refusal."""
        return f"<table:table-row>{''.join(self._cells(values, where))}</table:table-row>"

    def _cells(self, values: Iterable[Any], where: str) -> Iterator[str]:
        for given in values:
            value, is_number_as_text = cell_value(given)
            self.numbers_as_text += is_number_as_text
            if value is None:
                yield _EMPTY
            elif isinstance(value, bool):
                yield f'<table:table-cell office:value-type="boolean" office:boolean-value="{str(value).lower()}"/>'
            elif isinstance(value, int | float):
                yield f'<table:table-cell office:value-type="float" office:value={quoteattr(repr(value))}/>'
            else:
                yield f'<table:table-cell office:value-type="string">{_paragraphs(value, where)}</table:table-cell>'


def _paragraphs(text: str, where: str) -> str:
    """A text as paragraphs, one for each of its lines."""
    if len(text) > MAX_CELL_CHARACTERS:
        raise too_long(where)
    if (found := _NOT_IN_XML.search(text)) is not None:
        raise Refusal(
            "unwritable_text",
            f"A text of {where} has the character U+{ord(found[0]):04X}, which an ods cannot have; take `xlsx` or "
            "`csv` as `output`.",
        )
    written = _SPACES.sub(_spaces, escape(text, {"\r": "&#13;"}))
    return "".join(f"<text:p>{line}</text:p>" for line in written.split("\n"))


def _spaces(found: re.Match[str]) -> str:
    return "<text:tab/>" if found[0] == "\t" else f'<text:s text:c="{len(found[0])}"/>'
