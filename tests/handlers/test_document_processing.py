"""document_processing: what each type and operation answers, and with which code it refuses."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import docx
import msgspec
import pytest
from fpdf import FPDF

from handlers import jsonable
from handlers.documents import document_processing, docx_archive, prose, reading, summaries
from handlers.documents import docx as docx_document
from handlers.documents import pdf as pdf_document
from handlers.failures import Refusal
from handlers.parameters.documents import MAX_TEXT_CHARACTERS
from handlers.parameters.registry import Request
from tests.support import placeholder_font
from tests.support import sample_files as files

W_P = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
W_TABLE = "<w:tbl><w:tr><w:tc>{}</w:tc></w:tr></w:tbl>"
M_P = "<w:p><m:oMath>{}</m:oMath></w:p>"
M_X, M_Y = "<m:r><m:t>x</m:t></m:r>", "<m:r><m:t>y</m:t></m:r>"
M_SUM = (
    f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{M_X}</m:sub><m:sup>{M_Y}</m:sup><m:e>{M_X}</m:e></m:nary>"
)
W_BOUND_ROW = (
    f"<w:tbl><w:tr><w:tc>{W_P.format('plain')}</w:tc></w:tr><w:sdt><w:sdtContent>"
    f"<w:tr><w:sdt><w:sdtContent><w:tc>{W_P.format('bound')}</w:tc></w:sdtContent></w:sdt></w:tr>"
    "</w:sdtContent></w:sdt></w:tbl>"
)
W_BOX = (
    f"<w:p><w:r><w:t>by it</w:t><w:pict><w:txbxContent>{W_P.format('in the box')}</w:txbxContent></w:pict></w:r></w:p>"
)
W_TICK = "<w:p><w:r><w:fldChar><w:ffData><w:checkBox><w:checked/></w:checkBox></w:ffData></w:fldChar></w:r></w:p>"
W_RUBY = (
    "<w:p><w:r><w:ruby><w:rt><w:r><w:t>かん</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>漢</w:t></w:r></w:rubyBase>"
    "</w:ruby></w:r></w:p>"
)
W_ROW_DELETED = (
    f"<w:tbl><w:tr><w:trPr><w:del w:id='1'/></w:trPr><w:tc>{W_P.format('gone')}</w:tc></w:tr>"
    f"<w:tr><w:tc>{W_P.format('here')}</w:tc></w:tr></w:tbl>"
)
W_CHOICE = (
    "<mc:Choice Requires='x'><w:r><w:t>a</w:t></w:r></mc:Choice><mc:Fallback><w:r><w:t>a</w:t></w:r></mc:Fallback>"
)


def process(document_type: str, content: Any, operation: str = "extract_text", **more: Any) -> dict[str, Any]:
    """The answer as JSON has it; bytes are sent as base64."""
    if isinstance(content, bytes):
        content = {"base64": files.base64_of(content)}
    parameters = {"document_type": document_type, "content": content, "operation": operation, **more}
    request = Request(task_type="document_processing", parameters=msgspec.Raw(json.dumps(parameters).encode()))
    found: dict[str, Any] = json.loads(jsonable.encode(document_processing.run(request)))
    return found


def refusal(*arguments: Any, **more: Any) -> Refusal:
    """With what it is refused."""
    with pytest.raises(Refusal) as raised:
        process(*arguments, **more)
    assert str(raised.value).endswith((".", "…"))
    return raised.value


# ---- how content is told ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's folder of files."""
    monkeypatch.setenv("INPUTS_DIR", str(tmp_path))
    (tmp_path / "a.txt").write_text("from the file", encoding="utf-8")
    (tmp_path / "may.pdf").write_bytes(files.pdf(1))
    (tmp_path / "noending").write_bytes(files.pdf(1))
    return tmp_path


@pytest.mark.parametrize("content", ["may.pdf", "/inputs/may.pdf", {"path": "may.pdf"}, {"path": "noending"}], ids=str)
def test_a_string_with_a_dot_is_a_path(folder: Path, content: Any) -> None:
    """For a pdf, whose base64 has no dot."""
    assert process("pdf", content)["text"].startswith("Page 1 begins.")


def test_a_string_without_a_dot_is_base64() -> None:
    """For a pdf and a docx."""
    assert process("pdf", files.base64_of(files.pdf(1)))["text"].startswith("Page 1 begins.")
    assert process("docx", files.base64_of(files.word()))["text"].startswith("A story")


def test_a_name_without_a_dot_is_told_to_be_given_as_a_path(folder: Path) -> None:
    """Whether or not it happens to be base64."""
    assert "invalid_base64" == refusal("pdf", "noending1").code
    assert "path" in str(refusal("pdf", "noending1"))
    named = refusal("pdf", "noending")
    assert "wrong_document_type" == named.code
    assert "path" in str(named)


