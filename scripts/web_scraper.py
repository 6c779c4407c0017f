"""Headings, links, texts and tables of a web page, with requests, BeautifulSoup and lxml. Needs a policy with network.

Example args: ``{"url": "https://example.com", "selector": "h1, h2, p"}``; the task names the policy
``custom_script_network``.
"""

from __future__ import annotations

import codecs
import re
from typing import Any
from urllib.parse import urljoin

import requests
from bs4 import BeautifulSoup, Tag
from bs4.dammit import EncodingDetector
from bs4.element import Comment, NavigableString

MAX_BYTES = 8 << 20
TIMEOUT_S = 20
IN_LINES = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub",
    "sup", "time", "tt", "u", "var", "wbr",
})  # fmt: skip
"""Elements that are parts of a line."""
HEAD_BYTES = 1 << 16
COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks, which hold against any other word."""
MEANT = {
    "iso8859-1": "windows-1252", "ascii": "windows-1252", "iso8859-9": "windows-1254", "gb2312": "gb18030",
    "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs", "tis-620": "cp874",
}  # fmt: skip
"""Python's name of an encoding → what pages under that name are written in, by the WHATWG's Encoding Standard."""
ARGS: dict[str, Any] = {
    "type": "object",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "description": "http or https."},
        "selector": {"type": "string", "description": "CSS, which may be a list such as `h1, h2, p`."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100, "description": "Of each sort."},
        "headers": {
            "type": "object",
            "description": "Headers of the request.",
            "additionalProperties": {"type": "string"},
        },
    },
}


def main(args: dict[str, Any]) -> dict[str, Any]:
    """Fetch the page and take out what it holds.

    Raises:
        ValueError: ``args`` is not what ``ARGS`` says, or the page is too large; says what would do.
        requests.RequestException: it cannot be fetched.
    """
    url, selector, limit, headers = read_args(args)
    answer = fetch(url, headers)
    text, encoding, is_guess = decoded(answer)
    page = BeautifulSoup(text, "lxml")
    headings, tables = page.find_all(["h1", "h2", "h3", "h4", "h5", "h6"]), page.find_all("table")
    links, invalid = links_of(page, answer.url)
    found = {
        "url": answer.url,
        "status": answer.status_code,
        "encoding": encoding,
        "encoding_guessed": is_guess,
        "title": text_of(page.title) if page.title else None,
        "headings": [{"level": int(heading.name[1]), "text": text_of(heading)} for heading in headings[:limit]],
        "headings_total": len(headings),
        "links": links[:limit],
        "links_total": len(links),
        "invalid_links_total": invalid,
        "tables": [rows_of(table) for table in tables[:limit]],
        "tables_total": len(tables),
    }
    if selector is not None:
        matches = page.select(selector)
        found["matches"] = [{"tag": one.name, "text": text_of(one)} for one in matches[:limit]]
        found["matches_total"] = len(matches)
    return found


def read_args(args: Any) -> tuple[str, str | None, int, dict[str, str]]:
    """The arguments, checked."""
    if not isinstance(args, dict) or not set(args) <= set(ARGS["properties"]) or "url" not in args:
        raise ValueError(f"args must be an object with `url` and, if wanted, {', '.join(list(ARGS['properties'])[1:])}")
    url, selector, limit = args["url"], args.get("selector"), args.get("limit", 100)
    headers = args.get("headers", {})
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        raise ValueError("`url` must be text that begins with http:// or https://")
    if selector is not None and not isinstance(selector, str):
        raise ValueError("`selector` must be text")
    if type(limit) is not int or not 1 <= limit <= 1000:
        raise ValueError("`limit` must be a whole number from 1 to 1000")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("`headers` must be an object of texts")
    return url, selector, limit, headers


def fetch(url: str, headers: dict[str, str]) -> requests.Response:
    """The page; its size is watched while it comes."""
    answer = requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True)
    content = bytearray()
    for part in answer.iter_content(1 << 16):
        content += part
        if len(content) > MAX_BYTES:
            raise ValueError(f"the page has more than {MAX_BYTES >> 20} MiB")
    answer._content = bytes(content)  # noqa: SLF001  requests has no public way to read within a limit
    return answer


def decoded(answer: requests.Response) -> tuple[str, str, bool]:
    """The page's text, its encoding, and whether that is a guess: nobody names one, and it is not UTF-8."""
    content = answer.content
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace"), encoding, False
    named = answer.encoding if "charset" in answer.headers.get("content-type", "").lower() else None
    start = COMMENT.sub(b"", content[:HEAD_BYTES])  # what stands in one is not said
    declared = as_browsers(named or EncodingDetector.find_declared_encoding(start, is_html=True), content)
    for name in (declared, "utf-8"):
        if name is None:
            continue
        try:
            return content.decode(name, "replace" if name == declared else "strict"), name, False
        except (LookupError, ValueError):
            continue
    return content.decode("windows-1252", "replace"), "windows-1252", True  # as browsers do


def as_browsers(declared: str | None, content: bytes) -> str | None:
    """The encoding that a page means by a name; UTF-16 without a zero byte is none."""
    try:
        name = codecs.lookup(declared or "").name
    except LookupError:
        return None
    if name.startswith(("utf-16", "utf-32")) and b"\0" not in content[:4096]:
        return "utf-8"
    return MEANT.get(name, declared)


def links_of(page: BeautifulSoup, url: str) -> tuple[list[dict[str, str]], int]:
    """Links with absolute URLs, and how many are no URL."""
    base = page.find("base", href=True)
    start = urljoin(url, str(base["href"])) if base else url
    found, invalid = [], 0
    for link in page.find_all("a", href=True):
        try:
            found.append({"url": urljoin(start, str(link["href"])), "text": text_of(link)})
        except ValueError:
            invalid += 1
    return found, invalid


def text_of(element: Tag) -> str:
    """Its text, with spaces where it has some and at the edges of blocks."""
    return " ".join("".join(pieces_of(element)).split())


def pieces_of(element: Tag) -> list[str]:
    """The texts within an element, and a space at the edges of each that is no part of a line."""
    pieces: list[str] = []
    waiting: list[Any] = [element]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and not isinstance(one, Comment):
            pieces.append(one)
        elif isinstance(one, Tag) and one.name not in ("script", "style", "template"):
            gap = [] if one.name in IN_LINES else [NavigableString(" ")]
            waiting += [*gap, *reversed(one.contents), *gap]
    return pieces


def rows_of(table: Tag) -> list[list[str]]:
    """The texts of its cells, row by row; those of tables within it are of its cells."""
    rows = [row for row in table.find_all("tr") if row.find_parent("table") is table]
    return [[text_of(cell) for cell in row.find_all(["th", "td"], recursive=False)] for row in rows]
