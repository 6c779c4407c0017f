"""Documents and images made for the tests, good ones by their libraries and bad ones by hand."""

from __future__ import annotations

import base64
import datetime as dt
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import docx
from fpdf import FPDF
from fpdf.enums import AccessPermission
from PIL import Image

STORY = (
    "Ada Lovelace translated an article about the analytical engine.",
    "Her notes about the engine were three times as long as the article about the engine.",
    "They hold what many call the first program for an engine.",
    "It rained in London.",
    "Nobody had lunch on that day.",
    "Babbage never finished the engine that the notes are about.",
)
DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def base64_of(content: bytes) -> str:
    """As a request carries it."""
    return base64.b64encode(content).decode()


# ---- PDF --------------------------------------------------------------------------------------------------------


def pdf(pages: int = 2, *, password: str = "", owner: str = "", may_copy: bool = False) -> bytes:
    """A PDF with a heading, the story and a picture on each page; encrypted if there is a password."""
    made = FPDF()
    made.set_title("A story")
    made.set_author("Ada")
    made.set_creation_date(dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))
    for number in range(1, pages + 1):
        made.add_page()
        made.set_font("Helvetica", size=12)
        made.start_section(f"Part {number}")
        made.multi_cell(0, 8, f"Page {number} begins. " + " ".join(STORY))
        made.image(io.BytesIO(image("PNG", (20, 10))))
    if password or owner:
        permissions = AccessPermission.all() if may_copy else AccessPermission.none()
        made.set_encryption(owner_password=owner or password, user_password=password or None, permissions=permissions)
    return bytes(made.output())


def raw_pdf(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first is its catalog."""
    text, places = b"%PDF-1.7\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    text += b"xref\n0 %d\n0000000000 65535 f \n%btrailer<</Root 1 0 R/Size %d>>\n" % (size, table, size)
    return text + b"startxref\n%d\n%%%%EOF\n" % text.index(b"xref\n")


def stream(content: bytes, more: bytes = b"") -> bytes:
    """A stream object."""
    return b"<</Length %d%b>>stream\n%b\nendstream" % (len(content), more, content)


# ---- Word -------------------------------------------------------------------------------------------------------


def word() -> bytes:
    """A docx with headings, the story, a table with a merged cell, a picture and metadata."""
    document = docx.Document()
    document.add_heading("A story", 0)
    document.add_heading("Beginning", 1)
    document.add_paragraph(" ".join(STORY[:3]))
    document.add_heading("End", 2)
    document.add_paragraph(" ".join(STORY[3:]))
    table = document.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "both"
    table.cell(1, 0).text, table.cell(1, 1).text = "left", "right"
    document.add_picture(io.BytesIO(image("PNG", (20, 10))))
    document.core_properties.title = "A story"
    document.core_properties.author = "Ada"
    document.core_properties.created = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    return saved(document)


def saved(document: Any) -> bytes:
    """A document of python-docx as bytes."""
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def repacked(content: bytes, parts: Mapping[str, bytes | None], *, packed: bool = True) -> bytes:
    """A zip archive with parts replaced, added, or (None) taken out."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            if name not in parts:
                new.writestr(name, old.read(name))
        for name, part in parts.items():
            if part is not None:
                new.writestr(name, part)
    return buffer.getvalue()


def part_of(content: bytes, name: str) -> str:
    """One part of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(name).decode()


def word_with(body: str, *, before: str = "", packed: bool = True) -> bytes:
    """A docx whose body is this XML, after what stands before the root element."""
    namespaces = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
        'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    )
    text = f"{DECLARATION}{before}<w:document {namespaces}><w:body>{body}</w:body></w:document>"
    return repacked(word(), {"word/document.xml": text.encode()}, packed=packed)


def word_part(content: bytes, kind: str, inner: str) -> bytes:
    """A docx with one more part of its body, such as ``footnotes``: this XML within the element of that name."""
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    word_ml = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    relations = part_of(content, "word/_rels/document.xml.rels").replace(
        "</Relationships>", f'<Relationship Id="x{kind}" Type="{office}/{kind}" Target="{kind}.xml"/></Relationships>'
    )
    part = f'{DECLARATION}<w:{kind} xmlns:w="{word_ml}">{inner}</w:{kind}>'
    return repacked(content, {f"word/{kind}.xml": part.encode(), "word/_rels/document.xml.rels": relations.encode()})


def renamed_body(content: bytes, name: str, *, by_extension: bool = False) -> bytes:
    """A docx whose body is another part, which its content type makes XML, given for its name or for its extension."""
    types, body = part_of(content, "[Content_Types].xml"), "word/document.xml"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = types.replace(f'PartName="/{body}"', f'PartName="/{"word/none.xml" if by_extension else name}"')
    if by_extension:
        default = f'<Default Extension="{name.rpartition(".")[2]}" ContentType="{kind}"/>'
        types = types.replace("</Types>", f"{default}</Types>")
    return repacked(content, {
        "[Content_Types].xml": types.encode(),
        "_rels/.rels": part_of(content, "_rels/.rels").replace(body, name).encode(),
        name: part_of(content, body).encode(),
        f"word/_rels/{name.rpartition('/')[2]}.rels": part_of(content, "word/_rels/document.xml.rels").encode(),
        body: None,
        "word/_rels/document.xml.rels": None,
    })  # fmt: skip


# ---- images -----------------------------------------------------------------------------------------------------


def picture(size: tuple[int, int] = (40, 20), mode: str = "RGB") -> Image.Image:
    """Three gradients, so that no two corners look alike."""
    channels = [
        Image.linear_gradient("L").resize(size),
        Image.linear_gradient("L").rotate(90).resize(size),
        Image.new("L", size, 40),
    ]
    made = Image.merge("RGB", channels)
    if mode in ("RGBA", "LA"):
        made.putalpha(Image.linear_gradient("L").rotate(180).resize(size))
    return made.convert(mode)


def image(kind: str = "PNG", size: tuple[int, int] = (40, 20), mode: str = "RGB", **options: Any) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    picture(size, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str, count: int) -> bytes:
    """An image with so many frames of 2 x 2 pixels, no two alike side by side."""
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    colours = [Image.new("RGB", (2, 2), (n % 256, n // 256 % 256, 99)) for n in range(count)]
    colours[0].save(buffer, kind, save_all=True, append_images=colours[1:], **options)
    return buffer.getvalue()


def photo() -> bytes:
    """A JPEG that a phone could have made: turned by EXIF, with place, maker and comments in it."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90° to the right
    exif[0x010F] = "canary-maker"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    return image("JPEG", exif=exif, comment=b"canary-comment", xmp=b"<x>canary-xmp</x>", quality=95)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels to show for it."""
    return _png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"\0" * 1000)


def gray_png(bits: int, levels: list[int], unseen: int) -> bytes:
    """A PNG of one row, a level of gray in so many bits for each pixel, and the level that its tRNS makes invisible."""
    row = int("".join(f"{level:0{bits}b}" for level in levels).ljust(-(-len(levels) * bits // 8) * 8, "0"), 2)
    packed = row.to_bytes(-(-len(levels) * bits // 8), "big")
    return _png(
        struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0), b"\0" + packed, tRNS=struct.pack(">H", unseen)
    )


def _png(head: bytes, pixels: bytes, **more: bytes) -> bytes:
    """A PNG of its parts (PNG, 5.3)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    beside = b"".join(chunk(kind.encode(), content) for kind, content in more.items())
    body = chunk(b"IHDR", head) + beside + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