LIKE_PATHS = [
    "a.txt",
    "notes.md",
    "data/x.csv",
    "/etc/passwd",
    "./x",
    "../x",
    "~/x",
    "x.PDF",
    "C:\\x.doc",
    "/inputs/a.txt",
]


@pytest.mark.parametrize("content", LIKE_PATHS)
def test_a_txt_that_looks_like_a_path_is_refused(folder: Path, content: str) -> None:
    """The two readings are told apart by the client, never by a guess."""
    found = refusal("txt", content)
    assert "ambiguous_content" == found.code
    assert '{"path": …}' in str(found)


TEXTS = ["See a.txt.", "a.txt\n", "read notes.md", "example.com", "Yes.", "a/b", "and/or", "3.5"]


@pytest.mark.parametrize("content", TEXTS)
def test_any_other_txt_is_the_text_itself(folder: Path, content: str) -> None:
    """Also a short one."""
    assert content == process("txt", content)["text"]


def test_a_txt_can_be_named_and_can_be_any_text(folder: Path) -> None:
    """By an object, which is never ambiguous."""
    assert "from the file" == process("txt", {"path": "a.txt"})["text"]
    assert "a.txt" == process("txt", {"text": "a.txt"})["text"]


# ---- pdf --------------------------------------------------------------------------------------------------------


def test_pdf_text_by_page() -> None:
    """Pages in the order asked for, each once."""
    found = process("pdf", files.pdf(3), pages="3,1-2,3")
    assert [3, 1, 2] == [page["page"] for page in found["pages"]]
    assert "\n\n".join(page["text"] for page in found["pages"]) == found["text"]
    assert len(found["text"]) == found["characters"]


def test_pdf_facts() -> None:
    """Metadata with ISO dates, the outline, sizes and images."""
    found = process("pdf", files.pdf(2), "analyze")
    assert {"title": "A story", "author": "Ada", "creation_date": "2026-01-02T03:04:05+00:00"} == found["metadata"]
    assert [
        {"level": 1, "text": "Part 1", "page": 1},
        {"level": 1, "text": "Part 2", "page": 2},
    ] == found["headings"]
    assert {"count": 2, "complete": True, "first": [
        {"page": 1, "width": 20, "height": 10}, {"page": 2, "width": 20, "height": 10},
    ]} == found["images"]  # fmt: skip
    assert (2, [], 0) == (found["pages"], found["attachments"], found["attachments_total"])
    assert [595.28, 841.89] == found["page_size_pt"]


def test_facts_of_some_pages_are_of_those() -> None:
    """Counts and images; the document's own number of pages stays."""
    found = process("pdf", files.pdf(3), "analyze", pages="2")
    assert (3, 1, 1) == (found["pages"], found["pages_read"], found["images"]["count"])


@pytest.mark.parametrize("pages", ["3", "1-3", "2-1", "9999999"])
def test_pages_that_are_not_there(pages: str) -> None:
    """With how many there are."""
    found = refusal("pdf", files.pdf(2), pages=pages)
    assert "no_such_page" == found.code


ENCRYPTED = {
    "needs a password": (files.pdf(1, password="user", owner="owner"), {}, False),
    "another password": (files.pdf(1, password="user", owner="owner"), {"password": "x"}, False),
    "the user's, who may not copy": (files.pdf(1, password="user", owner="owner"), {"password": "user"}, False),
    "the owner's": (files.pdf(1, password="user", owner="owner"), {"password": "owner"}, True),
    "anyone may read, nobody may copy": (files.pdf(1, owner="owner"), {}, False),
    "anyone may read, the owner copies": (files.pdf(1, owner="owner"), {"password": "owner"}, True),
    "anyone may read and copy": (files.pdf(1, owner="owner", may_copy=True), {}, True),
}


@pytest.mark.parametrize(("content", "more", "opens"), ENCRYPTED.values(), ids=ENCRYPTED)
def test_an_encrypted_pdf(content: bytes, more: dict[str, str], opens: bool) -> None:
    """It opens for whom its author lets take text out of it."""
    if opens:
        assert "Ada" in process("pdf", content, **more)["text"]
    else:
        assert "encrypted_document" == refusal("pdf", content, **more).code


def test_words_broken_at_a_line_keep_their_hyphen() -> None:
    """A summary joins them, as a reader does."""
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=12)
    for place, text in enumerate(("A sentence with an exam-", "ple is shown here.")):
        made.set_xy(20, 20 + 8 * place)
        made.cell(text=text)
    content = bytes(made.output())
    assert "A sentence with an exam-\nple is shown here." == process("pdf", content)["text"]
    assert "A sentence with an example is shown here." == process("pdf", content, "summarize")["summary"]


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
@pytest.mark.parametrize("drawn", [0, 90, 180, 270])
def test_turned_pages_are_read_in_order(turned: int, drawn: int) -> None:
    """However the page is turned, and the text on it."""
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=12)
    lines = ["First line of all", "Second line is here", "Third line ends"]
    with made.rotation(drawn, x=100, y=100):
        for place, text in enumerate(lines):
            made.set_xy(50, 60 + 8 * place)
            made.cell(text=text)
    content = bytes(made.output()).replace(b"/Type /Page\n", b"/Type /Page /Rotate %d\n" % turned)
    assert not turned or b"/Rotate %d" % turned in content
    assert "\n".join(lines) == process("pdf", content)["text"]


