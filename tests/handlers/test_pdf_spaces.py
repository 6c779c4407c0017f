"""Words of a PDF whose spaces are gaps: pdfium loses some, pdfminer and pypdf do not."""

from __future__ import annotations

import io

import pytest
from fpdf import FPDF
from pdfminer.high_level import extract_text

from handlers.documents.pdf import PdfDocument
from tests.support.sample_files import raw_pdf, stream

WIDENED_PT = 2.5
"""A quarter of the font's size, as wide as a space: what Ghostscript writes in place of one."""


def made(*pieces: tuple[str, float], font: str = "Times") -> bytes:
    """A PDF with one line: pieces of text and by how many points the letters of each are set apart."""
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font(font, size=10)
    for text, apart_pt in pieces:
        pdf.set_char_spacing(apart_pt)
        pdf.write(5, text)
    return bytes(pdf.output())


def text_of(content: bytes) -> str:
    """As document_processing reads it."""
    return PdfDocument(content, password=None, pages=None).read(10_000).text


LINES = {
    "a letter between two words": ([("a block give", 0), ("na", WIDENED_PT), (" ball", 0)], "a block given a ball"),
    "a word and the next one's letter": ([("if an", 0), ("yg", WIDENED_PT), ("raph has", 0)], "if any graph has"),
    "a comma and a word": ([("this", 0), (",w", WIDENED_PT), ("ith it", 0)], "this, with it"),
}  # fmt: skip


@pytest.mark.parametrize(("pieces", "expected"), LINES.values(), ids=LINES)
def test_a_gap_as_wide_as_a_space_is_one(pieces: list[tuple[str, float]], expected: str) -> None:
    """As pdfminer reads it."""
    content = made(*pieces)
    assert expected == text_of(content) == extract_text(io.BytesIO(content)).strip()


@pytest.mark.parametrize("apart_pt", [1.0, WIDENED_PT, 4.0])
def test_a_heading_that_is_set_apart_is_one_word(apart_pt: float) -> None:
    """All its gaps are alike, however wide."""
    assert "HEADING" == text_of(made(("HEADING", apart_pt)))


@pytest.mark.parametrize("font", ["Times", "Helvetica", "Courier"])
def test_tight_and_even_text_stays_as_it_is(font: str) -> None:
    """Kerning, punctuation and figures are no gaps."""
    line = "AVAToday, 1,234.50 (f.i. 'fjord') W.A.Y - Te/Yo: 100%"
    assert line == text_of(made((line, 0), font=font))


def test_code_that_a_font_does_not_explain_is_marked_and_counted() -> None:
    """TeX's old fonts have ligatures at the codes of control characters. `file` must not come out as `le`."""
    font = (
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 9 9]/FontMatrix[.1 0 0 .1 0 0]/FirstChar 12/LastChar 101/Widths[%s]"
        b"/CharProcs<</c12 6 0 R/e 6 0 R/l 6 0 R>>/Encoding<</Differences[12/c12 101/e 108/l]>>>>" % (b"5 " * 90)
    )
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>"
    content = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page,
        stream(b"BT /F 10 Tf 10 50 Td (\\014le) Tj ET"), font, stream(b"5 0 0 0 9 9 d1 0 0 5 5 re f"),
    )  # fmt: skip
    found = PdfDocument(content, password=None, pages=None).read(100)
    assert "\ufffdle" == found.text
    assert found.parts["unreadable_characters"] == 3  # pdfium says so of every sign of such a font
