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

from handlers import jsonable
from handlers.documents import document_processing, prose, reading
from handlers.documents import docx as docx_document
from handlers.documents import pdf as pdf_document
from handlers.failures import Refusal
from handlers.parameters.documents import MAX_TEXT_CHARACTERS
from handlers.parameters.registry import Request
from tests.support import sample_files as files

W_P = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
W_TABLE = "<w:tbl><w:tr><w:tc>{}</w:tc></w:tr></w:tbl>"
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
    assert (2, 0, [595.28, 841.89]) == (found["pages"], found["attachments"], found["page_size_pt"])


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
    assert [[["both"], ["left", "right"]]] == found["tables"]
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


NOT_DOCX = {
    "a pdf": (files.pdf(1), "wrong_document_type"),
    "text": (b"text", "wrong_document_type"),
    "nothing": (b"", "wrong_document_type"),
    "an old Word file": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000), "wrong_document_type"),
    "an encrypted one": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le"), "encrypted_document",
    ),
    "a zip of something": (files.repacked(files.word(), {"[Content_Types].xml": None}), "corrupt_document"),
    "with macros": (
        files.repacked(files.word(), {
            "[Content_Types].xml": files.part_of(files.word(), "[Content_Types].xml").replace(
                "vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
                "vnd.ms-word.document.macroEnabled.main+xml",
            ).encode(),
        }), "wrong_document_type",
    ),
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
    "many entries": (archive({str(n): b"" for n in range(docx_document.MAX_ENTRIES + 1)}), "document_too_large"),
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
    assert (prose.MAX_SENTENCE_CHARACTERS, "…") == (len(sentence), sentence[-1])


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
    assert (10, True) == (sum(map(len, found["tables"][0])), found["truncated"])


LINES = {"a\nb": "a b", "a\n\nb": "a\n\nb", "a\n \n\nb\nc": "a\n\nb c", "\n\na\n": "a", "": "", "\n" * 100_000: ""}


@pytest.mark.parametrize(("text", "expected"), LINES.items(), ids=range(len(LINES)))
def test_lines_flow_into_paragraphs(text: str, expected: str) -> None:
    """However many there are."""
    assert expected == reading.flow(text)
