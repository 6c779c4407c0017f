"""web_scraping and the script web_scraper.py: real pages of local servers, through sandbox and egress proxy."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import brotli
import msgspec
import pytest
import trustme
import zstandard

from sandbox import ExitReason, Host, Policy, Result, Template, load_policies
from tests.support.synchronous import Sandbox
from tests.support.web import Names, ok, raw_server, tls_server

ROOT = Path(__file__).resolve().parents[2]
PAGE = """<!doctype html><html lang="de"><head><title> A  page </title><meta name="description" content="about">
<meta property="og:title" content="og"><link rel="canonical" href="/canonical"><script>var hidden = 1</script></head>
<body><h1>Größe</h1><h2>Two</h2><p class="x">First <b>bold</b>.</p><p>Second.</p>
<a href="/next">Next</a><a href="https://other.test/">Other</a><a href="javascript:alert(1)">No</a>
<table><tr><th>a</th></tr><tr><td>1</td></tr></table></body></html>"""
Answers = dict[str, bytes]
Site = Callable[..., Any]


def html(text: str, *headers: str, encoding: str = "utf-8") -> bytes:
    """A response with a page."""
    return ok(text.encode(encoding), *(headers or ("Content-Type: text/html; charset=utf-8",)))


class Scraper:
    """Runs tasks against one local site, ``site.test``."""

    def __init__(
        self, task_type: str, policy: Policy, host: Host, template: Template, ports: list[int], **more: Any
    ) -> None:
        self.task_type = task_type
        names = Names(site_test=[["127.0.0.1"]], inside_test=[["10.0.0.1"]])
        allow = tuple(f"{name}:{port}" for name in ("site.test", "inside.test", "nowhere.test") for port in ports)
        network = msgspec.structs.replace(policy.network, allow=allow, **more)
        granted = msgspec.structs.replace(policy, network=network)
        outside = msgspec.structs.replace(template, egress_exceptions=(ip_network("127.0.0.0/8"),))
        self.box = Sandbox(granted, host, outside, ready=1, resolve=names)

    def run(self, parameters: dict[str, Any], **more: Any) -> Result:
        """One task as it ended."""
        request = json.dumps({"task_type": self.task_type, "parameters": parameters, **more}).encode()
        result: Result = self.box.do(self.box.pool.run(request))
        assert () == result.violations
        return result

    def value(self, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The result of one that ends well."""
        result = self.run(parameters, **more)
        assert result.value is not None, result
        return dict(msgspec.json.decode(result.value))

    def code(self, parameters: dict[str, Any]) -> str | None:
        """The code with which it is refused."""
        result = self.run(parameters)
        assert ExitReason.ERROR is result.exit_reason, result
        assert result.error is not None
        return result.error.code


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Path → whole response of the site; a test may add to it."""
    return {}


@pytest.fixture(scope="module")
def site(answers: Answers) -> Iterator[Any]:
    """A site that serves ``answers``, and 404 elsewhere."""

    def talk(sock: socket.socket, head: bytes) -> None:
        path = head.split(b" ")[1].decode()
        sock.sendall(answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))

    with raw_server(talk) as server:
        yield server


@pytest.fixture(scope="module")
def scraper(site: Any, host: Host, template: Template) -> Iterator[Scraper]:
    """web_scraping under the policy that is delivered, but for the hosts."""
    made = Scraper("web_scraping", load_policies(ROOT / "policies")["web_scraping"], host, template, [site.port])
    with contextlib.closing(made.box):
        yield made


@pytest.fixture
def url(site: Any) -> str:
    """Of the site, without a path."""
    return f"http://site.test:{site.port}"


def test_a_page_is_taken_apart(scraper: Scraper, answers: Answers, url: str) -> None:
    """Title, text, links, metadata, what matches, final URL, status and headers."""
    answers["/page"] = html(PAGE)
    extract = {
        "title": "h1::text",
        "links": {"selector": "a", "attribute": "href", "all": True},
        "bold": {"selector": "//b", "html": True},
        "none": "h6",
    }
    value = scraper.value({"url": f"{url}/page", "selector": "h1, h2, p", "extract": extract})
    assert ("A page", 200, f"{url}/page", "utf-8") == tuple(
        value[name] for name in ("title", "status", "url", "encoding")
    )
    assert ["Größe", "Two", "First bold.", "Second."] == [match["text"] for match in value["matches"]]
    assert {"class": "x"} == value["matches"][2]["attributes"]
    assert "hidden" not in value["text"]
    assert [f"{url}/next", "https://other.test/"] == [link["url"] for link in value["links"]]
    assert ("de", f"{url}/canonical", "about") == (
        value["metadata"]["language"],
        value["metadata"]["canonical"],
        value["metadata"]["meta"]["description"],
    )
    assert ["Größe", ["/next", "https://other.test/", "javascript:alert(1)"], "<b>bold</b>", None] == list(
        value["extracted"].values()
    )
    assert "text/html; charset=utf-8" == value["headers"]["content-type"]


@pytest.mark.parametrize(
    ("header", "encoding", "declared"),
    [
        ("Content-Type: text/html; charset=iso-8859-1", "iso-8859-1", ""),
        ("Content-Type: text/html", "windows-1252", '<meta charset="windows-1252">'),
        ("Content-Type: text/html", "utf-8", ""),
        ("Content-Type: text/html", "utf-16", ""),
        ("Content-Type: text/html; charset=rot13", "utf-8", ""),
        ("Content-Type: text/html; charset=zlib_codec", "utf-8", ""),
        ("Content-Type: text/html; charset=idna", "utf-8", ""),
    ],
)
def test_characters_are_right(  # noqa: PLR0917 fixtures come by name
    scraper: Scraper, answers: Answers, url: str, header: str, encoding: str, declared: str
) -> None:
    """By header, mark, the page's word or a guess; an encoding that is none of text is never used."""
    answers["/charset"] = html(f"<html><head>{declared}</head><p>Größe</p></html>", header, encoding=encoding)
    value = scraper.value({"url": f"{url}/charset", "selector": "p"})
    assert ["Größe"] == [match["text"] for match in value["matches"]]


