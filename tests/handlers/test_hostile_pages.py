"""Pages of the awkward kind, and what a user would take instead: BeautifulSoup, pandas, html.unescape, requests."""

from __future__ import annotations

import gzip
import html
import importlib.util
import io
import json
from typing import Any

import brotli
import httpx
import pandas as pd
import pytest
import zstandard
from bs4 import BeautifulSoup

from handlers import encodings, jsonable, pages, unpacking
from handlers.failures import Refusal
from handlers.parameters.registry import decode
from handlers.web_scraping import Page, _extract, _selectors
from tests.support.entry_process import ROOT

URL = "http://site.test/dir/page.html"


def scrape(content: str | bytes, content_type: str = "text/html", **asked: Any) -> dict[str, Any]:
    """The answer about a page that has arrived, as JSON has it."""
    parameters = decode("web_scraping", json.dumps({"url": URL, **asked}).encode())
    body = content.encode() if isinstance(content, str) else content
    headers = {"content-type": content_type}
    answer = httpx.Response(200, headers=headers, content=body, request=httpx.Request("GET", URL))
    found = _extract(Page(answer, body, []), _selectors(parameters), parameters)
    return dict(json.loads(jsonable.encode(found)))


# ---- encodings ---------------------------------------------------------------------------------------------------

DECLARED: dict[str, tuple[bytes, str, str, str]] = {
    "utf-16 in ASCII": ("<meta charset=utf-16><p>Größe".encode(), "text/html", "Größe", "utf-8"),
    "utf-16le by http-equiv": (
        '<meta http-equiv=content-type content="text/html; charset=utf-16le"><p>Größe'.encode(), "text/html",
        "Größe", "utf-8",
    ),
    "utf-16 in the header": ("<p>Größe".encode(), "text/html; charset=utf-16", "Größe", "utf-8"),
    "utf-16 that is so": ("<p>Größe".encode("utf-16-le"), "text/html; charset=utf-16le", "Größe", "utf-16-le"),
    "Latin 1 that is more": (b"<meta charset=iso-8859-1><p>\x80 5\x96\x39", "text/html", "€ 5\u20139", "cp1252"),
    "gb2312 that is more": ("<meta charset=gb2312><p>朱镕基".encode("gbk"), "text/html", "朱镕基", "gb18030"),
    "big5 of Hongkong": ("<meta charset=big5><p>嘅咗喺".encode("big5hkscs"), "text/html", "嘅咗喺", "big5hkscs"),
    "a mark against the header": (b"\xef\xbb\xbf<p>Gr\xc3\xb6", "text/html; charset=iso-8859-1", "Grö", "utf-8"),
    "a name that is none": ("<meta charset=utf-8><p>Größe".encode(), "text/html; charset=none", "Größe", "utf-8"),
    "far behind a comment": (
        b"<!--" + b"x" * 3000 + b"--><meta charset=windows-1251><p>" + "Привет".encode("cp1251"), "text/html",
        "Привет", "cp1251",
    ),
    "in a comment only": ("<!-- <meta charset=windows-1251> --><p>Größe".encode(), "text/html", "Größe", "utf-8"),
    "nothing, of seven bits": ("<p>日本語".encode("iso2022_jp"), "text/html", "日本語", "iso2022_jp"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "content_type", "text", "encoding"), DECLARED.values(), ids=DECLARED)
def test_a_page_is_read_as_browsers_read_it(content: bytes, content_type: str, text: str, encoding: str) -> None:
    """WHATWG's rules: a declaration that cannot be true is none, and names mean what pages write under them."""
    found = scrape(content, content_type)
    assert (text, encoding, 0) == tuple(found[name] for name in ("text", "encoding", "unreadable_characters"))


