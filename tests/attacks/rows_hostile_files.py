"""DOC, IMG: files that were made to harm who reads them."""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sandbox import ExitReason, Result
from tests.attacks.field import Field
from tests.support import sample_files as files

REFUSED = (ExitReason.ERROR,)
READ = (ExitReason.OK,)
STOPPED = (ExitReason.ERROR, ExitReason.MEMORY_LIMIT, ExitReason.CPU_LIMIT, ExitReason.WALL_LIMIT)
"""Either we saw it coming, or a limit ended it."""
OR_CRASHED = (*STOPPED, ExitReason.SIGNALED)
"""pdfium answers a refused allocation with a crash: a signal of its own, and nobody else's matter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostileFile:
    """One row: a file, what is asked of it, and what becomes of that."""

    id: str
    title: str
    severity: str
    """As in ``attack.Attack``."""
    content: bytes | str | Callable[[Field], bytes]
    """The file, sent as base64; a text is the parameter itself."""
    document_type: str = ""
    """Of a ``document_processing`` task; else the task is an ``image_processing``."""
    operation: str = ""
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further parameters."""
    reasons: tuple[ExitReason, ...] = REFUSED
    codes: tuple[str, ...] = ()
    """One of these is the error's, when it ends with ``error``."""
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    check: Callable[[Result], None] | None = None
    """A further condition."""

    @property
    def name(self) -> str:
        """Id and title as one word, the test's id."""
        return f"{self.id}-{self.title.replace(' ', '-')}"

    @property
    def task_type(self) -> str:
        """Which handler reads it."""
        return "document_processing" if self.document_type else "image_processing"

    def request(self, field: Field) -> bytes:
        """As the engine would send it."""
        content: Any = self.content(field) if callable(self.content) else self.content
        if isinstance(content, bytes):
            content = {"base64": files.base64_of(content)}
        if self.document_type:
            operation = self.operation or "analyze"
            parameters = {"document_type": self.document_type, "content": content, "operation": operation}
        else:
            parameters = {"image_path": content, "operation": self.operation or "analyze"}
        return msgspec.json.encode({"task_type": self.task_type, "parameters": {**parameters, **self.more}})


def value_of(result: Result) -> Any:
    """The handler's result."""
    assert result.value is not None, result
    return msgspec.json.decode(result.value)


# ---- documents --------------------------------------------------------------------------------------------------