TEXTS = {
    "a price in parts": ("<p>$<span>19</span>.<span>99</span></p>", "$19.99"),
    "parts of words": ("<p>H<sub>2</sub>O and <b>W</b>ord</p>", "H2O and Word"),
    "blocks without spaces": ("<div>one</div><div>two</div><ul><li>a<li>b</ul>", "one two a b"),
    "a line break": ("<p>one<br>two</p>", "one two"),
    "cells": ("<table><tr><td>a<td>b<tr><td>c</table>", "a b c"),
    "comments and scripts": ("<p>a<!-- x -->b<script>c</script>d</p>", "abd"),
}


@pytest.mark.parametrize(("body", "text"), TEXTS.values(), ids=TEXTS)
def test_spaces_stand_where_blocks_end(scraper: Scraper, answers: Answers, url: str, body: str, text: str) -> None:
    """And where the page has them; nowhere else."""
    answers["/text"] = html(f"<html><body>{body}</body></html>")
    assert text == scraper.value({"url": f"{url}/text"})["text"]


RUSSIAN = "<p>Привет мир, это обычный русский текст.</p>"
GUESSES = {
    "from the text": (RUSSIAN.encode("cp1251"), "Привет мир", "cp1251"),
    "behind a long script": (
        b"".join((b"<script>", b"x=1;" * 9000, b"</script>", RUSSIAN.encode("cp1251"))),
        "Привет",
        "cp1251",
    ),
    "nearly all is UTF-8": ("<p>größe</p><p>".encode() + b"\xe9</p>", "größe \ufffd", "utf-8"),
}


@pytest.mark.parametrize(("body", "text", "encoding"), GUESSES.values(), ids=GUESSES)
def test_an_encoding_is_guessed_from_the_text(  # noqa: PLR0917 fixtures come by name
    scraper: Scraper, answers: Answers, url: str, body: bytes, text: str, encoding: str
) -> None:
    """And told with how sure that is."""
    answers["/guess"] = ok(body, "Content-Type: text/html")
    found = scraper.value({"url": f"{url}/guess"})
    assert text in found["text"]
    assert encoding == found["encoding"]
    assert 0 < found["encoding_confidence"] < 1


PACKED = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress,
    "zstd": zstandard.compress, "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}  # fmt: skip