@pytest.mark.parametrize("name", [name for name in DECLARED if name != "nothing, of seven bits"])
def test_the_script_reads_a_page_likewise(name: str) -> None:
    """web_scraper.py, which users copy, has no part in the handlers."""
    content, content_type, text, _ = DECLARED[name]
    spec = importlib.util.spec_from_file_location("web_scraper", ROOT / "scripts" / "web_scraper.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    answer = script.requests.Response()
    answer._content, answer.headers["content-type"] = content, content_type
    answer.encoding = script.requests.utils.get_encoding_from_headers(answer.headers)
    assert text == script.text_of(script.BeautifulSoup(script.decoded(answer)[0], "lxml"))


# ---- text --------------------------------------------------------------------------------------------------------

WRITTEN = {
    "codes of windows-1252": "It&#146;s 5&#150;6 &#128;9 &#x93;q&#x94;&#133;",
    "two levels": "&amp;copy; &amp;amp; &lt;b&gt; &#38;lt;",
    "without an end": "&copy 2024 &frac12 &eacute",
    "of many letters": "&NotEqualTilde;&ThickSpace;x&hellip;&zwj;",
    "beyond Unicode": "a&#x110000;b&#xD800;c",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_references_are_the_signs_that_html_has_for_them(text: str) -> None:
    """As html.unescape has them, spaces collapsed."""
    assert " ".join(html.unescape(text).split()) == scrape(f"<p>{text}</p>")["text"]


SEEN = {
    "parts of a word": ("<p>$<span>19</span>.<b>99</b><wbr>x</p>", "$19.99x"),
    "how a word is said": ("<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字</p>", "漢(かん)字"),
    "what is not shown": ("<p>a<noscript>b</noscript><template>c</template><script>d</script>e</p>", "ae"),
    "end tags left out": ("<p>a<p>b<table><tr><td>1<td>2<tr><td>3</table>c", "a b 1 2 3 c"),
    "tags crossed": ("<p>a<b>b<i>c</b>d</i>e", "abcde"),
    "lines of code": ("<pre>a  b\n\tc</pre>d", "a b c d"),
    "a title with tags": ("<title>a <b>b</b></title><p>c", "a <b>b</b> c"),
}


@pytest.mark.parametrize(("page", "text"), SEEN.values(), ids=SEEN)
def test_text_is_what_a_reader_sees(page: str, text: str) -> None:
    """And as BeautifulSoup has its words."""
    assert text == scrape(page)["text"]


def test_a_feed_keeps_signs_that_only_html_has_names_for() -> None:
    """XML's reader would drop them, and the next ampersand too. What is not parsed stays as it is."""
    feed = "<rss><title>Caf&eacute; A &amp; B &mdash; &unknown;</title><d><![CDATA[&eacute;]]></d></rss>"
    found = scrape(feed, "application/rss+xml", extract={"t": "title", "d": "d"})["extracted"]
    assert ("Café A & B — &unknown;", "&eacute;") == (found["t"], found["d"])
    assert "Café A & B" in BeautifulSoup(feed, "lxml").title.get_text()  # type: ignore[union-attr]
    own = '<!DOCTYPE r [<!ENTITY eacute "E">]><r>&eacute;</r>'
    assert "&eacute;" == scrape(own, "application/xml", extract={"r": "/r"})["extracted"]["r"]


# ---- tables ------------------------------------------------------------------------------------------------------

SPANS = {
    "over rows and columns": "<tr><th colspan=2>h<th rowspan=3>r<tr><td>1<td>2<tr><td>3<td>4",
    "over more rows than there are": "<thead><tr><th rowspan=9>h<th>i</thead><tbody><tr><td>1<td>2</tbody>",
    "to the end of its section": "<tbody><tr><td rowspan=0>z<td>1<tr><td>2</tbody><tbody><tr><td>3<td>4</tbody>",
    "next to each other": "<tr><td rowspan=2>a<td rowspan=3>b<td>c<tr><td>d<tr><td>e<td>f",
    "a number that is none": "<tr><td colspan=-1>o<td colspan=2x>p<td rowspan=x>q",
}
GRIDS = {
    "over rows and columns": [["h", "", "r"], ["1", "2", ""], ["3", "4", ""]],
    "over more rows than there are": [["h", "i"], ["1", "2"]],
    "to the end of its section": [["z", "1"], ["", "2"], ["3", "4"]],
    "next to each other": [["a", "b", "c"], ["", "", "d"], ["e", "", "f"]],
    "a number that is none": [["o", "p", "q"]],
}


@pytest.mark.parametrize("name", SPANS)
def test_cells_of_a_table_stand_in_their_columns(name: str) -> None:
    """HTML, 4.9.12: no cell goes beyond its section."""
    assert GRIDS[name] == scrape(f"<table>{SPANS[name]}</table>", tables=True)["tables"][0]


def test_spans_are_those_of_pandas() -> None:
    """Who repeats the text of a cell in all that it covers."""
    page = f"<table>{SPANS['next to each other']}</table>"
    theirs = pd.read_html(io.StringIO(page))[0].to_numpy().tolist()
    ours = scrape(page, tables=True)["tables"][0]
    pairs = [pair for row, peers in zip(ours, theirs, strict=True) for pair in zip(row, peers, strict=True)]
    assert all(mine in ("", other) for mine, other in pairs)


# ---- links -------------------------------------------------------------------------------------------------------


def test_links_are_relative_to_the_first_base_that_has_an_address() -> None:
    """Areas of a picture are links, too; what is no page is none."""
    page = (
        '<base target=x><base href="sub/"><base href="/no/"><a href="../a">A</a><a href="?q">Q</a><a href=" b\n">B</a>'
    )
    page += '<a href="//h.test/c">C</a><a href="mailto:x">M</a><map><area href="d" alt="D"></map>'
    found = {one["text"]: one["url"] for one in scrape(page)["links"]}
    base = "http://site.test/dir/"
    assert {
        "A": f"{base}a", "Q": f"{base}sub/?q", "B": f"{base}sub/b", "C": "http://h.test/c", "D": f"{base}sub/d",
    } == found  # fmt: skip


@pytest.mark.parametrize(("content", "goal"), [
    ("0; url=/next", "http://site.test/next"), ("5;URL='next?a=1;2'", "http://site.test/dir/next?a=1;2"),
    ("3", None), ("0, https://other.test/", "https://other.test/"), ("0;url=javascript:x()", None), ("soon", None),
])  # fmt: skip
def test_where_a_page_sends_its_reader_is_told(content: str, goal: str | None) -> None:
    """It is not followed: a page of nothing else would seem empty."""
    page = f'<meta http-equiv="Refresh" content="{content}">'
    assert goal == scrape(page)["metadata"]["refresh"]


# ---- packing -----------------------------------------------------------------------------------------------------

SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
"""A frame of zstd that says nothing: RFC 8878, 3.1.2."""
FIRST, SECOND = (zstandard.compress(bytes(range(256)) * size) for size in (4, 9))
PACKED = {
    "two frames": ("zstd", FIRST + SECOND, 13), "a frame to skip": ("zstd", SKIPPED + FIRST, 4),
    "frames to skip alone": ("zstd", SKIPPED * 2, 0), "one to skip at the end": ("zstd", FIRST + SKIPPED, 4),
    "two members": ("gzip", gzip.compress(bytes(range(256))) * 2, 2),
    "twice": ("gzip, br", brotli.compress(gzip.compress(bytes(range(256)))), 1),
}  # fmt: skip


@pytest.mark.parametrize(("coding", "content", "times"), PACKED.values(), ids=PACKED)
def test_all_that_was_packed_comes_out(coding: str, content: bytes, times: int) -> None:
    """However many pieces it was packed in."""
    assert bytes(range(256)) * times == unpacking.unpack(content, coding, 1 << 20)


@pytest.mark.parametrize(("coding", "content", "code"), [
    ("zstd", FIRST[:-1], "incomplete_body"), ("zstd", FIRST + SECOND[:-2], "incomplete_body"),
    ("zstd", FIRST + b"garbage", "corrupt_body"), ("br", brotli.compress(b"x" * 99) + b"garbage", "corrupt_body"),
    ("gzip", gzip.compress(b"abc")[:-8] + bytes(8), "corrupt_body"), ("zstd", SECOND * 9, "too_large"),
])  # fmt: skip
def test_what_is_not_whole_is_an_error(coding: str, content: bytes, code: str) -> None:
    """Also in a later piece; and what is too large together."""
    with pytest.raises(Refusal) as caught:
        unpacking.unpack(content, coding, 16 << 10)
    assert code == caught.value.code


# ---- guesses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain text", "naïve", "Καλημέρα", "שלום", "日本語 text", "a\tb\r\nc"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_read_in_its_order(text: str, encoding: str) -> None:
    """Where it has a sign that shows the order."""
    found = encodings.decode((text + "\n").encode(encoding))
    assert found is not None
    assert (text + "\n", encoding) == (found.text, found.encoding)


def test_entities_of_a_page_are_spelled_out_in_one_pass() -> None:
    """Sections of characters that never end do not make it start again."""
    text = "<r>" + "<![CDATA[" * 20_000
    assert len(pages._ENTITY.findall(text)) == 1
