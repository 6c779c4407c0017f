"""Headings, links, texts and tables of a web page, with requests and BeautifulSoup. Needs a policy with network.

Example args: ``{"url": "https://example.com", "selector": "h1, h2, p"}``; the task names the policy
``custom_script_network``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

import requests
from bs4 import BeautifulSoup, Tag

MAX_BYTES = 8 << 20
TIMEOUT_S = 20
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
    page = BeautifulSoup(answer.content, "html.parser")
    found = {
        "url": answer.url,
        "status": answer.status_code,
        "title": text_of(page.title) if page.title else None,
        "headings": [
            {"level": int(heading.name[1]), "text": text_of(heading)}
            for heading in page.find_all(["h1", "h2", "h3", "h4", "h5", "h6"], limit=limit)
        ],
        "links": [
            {"url": urljoin(answer.url, str(link["href"])), "text": text_of(link)}
            for link in page.find_all("a", href=True, limit=limit)
        ],
        "tables": [rows_of(table) for table in page.find_all("table", limit=limit)],
    }
    if selector is not None:
        found["matches"] = [{"tag": one.name, "text": text_of(one)} for one in page.select(selector, limit=limit)]
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


def text_of(element: Tag) -> str:
    """Its text with single spaces."""
    return " ".join(element.get_text(" ", strip=True).split())


def rows_of(table: Tag) -> list[list[str]]:
    """The texts of its cells, row by row."""
    return [[text_of(cell) for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
