"""Reads what stands in the parts of a Word document: blocks in order, the text of paragraphs, tables as a grid."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from docx.oxml.ns import qn

from handlers.documents.docx_math import MATH, line
from handlers.documents.reading import UNREADABLE, Allowance, clean

MAX_CELLS = 50_000
MAX_COLUMNS = 1000
"""Of a table, whatever its cells say that they span."""

PARAGRAPH, TABLE = qn("w:p"), qn("w:tbl")
BOX = qn("w:txbxContent")
_COMPATIBILITY = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_CHOICES, _FALLBACK = _COMPATIBILITY + "AlternateContent", _COMPATIBILITY + "Fallback"
_ROW, _CELL, _RUN, _TEXT, _DELETED_TEXT = qn("w:tr"), qn("w:tc"), qn("w:r"), qn("w:t"), qn("w:delText")
_SYMBOL, _RUBY, _BOX_TO_TICK = qn("w:sym"), qn("w:ruby"), qn("w:checkBox")
_SHAPE_TEXT = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"
_LETTERING = "{urn:schemas-microsoft-com:vml}textpath"
_SAYS = (_TEXT, _DELETED_TEXT, _SYMBOL, _SHAPE_TEXT, _LETTERING, MATH + "t")
_FIELD, _FIELD_SIGNS = qn("w:fldChar"), {"begin": "\x13", "separate": "\x14", "end": "\x15"}
"""The ends of a field's code and result, by the signs that Word itself had for them; XML has none such."""
_NOTES = (qn("w:footnoteReference"), qn("w:endnoteReference"))
_SIGNS = {
    qn("w:tab"): "\t", qn("w:ptab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n",
    qn("w:noBreakHyphen"): "\u2011", qn("w:softHyphen"): "\u00ad",
}  # fmt: skip
_INSERTED = frozenset({qn("w:ins"), qn("w:moveTo")})
_DELETED = frozenset({qn("w:del"), qn("w:moveFrom")})
CHANGES = _INSERTED | _DELETED
_PROPERTIES = frozenset(
    map(qn, ("w:pPr", "w:rPr", "w:tblPr", "w:tblGrid", "w:trPr", "w:tcPr", "w:sdtPr", "w:sdtEndPr", "w:sectPr"))
)
_AT_FIELD_SIGNS = re.compile("([\x13\x14\x15])")
_SYMBOL_AREA = range(0xF020, 0xF100)
"""The private characters by which Word names the signs of symbol fonts."""

Block = tuple[str, Any]
"""``paragraph`` or ``table`` and its element."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the parts of one document are read."""

    shown: frozenset[str]
    """Of the tracked changes: insertions, or with them rejected the deletions."""
    note: Callable[[Any], str]
    """The mark that a reference to a note becomes."""

    def hides(self, tag: Any) -> bool:
        """Whether an element is of a change that is not shown, a property, or a repetition."""
        return tag in _PROPERTIES or (tag in CHANGES and tag not in self.shown)


def reading(*, rejected: bool, note: Callable[[Any], str]) -> Reading:
    """How to read with all changes accepted, or rejected."""
    return Reading(shown=_DELETED if rejected else _INSERTED, note=note)


def blocks(parent: Any, how: Reading) -> Iterator[Block]:
    """Paragraphs and tables in order, whatever they are wrapped in; a text box after the paragraph that holds it."""
    for child in _children(parent):
        if child.tag == PARAGRAPH:
            yield "paragraph", child
            yield from _boxes(child, how)
        elif child.tag == TABLE:
            yield "table", child
        elif not how.hides(child.tag):
            yield from blocks(child, how)


def text_of(paragraph: Any, how: Reading, *, goes_on_from: bool = False) -> str:
    """The text of a paragraph, without that of text boxes in it.

    Spaces at its ends are left out, but for those beside a paragraph with which it is one line.
    """
    text = clean(_without_codes("".join(_pieces(paragraph, how))))
    text = text if goes_on_from else text.lstrip()
    return text if paragraph.tag == PARAGRAPH and goes_on(paragraph, how) else text.rstrip()


def goes_on(paragraph: Any, how: Reading) -> bool:
    """Whether the end of a paragraph is of a change that is not shown: the next one goes on in its line."""
    marks = paragraph.findall(f"{qn('w:pPr')}/{qn('w:rPr')}/*")
    return any(how.hides(mark.tag) for mark in marks if mark.tag in CHANGES)


def flat_text(parent: Any, how: Reading) -> str:
    """The text of all blocks of a cell, note or comment, in one line for each."""
    pieces: list[str] = []
    joins = False
    for kind, element in blocks(parent, how):
        is_paragraph = kind == "paragraph"
        text = text_of(element, how, goes_on_from=joins) if is_paragraph else _cells_text(element, how)
        if text:
            joins = is_paragraph and goes_on(element, how)
            pieces += [text, "" if joins else " "]
    return "".join(pieces).strip()


def grid(table: Any, how: Reading, allowance: Allowance, max_cells: int) -> tuple[list[list[str]], bool]:
    """The rows of a table, all of one length, and whether there was more.

    A cell that spans several has its text in the first of them; the others are empty.
    """
    rows: list[list[str]] = []
    cells, is_cut = 0, False
    columns = _columns(table, how)
    for row in _rows(table, how):
        if allowance.exceeded or cells >= max_cells:
            is_cut = True
            break
        texts = [allowance.take(text) for text in _row(row, how, columns, max_cells - cells)]
        cells += len(texts)
        rows.append(texts)
    width = max(map(len, rows), default=0)
    if width * len(rows) <= MAX_CELLS:
        rows = [row + [""] * (width - len(row)) for row in rows]
    return rows, is_cut


def _cells_text(table: Any, how: Reading) -> str:
    return " ".join(filter(None, (flat_text(cell, how) for row in _rows(table, how) for cell in _cells(row, how))))


def _children(parent: Any) -> Iterator[Any]:
    """Its elements; of alternatives the first that says something: the others say the same, or nothing."""
    for child in parent:
        if not isinstance(child.tag, str):  # a comment
            continue
        if child.tag == _CHOICES:
            ways = [way for way in child if isinstance(way.tag, str)]
            yield from [way for way in ways if next(way.iter(*_SAYS), None) is not None][:1] or ways[:1]
        else:
            yield child


def _boxes(element: Any, how: Reading) -> Iterator[Block]:
    for child in _children(element):
        if child.tag == BOX:
            yield from blocks(child, how)
        elif not how.hides(child.tag):
            yield from _boxes(child, how)


def _pieces(element: Any, how: Reading, font: str = "") -> Iterator[str]:
    for child in _children(element):
        tag = child.tag
        if tag == _TEXT or (tag == _DELETED_TEXT and how.shown is _DELETED):
            yield _in_font(child.text or "", font)
        elif tag in _SIGNS:
            yield _SIGNS[tag]
        elif tag in _LEAVES:
            yield _LEAVES[tag](child, how)
        elif tag == _FIELD:
            yield from _pieces(child, how)
            yield _FIELD_SIGNS.get(child.get(qn("w:fldCharType"), ""), "")
        elif tag == _RUBY:
            yield from _ruby(child, how)
        elif tag not in (BOX, PARAGRAPH, TABLE) and not how.hides(tag):
            yield from _pieces(child, how, _font(child) if tag == _RUN else font)


def _without_codes(text: str) -> str:
    """A text without the codes of its fields, which Word does not show, whatever stands in them.

    A code that has no end here is text: it may be of a field that a faulty file never ends.
    """
    if _FIELD_SIGNS["begin"] not in text:
        return text
    open_fields: list[_OpenField] = [_OpenField()]
    for piece in _AT_FIELD_SIGNS.split(text):
        if piece == _FIELD_SIGNS["begin"]:
            open_fields.append(_OpenField())
        elif piece == _FIELD_SIGNS["separate"]:
            open_fields[-1].code_ended(is_field=len(open_fields) > 1)
        elif piece == _FIELD_SIGNS["end"]:
            if len(open_fields) > 1:
                ended = open_fields.pop()
                open_fields[-1].pieces += ended.pieces if ended.has_result else []
        else:
            open_fields[-1].pieces.append(piece)
    return "".join(piece for one in open_fields for piece in one.pieces)


class _OpenField:
    """What a field that has not ended says: its code, and then its result."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.has_result = False

    def code_ended(self, *, is_field: bool) -> None:
        """Forget the code; the result begins."""
        if is_field and not self.has_result:
            self.pieces, self.has_result = [], True


def _ruby(element: Any, how: Reading) -> Iterator[str]:
    """A word, and how it is said in brackets."""
    for name, form in (("w:rubyBase", "{}"), ("w:rt", "({})")):
        found = element.find(qn(name))
        if found is not None:
            yield form.format("".join(_pieces(found, how)))


def _ticked(box: Any) -> str:
    """A check box of an old form: its state, or the one that it begins with."""
    for name in ("w:checked", "w:default"):
        found = box.find(qn(name))
        if found is not None:
            return "☐" if found.get(qn("w:val")) in ("0", "false", "off") else "☒"
    return "☐"


def _font(run: Any) -> str:
    found = run.find(f"{qn('w:rPr')}/{qn('w:rFonts')}")
    return "" if found is None else found.get(qn("w:ascii")) or found.get(qn("w:hAnsi")) or ""


def _in_font(text: str, font: str) -> str:
    """Text in which the private characters of a symbol font are what they look like."""
    if text.isascii() or not any(ord(sign) in _SYMBOL_AREA for sign in text):
        return text
    return "".join(_symbol(font, f"{ord(sign):x}") if ord(sign) in _SYMBOL_AREA else sign for sign in text)


def _symbol(font: str, code: str) -> str:
    """The sign of a symbol font as Unicode; U+FFFD where its font is not known."""
    from mammoth.docx.dingbats import dingbats  # noqa: PLC0415 few documents have such signs

    try:
        number = int(code, 16)
    except ValueError:
        return UNREADABLE
    found = dingbats.get((font, number - 0xF000 if number in _SYMBOL_AREA else number))
    if found is not None:
        return chr(found)
    return UNREADABLE if number in _SYMBOL_AREA or number > 0x10FFFF else chr(number)


_LEAVES: Mapping[str, Callable[[Any, Reading], str]] = MappingProxyType(
    {
        _SYMBOL: lambda element, _: _symbol(element.get(qn("w:font"), ""), element.get(qn("w:char"), "")),
        MATH + "oMath": lambda element, how: line(element, hidden=how.hides),
        _SHAPE_TEXT: lambda element, _: element.text or "",
        _LETTERING: lambda element, _: str(element.get("string", "")),
        _BOX_TO_TICK: lambda element, _: _ticked(element),
        **dict.fromkeys(_NOTES, lambda element, how: how.note(element)),
    }
)
"""Element → the function that writes it whole."""


# ---- tables -----------------------------------------------------------------------------------------------------


def _rows(table: Any, how: Reading) -> Iterator[Any]:
    for child in _children(table):
        if child.tag == _ROW:
            if not _is_hidden_row(child, how):
                yield child
        elif not how.hides(child.tag) and child.tag not in (PARAGRAPH, TABLE):
            yield from _rows(child, how)


def _is_hidden_row(row: Any, how: Reading) -> bool:
    """Whether the row as a whole is of a change that is not shown."""
    marks = [child.tag for child in row.findall(f"{qn('w:trPr')}/*")]
    return any(how.hides(tag) for tag in marks if tag in CHANGES)


def _is_hidden_cell(cell: Any, how: Reading) -> bool:
    """Whether the cell as a whole is of a change that is not shown."""
    gone = "w:cellIns" if how.shown is _DELETED else "w:cellDel"
    return cell.find(f"{qn('w:tcPr')}/{qn(gone)}") is not None


def _cells(row: Any, how: Reading) -> Iterator[Any]:
    for child in _children(row):
        if child.tag == _CELL:
            if not _is_hidden_cell(child, how):
                yield child
        elif not how.hides(child.tag):
            yield from _cells(child, how)


def _row(row: Any, how: Reading, columns: int, room: int) -> list[str]:
    texts = [""] * min(_number(row, "w:trPr", "w:gridBefore", 0), columns, room)
    for cell in _cells(row, how):
        if len(texts) >= room:
            break
        merged = cell.find(f"{qn('w:tcPr')}/{qn('w:vMerge')}")
        goes_on = merged is not None and merged.get(qn("w:val"), "continue") == "continue"
        texts.append("" if goes_on else flat_text(cell, how))
        span = min(max(_number(cell, "w:tcPr", "w:gridSpan", 1), 1), columns)
        texts += [""] * min(span - 1, room - len(texts))
    return texts


def _columns(table: Any, how: Reading) -> int:
    """How many columns a table says that it has, or the most cells of a row; no cell spans more."""
    said = len(table.findall(f"{qn('w:tblGrid')}/{qn('w:gridCol')}"))
    found = said or max((sum(1 for _ in _cells(row, how)) for row in _rows(table, how)), default=1)
    return min(max(found, 1), MAX_COLUMNS)


def _number(element: Any, properties: str, name: str, default: int) -> int:
    found = element.find(f"{qn(properties)}/{qn(name)}")
    try:
        return default if found is None else max(int(found.get(qn("w:val"), default)), 0)
    except ValueError:
        return default