LONG = "".join(f"<p>The parcel {n} leaves the depot at nine.</p>" for n in range(500)).encode()


@pytest.mark.parametrize("coding", PACKED)
def test_a_packed_page_is_unpacked(scraper: Scraper, answers: Answers, url: str, coding: str) -> None:
    """However it was packed; a body that is cut off is an error, a bomb is refused."""
    pack = PACKED[coding]
    headers = ("Content-Type: text/html", f"Content-Encoding: {coding}")
    answers["/packed"] = ok(pack(LONG), *headers)
    assert "The parcel 499 leaves" in scraper.value({"url": f"{url}/packed"})["text"]
    answers["/packed"] = ok(pack(LONG)[:-9], *headers)
    assert scraper.code({"url": f"{url}/packed"}) in ("incomplete_body", "corrupt_body")
    answers["/packed"] = ok(pack(bytes(64 << 20)), *headers)
    assert "too_large" == scraper.code({"url": f"{url}/packed", "max_kib": 64})


def test_an_unknown_packing_is_refused(scraper: Scraper, answers: Answers, url: str) -> None:
    """Its bytes are no text."""
    answers["/packed"] = ok(b"abc", "Content-Type: text/html", "Content-Encoding: mine")
    assert "unsupported_content_encoding" == scraper.code({"url": f"{url}/packed"})


def test_robots_are_read_with_a_mark_and_behind_redirects(scraper: Scraper, answers: Answers, url: str) -> None:
    """As RFC 9309 has it."""
    answers["/secret"] = html("<p>secret</p>")
    answers["/robots.txt"] = ok(b"\xef\xbb\xbfUser-agent: *\nDisallow: /", "Content-Type: text/plain")
    try:
        assert "robots_disallowed" == scraper.code({"url": f"{url}/secret"})
        answers["/real.txt"] = answers["/robots.txt"]
        answers["/robots.txt"] = b"HTTP/1.1 301 Moved\r\nLocation: /real.txt\r\nContent-Length: 0\r\n\r\n"
        assert "robots_disallowed" == scraper.code({"url": f"{url}/secret"})
    finally:
        del answers["/robots.txt"]


def test_every_cut_is_told(scraper: Scraper, answers: Answers, url: str) -> None:
    """By a total or as truncated."""
    links = "".join(f'<a href="/{n}">x</a>' for n in range(1500))
    answers["/many"] = html(f"<html><body><p>{'y' * 30_000}</p>{'<i>x</i>' * 3000}{links}</body></html>")
    extract = {"all": {"selector": "i", "all": True}, "long": "p"}
    found = scraper.value({"url": f"{url}/many", "extract": extract, "selector": "p"})
    assert (1000, 1500) == (len(found["links"]), found["links_total"])
    assert (1000, 3000) == (len(found["extracted"]["all"]), found["extracted_total"]["all"])
    assert {"all": True, "long": True} == found["extracted_truncated"]
    assert True is found["matches"][0]["text_truncated"]


FEED = (
    '<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom" xmlns:media="urn:m">'
    "<title>Feed</title>"
    "<entry><title>First entry</title><media:title>Other</media:title></entry></feed>"
)


@pytest.mark.parametrize(
    ("selector", "texts"),
    [
        ("entry title", ["First entry"]), ("//entry/title", ["First entry"]), ("//media:title", ["Other"]),
        ("media|title", ["Other"]), ("count(//title)", ["2"]), ("string(//entry/title)", ["First entry"]),
        ("descendant::entry", ["First entry Other"]), ("boolean(//none)", ["false"]),
    ],
)  # fmt: skip
def test_a_feed_is_searched_by_the_names_it_has(
    scraper: Scraper, answers: Answers, url: str, selector: str, texts: list[str]
) -> None:
    """With and without prefixes, and by functions of XPath."""
    answers["/feed"] = ok(FEED.encode(), "Content-Type: application/atom+xml")
    found = scraper.value({"url": f"{url}/feed", "selector": selector})
    assert texts == [match["text"] for match in found["matches"]]


