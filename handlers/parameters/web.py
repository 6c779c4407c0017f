"""The parameters of ``web_scraping``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.parameters.patterns import URL

ExtractName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$(?!\n)")]


HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,99}$(?!\n)")]


HeaderValue = Annotated[str, Meta(pattern=r"^[\x20-\x7e]{0,4096}$(?!\n)")]


_NOT_YOUR_HEADERS = frozenset({
    "host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect", "keep-alive",
    "accept-encoding", "content-encoding",
})  # fmt: skip


class Extract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule that extracts the values of one name."""

    selector: Annotated[str, Meta(min_length=1, max_length=2000, description="CSS, or XPath.", examples=["h1"])]
    attribute: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100)] | None,
        Meta(description="Extract this attribute instead of the text.", examples=["href"]),
    ] = None
    html: Annotated[bool, Meta(description="Extract the element's HTML instead of its text.", examples=[False])] = False
    all: Annotated[
        bool, Meta(description="Extract every match, as an array, instead of the first.", examples=[True])
    ] = False

    def __post_init__(self) -> None:
        if self.attribute is not None and self.html:
            raise ValueError("`attribute` and `html` exclude each other")


class WebScraping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fetches a web page and extracts what is asked for."""

    url: Annotated[
        str,
        Meta(
            pattern=URL,
            max_length=2048,
            description="http or https, without user name and password.",
            examples=["https://example.com"],
        ),
    ]
    selector: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2000)] | None,
        Meta(
            description="CSS, which may be a list, or XPath if it begins with `/`, `./`, `(`, a function such as "
            "`count(` or an axis. The answer has what it finds in `matches`.",
            examples=["h1, h2, p"],
        ),
    ] = None
    extract: Annotated[
        dict[ExtractName, Annotated[str, Meta(min_length=1, max_length=2000)] | Extract],
        Meta(
            max_length=100,
            description="Name → selector, or an object with further options.",
            examples=[{"title": "h1", "links": {"selector": "a", "attribute": "href", "all": True}}],
        ),
    ] = {}
    tables: Annotated[bool, Meta(description="Also tell the tables of the page as rows.", examples=[True])] = False
    article: Annotated[
        bool, Meta(description="Also find the main text of the page, without menus and the like.", examples=[True])
    ] = False
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Meta(max_length=32, description="Headers of the request.", examples=[{"Accept-Language": "de"}]),
    ] = {}
    respect_robots: Annotated[
        bool, Meta(description="Fetch only what the host's robots.txt allows.", examples=[True])
    ] = True
    follow_links: Annotated[
        bool, Meta(description="Also fetch the pages on the same host that the page links to.", examples=[False])
    ] = False
    max_pages: Annotated[
        Annotated[int, Meta(ge=1, le=20)], Meta(description="With `follow_links`: most pages in all.", examples=[5])
    ] = 5
    max_kib: Annotated[
        Annotated[int, Meta(ge=1, le=16384)], Meta(description="Largest page in KiB, unpacked.", examples=[4096])
    ] = 4096
    timeout_s: Annotated[
        Annotated[float, Meta(gt=0, le=60)],
        Meta(description="Longest wait in seconds for a connection, and for each part of an answer.", examples=[10]),
    ] = 10.0

    def __post_init__(self) -> None:
        for name in self.headers:
            if name.lower() in _NOT_YOUR_HEADERS or name.lower().startswith("proxy-"):
                raise ValueError(f"`{name}` is set by the service itself")
