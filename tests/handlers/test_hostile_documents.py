"""Documents of the awkward kind, and what a user would take instead: mammoth, docx2txt, pypdf, pdfminer.six.

What differs from a peer on purpose says so in its row.
"""

from __future__ import annotations

import io

import mammoth
import pytest

from tests.handlers.test_document_processing import process
from tests.support import sample_files as files

W_P = "<w:p><w:r><w:t xml:space='preserve'>{}</w:t></w:r></w:p>"


def run(text: str) -> str:
    return f"<w:r><w:t xml:space='preserve'>{text}</w:t></w:r>"


def sign(kind: str) -> str:
    return f"<w:r><w:fldChar w:fldCharType='{kind}'/></w:r>"


def code(text: str) -> str:
    return f"<w:r><w:instrText>{text}</w:instrText></w:r>"


def cell(text: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{W_P.format(text)}</w:tc>"


def changed(kind: str, inner: str) -> str:
    return f"<w:{kind} w:id='1' w:author='x'>{inner}</w:{kind}>"


def marked(kind: str) -> str:
    return f"<w:pPr><w:rPr><w:{kind} w:id='1' w:author='x'/></w:rPr></w:pPr>"


BEGIN, SEPARATE, END = map(sign, ("begin", "separate", "end"))
DRAWN = (
    "<w:r><w:drawing><a:p xmlns:a='http://schemas.openxmlformats.org/drawingml/2006/main'><a:r><a:t>drawn</a:t></a:r>"
    "</a:p></w:drawing></w:r>"
)
LETTERS = "<w:r><w:pict><v:textpath xmlns:v='urn:schemas-microsoft-com:vml' string='DRAFT'/></w:pict></w:r>"
M_RUN = "<m:r><m:t>{}</m:t></m:r>"


# ---- docx --------------------------------------------------------------------------------------------------------

TEXTS = {
    "a field": (BEGIN + code("DATE") + SEPARATE + run("1 May") + END + run("!"), "1 May!"),
    "a code that is written as text": (BEGIN + run(" DATE ") + SEPARATE + run("1 May") + END, "1 May"),
    "a field in the code of another": (
        BEGIN + code("IF ") + BEGIN + code("X") + SEPARATE + run("inner") + END + SEPARATE + run("outer") + END, "outer"
    ),
    "a field in the result of another": (
        BEGIN + code("TOC") + SEPARATE + run("a ") + BEGIN + code("PAGE") + SEPARATE + run("7") + END + END, "a 7"
    ),
    "a field without a result": (run("a") + BEGIN + code("XE") + run("index") + END + run("b"), "ab"),
    "a field that goes on": (BEGIN + code("TOC") + SEPARATE + run("first line"), "first line"),
    "a field that never ends": (BEGIN + run("text of a faulty file"), "text of a faulty file"),
    "ends without a beginning": (run("a") + SEPARATE + run("b") + END + run("c"), "abc"),
    "alternatives of which the first is empty": (
        ("<w:r><mc:AlternateContent><mc:Choice Requires='x'/><mc:Fallback><w:t>b</w:t></mc:Fallback>"
        "</mc:AlternateContent></w:r>"), "b"
    ),
    "alternatives that say the same": (
        (f"<mc:AlternateContent><mc:Choice Requires='x'>{run('a')}</mc:Choice><mc:Fallback>{run('a')}</mc:Fallback>"
        "</mc:AlternateContent>"), "a"
    ),
    "text of a shape": (DRAWN, "drawn"),
    "letters drawn as a picture": (LETTERS, "DRAFT"),
    "wrapped runs": (f"<w:smartTag>{run('a')}</w:smartTag><w:bdo w:val='rtl'>{run('b')}</w:bdo>", "ab"),
    "deleted within inserted": (changed("ins", changed("del", "<w:r><w:delText>a</w:delText></w:r>") + run("b")), "b"),
    "a change within an equation": (
        f"<m:oMath>{changed('del', M_RUN.format('x'))}{changed('ins', M_RUN.format('y'))}</m:oMath>", "y"
    ),
    "a sign of a font that nobody knows": ("<w:r><w:sym w:font='Mine' w:char='F061'/></w:r>", "\ufffd"),
}  # fmt: skip


@pytest.mark.parametrize(("inner", "text"), TEXTS.values(), ids=TEXTS)
def test_a_paragraph_says_what_word_shows(inner: str, text: str) -> None:
    """mammoth and docx2txt show codes that are written as text, and leave out shapes, letters and equations."""
    assert text == process("docx", files.word_with(f"<w:p>{inner}</w:p>"))["text"]


JOINED = f"<w:p>{marked('del')}{run('one ')}</w:p><w:p>{run('line')}</w:p>{W_P.format('next')}"
PARTED = f"<w:p>{marked('ins')}{run('one')}</w:p><w:p>{run(' line')}</w:p>"


def test_paragraphs_whose_end_was_deleted_are_one() -> None:
    """As mammoth has it; rejected, the end is there again. Also in a cell."""
    content = files.word_with(JOINED)
    assert ["one line", "next"] == process("docx", content)["paragraphs"]
    assert "one line\n\nnext" == mammoth.extract_raw_text(io.BytesIO(content)).value.strip()
    assert ["one", "line", "next"] == process("docx", content, changes="rejected")["paragraphs"]
    assert ["one", "line"] == process("docx", files.word_with(PARTED))["paragraphs"]
    assert ["one line"] == process("docx", files.word_with(PARTED), changes="rejected")["paragraphs"]
    table = f"<w:tbl><w:tr><w:tc>{JOINED}</w:tc></w:tr></w:tbl>"
    assert [[["one line next"]]] == process("docx", files.word_with(table))["tables"]


def test_cells_that_were_deleted_or_inserted_come_and_go() -> None:
    """As rows do."""
    gone, new = "<w:cellDel w:id='1' w:author='x'/>", "<w:cellIns w:id='2' w:author='x'/>"
    row = f"<w:tr>{cell('a')}{cell('gone', gone)}{cell('new', new)}</w:tr>"
    content = files.word_with(f"<w:tbl>{row}</w:tbl>")
    assert [[["a", "new"]]] == process("docx", content)["tables"]
    assert [[["a", "gone"]]] == process("docx", content, changes="rejected")["tables"]


GRIDS = {
    "a cell over rows and columns": (
        f"<w:tblGrid>{'<w:gridCol/>' * 3}</w:tblGrid><w:tr>"
        + cell("a", "<w:gridSpan w:val='2'/><w:vMerge w:val='restart'/>") + cell("b") + "</w:tr><w:tr>"
        + cell("", "<w:gridSpan w:val='2'/><w:vMerge/>") + cell("c") + "</w:tr>",
        [["a", "", "b"], ["", "", "c"]],
    ),
    "room before and behind": (
        (f"<w:tblGrid>{'<w:gridCol/>' * 3}</w:tblGrid><w:tr><w:trPr><w:gridBefore w:val='1'/></w:trPr>"
        f"{cell('a')}</w:tr>"
        f"<w:tr>{cell('b')}{cell('c')}{cell('d')}</w:tr>"),
        [["", "a", ""], ["b", "c", "d"]],
    ),
    "a table in a cell": (
        (f"<w:tr><w:tc>{W_P.format('o')}<w:tbl><w:tr>{cell('i')}{cell('j')}</w:tr></w:tbl>{W_P.format('p')}</w:tc>"
        f"{cell('q')}</w:tr>"),
        [["o i j p", "q"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "grid"), GRIDS.values(), ids=GRIDS)
def test_a_table_is_a_grid(rows: str, grid: list[list[str]]) -> None:
    """Each column is a column."""
    assert [grid] == process("docx", files.word_with(f"<w:tbl>{rows}</w:tbl>"))["tables"]