def _zip(entries: Mapping[str, bytes], change: Callable[[list[zipfile.ZipInfo]], None] = lambda _: None) -> bytes:
    """An archive whose directory says what ``change`` makes it say."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        change(archive.infolist())
    return buffer.getvalue()


def _word_parts() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(files.word())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _body_by_another_name(_field: Field) -> bytes:
    """33 MiB of elements, which as a tree take most of the memory, where only blobs are expected."""
    return files.renamed_body(files.word_with("".join(f"<w:x{n:x}/>" for n in range(3_000_000))), "word/body.bin")


def _lying_size(_field: Field) -> bytes:
    """50 MiB that its directory calls 1,000 bytes."""

    def lie(entries: list[zipfile.ZipInfo]) -> None:
        entries[-1].file_size = 1000

    parts = _word_parts()
    body = parts.pop("word/document.xml")
    return _zip({**parts, "word/document.xml": body + b" " * (50 << 20)}, lie)


def _overlapping(_field: Field) -> bytes:
    """A thousand entries that are all the same bytes of the file."""
    parts = _word_parts() | {"kernel": zlib.compress(bytes(64 << 20))}

    def overlap(entries: list[zipfile.ZipInfo]) -> None:
        for number in range(1000):
            twin = zipfile.ZipInfo(f"twin{number}")
            for name in ("header_offset", "compress_size", "file_size", "compress_type", "CRC", "flag_bits"):
                setattr(twin, name, getattr(entries[-1], name))
            entries.append(twin)

    return _zip(parts, overlap)


def _link() -> bytes:
    """An entry that is a symbolic link for who unpacks it."""

    def as_link(entries: list[zipfile.ZipInfo]) -> None:
        entries[-1].external_attr = 0o120777 << 16

    return _zip(_word_parts() | {"word/media/link": b"/etc/passwd"}, as_link)


def _locked_archive() -> bytes:
    def lock(entries: list[zipfile.ZipInfo]) -> None:
        for entry in entries:
            entry.flag_bits |= 1

    return _zip(_word_parts(), lock)


_LAUGHS = "<!DOCTYPE w [<!ENTITY a '" + "ha" * 20 + "'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
) + "]>"  # fmt: skip
_PARAGRAPH = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"


def _disguised(encoding: str) -> bytes:
    """Entities in an encoding in which no ASCII reader sees the declaration."""
    text = files.part_of(files.word_with(_PARAGRAPH.format("&j;"), before=_LAUGHS), "word/document.xml")
    disguised = text.replace('encoding="UTF-8"', f'encoding="{encoding}"').encode(encoding)
    if encoding == "utf-7":  # in which any sign may be written as a number
        disguised = disguised.replace(b"<!", b"+ADwAIQ-")
    return files.repacked(files.word(), {"word/document.xml": disguised})


def _nested(depth: int) -> bytes:
    opening, closing = "<w:sdt><w:sdtContent>" * depth, "</w:sdtContent></w:sdt>" * depth
    return files.word_with(opening + _PARAGRAPH.format("x") + closing, packed=False)


def _elsewhere(field: Field) -> bytes:
    """A document whose template, picture, object and text lie on a host that listens."""
    port = field.tcp_port
    base = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    host = f"http://127.0.0.1:{port}"
    relations = "".join(
        f'<Relationship Id="x{number}" Type="{base}/{kind}" Target="{host}/{kind}" TargetMode="External"/>'
        for number, kind in enumerate(("attachedTemplate", "image", "oleObject", "aFChunk", "hyperlink", "frame"))
    )
    content = files.word_with(
        _PARAGRAPH.format("here") + '<w:altChunk r:id="x3"/><w:p><w:hyperlink r:id="x4"><w:r><w:t>link</w:t></w:r>'
        '</w:hyperlink></w:p><w:p><w:r><w:object><w:pict r:id="x2" r:link="x1"/></w:object></w:r></w:p>'
    )
    known = files.part_of(content, "word/_rels/document.xml.rels")
    changed = known.replace("</Relationships>", relations + "</Relationships>")
    return files.repacked(content, {"word/_rels/document.xml.rels": changed.encode()})


def _page(more: bytes = b"") -> bytes:
    return b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]%b>>" % more


_CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
_ONE_PAGE = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
_FONT = b"/Resources<</Font<</F 5 0 R>>>>/Contents 4 0 R"
_DEFLATED = b"/Filter/FlateDecode"


def _inflating(_field: Field) -> bytes:
    """A page whose content is 1 GiB of text when it is unpacked, twice."""
    packer = zlib.compressobj(9)
    lines = b"BT/F 9 Tf(text and more text)Tj ET\n" * 32768
    # after a full flush a piece stands for itself, so that the second may follow itself
    first, second = (packer.compress(lines) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    twice = zlib.compress(first + second * 1023, 9)
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    content = files.stream(twice, b"/Filter[/FlateDecode/FlateDecode]")
    return files.raw_pdf(_CATALOG, _ONE_PAGE, _page(_FONT), content, font)


def _forms(_field: Field) -> bytes:
    """Forms that each draw the next one ten times, thirty deep."""
    first, depth = 5, 30
    drawn = b"/X Do " * 10
    page = _page(b"/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>")
    forms = [
        files.stream(
            drawn, b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>" % (number + 1)
        )
        for number in range(first, first + depth)
    ]
    return files.raw_pdf(_CATALOG, _ONE_PAGE, page, files.stream(drawn), *forms, files.stream(b"0 0 9 9 re f"))


def _acting(field: Field) -> bytes:
    """A PDF that wants to run scripts and programs, open addresses and read a file of the host's as its content."""
    uri = b"(http://127.0.0.1:%d/)" % field.tcp_port
    script = b"<</S/JavaScript/JS(this.submitForm\\(%b\\); app.launchURL\\(%b\\);)>>" % (uri[1:-1], uri[1:-1])
    launch = b"<</S/Launch/F(/bin/sh)/Win<</F(cmd.exe)>>/Next<</S/URI/URI%b>>>>" % uri
    host_file = str(field.planted.file).encode()
    return files.raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R/OpenAction 6 0 R/AA<</WC 7 0 R>>/Names<</JavaScript<</Names[(a) 6 0 R]>>"
        b"/EmbeddedFiles<</Names[(evil.exe) 8 0 R]>>>>>>",
        _ONE_PAGE,
        _page(_FONT + b"/AA<</O 7 0 R>>/Annots[<</Type/Annot/Subtype/Link/Rect[0 0 9 9]/A 7 0 R>>]"),
        b"<</Length 0/F(%b)>>stream\n\nendstream" % host_file,
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        script,
        launch,
        b"<</Type/Filespec/F(evil.exe)/EF<</F 9 0 R>>>>",
        files.stream(b"MZ program", b"/Type/EmbeddedFile"),
    )


