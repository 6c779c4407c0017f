"""Checks the zip archive that a Word document is, and brings the kinds of Word documents into one form."""

from __future__ import annotations

import contextlib
import io
import zipfile

from docx.opc.part import PartFactory
from docx.oxml import parse_xml

from handlers import archives
from handlers.archives import ArchiveRules, is_xml
from handlers.documents.reading import ZIP, looks_like
from handlers.failures import Refusal

MAX_ENTRIES = 4000
RULES = ArchiveRules(
    what="document",
    broken="corrupt_document",
    too_large="document_too_large",
    wrong="wrong_document_type",
    max_entries=MAX_ENTRIES,
    max_inflated_mib=256,
    max_xml_mib=32,  # as a tree it takes ten times that
    max_ratio=200,  # XML of documents reaches 50
)
_DOCUMENT = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_LIKE_A_DOCUMENT = (
    b"application/vnd.ms-word.document.macroEnabled.main+xml",
    b"application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    b"application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
)
"""A document with macros (docm), a template (dotx), both (dotm): their text is that of a document; nothing is run."""


def checked(content: bytes) -> bytes:
    """The archive as a docx in its usual (transitional) form.

    Raises:
        Refusal: no archive of a Word document, broken, encrypted, or too large.
    """
    archives.refuse_encrypted(content, RULES)
    kind = looks_like(content)
    if kind != ZIP:
        raise Refusal(
            "wrong_document_type",
            f"The content is not a docx: it {'looks like ' + kind if kind else 'does not begin like one'}. Name its "
            "type by `document_type`; a file without a `.` in its name is given as `{\"path\": …}`.",
        )  # fmt: skip
    archives.check_archive(content, RULES)
    usual = archives.transitional(content, RULES, dict.fromkeys(_LIKE_A_DOCUMENT, _DOCUMENT))
    with broken_is_refused(), zipfile.ZipFile(io.BytesIO(usual)) as archive:
        _check_names(archive.read(archives.CONTENT_TYPES))
    return usual


def _check_names(content_types: bytes) -> None:
    """Refuse a part that python-docx would parse and that is not named as XML: the other checks go by the name."""
    for one in parse_xml(content_types):
        name = one.get("PartName") or f".{one.get('Extension')}"
        if one.get("ContentType") in PartFactory.part_type_for and not is_xml(name):
            raise Refusal("corrupt_document", f"A part of XML is named {name[:100]!r}; save the document again.")


def broken_is_refused() -> contextlib.AbstractContextManager[None]:
    """Turn whatever the libraries raise over a broken document into a refusal."""
    return archives.broken_is_refused(RULES)
