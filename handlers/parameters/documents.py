"""The parameters of ``document_processing``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from handlers.parameters.encodings import Encoding
from handlers.parameters.files import InputFile, is_path
from handlers.parameters.patterns import (
    IN_WORDS,
    MAX_PATH_CHARACTERS,
    PAGES,
    PATH,
)

MAX_TEXT_CHARACTERS = 1_000_000
"""Most text that is read of a document. It fits into a result twice, whatever the characters are."""


Changes = Literal["accepted", "rejected", "listed"]


Ocr = Literal["auto", "always", "never"]


class DocumentProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text, facts or a summary of a PDF, Word or text document."""

    document_type: Annotated[
        Literal["pdf", "docx", "txt"],
        Meta(description="Type of the content. It is checked against the content's first bytes.", examples=["txt"]),
    ]
    content: Annotated[
        Annotated[str, Meta(min_length=1)] | InputFile,
        Meta(
            description="The document. As an object: `text`, `base64`, `file_id` or `path`. As a string, for pdf and "
            "docx: a path below FILES_DIR if it has a `.`, otherwise base64 (which has none). As a string, for txt: "
            'the text itself; one that looks like a path is refused, write `{"text": …}` or `{"path": …}` then.',
            examples=["It was the best of times. It was the worst of times.", {"path": "reports/may.pdf"}],
        ),
    ]
    operation: Annotated[
        Literal["extract_text", "analyze", "summarize"],
        Meta(
            description="`extract_text`: the text, by page or paragraph. `analyze`: counts, language, metadata, "
            "headings, images. `summarize`: its most important sentences.",
            examples=["analyze"],
        ),
    ]
    sentences: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(description="Number of sentences of a summary; 3 unless given.", examples=[3]),
    ] = None
    pages: Annotated[
        Annotated[str, Meta(pattern=PAGES, max_length=200)] | None,
        Meta(description="Pages of a pdf to read, the first is 1; all unless given.", examples=["1-3,7"]),
    ] = None
    password: Annotated[
        Annotated[str, Meta(min_length=1, max_length=127)] | None,
        Meta(description="Password of an encrypted pdf. It is stored with the task.", examples=["correct horse"]),
    ] = None
    encoding: Annotated[
        Encoding | None,
        Meta(description="Encoding of a txt that is given as bytes; detected unless given.", examples=["windows-1252"]),
    ] = None
    ocr: Annotated[
        Ocr | None,
        Meta(
            description="Which pages of a pdf are also read by OCR. `auto`, unless given: those that are pictures "
            "without text. Text that was read so is marked, with a confidence.",
            examples=["auto"],
        ),
    ] = None
    tables: Annotated[
        bool | None,
        Meta(description="Whether to look for tables in a pdf; those of a docx are always told.", examples=[True]),
    ] = None
    changes: Annotated[
        Changes | None,
        Meta(
            description="How tracked changes of a docx are read. `accepted`, unless given: as if all were accepted. "
            "`rejected`: as if none were. `listed`: as accepted, and each is told beside the text.",
            examples=["accepted"],
        ),
    ] = None
    comments: Annotated[
        bool | None,
        Meta(description="Whether to tell the comments of a docx; their number always is.", examples=[True]),
    ] = None
    max_characters: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TEXT_CHARACTERS)],
        Meta(
            description="Most characters to read. If the text has more, the result says `truncated`.",
            examples=[100_000],
        ),
    ] = MAX_TEXT_CHARACTERS

    def __post_init__(self) -> None:
        if self.document_type != "txt":
            _refuse_text_for(self.document_type, self.content)
        for name, owner, value in (
            ("sentences", "summarize", self.operation), ("pages", "pdf", self.document_type),
            ("password", "pdf", self.document_type), ("ocr", "pdf", self.document_type),
            ("tables", "pdf", self.document_type), ("changes", "docx", self.document_type),
            ("comments", "docx", self.document_type), ("encoding", "txt", self.document_type),
        ):  # fmt: skip
            if getattr(self, name) is not None and value != owner:
                raise ValueError(f"`{name}` goes with `{owner}` only, not with `{value}` - at `$.{name}`")


def _refuse_text_for(document_type: str, content: str | InputFile) -> None:
    """Refuse text for a pdf or docx, and a string with a dot that is no path."""
    if isinstance(content, InputFile):
        if content.text is not None:
            raise ValueError(f"A {document_type} is not text; use `base64`, `file_id` or `path` - at `$.content.text`")
    elif is_path(content) and not (len(content) <= MAX_PATH_CHARACTERS and re.search(PATH, content)):
        raise ValueError(f"A string with a `.` is a path here, and {IN_WORDS[PATH]} - at `$.content`")
