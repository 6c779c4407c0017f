"""Reads Word documents (docx, docm, dotx; transitional and strict) by python-docx and what it does not know itself.

Nothing is fetched: templates, images and objects outside of the document are names only. Macros are not run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import docx
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import qn

from handlers.archives import is_xml
from handlers.documents import docx_archive, docx_text
from handlers.documents.docx_archive import broken_is_refused
from handlers.documents.docx_text import Block
from handlers.documents.reading import UNREADABLE, Allowance, DocumentText, clean
from handlers.failures import Refusal
from handlers.parameters.documents import Changes

MAX_CELLS = docx_text.MAX_CELLS
MAX_HEADINGS = 1000
MAX_IMAGES = 200
"""Images that are named one by one; all are counted."""
MAX_CHANGES = 1000
_METADATA = (
    "title", "author", "subject", "keywords", "category", "comments", "language", "version", "revision",
    "last_modified_by", "created", "modified",
)  # fmt: skip
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
_NOT_READ = ("aFChunk", "chart", "diagramData", "oleObject", "package")
"""Relations to parts that may hold text and are not read: other formats within, charts, SmartArt, embedded files."""
_SEPARATORS = ("separator", "continuationSeparator", "continuationNotice")


class DocxDocument:
    """An opened Word document."""

    def __init__(self, content: bytes, *, changes: Changes = "accepted", comments: bool = False) -> None:
        """
        Args:
            content: the file.
            changes: how tracked changes are read.
            comments: whether to tell the comments, not only their number.
        Raises:
            Refusal: not a Word document, broken, encrypted, or too large.
        """
        usual = docx_archive.checked(content)
        with broken_is_refused():
            try:
                self._document = docx.Document(io.BytesIO(usual))
            except ValueError as error:
                if "is not a Word file" not in str(error):
                    raise
                raise Refusal(
                    "wrong_document_type", "The content is an Office document, but not one of Word."
                ) from None
        self._changes, self._with_comments = changes, comments
        self._notes: dict[tuple[str, str], int] = {}
        self._how = docx_text.reading(rejected=changes == "rejected", note=self._note)

    def read(self, max_characters: int) -> DocumentText:
        """Its text and its notes'; ``parts`` have it by paragraph and table, and what stands outside of the text.

        Raises:
            Refusal: the document is broken.
        """
        allowance, cells, is_cut, joins = Allowance(max_characters), 0, False, False
        texts: list[str] = []
        paragraphs: list[str] = []
        tables: list[list[list[str]]] = []
        with broken_is_refused():
            for kind, element in self._blocks():
                if allowance.exceeded or cells >= MAX_CELLS:
                    break
                if kind == "table":
                    table, is_cut = docx_text.grid(element, self._how, allowance, MAX_CELLS - cells)
                    cells += sum(map(len, table))
                    tables.append(table)
                    texts.append("\n".join(map(_tabbed, table)))
                    joins = False
                elif text := allowance.take(docx_text.text_of(element, self._how, goes_on_from=joins)):
                    joined = [paragraphs.pop() + text] if joins else [text]
                    texts[len(texts) - joins :] = joined
                    paragraphs += joined
                    joins = docx_text.goes_on(element, self._how)
            notes = self._read_notes(allowance)
            texts += [f"[{note['number']}] {note['text']}" for note in notes]
            beside = {"notes": notes, **self._beside(allowance)}
        text = "\n\n".join(texts)
        truncated = allowance.exceeded or cells >= MAX_CELLS or is_cut
        beside["unreadable_characters"] = text.count(UNREADABLE)
        parts = {"paragraphs": paragraphs, "tables": tables, **beside}
        return DocumentText(text, truncated, "\n\n".join(paragraphs), parts, beside)

    def facts(self) -> dict[str, Any]:
        """Facts beside its text. Headings are the paragraphs of Word's heading styles.

        Raises:
            Refusal: the document is broken.
        """
        with broken_is_refused():
            blocks = list(self._blocks())
            return {
                "paragraphs": sum(kind == "paragraph" for kind, _ in blocks),
                "tables": sum(kind == "table" for kind, _ in blocks),
                "sections": len(self._document.sections),
                "metadata": self._metadata(),
                "headings": self._headings(blocks),
                "images": self._images(),
            }

    def _blocks(self) -> Iterator[Block]:
        return docx_text.blocks(self._document.element.body, self._how)

    # -- outside of the text

    def _beside(self, allowance: Allowance) -> dict[str, Any]:
        comments = self._comments(allowance)
        return {
            "headers": self._edges("header", allowance),
            "footers": self._edges("footer", allowance),
            **({"comments": comments} if self._with_comments else {}),
            "comments_total": len(comments),
            **self._tracked(allowance),
            "unread_parts_total": sum(map(self._is_not_read, self._document.part.rels.values())),
        }

    @staticmethod
    def _is_not_read(relation: Any) -> bool:
        return relation.reltype.rpartition("/")[2] in _NOT_READ

    def _roots(self, name: str) -> Iterator[Any]:
        """The root elements of the parts of one kind that belong to the document."""
        for relation in self._document.part.rels.values():
            if relation.reltype == _OFFICE + name and not relation.is_external:
                yield _root(relation.target_part)

    def _edges(self, name: str, allowance: Allowance) -> list[str]:
        """The texts of all headers or footers, each once."""
        found = ("\n".join(self._lines(root)) for root in self._roots(name))
        return [allowance.take(text) for text in dict.fromkeys(found) if text]

    def _lines(self, root: Any) -> Iterator[str]:
        for kind, element in docx_text.blocks(root, self._how):
            if kind == "table":
                rows, _ = docx_text.grid(element, self._how, Allowance(1 << 20), MAX_CELLS)
                yield from map(_tabbed, rows)
            elif text := docx_text.text_of(element, self._how):
                yield text

    def _note(self, reference: Any) -> str:
        """The mark of a reference: notes are numbered in the order in which the text names them."""
        key = (reference.tag, reference.get(qn("w:id"), ""))
        return f"[{self._notes.setdefault(key, len(self._notes) + 1)}]"

    def _read_notes(self, allowance: Allowance) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, sign in (("footnote", "w:footnoteReference"), ("endnote", "w:endnoteReference")):
            for root in self._roots(name + "s"):
                for note in root.findall(qn(f"w:{name}")):
                    number = self._notes.get((qn(sign), note.get(qn("w:id"), "")))
                    text = docx_text.flat_text(note, self._how)
                    if note.get(qn("w:type")) not in _SEPARATORS and text:
                        found.append({"number": number, "type": name, "text": text})
        found.sort(key=lambda note: (note["number"] is None, note["number"] or 0))
        return [{**note, "text": allowance.take(str(note["text"]))} for note in found]

    def _comments(self, allowance: Allowance) -> list[dict[str, Any]]:
        return [
            {
                "author": comment.get(qn("w:author")),
                "date": comment.get(qn("w:date")),
                "text": allowance.take(docx_text.flat_text(comment, self._how)) if self._with_comments else "",
            }
            for root in self._roots("comments")
            for comment in root.findall(qn("w:comment"))
        ]

    def _tracked(self, allowance: Allowance) -> dict[str, Any]:
        """How many changes are tracked in the body, and, where they are to be listed, the first of them."""
        marks = [one for one in self._document.element.body.iter(*docx_text.CHANGES) if len(one)]
        total = {"tracked_changes_total": len(marks)}
        if self._changes != "listed":
            return total
        both = docx_text.reading(rejected=True, note=self._note)
        listed = []
        for one in marks[:MAX_CHANGES]:
            is_deleted = one.tag in (qn("w:del"), qn("w:moveFrom"))
            listed.append(
                {
                    "type": one.tag.rpartition("}")[2],
                    "author": one.get(qn("w:author")),
                    "date": one.get(qn("w:date")),
                    "text": allowance.take(docx_text.text_of(one, both if is_deleted else self._how)),
                }
            )
        return {"tracked_changes": listed, **total}

    # -- facts

    def _metadata(self) -> dict[str, Any]:
        relations = self._document.part.package.rels.values()
        if all(relation.reltype != RELATIONSHIP_TYPE.CORE_PROPERTIES for relation in relations):
            return {}  # python-docx would make some up
        core = self._document.core_properties
        values = {name: getattr(core, name) for name in _METADATA}
        return {name: clean(value) if isinstance(value, str) else value for name, value in values.items() if value}

    def _headings(self, blocks: list[Block]) -> list[dict[str, Any]]:
        levels = {}
        for style in self._document.styles:
            if found := re.fullmatch(r"heading ([1-9])", style.name or "", re.IGNORECASE):
                levels[style.style_id] = int(found[1])
            elif style.name == "Title":
                levels[style.style_id] = 0
        headings = (
            {"level": levels[element.style], "text": text}
            for kind, element in blocks
            if kind == "paragraph" and element.style in levels and (text := docx_text.text_of(element, self._how))
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


def _tabbed(row: list[str]) -> str:
    return "\t".join(row).rstrip("\t")


def _root(part: Any) -> Any:
    """The root element of a part: the one that python-docx parsed, or that of its bytes, if it is checked as XML."""
    if hasattr(part, "element"):
        return part.element
    if not is_xml(str(part.partname)):
        raise Refusal("corrupt_document", f"A part of XML is named {str(part.partname)[:100]!r}; save it again.")
    return parse_xml(part.blob)