def _fonts(field: Field) -> bytes:
    """Names of fonts and character maps that lead to a file of the host's."""
    path = str(field.planted.file).encode()
    name = b"/..#2f..#2f..#2f..#2f..%b" % path.replace(b"/", b"#2f")
    system = b"<</Registry(%b)/Ordering(x)/Supplement 0>>" % path
    inner = b"<</Type/Font/Subtype/CIDFontType2/BaseFont%b/CIDSystemInfo%b>>" % (name, system)
    outer = b"<</Type/Font/Subtype/Type0/BaseFont%b/Encoding%b/DescendantFonts[%b]>>" % (name, name, inner)
    return files.raw_pdf(_CATALOG, _ONE_PAGE, _page(_FONT), files.stream(b"BT/F 9 Tf(abc)Tj ET"), outer)


def _nothing_left(result: Result) -> None:
    """No file was written, in the workspace or as an artifact."""
    assert (0, 0) == (result.usage.workspace_files, len(result.artifacts))


def _says_one_attachment(result: Result) -> None:
    """It is counted, not opened."""
    assert 1 == value_of(result)["attachments_total"]


_TIGHT = {"cpu_s": 3.0, "wall_s": 10.0}

DOCUMENTS: tuple[HostileFile, ...] = (
    HostileFile(
        id="DOC-01", title="a part of 300 MiB", severity="H", document_type="docx", codes=("document_too_large",),
        content=lambda _: files.repacked(files.word(), {"word/media/x.bin": bytes(300 << 20)}),
    ),
    HostileFile(
        id="DOC-01", title="a body of 64 MiB", severity="H", document_type="docx", codes=("document_too_large",),
        content=lambda _: files.repacked(files.word(), {"word/document.xml": bytes(64 << 20)}),
    ),
    HostileFile(
        id="DOC-01", title="a body that is not named as XML", severity="H", document_type="docx",
        codes=("corrupt_document",), content=_body_by_another_name,
    ),
    HostileFile(
        id="DOC-01", title="a part that lies about its size", severity="H", document_type="docx",
        content=_lying_size, codes=("corrupt_document", "document_too_large"),
    ),
    HostileFile(
        id="DOC-01", title="overlapping entries", severity="H", document_type="docx", content=_overlapping,
        codes=("corrupt_document", "document_too_large"),
    ),
    HostileFile(
        id="DOC-01", title="a hundred thousand entries", severity="H", document_type="docx",
        content=lambda _: _zip({f"{number:05}": b"" for number in range(100_000)}), codes=("document_too_large",),
    ),
    HostileFile(
        id="DOC-02", title="entries that lead elsewhere", severity="H", document_type="docx", reasons=READ,
        content=_zip(_word_parts() | dict.fromkeys(("../../evil", "/etc/evil", "word/../../evil", "C:\\evil"), b"x")),
        check=_nothing_left,
    ),
    HostileFile(
        id="DOC-02", title="an entry that is a link", severity="H", document_type="docx", reasons=READ, content=_link(),
        check=_nothing_left,
    ),
    HostileFile(
        id="DOC-02", title="two entries of one name", severity="H", document_type="docx", codes=("corrupt_document",),
        content=_zip(
            _word_parts() | {"word/document2xml": b"x"},
            lambda entries: setattr(entries[-1], "filename", "word/document.xml"),
        ),
    ),
    HostileFile(
        id="DOC-04", title="billion laughs", severity="H", document_type="docx", codes=("corrupt_document",),
        content=files.word_with(_PARAGRAPH.format("&j;"), before=_LAUGHS),
    ),
    HostileFile(
        id="DOC-04", title="billion laughs in another encoding", severity="H", document_type="docx", limits=_TIGHT,
        content=_disguised("utf-16"), reasons=STOPPED, codes=("corrupt_document",),
    ),
    HostileFile(
        id="DOC-04", title="billion laughs in disguise", severity="H", document_type="docx", limits=_TIGHT,
        content=_disguised("utf-7"), reasons=STOPPED, codes=("corrupt_document",),
    ),
    HostileFile(
        id="DOC-04", title="quadratic blow-up in an attribute", severity="H", document_type="docx",
        content=files.word_with(
            "".join(f"<w:p w:a{n}='{'&a;' * 1000}'/>" for n in range(50)),
            before=f"<!DOCTYPE w [<!ENTITY a '{'x' * 50_000}'>]>",
        ), codes=("corrupt_document",),
    ),
    HostileFile(
        id="DOC-04", title="an entity that is a file", severity="C", document_type="docx", codes=("corrupt_document",),
        content=lambda field: files.word_with(
            _PARAGRAPH.format("&a;"), before=f'<!DOCTYPE w [<!ENTITY a SYSTEM "file://{field.planted.file}">]>'
        ),
    ),
    HostileFile(
        id="DOC-04", title="a million nested elements", severity="H", document_type="docx",
        content=lambda _: _nested(300_000), codes=("corrupt_document", "document_too_large"),
    ),
    HostileFile(
        id="DOC-04", title="an attribute of 20 MiB", severity="H", document_type="docx", reasons=(*STOPPED, *READ),
        content=lambda _: files.word_with(f"<w:p w:rsidR='{'x' * (20 << 20)}'/>", packed=False), limits=_TIGHT,
        codes=("corrupt_document",),
    ),
    HostileFile(
        id="DOC-05", title="parts that lie elsewhere", severity="H", document_type="docx", reasons=READ,
        content=_elsewhere, operation="extract_text", check=_nothing_left,
    ),
    HostileFile(
        id="DOC-07", title="no archive", severity="L", document_type="docx", content=b"PK but no archive",
        codes=("wrong_document_type",),
    ),
    HostileFile(
        id="DOC-07", title="a locked archive", severity="L", document_type="docx", content=_locked_archive(),
        codes=("encrypted_document",),
    ),
    HostileFile(
        id="DOC-07", title="a cut archive", severity="L", document_type="docx", content=files.word()[:-300],
        codes=("corrupt_document",),
    ),
    HostileFile(
        id="DOC-07", title="a document with macros, of which nothing is run", severity="L", document_type="docx",
        reasons=READ,
        content=files.repacked(files.word(), {
            "[Content_Types].xml": files.part_of(files.word(), "[Content_Types].xml").replace(
                "openxmlformats-officedocument.wordprocessingml.document.main", "ms-word.document.macroEnabled.main"
            ).encode(),
        }),
    ),
    HostileFile(
        id="DOC-08", title="a million pages", severity="H", document_type="pdf", codes=("document_too_large",),
        content=files.raw_pdf(_CATALOG, b"<</Type/Pages/Count 1000000/Kids[3 0 R]>>", _page()),
    ),
    HostileFile(
        id="DOC-08", title="a page tree in a circle", severity="H", document_type="pdf", codes=("corrupt_document",),
        content=files.raw_pdf(_CATALOG, b"<</Type/Pages/Count 2/Kids[2 0 R 2 0 R]>>"),
    ),
    HostileFile(
        id="DOC-08", title="a page as large as a country", severity="H", document_type="pdf", reasons=READ,
        content=files.raw_pdf(_CATALOG, _ONE_PAGE, b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 1e10 1e10]>>"),
    ),
    HostileFile(
        id="DOC-08", title="a page of 1 GiB", severity="H", document_type="pdf", content=_inflating, limits=_TIGHT,
        reasons=OR_CRASHED, codes=("memory_limit",),
    ),
    HostileFile(
        id="DOC-08", title="forms within forms", severity="H", document_type="pdf", content=_forms, limits=_TIGHT,
        reasons=(*OR_CRASHED, *READ), codes=("corrupt_document", "memory_limit"),
    ),
    HostileFile(
        id="DOC-10", title="scripts and launches and addresses", severity="H", document_type="pdf", reasons=READ,
        content=_acting, check=_says_one_attachment,
    ),
    HostileFile(
        id="DOC-11", title="encrypted", severity="L", document_type="pdf", codes=("encrypted_document",),
        content=files.pdf(1, password="a", owner="b"),
    ),
    HostileFile(
        id="DOC-11", title="encrypted for its owner only", severity="L", document_type="pdf",
        codes=("encrypted_document",), content=files.pdf(1, owner="b"),
    ),
    HostileFile(
        id="DOC-11", title="another password", severity="L", document_type="pdf", codes=("encrypted_document",),
        content=files.pdf(1, password="a", owner="b"), more={"password": "c"},
    ),
    *(
        HostileFile(
            id="DOC-14", title=f"{kind} is {what}", severity="C", document_type=kind, content=content, codes=codes,
            operation="extract_text",
        )
        for kind, what, content, codes in (
            ("pdf", "a path", "/etc/passwd", ("invalid_base64",)),
            ("pdf", "a path with an ending", "/etc/ld.so.conf", ("invalid_parameters",)),
            ("docx", "a path out of the folder", "../../etc/ld.so.conf", ("invalid_parameters",)),
            ("pdf", "an address", "http://127.0.0.1/x.pdf", ("invalid_parameters",)),
            ("docx", "an address of a file", "file:///etc/passwd", ("invalid_base64", "invalid_parameters")),
            ("txt", "a path", "/etc/passwd", ("ambiguous_content",)),
            ("pdf", "a path in bytes", b"/etc/passwd", ("wrong_document_type",)),
        )
    ),
    HostileFile(
        id="DOC-14", title="txt is a path in bytes", severity="C", document_type="txt", content=b"/etc/passwd",
        operation="extract_text", reasons=READ, check=lambda result: _is("/etc/passwd", value_of(result)["text"]),
    ),
    HostileFile(
        id="DOC-14", title="txt is an address", severity="C", document_type="txt", operation="extract_text",
        content="see http://127.0.0.1/x", reasons=READ,
        check=lambda result: _is("see http://127.0.0.1/x", value_of(result)["text"]),
    ),
    HostileFile(
        id="DOC-16", title="fonts that lead elsewhere", severity="M", document_type="pdf", content=_fonts,
        operation="extract_text", reasons=READ,
    ),
)  # fmt: skip