@pytest.mark.parametrize(("order", "cmap", "codec", "text"), [
    ("Japan1", "UniJIS-UCS2-H", "utf-16-be", "日本語のテキスト"),
    ("Japan1", "90ms-RKSJ-H", "cp932", "日本語のテキスト"),
    ("GB1", "UniGB-UCS2-H", "utf-16-be", "中文文本"), ("GB1", "GBK-EUC-H", "gbk", "中文文本"),
    ("CNS1", "UniCNS-UCS2-H", "utf-16-be", "中文文本"), ("CNS1", "ETen-B5-H", "big5", "中文文本"),
    ("Korea1", "UniKS-UCS2-H", "utf-16-be", "한국어"), ("Korea1", "KSCms-UHC-H", "cp949", "한국어"),
])  # fmt: skip
def test_east_asian_text_is_read_without_its_font(order: str, cmap: str, codec: str, text: str) -> None:
    """The document names a font and brings none, as many do."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 99]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>"
    drawn = b"BT/F 20 Tf 10 40 Td<" + text.encode(codec).hex().encode() + b">Tj ET"
    font = b"<</Type/Font/Subtype/Type0/BaseFont/Mine/Encoding/%b/DescendantFonts[6 0 R]>>" % cmap.encode()
    below = (
        b"<</Type/Font/Subtype/CIDFontType0/BaseFont/Mine/DW 1000/CIDSystemInfo<</Registry(Adobe)/Ordering(%b)"
        b"/Supplement 2>>/FontDescriptor 7 0 R>>" % order.encode()
    )
    about = b"<</Type/FontDescriptor/FontName/Mine/Flags 4/FontBBox[0 -200 1000 900]/Ascent 800/Descent -200>>"
    pages = b"<</Type/Pages/Count 1/Kids[3 0 R]>>"
    found = process("pdf", files.raw_pdf(CATALOG, pages, page, files.stream(drawn), font, below, about))
    assert (text, 0) == (found["text"], found["unreadable_characters"])


def test_the_font_is_the_one_that_is_made() -> None:
    """Byte for byte, so that nobody changes one without the other."""
    assert placeholder_font.PLACE.read_bytes() == placeholder_font.font()


def test_what_is_noted_on_a_page_is_told() -> None:
    """And attached files are named, with their sizes."""
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=12)
    made.cell(text="Body")
    made.free_text_annotation("Free note", x=20, y=50, w=80, h=10)
    made.text_annotation(x=20, y=70, text="Sticky note", title="Ada")
    made.embed_file(bytes=b"hello", basename="a.txt")
    content = bytes(made.output())
    found = process("pdf", content)
    notes = [(one["page"], one["type"], one["author"], one["text"]) for one in found["annotations"]]
    assert [(1, "text", None, "Free note"), (1, "note", "Ada", "Sticky note")] == notes
    facts = process("pdf", content, "analyze")
    assert ([{"name": "a.txt", "size_bytes": 5}], 1) == (facts["attachments"], facts["attachments_total"])
    assert 2 == facts["annotations_total"]


PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>"
CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"


def test_a_pdf_without_text_has_nothing_to_summarize() -> None:
    """As scanned pages have not."""
    blank = files.raw_pdf(CATALOG, b"<</Type/Pages/Count 1/Kids[3 0 R]>>", PAGE)
    assert ("", 0) == tuple(process("pdf", blank)[name] for name in ("text", "characters"))
    assert "no_text" == refusal("pdf", blank, "summarize").code


def test_a_broken_page_is_named() -> None:
    """And can be left out."""
    content = files.raw_pdf(CATALOG, b"<</Type/Pages/Count 2/Kids[3 0 R 9 0 R]>>", PAGE)
    found = refusal("pdf", content)
    assert "corrupt_document" == found.code
    assert "Page 2" in str(found)
    assert "" == process("pdf", content, pages="1")["text"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("D:20260102030405+02'30'", "2026-01-02T03:04:05+02:30"),
        ("D:20260102030405-08'00", "2026-01-02T03:04:05-08:00"),
        ("D:20260102030405Z", "2026-01-02T03:04:05+00:00"),
        ("D:202601", "2026-01-01T00:00:00"),
        ("D:20269999", "D:20269999"),
        ("yesterday\x07", "yesterday"),
    ],
)
def test_dates_of_a_pdf(written: str, expected: str) -> None:
    """In ISO 8601 if they are dates."""
    assert expected == pdf_document._iso_date(written)


# ---- docx -------------------------------------------------------------------------------------------------------


def test_docx_paragraphs_and_tables() -> None:
    """A merged cell is there once; the text has both in order."""
    found = process("docx", files.word())
    assert ["A story", "Beginning", " ".join(files.STORY[:3]), "End", " ".join(files.STORY[3:])] == found["paragraphs"]
    assert [[["both", ""], ["left", "right"]]] == found["tables"]
    assert found["text"].endswith(files.STORY[-1] + "\n\nboth\nleft\tright")


def test_docx_facts() -> None:
    """Headings by style, metadata, and pictures but not the preview."""
    found = process("docx", files.word(), "analyze")
    assert [(0, "A story"), (1, "Beginning"), (2, "End")] == [(one["level"], one["text"]) for one in found["headings"]]
    assert ("A story", "Ada", "2026-01-02T03:04:05+00:00") == tuple(
        found["metadata"][name] for name in ("title", "author", "created")
    )
    assert (1, "image/png") == (found["images"]["count"], found["images"]["first"][0]["media_type"])
    assert (1, 1) == (found["tables"], found["sections"])


def test_docx_without_metadata_gets_none_made_up() -> None:
    """python-docx would say that it wrote the document today."""
    content = files.word()
    relations = files.part_of(content, "_rels/.rels")
    begin = relations.rindex("<Relationship ", 0, relations.index("core-properties"))
    without = relations[:begin] + relations[relations.index("/>", begin) + 2 :]
    bare = files.repacked(content, {"_rels/.rels": without.encode(), "docProps/core.xml": None})
    assert {} == process("docx", bare, "analyze")["metadata"]


PARAGRAPHS = {
    "runs": ("<w:p><w:r><w:t>a</w:t></w:r><w:r><w:t>b</w:t></w:r></w:p>", "ab"),
    "signs": ("<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>", "a\tb\nc"),
    "a tracked insertion": ("<w:p><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>", "new"),
    "a tracked deletion": ("<w:p><w:r><w:t>a</w:t></w:r><w:del><w:r><w:delText>b</w:delText></w:r></w:del></w:p>", "a"),
    "a content control": (f"<w:sdt><w:sdtContent>{W_P.format('in it')}</w:sdtContent></w:sdt>", "in it"),
    "a link": ("<w:p><w:hyperlink><w:r><w:t>there</w:t></w:r></w:hyperlink></w:p>", "there"),
    "a fallback": (f"<w:p><mc:AlternateContent>{W_CHOICE}</mc:AlternateContent></w:p>", "a"),
    "a row in a content control": (W_BOUND_ROW, "plain\nbound"),
    "a text box": (f"{W_BOX}{W_P.format('after')}", "by it\n\nin the box\n\nafter"),
    "a hyphen that does not break": ("<w:p><w:r><w:t>a</w:t><w:noBreakHyphen/><w:t>b</w:t></w:r></w:p>", "a\u2011b"),
    "a field": ("<w:p><w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:t>7</w:t></w:r></w:p>", "7"),
    "a box to tick": (W_TICK, "☒"),
    "a reading": (W_RUBY, "漢(かん)"),
    "a fraction": (M_P.format(f"<m:f><m:num>{M_X}</m:num><m:den>{M_Y}</m:den></m:f>"), "x/y"),
    "a power": (M_P.format(f"<m:sSup><m:e>{M_X}</m:e><m:sup>{M_Y}</m:sup></m:sSup>"), "x^y"),
    "a root": (M_P.format(f"<m:rad><m:deg/><m:e>{M_X}{M_Y}</m:e></m:rad>"), "√(xy)"),
    "a sum": (M_P.format(M_SUM), "∑_x^y x"),
    "brackets": (M_P.format(f"<m:d><m:e>{M_X}</m:e><m:e>{M_Y}</m:e></m:d>"), "(x|y)"),
    "a row that was deleted": (W_ROW_DELETED, "here"),
    "tab stops": ("<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr><w:r><w:t>a</w:t></w:r></w:p>", "a"),
    "a nested table": (W_TABLE.format(W_P.format("out") + W_TABLE.format(W_P.format("in"))), "out in"),
    "a cell that says it is wide": (
        W_TABLE.format("<w:tcPr><w:gridSpan w:val='2000000000'/></w:tcPr>" + W_P.format("x")), "x",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), PARAGRAPHS.values(), ids=PARAGRAPHS)
def test_docx_text(body: str, expected: str) -> None:
    """The text comes as a reader sees it, once."""
    assert expected == process("docx", files.word_with(body))["text"]


def test_merged_cells_are_a_grid() -> None:
    """A column is a column: what a cell covers beside it and below it is empty."""
    document = docx.Document()
    table = document.add_table(rows=3, cols=3)
    for place in range(9):
        table.cell(place // 3, place % 3).text = str(place)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 2).merge(table.cell(2, 2)).text = "high"
    expected = [["wide", "", "2"], ["3", "4", "high"], ["6", "7", ""]]
    assert [expected] == process("docx", files.saved(document))["tables"]


def test_headers_and_footers_stand_beside_the_text() -> None:
    """Each once, also with a table in it."""
    document = docx.Document()
    document.add_paragraph("body")
    document.sections[0].header.paragraphs[0].text = "above"
    document.sections[0].footer.paragraphs[0].text = "below"
    document.sections[0].footer.add_table(1, 2, docx.shared.Pt(100)).cell(0, 1).text = "7"
    document.add_section()
    found = process("docx", files.saved(document))
    assert ("body", ["above"], ["below\n\t7"]) == (found["text"], found["headers"], found["footers"])


def test_notes_are_numbered_as_the_text_names_them() -> None:
    """Footnotes and endnotes; Word's own separators are none."""
    body = "<w:p><w:r><w:t>a</w:t><w:{0}Reference w:id='5'/><w:t>b</w:t><w:{1}Reference w:id='5'/></w:r></w:p>"
    content = files.word_with(body.format("endnote", "footnote"))
    line = f"<w:footnote w:type='separator' w:id='0'>{W_P.format('--')}</w:footnote>"
    content = files.word_part(content, "footnotes", f"{line}<w:footnote w:id='5'>{W_P.format('foot')}</w:footnote>")
    content = files.word_part(content, "endnotes", f"<w:endnote w:id='5'>{W_P.format('end')}</w:endnote>")
    found = process("docx", content)
    assert "a[1]b[2]\n\n[1] end\n\n[2] foot" == found["text"]
    assert [(1, "endnote"), (2, "footnote")] == [(note["number"], note["type"]) for note in found["notes"]]


