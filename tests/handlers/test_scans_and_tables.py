"""document_processing where it asks a library of its own: scans, tables, symbols, an owner's empty password."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFont

from handlers import jsonable, ocr
from handlers.documents import document_processing
from handlers.images import image_processing
from handlers.parameters.registry import Request
from tests.support import sample_files as files

FILES = Path(__file__).resolve().parent / "files"


def process(document_type: str, content: bytes, operation: str = "extract_text", **more: Any) -> dict[str, Any]:
    """The answer as JSON has it."""
    given = {"document_type": document_type, "content": {"base64": files.base64_of(content)}, "operation": operation}
    request = Request(task_type="document_processing", parameters=msgspec.Raw(json.dumps({**given, **more}).encode()))
    found: dict[str, Any] = json.loads(jsonable.encode(document_processing.run(request)))
    return found


def test_tables_of_a_pdf_are_rows() -> None:
    """When they are asked for."""
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=12)
    with made.table() as table:
        for texts in (("a", "b"), ("1", "2.50")):
            row = table.row()
            for text in texts:
                row.cell(text)
    content = bytes(made.output())
    assert "tables" not in process("pdf", content)
    found = process("pdf", content, tables=True)
    assert ([{"page": 1, "rows": [["a", "b"], ["1", "2.50"]]}], False) == (found["tables"], found["tables_truncated"])


def scan(*lines: str) -> bytes:
    """A PDF of one page, which is a picture of these lines."""
    picture = Image.new("L", (900, 60 * len(lines) + 60), 255)
    font = ImageFont.truetype(FONT, 32) if Path(FONT).exists() else ImageFont.load_default(32)
    for place, line in enumerate(lines):
        ImageDraw.Draw(picture).text((40, 40 + 60 * place), line, fill=0, font=font)
    content = io.BytesIO()
    picture.save(content, "PDF", resolution=100)
    return content.getvalue()


FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def test_a_scan_is_read_and_marked() -> None:
    """With how sure that is; unless it is not wanted, which is counted."""
    content = scan("Invoice 4711", "The total is 99.50")
    found = process("pdf", content)
    assert "Invoice 4711\nThe total is 99.50" == found["text"]
    assert (0, 2) == (found["unread_pages_total"], found["pages"][0]["ocr"]["lines"])
    assert 0.8 < found["pages"][0]["ocr"]["confidence"] <= 1
    left = process("pdf", content, ocr="never")
    assert ("", 1, False) == (left["text"], left["unread_pages_total"], "ocr" in left["pages"][0])


def test_scans_beyond_the_time_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not read, and the answer says how many."""
    monkeypatch.setattr(ocr, "BUDGET_S", -1)
    found = process("pdf", scan("Never read"))
    assert ("", 1) == (found["text"], found["unread_pages_total"])


def test_an_empty_password_of_the_owner_opens() -> None:
    """Without any being given, as viewers do."""
    assert process("pdf", (FILES / "r6-user-password.pdf").read_bytes())["text"].startswith("pdf encryption test")


def of_image(content: bytes, operation: str, **options: Any) -> dict[str, Any]:
    """What image_processing answers."""
    given = {"image_path": {"base64": files.base64_of(content)}, "operation": operation, "options": options}
    request = Request(task_type="image_processing", parameters=msgspec.Raw(json.dumps(given).encode()))
    found: dict[str, Any] = json.loads(jsonable.encode(image_processing.run(request)))
    return found


def test_a_photo_of_a_telephone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEIC is read and comes out as JPEG; nobody writes it here."""
    monkeypatch.chdir(tmp_path)
    found = of_image((FILES / "RGB_8__29x100.heif").read_bytes(), "resize", width=16)
    assert ("heic", 29, 100) == tuple(found["input"][name] for name in ("format", "width", "height"))
    assert ("jpeg", 16) == (found["output"]["format"], found["output"]["width"])


def test_text_of_an_image_has_boxes_and_confidence() -> None:
    """In pixels of the image as it was sent."""
    picture = Image.new("L", (2400, 400), 255)
    ImageDraw.Draw(picture).text((200, 100), "Platform 7", fill=0, font=ImageFont.load_default(150))
    content = io.BytesIO()
    picture.save(content, "PNG")
    found = of_image(content.getvalue(), "ocr")
    assert ("Platform 7", 1) == (found["text"], found["lines_total"])
    line = found["lines"][0]
    assert 0.8 < line["confidence"] <= 1
    assert abs(line["box"][0][0] - 200) < 40
    assert found["ocr"]["confidence"] == line["confidence"]


SYMBOLS = {
    "a symbol": ("<w:p><w:r><w:t>a</w:t><w:sym w:font='Symbol' w:char='F061'/></w:r></w:p>", "a\u03b1"),
    "a symbol of Wingdings": ("<w:p><w:r><w:sym w:font='Wingdings' w:char='F0FC'/></w:r></w:p>", "✓"),
    "a symbol of an unknown font": ("<w:p><w:r><w:sym w:font='Mine' w:char='F061'/></w:r></w:p>", "\ufffd"),
    "signs of a symbol font": (
        "<w:p><w:r><w:rPr><w:rFonts w:ascii='Symbol'/></w:rPr><w:t>\uf062\uf067</w:t></w:r></w:p>", "βγ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), SYMBOLS.values(), ids=SYMBOLS)
def test_signs_of_symbol_fonts(body: str, expected: str) -> None:
    """As what they look like; those of a font that is not known are counted."""
    found = process("docx", files.word_with(body))
    assert (expected, expected.count("\ufffd")) == (found["text"], found["unreadable_characters"])
