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


# ---- pdf ---------------------------------------------------------------------------------------------------------

CATALOG, PAGES = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>%b>>"


def drawn(content: bytes, font: bytes = HELVETICA, *more: bytes, page: bytes = b"") -> bytes:
    """A PDF of one page that draws this."""
    return files.raw_pdf(CATALOG, PAGES, PAGE % page, files.stream(content), font, *more)


def line(text: bytes) -> bytes:
    return b"BT/F 20 Tf 10 100 Td" + text + b"Tj ET"


def named(*glyphs: str) -> bytes:
    """A font in which A, B … are glyphs of these names."""
    names = "/".join(glyphs).encode()
    return HELVETICA[:-2] + b"/Encoding<</Differences[65/" + names + b"]>>>>"


def meaning(cmap: bytes, text: bytes) -> bytes:
    """A text in a font that says itself what its codes mean."""
    font = HELVETICA[:-2] + b"/ToUnicode 6 0 R>>"
    head = b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00><ff> "
    return drawn(line(text), font, files.stream(head + b"endcodespacerange " + cmap + b" endcmap end end"))


def chars(*pairs: str) -> bytes:
    return f"{len(pairs)} beginbfchar {' '.join(pairs)} endbfchar".encode()


def typed(text: str) -> bytes:
    """A text set letter by letter, all equally far apart, each last letter of a word with its space."""
    signs = [(10 + 6.9 * place, sign, text[place + 1 : place + 2].strip()) for place, sign in enumerate(text)]
    drawings = (f"1 0 0 1 {x:.1f} 99 Tm({sign}{'' if after else ' '})Tj" for x, sign, after in signs if sign != " ")
    return b"BT/F 9.2 Tf " + " ".join(drawings).encode() + b" ET"


SHOWN: dict[str, tuple[bytes, str, int]] = {
    "letters set closer and further": (drawn(b"BT/F 20 Tf 10 100 Td[(W)80(or)-50(ld)-300(two)]TJ ET"), "World two", 0),
    "letters all set apart": (drawn(b"BT/F 20 Tf 5 Tc 10 100 Td(spaced out)Tj ET"), "spaced out", 0),
    "letters set one by one": (
        drawn(typed("The tower stands here now"), HELVETICA.replace(b"Helvetica", b"Courier")),
        "The tower stands here now", 0,
    ),
    "drawn twice to be bold": (drawn(line(b"(Bold)") + b" BT/F 20 Tf 10.3 100 Td(Bold)Tj ET"), "Bold", 0),
    "a raised sign": (drawn(b"BT/F 12 Tf 10 99 Td(E=mc)Tj/F 7 Tf 4 Ts(2)Tj 0 Ts/F 12 Tf( is)Tj ET"), "E=mc2 is", 0),
    "a raised sign at a line's end": (
        drawn(b"BT/F 12 Tf 10 99 Td(one)Tj/F 7 Tf 4 Ts(2)Tj 0 Ts/F 12 Tf 0 -20 Td(two)Tj ET"), "one2\ntwo", 0
    ),
    "lines by each operator": (
        drawn(b"BT/F 20 Tf 22 TL 10 150 Td(one)Tj(two)' 1 1(three)\" T*(four)Tj ET"), "one\ntwo\nthree\nfour", 0
    ),
    "ligatures by name": (drawn(line(b"(oAce BC)"), named("ffi", "Euro", "uni20AC")), "office €€", 0),
    "a ligature by its meaning": (meaning(chars("<41> <006600660069>"), b"(oAce)"), "office", 0),
    "a sign beyond the first plane": (meaning(chars("<41> <D83DDE00>"), b"(oAce)"), "o😀ce", 0),
    "a meaning that is none": (meaning(chars("<41> <0000>"), b"(oAce)"), "o\ufffdce", 1),
    "ranges of meanings": (
        meaning(b"2 beginbfrange <41><43> <0391> <44><45> [<0410><0411>] endbfrange", b"(ABCDE)"),
        "ΑΒΓАБ", 0,
    ),
    "Hebrew, drawn from the left": (
        meaning(chars("<41> <05E9>", "<42> <05DC>", "<43> <05D5>", "<44> <05DD>"), b"(DCBA)"), "שלום", 0
    ),
    "Arabic by its shapes": (
        meaning(chars("<41> <FEE3>", "<42> <FEAE>", "<43> <FEA3>", "<44> <FE92>"), b"(DCBA)"), "مرحب", 0
    ),
    "turned more than once around": (drawn(line(b"(Turned text here)"), page=b"/Rotate 450"), "Turned text here", 0),
    "said to be another text": (drawn(b"/Span<</ActualText<FEFF00660069>>>BDC " + line(b"(X)") + b" EMC"), "fi", 0),
}  # fmt: skip


@pytest.mark.parametrize(("content", "text", "unknown"), SHOWN.values(), ids=SHOWN)
def test_a_page_says_what_is_drawn(content: bytes, text: str, unknown: int) -> None:
    """pdfminer parts words and letters, pypdf doubles them; neither counts what has no meaning."""
    found = process("pdf", content)
    assert (text, unknown) == (found["text"], found["unreadable_characters"])


