"""Checks the zip archives that office files are, before anything of them is inflated: entries, sizes and ratios.

No part of an office file may have a document type declaration (ECMA-376 part 2, 8.1.4; OpenDocument 1.3 part 2, 3.1),
so one that has is refused: that is where entities would be.
"""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from lxml import etree

from handlers.failures import Refusal

_MIB = 1 << 20
_ENTRY = b"PK\x01\x02"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_IS_ENCRYPTED = 1
"""APPNOTE.TXT 4.4.4: bit 0 of the flags."""
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


class ArchiveRules(NamedTuple):
    """What an archive of a kind may have, and the code of each refusal."""

    what: str
    """In words: the document, the workbook."""
    broken: str
    too_large: str
    wrong: str
    """The codes for one that is broken, too large, or of another kind."""
    max_entries: int
    max_inflated_mib: int
    max_xml_mib: int
    """Of all parts that are XML."""
    max_ratio: int | None = None
    """Of a part of 1 MiB or more."""

    def refuse_size(self, found: str) -> Refusal:
        """The refusal of an archive that has too much of something."""
        return Refusal(self.too_large, f"The {self.what} has {found}; split it, or save it again.")

    def refuse(self, fault: str) -> Refusal:
        """The refusal of a broken archive."""
        return Refusal(self.broken, f"{fault}; save the {self.what} again.")


def check_archive(content: bytes, rules: ArchiveRules) -> None:
    """Refuse what is no archive, encrypted, broken, too large, or has a document type declaration.

    Raises:
        Refusal: says which.
    """
    refuse_encrypted(content, rules)
    if not content.startswith(_ZIP):
        raise Refusal(rules.wrong, f"The {rules.what} is no zip archive, as it must be; check its format.")
    if content.count(_ENTRY) > 4 * rules.max_entries:  # before a list of them is made; archives in it have entries too
        raise rules.refuse_size(f"more than {rules.max_entries} entries")
    with broken_is_refused(rules), zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        _check_entries(entries, len(content), rules)
        if any(entry.flag_bits & _IS_ENCRYPTED for entry in entries):
            raise Refusal("encrypted_document", f"The {rules.what} is encrypted; save it without a password.")
        for entry in entries:
            if is_xml(entry.filename) and b"<!DOCTYPE" in archive.read(entry).replace(b"\0", b""):
                raise rules.refuse("A part has a document type declaration, which none may have")


def refuse_encrypted(content: bytes, rules: ArchiveRules) -> None:
    """Refuse an Office file with a password, which is no archive.

    Raises:
        Refusal: it has one.
    """
    if content.startswith(_OLE) and _ENCRYPTED_OFFICE in content:
        raise Refusal("encrypted_document", f"The {rules.what} is encrypted; save it without a password.")


def is_xml(name: str) -> bool:
    """Whether a part is checked as XML, by its name."""
    return name.lower().endswith((".xml", ".rels"))


def _check_entries(entries: list[zipfile.ZipInfo], size: int, rules: ArchiveRules) -> None:
    inflated = sum(entry.file_size for entry in entries)
    xml = sum(entry.file_size for entry in entries if is_xml(entry.filename))
    names = {entry.filename for entry in entries}
    if len(entries) > rules.max_entries:
        raise rules.refuse_size(f"{len(entries)} entries, more than {rules.max_entries}")
    if inflated > rules.max_inflated_mib * _MIB:
        raise rules.refuse_size(f"{inflated // _MIB} MiB when unpacked, more than {rules.max_inflated_mib}")
    if xml > rules.max_xml_mib * _MIB:
        raise rules.refuse_size(f"{xml // _MIB} MiB of XML, more than {rules.max_xml_mib}")
    ratio = rules.max_ratio
    if ratio is not None and any(
        one.file_size >= _MIB and one.file_size > ratio * one.compress_size for one in entries
    ):
        raise rules.refuse_size(f"a part that is packed to less than a {ratio}th, as no {rules.what} is")
    if len(names) != len(entries):
        raise rules.refuse("The archive has two entries of one name")
    if sum(entry.compress_size for entry in entries) > size:
        raise rules.refuse("The archive's entries overlap")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise rules.refuse("The archive is packed in a way that office files do not know")


@contextlib.contextmanager
def broken_is_refused(rules: ArchiveRules) -> Iterator[None]:
    """Turn whatever zipfile, lxml and the readers raise over broken input into a refusal; they have no list of it."""
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise rules.refuse("The archive is broken or cut off") from None
    except etree.XMLSyntaxError as error:
        raise Refusal(rules.broken, f"A part of the {rules.what} is not XML: {error}.") from None
    except Exception as error:
        raise rules.refuse(f"The {rules.what} is broken ({type(error).__name__})") from None


def transitional(content: bytes, rules: ArchiveRules, usual_types: dict[bytes, bytes]) -> bytes:
    """An Office Open XML archive in the names of ECMA-376's transitional form; ISO 29500-1 has others (strict).

    Args:
        content: the archive, which was checked.
        rules: of its kind.
        usual_types: content types of parts → those by which they are known to the reader.
    Raises:
        Refusal: the archive is broken.
    """
    with broken_is_refused(rules), zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist() if is_xml(entry.filename)}
        usual = {name: _usual(name, part, usual_types) for name, part in parts.items()}
        if usual == parts:
            return content
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as copy:
            for entry in archive.infolist():
                copy.writestr(entry.filename, usual.get(entry.filename) or archive.read(entry))
    return made.getvalue()


CONTENT_TYPES = "[Content_Types].xml"


def _usual(name: str, part: bytes, usual_types: dict[bytes, bytes]) -> bytes:
    if name == CONTENT_TYPES:
        for kind, usual in usual_types.items():
            part = part.replace(kind, usual)
    return _NAMESPACE.sub(_without_strict, part) if _STRICT in part else part


def _without_strict(found: re.Match[bytes]) -> bytes:
    name = found[1]
    for strict, usual in _ELSEWHERE.items():
        if name == strict or name.startswith(strict + b"/"):
            return _OFFICE + usual + name[len(strict) :]
    first, _, rest = name.partition(b"/")
    return _OFFICE + first + b"/2006/" + rest
