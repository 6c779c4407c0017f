"""What stands on a PDF's pages beside their text: filled in fields, notes of readers, and attached files."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from handlers import markup
from handlers.documents.reading import clean

MAX_MARKS = 1000
"""Fields, notes and attachments that are named one by one; all are counted."""
MAX_VALUE_CHARACTERS = 10_000
_MAX_MARKS_OF_A_PAGE = 20_000
_MAX_BUFFER_BYTES = 1 << 20

_FIELDS: Mapping[int, str] = MappingProxyType(
    {
        pdfium.FPDF_FORMFIELD_PUSHBUTTON: "button",
        pdfium.FPDF_FORMFIELD_CHECKBOX: "checkbox",
        pdfium.FPDF_FORMFIELD_RADIOBUTTON: "radio",
        pdfium.FPDF_FORMFIELD_COMBOBOX: "choice",
        pdfium.FPDF_FORMFIELD_LISTBOX: "choice",
        pdfium.FPDF_FORMFIELD_TEXTFIELD: "text",
        pdfium.FPDF_FORMFIELD_SIGNATURE: "signature",
    }
)
_NOTES: Mapping[int, str] = MappingProxyType(
    {
        pdfium.FPDF_ANNOT_TEXT: "note",
        pdfium.FPDF_ANNOT_FREETEXT: "text",
        pdfium.FPDF_ANNOT_HIGHLIGHT: "highlight",
        pdfium.FPDF_ANNOT_UNDERLINE: "underline",
        pdfium.FPDF_ANNOT_SQUIGGLY: "underline",
        pdfium.FPDF_ANNOT_STRIKEOUT: "strikeout",
        pdfium.FPDF_ANNOT_STAMP: "stamp",
        pdfium.FPDF_ANNOT_CARET: "insertion",
        pdfium.FPDF_ANNOT_INK: "drawing",
        pdfium.FPDF_ANNOT_LINE: "drawing",
        pdfium.FPDF_ANNOT_SQUARE: "drawing",
        pdfium.FPDF_ANNOT_CIRCLE: "drawing",
        pdfium.FPDF_ANNOT_POLYGON: "drawing",
        pdfium.FPDF_ANNOT_POLYLINE: "drawing",
        pdfium.FPDF_ANNOT_FILEATTACHMENT: "file",
        pdfium.FPDF_ANNOT_REDACT: "redaction",
    }
)


class Marks:
    """Gathers fields and notes of pages, and makes what they show part of the pages."""

    def __init__(self) -> None:
        self._fields: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []
        self._fields_total = self._notes_total = 0

    def take(self, pdf: pypdfium2.PdfDocument, page: pypdfium2.PdfPage, number: int) -> pypdfium2.PdfPage:
        """Gather those of a page; return it with what they look like among its text and pictures."""
        count = min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_MARKS_OF_A_PAGE)
        for place in range(count):
            mark = pdfium.FPDFPage_GetAnnot(page, place)
            if mark:
                self._take(pdf, mark, number)
                pdfium.FPDFPage_CloseAnnot(mark)
        if not count or pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY) != pdfium.FLATTEN_SUCCESS:
            return page
        page.close()
        return pdf[number - 1]

    def found(self) -> dict[str, Any]:
        """The first of them, and how many there are."""
        return {
            "form_fields": self._fields, "form_fields_total": self._fields_total,
            "annotations": self._notes, "annotations_total": self._notes_total,
        }  # fmt: skip

    def _take(self, pdf: pypdfium2.PdfDocument, mark: Any, number: int) -> None:
        kind = pdfium.FPDFAnnot_GetSubtype(mark)
        if kind == pdfium.FPDF_ANNOT_WIDGET and pdf.formenv is not None:
            self._fields_total += 1
            if len(self._fields) < MAX_MARKS:
                self._fields.append({"page": number, **_field(pdf.formenv, mark)})
        elif kind in _NOTES and (text := _contents(mark)):
            self._notes_total += 1
            if len(self._notes) < MAX_MARKS:
                author = _text(pdfium.FPDFAnnot_GetStringValue, mark, b"T")
                self._notes.append(
                    {"page": number, "type": _NOTES[kind], "author": author or None, **_cut("text", text)}
                )


def _contents(mark: Any) -> str:
    """What a note says; of one that says it as rich text only, without the tags."""
    text = _text(pdfium.FPDFAnnot_GetStringValue, mark, b"Contents")
    return text or markup.see(_text(pdfium.FPDFAnnot_GetStringValue, mark, b"RC")).text.strip()


def attachments(pdf: pypdfium2.PdfDocument) -> dict[str, Any]:
    """Names and sizes of the files that are attached to a document. None is unpacked."""
    total = pdf.count_attachments()
    named = []
    for place in range(min(total, MAX_MARKS)):
        one = pdf.get_attachment(place)
        size = ctypes.c_ulong()
        has_size = pdfium.FPDFAttachment_GetFile(one, None, 0, size)
        named.append(
            {"name": clean(one.get_name())[:MAX_VALUE_CHARACTERS], "size_bytes": size.value if has_size else None}
        )
    return {"attachments": named, "attachments_total": total}


def _field(forms: Any, mark: Any) -> dict[str, Any]:
    kind = _FIELDS.get(pdfium.FPDFAnnot_GetFormFieldType(forms, mark), "unknown")
    value: dict[str, Any]
    if kind in ("checkbox", "radio"):
        value = {"value": bool(pdfium.FPDFAnnot_IsChecked(forms, mark)), "option": _option(forms, mark)}
    else:
        value = _cut("value", _text(pdfium.FPDFAnnot_GetFormFieldValue, forms, mark))
    if kind == "choice":
        value["chosen"] = _chosen(forms, mark)
    return {"name": _text(pdfium.FPDFAnnot_GetFormFieldName, forms, mark)[:MAX_VALUE_CHARACTERS], "type": kind, **value}


def _chosen(forms: Any, mark: Any) -> list[str]:
    """What a reader sees as chosen of a list: of one that allows it several."""
    count = min(max(pdfium.FPDFAnnot_GetOptionCount(forms, mark), 0), MAX_MARKS)
    chosen = [place for place in range(count) if pdfium.FPDFAnnot_IsOptionSelected(forms, mark, place)]
    labels = (_text(_option_label, forms, mark, place) for place in chosen)
    return [label[:MAX_VALUE_CHARACTERS] for label in labels]


def _option_label(forms: Any, mark: Any, place: int, buffer: Any, size: int) -> int:
    return int(pdfium.FPDFAnnot_GetOptionLabel(forms, mark, place, buffer, size))


def _option(forms: Any, mark: Any) -> str:
    """What a box or button stands for when it is on."""
    return _text(pdfium.FPDFAnnot_GetFormFieldExportValue, forms, mark)[:MAX_VALUE_CHARACTERS]


def _cut(name: str, text: str) -> dict[str, Any]:
    if len(text) <= MAX_VALUE_CHARACTERS:
        return {name: text}
    return {name: text[:MAX_VALUE_CHARACTERS], f"{name}_truncated": True}


def _text(ask: Callable[..., int], *arguments: Any) -> str:
    """The text that a function of pdfium writes into a buffer, in UTF-16 with two zero bytes at its end."""
    size = min(ask(*arguments, None, 0), _MAX_BUFFER_BYTES)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    ask(*arguments, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return clean(buffer.raw[: size - 2].decode("utf-16-le", "replace"))