VERTICAL = (
    b"<</Type/Font/Subtype/Type0/BaseFont/M/Encoding/UniJIS-UCS2-V/DescendantFonts[6 0 R]>>",
    (
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/M/DW 1000/CIDSystemInfo<</Registry(Adobe)/Ordering(Japan1)"
        b"/Supplement 2>>/FontDescriptor 7 0 R>>"
    ),
    b"<</Type/FontDescriptor/FontName/M/Flags 4/FontBBox[0 -200 1000 900]/Ascent 800/Descent -200>>",
)
COLUMNS = {"日本語の": (100, 190), "縦書き": (70, 190), "です。": (40, 190)}
BELOW = {"二段目": (100, 100), "の文。": (70, 100)}


def column(text: str, place: tuple[int, int]) -> bytes:
    return b" BT/F 20 Tf %d %d Td<%b>Tj ET " % (*place, text.encode("utf-16-be").hex().encode())


ORDERS = {
    "from the right": (COLUMNS, list(COLUMNS)), "from the left": (COLUMNS, list(COLUMNS)[::-1]),
    "in two bands": (COLUMNS | BELOW, list(COLUMNS | BELOW)),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "order"), ORDERS.values(), ids=ORDERS)
def test_columns_of_vertical_writing_are_read_from_the_right(
    columns: dict[str, tuple[int, int]], order: list[str]
) -> None:
    """In whatever order they are drawn, the upper ones before the lower; pdfminer reads them from the left."""
    content = drawn(b"".join(column(text, columns[text]) for text in order), *VERTICAL)
    assert "\n".join(columns) == process("pdf", content)["text"]


def form(field: bytes) -> bytes:
    """A PDF with one field or note, and the word ``Body``."""
    form = b"/AcroForm<</Fields[6 0 R]/DR<</Font<</F 5 0 R>>>>/DA(/F 12 Tf)>>>>"
    mark = b"<</Type/Annot/Rect[10 10 200 40]/P 3 0 R/F 4/T(name)" + field + b">>"
    page = PAGE % b"/Annots[6 0 R]"
    return files.raw_pdf(CATALOG[:-2] + form, PAGES, page, files.stream(line(b"(Body)")), HELVETICA, mark)


FIELDS: dict[str, tuple[bytes, str, dict[str, object]]] = {
    "without a picture of it": (b"/FT/Tx/V(Alice)", "Body\nAlice", {"value": "Alice"}),
    "in UTF-16": (b"/FT/Tx/V<FEFF00C400D6>", "Body\nÄÖ", {"value": "ÄÖ"}),
    "in UTF-8": (b"/FT/Tx/V<EFBBBFC384>", "Body\nÄ", {"value": "Ä"}),
    "in PDF's own encoding": (b"/FT/Tx/V(\xa05 \x92)", "Body\n€5 ™", {"value": "€5 ™"}),
    "of several lines": (b"/FT/Tx/Ff 4096/V(one\\rtwo)", "Body\none\ntwo", {"value": "one\ntwo"}),
    "several of a list": (
        b"/FT/Ch/Ff 2097152/Opt[(a)[(2)(Bee)](c)]/V[(a)(2)]", "Body\na\nBee\nc", {"chosen": ["a", "Bee"]}
    ),
    "one of a list": (
        b"/FT/Ch/Ff 131072/Opt[[(1)(One)][(2)(Two)]]/V(2)", "Body\nTwo", {"value": "2", "chosen": ["Two"]}
    ),
    "none of a list": (b"/FT/Ch/Ff 131072/Opt[(a)(b)]", "Body", {"value": "", "chosen": []}),
}  # fmt: skip


@pytest.mark.parametrize(("field", "text", "told"), FIELDS.values(), ids=FIELDS)
def test_what_a_form_was_filled_in_with_is_told(field: bytes, text: str, told: dict[str, object]) -> None:
    """Beside the text and within it; pdfminer and pypdf do not read it as text."""
    found = process("pdf", form(b"/Subtype/Widget" + field))
    assert text == found["text"]
    assert told == {name: found["form_fields"][0][name] for name in told}


@pytest.mark.parametrize(("mark", "kind", "text"), [
    (b"/Subtype/FreeText/DA(/F 12 Tf)/RC(<body><p>Rich <b>text</b></p></body>)", "text", "Rich text"),
    (b"/Subtype/Redact/Contents(why)", "redaction", "why"), (b"/Subtype/Stamp/Contents(APPROVED)", "stamp", "APPROVED"),
])  # fmt: skip
def test_notes_of_every_sort_are_told(mark: bytes, kind: str, text: str) -> None:
    """Also where they are written as rich text only."""
    found = process("pdf", form(mark))["annotations"]
    assert [(kind, text)] == [(one["type"], one["text"]) for one in found]
