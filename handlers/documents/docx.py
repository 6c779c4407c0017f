"""Reads Word documents (docx) by python-docx, after a check of the zip archive that they are.

The archive is checked before anything of it is inflated: the number, size and ratio of its entries. No part of a Word
document may have a document type declaration (ECMA-376 part 2, 8.1.4), so one that has is refused: that is where
entities would be. Nothing is fetched: templates, images and objects outside of the document are names only.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import docx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.part import PartFactory
from docx.oxml import parse_xml
from docx.oxml.ns import qn
from docx.oxml.table import CT_Tbl
from docx.oxml.text.paragraph import CT_P
from lxml import etree

from handlers.documents.reading import OLE, ZIP, Allowance, DocumentText, clean, looks_like
from handlers.failures import Refusal

MAX_ENTRIES = 4000
MAX_INFLATED_MIB = 256
MAX_XML_MIB = 32
"""Of all parts that are XML: as a tree they take ten times that."""
MAX_RATIO = 200
"""Of a part of 1 MiB or more; XML of documents reaches 50."""
MAX_CELLS = 50_000
MAX_HEADINGS = 1000
MAX_IMAGES = 200
"""Images that are named one by one; all are counted."""
_MIB = 1 << 20
_ENTRY = b"PK\x01\x02"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_IS_ENCRYPTED = 1
"""APPNOTE.TXT 4.4.4: bit 0 of the flags."""
_METADATA = (
    "title", "author", "subject", "keywords", "category", "comments", "language", "version", "revision",
    "last_modified_by", "created", "modified",
)  # fmt: skip

_PARAGRAPH, _TABLE, _TEXT = qn("w:p"), qn("w:tbl"), qn("w:t")
_WRAPPERS = frozenset(map(qn, ("w:sdt", "w:sdtContent", "w:customXml", "w:ins", "w:moveTo")))
_SIGNS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_LEFT_OUT = frozenset(
    {qn("w:pPr"), qn("w:rPr"), qn("w:del"), qn("w:moveFrom"), qn("w:txbxContent")}
    | {
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
    }  # says the same as what stands before it
)


class DocxDocument:
    """An opened Word document."""

    def __init__(self, content: bytes) -> None:
        """
        Raises:
            Refusal: not a Word document, broken, encrypted, or too large.
        """
        _check_archive(content)
        with _broken_is_refused():
            try:
                self._document = docx.Document(io.BytesIO(content))
            except ValueError as error:
                if "is not a Word file" not in str(error):
                    raise
                raise Refusal(
                    "wrong_document_type",
                    "The content is an Office document, but no docx; templates and files with macros are not accepted.",
                ) from None

    def read(self, max_characters: int) -> DocumentText:
        """Its text; ``parts`` have it by paragraph and table.

        Raises:
            Refusal: the document is broken.
        """
        allowance, cells = Allowance(max_characters), 0
        texts: list[str] = []
        paragraphs: list[str] = []
        tables: list[list[list[str]]] = []
        with _broken_is_refused():
            for block in _blocks(self._document.element.body):
                if allowance.exceeded or cells >= MAX_CELLS:
                    break
                if isinstance(block, CT_Tbl):
                    table = _table(block, allowance, MAX_CELLS - cells)
                    cells += sum(map(len, table))
                    tables.append(table)
                    texts.append("\n".join("\t".join(row) for row in table))
                elif text := allowance.take(_text(block)):
                    paragraphs.append(text)
                    texts.append(text)
        truncated = allowance.exceeded or cells >= MAX_CELLS
        parts = {"paragraphs": paragraphs, "tables": tables}
        return DocumentText("\n\n".join(texts), truncated, "\n\n".join(paragraphs), parts)

    def facts(self) -> dict[str, Any]:
        """Facts beside its text. Headings are the paragraphs of Word's heading styles.

        Raises:
            Refusal: the document is broken.
        """
        with _broken_is_refused():
            blocks = list(_blocks(self._document.element.body))
            return {
                "paragraphs": sum(isinstance(block, CT_P) for block in blocks),
                "tables": sum(isinstance(block, CT_Tbl) for block in blocks),
                "sections": len(self._document.sections),
                "metadata": self._metadata(),
                "headings": self._headings(blocks),
                "images": self._images(),
            }

    def _metadata(self) -> dict[str, Any]:
        relations = self._document.part.package.rels.values()
        if all(relation.reltype != RELATIONSHIP_TYPE.CORE_PROPERTIES for relation in relations):
            return {}  # python-docx would make some up
        core = self._document.core_properties
        values = {name: getattr(core, name) for name in _METADATA}
        return {name: clean(value) if isinstance(value, str) else value for name, value in values.items() if value}

    def _headings(self, blocks: list[CT_P | CT_Tbl]) -> list[dict[str, Any]]:
        levels = {}
        for style in self._document.styles:
            if found := re.fullmatch(r"heading ([1-9])", style.name or "", re.IGNORECASE):
                levels[style.style_id] = int(found[1])
            elif style.name == "Title":
                levels[style.style_id] = 0
        headings = (
            {"level": levels[block.style], "text": text}
            for block in blocks
            if isinstance(block, CT_P) and block.style in levels and (text := _text(block))
        )
        return [heading for heading, _ in zip(headings, range(MAX_HEADINGS), strict=False)]

    def _images(self) -> dict[str, Any]:
        parts = [
            part
            for part in self._document.part.package.iter_parts()
            if part.content_type.startswith("image/") and not str(part.partname).startswith("/docProps/")  # its preview
        ]
        named = [
            {
                "name": str(part.partname).rpartition("/")[2],
                "media_type": part.content_type,
                "size_bytes": len(part.blob),
            }
            for part in parts[:MAX_IMAGES]
        ]
        return {"count": len(parts), "complete": True, "first": named}


def _blocks(parent: Any) -> Iterator[CT_P | CT_Tbl]:
    """Paragraphs and tables in order, also those in content controls and in tracked insertions."""
    for child in parent:
        if child.tag in (_PARAGRAPH, _TABLE):
            yield child
        elif child.tag in _WRAPPERS:
            yield from _blocks(child)


def _table(table: CT_Tbl, allowance: Allowance, max_cells: int) -> list[list[str]]:
    rows: list[list[str]] = []
    cells = 0
    for row in table.tr_lst:
        if allowance.exceeded or cells >= max_cells:
            break
        # the elements themselves: python-docx repeats a merged cell as often as it says it spans
        texts = [" ".join(filter(None, map(_text, cell.iter(_PARAGRAPH)))) for cell in row.tc_lst[: max_cells - cells]]
        rows.append([allowance.take(text) for text in texts])
        cells += len(texts)
    return rows


def _text(paragraph: Any) -> str:
    return clean("".join(_pieces(paragraph))).strip()


def _pieces(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == _TEXT:
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif child.tag not in _LEFT_OUT:
            yield from _pieces(child)


def _check_archive(content: bytes) -> None:
    kind = looks_like(content)
    if kind == OLE and _ENCRYPTED_OFFICE in content:
        raise Refusal("encrypted_document", "The document is encrypted; save it without a password.")
    if kind != ZIP:
        raise Refusal(
            "wrong_document_type",
            f"The content is not a docx: it {'looks like ' + kind if kind else 'does not begin like one'}. Name its "
            "type by `document_type`; a file without a `.` in its name is given as `{\"path\": …}`.",
        )  # fmt: skip
    if content.count(_ENTRY) > 4 * MAX_ENTRIES:  # before a list of them is made; archives in it have entries too
        raise _too_large(f"more than {MAX_ENTRIES} entries")
    with _broken_is_refused(), zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        _check_entries(entries, len(content))
        if any(entry.flag_bits & _IS_ENCRYPTED for entry in entries):
            raise Refusal("encrypted_document", "The document is encrypted; save it without a password.")
        for entry in entries:
            if _is_xml(entry.filename) and b"<!DOCTYPE" in archive.read(entry).replace(b"\0", b""):
                raise Refusal("corrupt_document", "A part has a document type declaration, which no docx may have.")
        _check_names(archive.read("[Content_Types].xml"))


def _check_names(content_types: bytes) -> None:
    """Refuse a part that python-docx would parse and that is not named as XML: the other checks go by the name."""
    for one in parse_xml(content_types):
        name = one.get("PartName") or f".{one.get('Extension')}"
        if one.get("ContentType") in PartFactory.part_type_for and not _is_xml(name):
            raise Refusal("corrupt_document", f"A part of XML is named {name[:100]!r}; save the document again.")


def _is_xml(name: str) -> bool:
    return name.lower().endswith((".xml", ".rels"))


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    inflated = sum(entry.file_size for entry in entries)
    xml = sum(entry.file_size for entry in entries if _is_xml(entry.filename))
    names = {entry.filename for entry in entries}
    if len(entries) > MAX_ENTRIES:
        raise _too_large(f"{len(entries)} entries, more than {MAX_ENTRIES}")
    if inflated > MAX_INFLATED_MIB * _MIB:
        raise _too_large(f"{inflated // _MIB} MiB when unpacked, more than {MAX_INFLATED_MIB}")
    if xml > MAX_XML_MIB * _MIB:
        raise _too_large(f"{xml // _MIB} MiB of XML, more than {MAX_XML_MIB}")
    if any(entry.file_size >= _MIB and entry.file_size > MAX_RATIO * entry.compress_size for entry in entries):
        raise _too_large(f"a part that is packed to less than a {MAX_RATIO}th, as no document is")
    if len(names) != len(entries):
        raise Refusal("corrupt_document", "The archive has two entries of one name; save the document again.")
    if sum(entry.compress_size for entry in entries) > size:
        raise Refusal("corrupt_document", "The archive's entries overlap; save the document again.")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise Refusal("corrupt_document", "The archive is packed in a way that docx does not know; save it again.")


def _too_large(found: str) -> Refusal:
    return Refusal("document_too_large", f"The document has {found}; split it, or save it again.")


@contextlib.contextmanager
def _broken_is_refused() -> Iterator[None]:
    """Turn whatever zipfile, lxml and python-docx raise over broken input into a refusal; they have no list of it."""
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise Refusal("corrupt_document", "The archive is broken or cut off; save the document again.") from None
    except etree.XMLSyntaxError as error:
        raise Refusal("corrupt_document", f"A part of the document is not XML: {error}.") from None
    except Exception as error:
        raise Refusal("corrupt_document", f"The document is broken ({type(error).__name__}); save it again.") from None