def test_tables_and_article_are_told_when_asked_for(scraper: Scraper, answers: Answers, url: str) -> None:
    """Tables as a grid; of the page's text only what it is about."""
    story = "<p>The committee met on Monday and agreed on a new plan for the old harbour of the town.</p>" * 6
    table = "<table><tr><th colspan=2>a<tr><td rowspan=2>1<td>2<tr><td>3</table>"
    menu = "<nav><a href=/x>Home</a> <a href=/y>Imprint</a></nav>"
    article = f"<article><h1>Harbour</h1>{story}{table}</article>"
    answers["/story"] = html(f"<html><head><title>T</title></head><body>{menu}{article}</body></html>")
    plain = scraper.value({"url": f"{url}/story"})
    assert not {"tables", "article"} & set(plain)
    found = scraper.value({"url": f"{url}/story", "tables": True, "article": True})
    assert ([[["a", ""], ["1", "2"], ["", "3"]]], 1) == (found["tables"], found["tables_total"])
    assert "The committee met" in found["article"]["text"]
    assert "Imprint" not in found["article"]["text"]
    assert "Imprint" in found["text"]


def test_the_title_is_the_pages_own(scraper: Scraper, answers: Answers, url: str) -> None:
    """Pictures have titles, too."""
    answers["/title"] = html("<html><body><svg><title>Icon</title></svg><title>Late</title></body></html>")
    assert "Late" == scraper.value({"url": f"{url}/title"})["title"]


def test_a_page_too_deep_to_read_is_refused(scraper: Scraper, answers: Answers, url: str) -> None:
    """Rather than read in part."""
    answers["/deep"] = html("<div>" * 3000 + "deep" + "</div>" * 3000)
    assert "too_deep" == scraper.code({"url": f"{url}/deep"})


def test_an_error_page_is_a_result(scraper: Scraper, url: str) -> None:
    """Its status says what it is."""
    assert 404 == scraper.value({"url": f"{url}/nothing"})["status"]


def test_redirects_are_followed_one_by_one(scraper: Scraper, answers: Answers, url: str, site: Any) -> None:
    """Within the policy, five at most; what leads inside or to another scheme is refused."""
    for number in range(8):
        answers[f"/r{number}"] = f"HTTP/1.1 302 Found\r\nLocation: /r{number + 1}\r\nContent-Length: 0\r\n\r\n".encode()
    answers["/r8"] = html("<p>end</p>")
    assert f"{url}/r8" == scraper.value({"url": f"{url}/r3"})["url"]
    assert "too_many_redirects" == scraper.code({"url": f"{url}/r0"})
    for goal, code in (
        (f"http://inside.test:{site.port}/", "egress_denied"),
        ("http://127.0.0.1/", "egress_denied"),
        ("file:///etc/passwd", "invalid_url"),
    ):
        answers["/away"] = f"HTTP/1.1 302 Found\r\nLocation: {goal}\r\nContent-Length: 0\r\n\r\n".encode()
        assert code == scraper.code({"url": f"{url}/away", "respect_robots": False}), goal


@pytest.mark.parametrize("robots", ["User-agent: *\nDisallow: /private", None])
def test_robots_are_respected_unless_told_otherwise(
    scraper: Scraper, answers: Answers, url: str, robots: str | None
) -> None:
    """Without a robots.txt everything may be asked for."""
    answers.pop("/robots.txt", None)
    if robots:
        answers["/robots.txt"] = ok(robots.encode(), "Content-Type: text/plain")
    answers["/private"] = html("<p>private</p>")
    if robots:
        assert "robots_disallowed" == scraper.code({"url": f"{url}/private"})
    else:
        assert 200 == scraper.value({"url": f"{url}/private"})["status"]
    assert 200 == scraper.value({"url": f"{url}/private", "respect_robots": False})["status"]
    answers.pop("/robots.txt", None)


