"""Text, facts and summaries of PDF, Word and text documents.

The type that a request names is checked against the first bytes of the content. Readers get bytes, never a path;
handlers/README.md says how a path, base64 and a text are told apart.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import docx

from handlers import inputs
from handlers.data.decoding import decode_parameters
from handlers.documents import prose, summaries
from handlers.documents.docx import DocxDocument
from handlers.documents.pdf import PdfDocument
from handlers.documents.reading import Document
from handlers.documents.txt import TxtDocument
from handlers.failures import Refusal
from handlers.parameters.documents import DocumentProcessing
from handlers.parameters.files import InputFile, is_path
from handlers.parameters.registry import Request

MAX_BYTES = 64 << 20
DEFAULT_SENTENCES = 3

_LIKE_A_PATH = re.compile(
    r"(?:\.{0,2}/|~/|[A-Za-z]:\\)\S*"
    r"|\S+\.(?:txt|text|md|markdown|rst|csv|tsv|log|json|jsonl|xml|html?|ya?ml|toml|ini|cfg|conf|pdf|docx?|rtf|odt)",
    re.IGNORECASE,
)
_SMALL_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F<</Type/Font"
    b"/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj 4 0 obj<</Length 27>>stream\nBT/F 9 Tf(Some text.)Tj ET \n"
    b"endstream endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
)
_SMALL_TEXT = "One sentence is here. Another one follows it. Nobody reads the third one. The fourth one ends it."


def run(request: Request) -> dict[str, Any]:
    """Do one ``document_processing`` task.

    Raises:
        Refusal: the document cannot be found or read; says what would help.
    """
    parameters: DocumentProcessing = decode_parameters("document_processing", request.parameters)
    document = _open(parameters)
    return {
        "operation": parameters.operation,
        "document_type": parameters.document_type,
        **OPERATIONS[parameters.operation](document, parameters),
    }


def rehearse() -> None:
    """Read a small document of each type, before there is a task. Starts no thread, writes no file."""
    for document in (PdfDocument(_SMALL_PDF, password=None, pages=None), DocxDocument(_small_docx())):
        document.read(1000)
        document.facts()
    text = TxtDocument(_SMALL_TEXT, encoding=None).read(1000)
    prose.measure(text.prose)
    summaries.summarize(text.prose, 1)


# ---- operations -------------------------------------------------------------------------------------------------


def _extract_text(document: Document, parameters: DocumentProcessing) -> dict[str, Any]:
    found = document.read(parameters.max_characters)
    return {"text": found.text, "characters": len(found.text), "truncated": found.truncated, **found.parts}


def _analyze(document: Document, parameters: DocumentProcessing) -> dict[str, Any]:
    found = document.read(parameters.max_characters)
    counts = prose.measure(found.prose) | {"characters": len(found.text), "words": len(prose.words(found.text))}
    return {**counts, "truncated": found.truncated, **document.facts(), **found.beside}


def _summarize(document: Document, parameters: DocumentProcessing) -> dict[str, Any]:
    found = document.read(parameters.max_characters)
    summary = summaries.summarize(found.prose, parameters.sentences or DEFAULT_SENTENCES)
    if not summary["sentences"]:
        raise Refusal(
            "no_text",
            "The document has no sentence to choose from. Where its pages are pictures, leave `ocr` at auto.",
        )
    return {**summary, "truncated": found.truncated}


OPERATIONS: Mapping[str, Callable[[Document, DocumentProcessing], dict[str, Any]]] = MappingProxyType(
    {"extract_text": _extract_text, "analyze": _analyze, "summarize": _summarize}
)
"""Operation → the function that does it."""


# ---- content ----------------------------------------------------------------------------------------------------


def _open(parameters: DocumentProcessing) -> Document:
    content = parameters.content
    if parameters.document_type == "txt":
        return TxtDocument(_text_or_bytes(content), encoding=parameters.encoding)
    data = _bytes(content)
    if parameters.document_type == "docx":
        return DocxDocument(data, changes=parameters.changes or "accepted", comments=bool(parameters.comments))
    return PdfDocument(
        data,
        password=parameters.password,
        pages=parameters.pages,
        read_scans=parameters.ocr or "auto",
        tables=bool(parameters.tables),
    )


def _bytes(content: str | InputFile) -> bytes:
    """The content of a pdf or docx. A string is a path if it has a dot, which base64 has not."""
    if isinstance(content, InputFile):
        return inputs.read(content, max_bytes=MAX_BYTES)
    if is_path(content):
        return inputs.read(InputFile(path=content), max_bytes=MAX_BYTES)
    return inputs.from_base64(content, max_bytes=MAX_BYTES)


def _text_or_bytes(content: str | InputFile) -> str | bytes:
    """The content of a txt. A string is the text itself."""
    if isinstance(content, InputFile):
        return content.text if content.text is not None else inputs.read(content, max_bytes=MAX_BYTES)
    if _LIKE_A_PATH.fullmatch(content):
        raise Refusal(
            "ambiguous_content",
            f'{content[:200]!r} looks like a path. Write {{"path": …}} to read '
            'that file, or {"text": …} if this is the text itself.',
        )
    return content


@functools.cache
def _small_docx() -> bytes:
    document = docx.Document()
    document.add_heading("Heading", 1)
    document.add_paragraph(_SMALL_TEXT)
    document.add_table(1, 1).cell(0, 0).text = "cell"
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()