TRACKED = (
    "<w:p><w:r><w:t>a</w:t></w:r><w:ins w:author='Ada'><w:r><w:t>new</w:t></w:r></w:ins>"
    "<w:del w:author='Bob' w:date='2026-01-02T00:00:00Z'><w:r><w:delText>old</w:delText></w:r></w:del></w:p>"
)


@pytest.mark.parametrize(("changes", "text"), [("accepted", "anew"), ("rejected", "aold"), ("listed", "anew")])
def test_tracked_changes_are_read_as_asked(changes: str, text: str) -> None:
    """And counted whatever was asked."""
    found = process("docx", files.word_with(TRACKED), changes=changes)
    assert (text, 2) == (found["text"], found["tracked_changes_total"])
    listed = [("ins", "Ada", "new"), ("del", "Bob", "old")] if changes == "listed" else []
    assert listed == [(one["type"], one["author"], one["text"]) for one in found.get("tracked_changes", [])]


def test_comments_are_counted_and_told_when_asked_for() -> None:
    """With author and date."""
    inner = f"<w:comment w:id='1' w:author='Ada' w:date='2026-01-02T00:00:00Z'>{W_P.format('why?')}</w:comment>"
    content = files.word_part(files.word_with(W_P.format("body")), "comments", inner)
    assert (1, False) == ((found := process("docx", content))["comments_total"], "comments" in found)
    expected = {"author": "Ada", "date": "2026-01-02T00:00:00Z", "text": "why?"}
    assert [expected] == process("docx", content, comments=True)["comments"]