def test_links_are_followed_on_the_same_host_when_asked_to(scraper: Scraper, answers: Answers, url: str) -> None:
    """Not by default, and not for ever."""
    for number in range(9):
        answers[f"/l{number}"] = html(
            f"<title>{number}</title><a href='/l{number + 1}'>x</a><a href='/l{number + 2}'>y</a>"
        )
    assert "pages" not in scraper.value({"url": f"{url}/l0"})
    value = scraper.value({"url": f"{url}/l0", "follow_links": True, "max_pages": 3})
    assert ["1", "2"] == [page["title"] for page in value["pages"]]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ok(b"x" * 70_000, "Content-Type: text/plain"), "too_large"),
        (ok(gzip.compress(bytes(50 << 20)), "Content-Type: text/html", "Content-Encoding: gzip"), "too_large"),
        (ok(b"\x89PNG", "Content-Type: image/png"), "unsupported_content_type"),
        (ok(b"x", "Content-Type: application/octet-stream"), "unsupported_content_type"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Type: text/html\r\n\r\nshort", "connection_failed"),
        (b"nonsense\r\n\r\n", "egress_denied"),
    ],
    ids=["large", "bomb", "image", "binary", "broken off", "nonsense"],
)
def test_an_answer_that_is_no_page_is_refused_with_a_code(
    scraper: Scraper, answers: Answers, url: str, answer: bytes, code: str
) -> None:
    """Bounded while it comes in."""
    answers["/odd"] = answer
    assert code == scraper.code({"url": f"{url}/odd", "max_kib": 64})


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_hosts_that_cannot_be_had_are_told_apart(scraper: Scraper, site: Any, scheme: str) -> None:
    """No such name, a private address, a host that the policy does not name; through a tunnel, too."""
    assert "dns_failed" == scraper.code({"url": f"{scheme}://nowhere.test:{site.port}/"})
    assert "egress_denied" == scraper.code({"url": f"{scheme}://inside.test:{site.port}/"})
    assert "egress_denied" == scraper.code({"url": f"{scheme}://unnamed.test/"})


def test_an_untrusted_certificate_is_refused(host: Host, template: Template) -> None:
    """And a trusted one is not."""
    authority = trustme.CA()
    with tls_server(authority.issue_cert("site.test"), body=PAGE.encode()) as server:
        policy = load_policies(ROOT / "policies")["web_scraping"]
        made = Scraper("web_scraping", policy, host, template, [server.port])
        with contextlib.closing(made.box):
            parameters = {"url": f"https://site.test:{server.port}/", "respect_robots": False}
            assert "tls_failed" == made.code(parameters)


@pytest.mark.parametrize("selector", ["h1[", "//p[", "p:nonsense", "document('x')//p", "//p[re:test(., 'a')]"])
def test_a_selector_that_cannot_be_read_is_refused_before_fetching(
    scraper: Scraper, site: Any, url: str, selector: str
) -> None:
    """Nor one that reads documents."""
    before = site.connections
    assert "bad_selector" == scraper.code({"url": f"{url}/page", "selector": selector})
    assert before == site.connections


@pytest.mark.parametrize(
    "parameters",
    [
        {"url": "ftp://site.test/"},
        {"url": "file:///etc/passwd"},
        {"url": "http://user:pass@site.test/"},
        {"url": "http://site.test\\@other/"},
        {"url": "http://site.test/ x"},
        {"url": "//site.test/"},
        {"url": "http://site.test/", "headers": {"Host": "other"}},
        {"url": "http://site.test/", "headers": {"X\r\nY": "z"}},
        {"url": "http://site.test/", "headers": {"X": "a\r\nHost: b"}},
        {"url": "http://site.test/", "nonsense": 1},
    ],
)
def test_parameters_that_cannot_be_are_refused(scraper: Scraper, parameters: dict[str, Any]) -> None:
    """By their form."""
    assert "invalid_parameters" == scraper.code(parameters)


def test_the_script_takes_a_page_apart(site: Any, answers: Answers, url: str, host: Host, template: Template) -> None:
    """web_scraper.py, with requests and BeautifulSoup, under the networked policy for scripts."""
    answers["/page"] = html(PAGE)
    policy = load_policies(ROOT / "policies")["custom_script_network"]
    made = Scraper("custom_script", policy, host, template, [site.port])
    source = (ROOT / "scripts" / "web_scraper.py").read_text()
    parameters = {"script": "web_scraper.py", "args": {"url": f"{url}/page", "selector": "h1, h2, p"}}
    with contextlib.closing(made.box):
        value = made.value(parameters, source=source, source_name="web_scraper.py")
    assert ("A page", 200) == (value["title"], value["status"])
    assert ["Größe", "Two", "First bold.", "Second."] == [match["text"] for match in value["matches"]]
    assert [[["a"], ["1"]]] == value["tables"]
