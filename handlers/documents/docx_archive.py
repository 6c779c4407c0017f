"""Checks the zip archive that a Word document is, and brings the kinds of Word documents into one form.

The archive is checked before anything of it is inflated: the number, size and ratio of its entries. No part of a Word
document may have a document type declaration (ECMA-376 part 2, 8.1.4), so one that has is refused: that is where
entities would be.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator

from docx.opc.part import PartFactory
from docx.oxml import parse_xml
from lxml import etree

from handlers.documents.reading import OLE, ZIP, looks_like
from handlers.failures import Refusal

MAX_ENTRIES = 4000
MAX_INFLATED_MIB = 256
MAX_XML_MIB = 32
"""Of all parts that are XML: as a tree they take ten times that."""
MAX_RATIO = 200
"""Of a part of 1 MiB or more; XML of documents reaches 50."""
_MIB = 1 << 20
_ENTRY = b"PK\x01\x02"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_IS_ENCRYPTED = 1
"""APPNOTE.TXT 4.4.4: bit 0 of the flags."""
_CONTENT_TYPES = "[Content_Types].xml"
_DOCUMENT = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_LIKE_A_DOCUMENT = (
    b"application/vnd.ms-word.document.macroEnabled.main+xml",
    b"application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    b"application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
)
"""A document with macros (docm), a template (dotx), both (dotm): their text is that of a document; nothing is run."""
_STRICT = b"http://purl.oclc.org/ooxml/"
_NAMESPACE = re.compile(rb"""(?<=["'])http://purl\.oclc\.org/ooxml/([A-Za-z/]+)(?=["'])""")
_OFFICE = b"http://schemas.openxmlformats.org/"
_ELSEWHERE = {
    b"officeDocument/relationships": b"officeDocument/2006/relationships",
    b"officeDocument/math": b"officeDocument/2006/math",
    b"officeDocument/customXml": b"officeDocument/2006/customXml",
    b"officeDocument/extendedProperties": b"officeDocument/2006/extended-properties",
    b"officeDocument/customProperties": b"officeDocument/2006/custom-properties",
    b"officeDocument/docPropsVTypes": b"officeDocument/2006/docPropsVTypes",
}


def checked(content: bytes) -> bytes:
    """The archive as a docx in its usual (transitional) form.

    Raises:
        Refusal: no archive of a Word document, broken, encrypted, or too large.
    """
    _check_archive(content)
    with broken_is_refused(), zipfile.ZipFile(io.BytesIO(content)) as archive:
        types = archive.read(_CONTENT_TYPES)
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist() if is_xml(entry.filename)}
        usual = {name: _usual(name, part) for name, part in parts.items()}
        if usual == parts:
            _check_names(types)
            return content
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as copy:
            for entry in archive.infolist():
                copy.writestr(entry.filename, usual.get(entry.filename) or archive.read(entry))
        _check_names(usual[_CONTENT_TYPES])
    return made.getvalue()


def _usual(name: str, part: bytes) -> bytes:
    """A part in the names of ECMA-376's transitional form, which python-docx knows; ISO 29500-1 has others (strict)."""
    if name == _CONTENT_TYPES:
        for kind in _LIKE_A_DOCUMENT:
            part = part.replace(kind, _DOCUMENT)
    return _NAMESPACE.sub(_transitional, part) if _STRICT in part else part


def _transitional(found: re.Match[bytes]) -> bytes:
    name = found[1]
    for strict, usual in _ELSEWHERE.items():
        if name == strict or name.startswith(strict + b"/"):
            return _OFFICE + usual + name[len(strict) :]
    first, _, rest = name.partition(b"/")
    return _OFFICE + first + b"/2006/" + rest


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
    with broken_is_refused(), zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        _check_entries(entries, len(content))
        if any(entry.flag_bits & _IS_ENCRYPTED for entry in entries):
            raise Refusal("encrypted_document", "The document is encrypted; save it without a password.")
        for entry in entries:
            if is_xml(entry.filename) and b"<!DOCTYPE" in archive.read(entry).replace(b"\0", b""):
                raise Refusal("corrupt_document", "A part has a document type declaration, which no docx may have.")


def _check_names(content_types: bytes) -> None:
    """Refuse a part that python-docx would parse and that is not named as XML: the other checks go by the name."""
    for one in parse_xml(content_types):
        name = one.get("PartName") or f".{one.get('Extension')}"
        if one.get("ContentType") in PartFactory.part_type_for and not is_xml(name):
            raise Refusal("corrupt_document", f"A part of XML is named {name[:100]!r}; save the document again.")


def is_xml(name: str) -> bool:
    """Whether a part is checked as XML, by its name."""
    return name.lower().endswith((".xml", ".rels"))


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    inflated = sum(entry.file_size for entry in entries)
    xml = sum(entry.file_size for entry in entries if is_xml(entry.filename))
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
def broken_is_refused() -> Iterator[None]:
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