def test_parts_that_are_not_read_are_counted() -> None:
    """A chart has a title and labels."""
    assert 0 == process("docx", files.word())["unread_parts_total"]
    assert 1 == process("docx", files.word_part(files.word(), "chart", ""))["unread_parts_total"]


MAIN = "vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"


@pytest.mark.parametrize("kind", [
    "vnd.ms-word.document.macroEnabled.main+xml",
    "vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "vnd.ms-word.template.macroEnabledTemplate.main+xml",
])  # fmt: skip
def test_a_template_or_a_document_with_macros_is_read(kind: str) -> None:
    """As the document that it is; nothing of it is run."""
    types = files.part_of(files.word(), "[Content_Types].xml").replace(MAIN, kind).encode()
    assert "A story" in process("docx", files.repacked(files.word(), {"[Content_Types].xml": types}))["text"]


def strict(content: bytes) -> bytes:
    """A docx in the names of ISO 29500-1."""
    parts: dict[str, bytes | None] = {}
    for name in ("_rels/.rels", "word/_rels/document.xml.rels", "word/document.xml", "word/styles.xml"):
        text = files.part_of(content, name)
        for usual in ("officeDocument/2006/relationships", "wordprocessingml/2006/main", "drawingml/2006/main"):
            ours, its = (f"http://schemas.openxmlformats.org/{usual}", usual.replace("/2006", ""))
            text = text.replace(ours, f"http://purl.oclc.org/ooxml/{its}")
        parts[name] = text.encode()
    return files.repacked(content, parts)