def _is(expected: object, found: object) -> None:
    assert expected == found


# ---- images -----------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_with(*chunks: bytes) -> bytes:
    """A good PNG with these chunks right after its header."""
    content = files.image("PNG")
    head = 8 + 25  # the signature and IHDR
    return content[:head] + b"".join(chunks) + content[head:]


def _gif(count: int) -> bytes:
    one = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + one * count + b";"


def _tiff(count: int, *, circle: bool = False) -> bytes:
    """A TIFF of so many images of one pixel, the last of which may lead to the first."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1))
    size = 2 + 12 * len(tags) + 4
    made = bytearray(b"II*\0" + struct.pack("<I", 8))
    for number in range(1, count + 1):
        following = 8 + size * number if number < count else 8 * circle
        made += struct.pack("<H", len(tags))
        made += b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags) + struct.pack("<I", following)
    return bytes(made)


def _without_canaries(result: Result) -> None:
    """Not one byte of what the photo had in it beside its pixels."""
    (artifact,) = result.artifacts
    assert b"canary" not in artifact.content
    assert b"Exif" not in artifact.content


def _bomb() -> bytes:
    return zlib.compress(bytes(64 << 20), 9)


IMAGES: tuple[HostileFile, ...] = (
    HostileFile(
        id="IMG-01", title="2500 million pixels", severity="H", content=files.png_header(50_000, 50_000),
        codes=("image_too_large",),
    ),
    HostileFile(
        id="IMG-01", title="as many as Pillow would only warn of", severity="H", codes=("image_too_large",),
        content=files.png_header(12_000, 12_000),
    ),
    HostileFile(
        id="IMG-01", title="pixels that are not there", severity="H", codes=("corrupt_image",),
        content=files.png_header(7000, 7000),
    ),
    HostileFile(
        id="IMG-01", title="a bomb in a text", severity="H", reasons=(*REFUSED, *READ), codes=("corrupt_image",),
        content=lambda _: _png_with(_chunk(b"zTXt", b"a\0\0" + _bomb())),
    ),
    HostileFile(
        id="IMG-01", title="a bomb in a colour profile", severity="H", reasons=(*REFUSED, *READ),
        codes=("corrupt_image",), content=lambda _: _png_with(_chunk(b"iCCP", b"a\0\0" + _bomb())),
    ),
    HostileFile(
        id="IMG-01", title="a bomb behind the last row", severity="H", reasons=(*REFUSED, *READ),
        codes=("corrupt_image",), content=lambda _: _png_with(_chunk(b"IDAT", _bomb())),
    ),
    HostileFile(
        id="IMG-02", title="gif of a hundred thousand frames", severity="H", content=lambda _: _gif(100_000),
        codes=("too_many_frames",),
    ),
    HostileFile(
        id="IMG-02", title="tiff of a hundred thousand frames", severity="H", content=lambda _: _tiff(100_000),
        codes=("too_many_frames",),
    ),
    HostileFile(
        id="IMG-02", title="tiff in a circle", severity="H", content=_tiff(3, circle=True),
        reasons=(*REFUSED, *READ), codes=("corrupt_image",),
    ),
    HostileFile(
        id="IMG-02", title="png that says a thousand million frames", severity="H", codes=("too_many_frames",),
        content=_png_with(_chunk(b"acTL", struct.pack(">II", 10**9, 0))),
    ),
    *(
        HostileFile(
            id="IMG-04", title=f"{what} to {operation}", severity="C", content=content,
            codes=("unsupported_format",), operation=operation,
            more={"options": {"width": 10}} if operation == "resize" else {},
        )
        for what, content in {
            "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\n",
            "metafile": b"\xd7\xcd\xc6\x9a" + bytes(40),
            "pdf": files.pdf(1),
            "fits": b"SIMPLE  =                    T" + b" " * 2850,
            "spider": struct.pack(">27f", *([1.0] * 27)) + bytes(1000),
        }.items()
        for operation in ("analyze", "resize")
    ),
    HostileFile(
        id="IMG-05", title="svg with a script and an entity", severity="H", codes=("unsupported_format",),
        content=b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>fetch(1)</script><text>&a;</text></svg>',
    ),
    *(
        HostileFile(
            id=number, title=title, severity=severity, content=files.image("PNG"), operation=operation,
            more={"options": options}, codes=codes,
        )
        for number, severity, title, operation, options, codes in (
            ("IMG-07", "H", "a side of a thousand million", "resize", {"width": 10**9}, ("invalid_parameters",)),
            ("IMG-07", "H", "no side at all", "resize", {"width": 0, "height": 0}, ("invalid_parameters",)),
            ("IMG-07", "H", "a negative side", "resize", {"width": -5}, ("invalid_parameters",)),
            ("IMG-07", "H", "a side that is no integer", "resize", {"width": 1e308}, ("invalid_parameters",)),
            ("IMG-07", "H", "two large sides", "resize", {"width": 16384, "height": 16384, "mode": "exact"},
             ("image_too_large",)),
            ("IMG-07", "H", "sides that make another large", "resize", {"width": 16384}, ("image_too_large",)),
            ("IMG-08", "M", "a radius of a thousand million", "filter", {"name": "blur", "amount": 1e9},
             ("invalid_parameters",)),
            ("IMG-08", "M", "a crop larger than the image", "crop", {"width": 16384, "height": 16384},
             ("crop_outside_image",)),
            ("IMG-08", "M", "a crop of a thousand million", "crop", {"width": 10**9, "height": 1},
             ("invalid_parameters",)),
            ("IMG-08", "M", "a rotation", "rotate", {"degrees": 1e9}, ("invalid_parameters",)),
        )
    ),
    HostileFile(
        id="IMG-10", title="a photo with its place", severity="L", content=files.photo(), operation="thumbnail",
        reasons=READ, check=_without_canaries,
    ),
    HostileFile(
        id="IMG-10", title="a photo with its place as it is", severity="L", content=files.photo(), operation="convert",
        more={"options": {"format": "jpeg"}}, reasons=READ, check=_without_canaries,
    ),
)  # fmt: skip

ROWS = (*DOCUMENTS, *IMAGES)
