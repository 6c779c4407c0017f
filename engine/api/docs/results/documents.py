"""Results of document_processing, one type per operation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.api.docs.results.models import TextLanguage


class OcrFacts(msgspec.Struct, kw_only=True):
    """That a text was read from a picture."""

    lines: int
    confidence: float


class PdfPage(msgspec.Struct, kw_only=True):
    """The text of a page."""

    page: int
    text: str
    ocr: OcrFacts | UnsetType = UNSET


class DocumentTable(msgspec.Struct, kw_only=True):
    """A table of a PDF."""

    page: int
    rows: list[list[str]]


class FormField(msgspec.Struct, kw_only=True):
    """A field of a PDF's form."""

    page: int
    name: str
    type: str
    value: str | bool | None
    option: str | UnsetType = UNSET
    chosen: list[str] | UnsetType = UNSET


class Annotation(msgspec.Struct, kw_only=True):
    """A note in a PDF."""

    page: int
    type: str
    author: str | None
    text: str


class Note(msgspec.Struct, kw_only=True):
    """A footnote or endnote of a docx."""

    number: int | str
    type: str
    text: str


class Remark(msgspec.Struct, kw_only=True):
    """A comment or a tracked change of a docx."""

    type: Annotated[str | UnsetType, Meta(description="Of a change: `ins` or `del`.")] = UNSET
    author: str | None
    date: str | None
    text: str


class DocumentResult(msgspec.Struct, kw_only=True, tag_field="operation"):
    """What every operation over a document answers. Which other fields there are depends on `document_type`."""

    document_type: Literal["pdf", "docx", "txt"]
    truncated: bool


class BesideText(DocumentResult, kw_only=True):
    """What stands beside the text of a document."""

    unreadable_characters: int
    characters: int
    encoding: Annotated[str | UnsetType | None, Meta(description="txt; null where it came as a text.")] = UNSET
    encoding_confidence: float | UnsetType | None = UNSET
    unread_pages_total: Annotated[int | UnsetType, Meta(description="pdf, as the next ones.")] = UNSET
    form_fields: list[FormField] | UnsetType = UNSET
    form_fields_total: int | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET
    annotations_total: int | UnsetType = UNSET
    notes: Annotated[list[Note] | UnsetType, Meta(description="docx, as the next ones.")] = UNSET
    headers: list[str] | UnsetType = UNSET
    footers: list[str] | UnsetType = UNSET
    comments: list[Remark] | UnsetType = UNSET
    comments_total: int | UnsetType = UNSET
    tracked_changes: list[Remark] | UnsetType = UNSET
    tracked_changes_total: int | UnsetType = UNSET
    unread_parts_total: int | UnsetType = UNSET


_ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
_OF_PDF = {"$ref": "#/components/schemas/DocumentTable"}


class ExtractedText(BesideText, kw_only=True, tag="extract_text"):
    """The text of a document."""

    text: str
    pages: Annotated[list[PdfPage] | UnsetType, Meta(description="pdf.")] = UNSET
    paragraphs: Annotated[list[str] | UnsetType, Meta(description="docx.")] = UNSET
    tables: Annotated[
        Any,
        Meta(
            description="docx: the rows of each; pdf: with its page.",
            extra_json_schema={"type": "array", "items": {"anyOf": [_ROWS, _OF_PDF]}},
        ),
    ] = UNSET
    tables_truncated: bool | UnsetType = UNSET


class DocumentHeading(msgspec.Struct, kw_only=True):
    """A heading."""

    level: int
    text: str
    page: int | UnsetType = UNSET


class DocumentImage(msgspec.Struct, kw_only=True):
    """A picture in a document: in a pdf with its page and size, in a docx with its name."""

    page: int | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    media_type: str | UnsetType = UNSET
    size_bytes: int | UnsetType = UNSET


class DocumentImages(msgspec.Struct, kw_only=True):
    """The pictures of a document."""

    count: int
    complete: bool
    first: list[DocumentImage]


class Attachment(msgspec.Struct, kw_only=True):
    """A file in a pdf."""

    name: str
    size_bytes: int | None


class AnalyzedDocument(BesideText, kw_only=True, tag="analyze"):
    """Facts of a document."""

    words: int
    sentences: int
    language: TextLanguage
    metadata: dict[str, Any]
    headings: list[DocumentHeading]
    images: DocumentImages
    lines: Annotated[int | UnsetType, Meta(description="txt.")] = UNSET
    pages: Annotated[int | UnsetType, Meta(description="pdf, as the next ones.")] = UNSET
    pages_read: int | UnsetType = UNSET
    page_size_pt: list[float] | UnsetType | None = UNSET
    pdf_version: str | UnsetType | None = UNSET
    attachments: list[Attachment] | UnsetType = UNSET
    attachments_total: int | UnsetType = UNSET
    paragraphs: Annotated[int | UnsetType, Meta(description="docx, as the next ones.")] = UNSET
    tables: int | UnsetType = UNSET
    sections: int | UnsetType = UNSET


class DocumentSummary(DocumentResult, kw_only=True, tag="summarize"):
    """The sentences that matter most."""

    summary: str
    sentences: list[str]
    sentences_total: int
    sentences_considered: int
    language: TextLanguage