def test_strict_open_xml_is_read_alike() -> None:
    """And its own names, where they are text, stay as they are."""
    assert process("docx", files.word())["text"] == process("docx", strict(files.word()))["text"]
    name = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    assert name == process("docx", files.word_with(W_P.format(name)))["text"]


NOT_DOCX = {
    "a pdf": (files.pdf(1), "wrong_document_type"),
    "text": (b"text", "wrong_document_type"),
    "nothing": (b"", "wrong_document_type"),
    "an old Word file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "wrong_document_type"),
    "an encrypted one": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le"), "encrypted_document",
    ),
    "a zip of something": (files.repacked(files.word(), {"[Content_Types].xml": None}), "corrupt_document"),
    "cut off": (files.word()[:-100], "corrupt_document"),
    "without a body": (files.repacked(files.word(), {"word/document.xml": None}), "corrupt_document"),
    "no XML": (files.repacked(files.word(), {"word/document.xml": b"<w:document"}), "corrupt_document"),
    "damaged": (files.word()[:3000] + b"\xff" * 50 + files.word()[3050:], "corrupt_document"),
}  # fmt: skip


@pytest.mark.parametrize("by_extension", [False, True])
def test_xml_under_a_name_that_is_not_checked_as_xml(by_extension: bool) -> None:
    """Its size and its entities would be looked at by nobody."""
    hidden = files.renamed_body(files.word(), "word/body.bin", by_extension=by_extension)
    assert "corrupt_document" == refusal("docx", hidden).code


@pytest.mark.parametrize("name", ["word/body.xml", "word/body.XML"])
def test_the_body_has_any_name_of_xml(name: str) -> None:
    """It is found by relations, as other programs write it."""
    assert "story" in process("docx", files.renamed_body(files.word(), name))["text"]


@pytest.mark.parametrize(("content", "code"), NOT_DOCX.values(), ids=NOT_DOCX)
def test_what_is_no_docx(content: bytes, code: str) -> None:
    """Told by content, whatever is claimed."""
    assert code == refusal("docx", content).code


def archive(entries: dict[str, bytes], **change: int) -> bytes:
    """A zip archive whose entries claim what they are not."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries.items():
            made.writestr(name, content)
        for entry in made.infolist():
            for name, value in change.items():
                setattr(entry, name, value)
    return buffer.getvalue()


def test_an_encrypted_archive() -> None:
    """By its flag; nothing of it is inflated."""
    assert "encrypted_document" == refusal("docx", archive({"word/document.xml": b"x"}, flag_bits=1)).code


ARCHIVES = {
    "many entries": (archive({str(n): b"" for n in range(docx_archive.MAX_ENTRIES + 1)}), "document_too_large"),
    "much in all": (archive({"a": b"", "b": b""}, file_size=200 << 20), "document_too_large"),
    "much XML": (archive({"a.xml": b""}, file_size=40 << 20, compress_size=20 << 20), "document_too_large"),
    "dense": (archive({"a": bytes(2 << 20)}), "document_too_large"),
    "overlapping": (archive({"a": b"x", "b": b"x"}, compress_size=400), "corrupt_document"),
    "packed in another way": (archive({"a": b"x"}, compress_type=zipfile.ZIP_LZMA), "corrupt_document"),
}


@pytest.mark.parametrize(("content", "code"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_no_document_is(content: bytes, code: str) -> None:
    """By its directory alone."""
    assert code == refusal("docx", content).code


# ---- txt --------------------------------------------------------------------------------------------------------

GERMAN = "Größe, Maß und Übermut: naïve Leute zahlen 5 € für „schöne“ Äpfel aus Österreich.\n" * 3
RUSSIAN = "Привет, это русский текст для проверки кодировки, в нём достаточно слов.\n" * 3
JAPANESE = "これは日本語のテキストです。文字コードの判定を試します。\n" * 5
ENCODINGS = {
    "utf-8": (GERMAN.encode(), GERMAN, "utf-8"),
    "utf-8 with a mark": (b"\xef\xbb\xbf" + GERMAN.encode(), GERMAN, "utf-8"),
    "utf-16 with a mark": (GERMAN.encode("utf-16"), GERMAN, "utf-16"),
    "utf-16 without": (RUSSIAN.encode("utf-16-le"), RUSSIAN, "utf-16-le"),
    "utf-32 with a mark": (GERMAN.encode("utf-32"), GERMAN, "utf-32"),
    "windows-1252": (GERMAN.encode("cp1252"), GERMAN, "cp1252"),
    "windows-1251": (RUSSIAN.encode("cp1251"), RUSSIAN, "cp1251"),
    "shift-jis": (JAPANESE.encode("cp932"), JAPANESE, "cp932"),
    "ascii": (b"plain\r\ntext\r", "plain\ntext\n", "utf-8"),
    "nothing": (b"", "", "utf-8"),
}


@pytest.mark.parametrize(("content", "text", "encoding"), ENCODINGS.values(), ids=ENCODINGS)
def test_an_encoding_is_found(content: bytes, text: str, encoding: str) -> None:
    """And told."""
    found = process("txt", content)
    assert (text, encoding, 0) == (found["text"], found["encoding"], found["unreadable_characters"])


def test_an_encoding_that_is_given_holds() -> None:
    """Also against what the bytes look like; what they cannot be is refused."""
    assert "Grün" == process("txt", "Grün".encode("iso-8859-15"), encoding="iso-8859-15")["text"]
    assert "Gr\u0413\u0458n" == process("txt", "Grün".encode(), encoding="windows-1251")["text"]
    assert "wrong_encoding" == refusal("txt", "Grün".encode("cp1252"), encoding="utf-8").code


FEW = {
    "cp1251": "Привет", "koi8_r": "Привет мир", "cp1252": "schöne Größe", "cp1250": "Příliš žluťoučký",
    "cp932": "日本語です", "euc_jp": "日本語です", "gb18030": "这是中文文本", "big5": "這是中文文本",
    "cp949": "한국어 텍스트", "cp1253": "Καλημέρα", "cp1254": "Türkçe \u0131\u015f\u0131k", "cp1255": "שלום עולם",
    "cp1256": "مرحبا بالعالم",
}  # fmt: skip


@pytest.mark.parametrize(("encoding", "text"), FEW.items(), ids=FEW)
def test_a_guess_from_little_is_told_as_one(encoding: str, text: str) -> None:
    """It is right here, and less sure than one from much."""
    few, much = process("txt", text.encode(encoding)), process("txt", (text + "\n").encode(encoding) * 100)
    assert text == few["text"]
    assert 0 < few["encoding_confidence"] < much["encoding_confidence"] < 1


def test_one_bad_byte_does_not_flip_a_text() -> None:
    """It is UTF-8 with an error, which is counted; certain where there is none."""
    found = process("txt", GERMAN.encode() + b"\xe9 and")
    assert (GERMAN + "\ufffd and", "utf-8", 1) == tuple(
        found[name] for name in ("text", "encoding", "unreadable_characters")
    )
    assert 0.9 < found["encoding_confidence"] < 1 == process("txt", GERMAN.encode())["encoding_confidence"]


NOT_TEXT = {
    "pdf": files.pdf(1),
    "docx": files.word(),
    "png": files.image("PNG"),
    "webp": files.image("WEBP"),
    "zeros": bytes(1000),
    "noise": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("content", NOT_TEXT.values(), ids=NOT_TEXT)
def test_what_is_no_text(content: bytes) -> None:
    """It is refused and never comes back as signs."""
    assert "wrong_document_type" == refusal("txt", content).code


def test_txt_facts() -> None:
    """Lines, and headings as in Markdown."""
    found = process("txt", "# One\ntext is here\n\n## Two ##\n#none\n", "analyze")
    assert 5 == found["lines"]
    assert [{"level": 1, "text": "One"}, {"level": 2, "text": "Two"}] == found["headings"]


# ---- measures and summaries -------------------------------------------------------------------------------------


def test_counts() -> None:
    """Words, sentences and language of a text whose lines were broken."""
    found = process("txt", "Dr. Smith's well-known cat\nsat here. It cost 3.50 dollars,\nit did!", "analyze")
    assert (12, 2, "en") == (found["words"], found["sentences"], found["language"]["code"])


def test_each_sign_of_chinese_is_a_word() -> None:
    """Words are not parted there."""
    assert ["我", "爱", "Python3", "吗"] == prose.words("我爱Python3吗?")


LANGUAGES = {"Das ist ein Haus und kein Baum.": "de", "これはペンです。": "ja",
             "C'est une maison avec un jardin.": "fr", "1 2 3": None, "": None}  # fmt: skip


@pytest.mark.parametrize(("text", "code"), LANGUAGES.items(), ids=LANGUAGES)
def test_language(text: str, code: str | None) -> None:
    """None where there are no words."""
    assert code == process("txt", {"text": text}, "analyze")["language"]["code"]


def test_a_summary_leaves_out_what_stands_alone() -> None:
    """The sentences that share words with the others win, and keep their order."""
    found = process("txt", " ".join(files.STORY), "summarize", sentences=3)
    assert "It rained in London." not in found["summary"]
    assert sorted(found["sentences"], key=files.STORY.index) == found["sentences"]
    assert (3, len(files.STORY)) == (len(found["sentences"]), found["sentences_total"])


def test_a_summary_of_little_is_all_of_it() -> None:
    """There are no more sentences than there are."""
    assert ["One is here now.", "Two are there too."] == (
        process("txt", "One is here now. Two are there too.", "summarize", sentences=50)["sentences"]
    )


def test_repeated_sentences_count_once() -> None:
    """A header on every page is no summary."""
    text = "\n\n".join(["Page header of our firm."] * 50 + list(files.STORY))
    assert 1 >= process("txt", {"text": text}, "summarize")["sentences"].count("Page header of our firm.")


def test_a_long_text_is_summarized_by_blocks() -> None:
    """All of its first 3,000 sentences take part, and as many come out as asked for."""
    text = " ".join(f"Word{n % 37} and word{n % 41} meet in sentence number {n}." for n in range(3500))
    found = process("txt", {"text": text}, "summarize", sentences=5)
    assert (5, 3500, 3000) == (len(found["sentences"]), found["sentences_total"], found["sentences_considered"])


def test_sentences_that_share_nothing_are_told_in_order() -> None:
    """They all rank the same; no random choice."""
    text = "Alpha beta gamma. Delta epsilon zeta. Eta theta iota. Kappa lambda mu."
    assert ["Alpha beta gamma.", "Delta epsilon zeta."] == process("txt", text, "summarize", sentences=2)["sentences"]


def test_a_sentence_without_end_is_cut() -> None:
    """A summary stays one."""
    (sentence,) = process("txt", {"text": "word " * 10_000}, "summarize")["sentences"]
    assert (summaries.MAX_SENTENCE_CHARACTERS, "…") == (len(sentence), sentence[-1])


# ---- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pdf", "docx", "txt"])
def test_text_is_cut_where_asked(kind: str) -> None:
    """And says so; text that just fits does not."""
    content: Any = {"pdf": files.pdf(2), "docx": files.word(), "txt": "It was the best of times. " * 40}[kind]
    whole = process(kind, content)
    assert not whole["truncated"]
    cut = process(kind, content, max_characters=20)
    assert cut["truncated"]
    assert whole["text"].startswith(cut["text"].rstrip())
    assert 20 <= cut["characters"] <= 24  # what joins the parts is not counted
    assert process(kind, content, "analyze", max_characters=20)["truncated"]


def test_the_longest_text_fits_into_a_result() -> None:
    """A million signs that take four bytes each, in both of their forms, with room for what stands around them."""
    document = docx.Document()
    signs = random.Random(1)
    for _ in range(1001):
        document.add_paragraph("".join(chr(signs.randrange(0x1F300, 0x1F600)) for _ in range(1000)))
    parameters = {
        "document_type": "docx", "operation": "extract_text", "content": files.base64_of(files.saved(document)),
    }  # fmt: skip
    request = Request(task_type="document_processing", parameters=msgspec.Raw(json.dumps(parameters).encode()))
    encoded = jsonable.encode(document_processing.run(request))
    assert MAX_TEXT_CHARACTERS == msgspec.json.decode(encoded)["characters"] - 2 * 999
    assert len(encoded) < 8192 << 10


def test_a_table_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells take room even when they are empty."""
    monkeypatch.setattr(docx_document, "MAX_CELLS", 10)
    row = "<w:tr>" + ("<w:tc>" + W_P.format("") + "</w:tc>") * 4 + "</w:tr>"
    found = process("docx", files.word_with(f"<w:tbl>{row * 5}</w:tbl>{W_P.format('after')}"))
    assert ([4, 4, 4], True) == ([len(row) for row in found["tables"][0]], found["truncated"])


LINES = {"a\nb": "a b", "a\n\nb": "a\n\nb", "a\n \n\nb\nc": "a\n\nb c", "\n\na\n": "a", "": "", "\n" * 100_000: ""}


@pytest.mark.parametrize(("text", "expected"), LINES.items(), ids=range(len(LINES)))
def test_lines_flow_into_paragraphs(text: str, expected: str) -> None:
    """However many there are."""
    assert expected == reading.flow(text)


# ---- files of others --------------------------------------------------------------------------------------------

FILES = Path(__file__).resolve().parent / "files"


def test_real_pdfs_are_read_as_drawn() -> None:
    """Japanese without its font, lines that stay apart on a turned page, and what was filled in."""
    texts = [process("pdf", (FILES / f"{name}.pdf").read_bytes())["text"] for name in ("simple3", "libreoffice-form")]
    assert "あいうえおあいうえお" in texts[0]
    assert "Alice Bob" in texts[1]
    zen = process("pdf", (FILES / "zen_of_python_corrupted.pdf").read_bytes())["text"]
    assert "implicit.\nSimple is better than complex.\nComplex is" in zen
