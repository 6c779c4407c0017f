"""Fetches one page through the egress proxy and extracts what is asked for.

The proxy decides what may be reached. Redirects are followed here, one by one: each is a request that the proxy decides
on again. Everything that arrives is bounded: bytes on arrival, text and matches before they go into the result.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
from cssselect import SelectorError
from lxml import etree
from parsel import Selector
from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding

from handlers import encodings, pages, unpacking
from handlers.data.decoding import decode_parameters
from handlers.failures import Refusal
from handlers.parameters.registry import Request
from handlers.parameters.web import Extract, WebScraping

USER_AGENT = "UnityAI-Worker/1 (web_scraping)"
MAX_REDIRECTS = 5
MAX_ROBOTS_BYTES = 512 << 10
MAX_TEXT_CHARACTERS = 200_000
MAX_MATCHES = 1000
MAX_MATCH_CHARACTERS = 20_000
_CONTENT_TYPES = re.compile(
    r"text/[a-z0-9.+-]+|application/(?:json|xml|xhtml\+xml|[a-z0-9.-]+\+(?:json|xml))", re.ASCII
)
_HTML = ("text/html", "application/xhtml+xml")
_SHOWN_HEADERS = (
    "content-type", "content-length", "content-language", "last-modified", "etag", "date", "server", "cache-control",
    "location", "retry-after",
)  # fmt: skip
_WIDE, _WIDE_SAMPLE_BYTES = ("utf-16", "utf-32"), 4096
MAX_ATTRIBUTES = 50
_XPATH_FUNCTION = re.compile(
    r"\s*(?:/|\./|\.\.|\(|[A-Za-z-]+\s*\(|(?:ancestor|attribute|child|descendant|following|parent|preceding|self)[a-z-]*::)"
)


def run(request: Request) -> dict[str, Any]:
    """Do one ``web_scraping`` task.

    Raises:
        Refusal: the page is not allowed or not reachable, is too large, or a selector is invalid.
    """
    parameters: WebScraping = decode_parameters("web_scraping", request.parameters)
    select = _selectors(parameters)
    with _client(parameters) as client:
        failed: list[dict[str, Any]] = []
        found = _pages(client, parameters, failed)
        first = _extract(next(found), select, parameters)
        if not parameters.follow_links:
            return first
        others = [_extract(page, select, parameters) for page in found]
        return first | {"pages": others, "pages_failed": failed, "pages_failed_total": len(failed)}


def rehearse() -> None:
    """Parse a small page, before there is a task. Opens no socket."""
    root = pages.tree("<html><title>t</title><p>a<a href='/b'>b</a></html>", is_html=True)
    Selector(root=root, type="html").css("p").getall()
    pages.text_of(root)
    encodings.decode(b"<p>", declared="utf-8")


# -- fetching


class Page:
    """One whole answer, and the redirects that led to it."""

    def __init__(self, answer: httpx.Response, content: bytes, redirects: list[str]) -> None:
        self.answer = answer
        self.content = content
        self.redirects = redirects
        self.url = str(answer.url)
        self.media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.decoded = _decoded(answer.headers.get("content-type"), content)
        self.text = self.decoded.text
        self.is_html = self.media_type in _HTML or (not self.media_type and "<" in self.text[:1000])
        self.is_markup = self.is_html or "xml" in self.media_type
        self._root: Any = None

    @property
    def root(self) -> Any:
        """The root of its tree."""
        if self._root is None:
            self._root = pages.tree(self.text if self.is_markup else "", is_html=self.is_html or not self.is_markup)
        return self._root

    def selector(self) -> Selector:
        """Its parsed tree."""
        kind = "html" if self.is_html or not self.is_markup else "xml"
        selector = Selector(root=self.root, type=kind)
        for prefix, name in pages.namespaces(self.root).items() if kind == "xml" else ():
            selector.namespaces.setdefault(prefix, name)
        return selector


def _client(parameters: WebScraping) -> httpx.Client:
    headers = {"User-Agent": USER_AGENT, "Accept": "text/html,application/xhtml+xml,*/*;q=0.5", **parameters.headers}
    headers["Accept-Encoding"] = unpacking.ACCEPTED
    timeout = httpx.Timeout(parameters.timeout_s)
    return httpx.Client(headers=headers, timeout=timeout, follow_redirects=False, http2=False)


def _pages(client: httpx.Client, parameters: WebScraping, failed: list[dict[str, Any]]) -> Iterator[Page]:
    """The page, and then, where links are to be followed, those on its host that it links to.

    Those that cannot be had are added to ``failed``.
    """
    robots = _Robots(client, parameters)
    page = _fetch(client, parameters.url, parameters, robots)
    yield page
    host, seen = urlsplit(page.url).netloc, {urldefrag(parameters.url)[0], urldefrag(page.url)[0]}
    left = parameters.max_pages - 1 if parameters.follow_links and page.is_html else 0
    for link in pages.links(page.root, page.url)[0] if page.is_html else ():
        address = urldefrag(link["url"])[0]
        if left <= 0:
            return
        if address in seen or urlsplit(address).netloc != host:
            continue
        seen.add(address)
        left -= 1
        try:
            yield _fetch(client, address, parameters, robots)
        except Refusal as refusal:  # a link that leads nowhere is no fault of the page
            failed.append({"url": address, "code": refusal.code})


def _fetch(client: httpx.Client, url: str, parameters: WebScraping, robots: _Robots) -> Page:
    redirects: list[str] = []
    while True:
        robots.check(url)
        with _typed_errors(url), client.stream("GET", url) as answer:
            _refuse_denied(answer)
            goal = answer.headers.get("location") if answer.is_redirect else None
            if goal is None:
                _check_content_type(answer)
                return Page(answer, _read(answer, parameters.max_kib << 10), redirects)
        url = urljoin(url, goal)
        if urlsplit(url).scheme not in ("http", "https"):
            raise Refusal("invalid_url", f"The page redirects to {url[:200]!r}, which is not http or https.")
        redirects.append(url)
        if len(redirects) > MAX_REDIRECTS:
            raise Refusal("too_many_redirects", f"The page redirects more than {MAX_REDIRECTS} times.")


def _read(answer: httpx.Response, max_bytes: int) -> bytes:
    """The unpacked body. Both it and what arrives are counted, so that a compression bomb is cut off."""
    content = bytearray()
    for part in answer.iter_raw(1 << 16):
        content += part
        if len(content) > max_bytes:
            raise Refusal("too_large", f"The page has more than {max_bytes >> 10} KiB; ask for more with `max_kib`.")
    return unpacking.unpack(bytes(content), answer.headers.get("content-encoding", ""), max_bytes)


def _check_content_type(answer: httpx.Response) -> None:
    media_type = answer.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if not _CONTENT_TYPES.fullmatch(media_type):
        raise Refusal(
            "unsupported_content_type",
            f"The page is {media_type[:100]!r}; only text, HTML, XML and JSON can be read.",
        )


def _refuse_denied(answer: httpx.Response) -> None:
    """Raise the egress proxy's own refusal. No host can forge one: the proxy drops this header from their answers."""
    decision = answer.headers.get("x-egress-decision")
    if decision is not None and answer.status_code >= 400:
        detail = ""
        with contextlib.suppress(httpx.HTTPError):
            detail = answer.read().decode("utf-8", "replace")[:500]
        raise _denied(decision, detail)


def _denied(decision: str, detail: str) -> Refusal:
    code = {"dns_failed": "dns_failed", "connect_failed": "connection_failed", "timeout": "timeout"}
    return Refusal(
        code.get(decision, "egress_denied"),
        f"The egress proxy answered {decision}: {detail or 'see usage.egress in the result'}",
    )


@contextlib.contextmanager
def _typed_errors(url: str) -> Iterator[None]:
    """Turn what httpx raises into refusals with a code."""
    shown = url[:200]
    try:
        yield
    except httpx.TimeoutException:
        raise Refusal("timeout", f"{shown} did not answer in time.") from None
    except httpx.ProxyError as error:
        raise _proxy_refusal(str(error)) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        raise Refusal("invalid_url", f"{shown} cannot be requested: {error}") from None
    except httpx.HTTPError as error:
        words = str(error).lower() if isinstance(error, httpx.ConnectError) else ""
        if "certificate" in words:
            raise Refusal("tls_failed", f"The certificate of {shown} is not trusted: {error}") from None
        if "ssl" in words:
            raise Refusal("tls_failed", f"No TLS connection to {shown} could be agreed on: {error}") from None
        raise Refusal("connection_failed", f"The connection to {shown} failed: {error}") from None


def _proxy_refusal(message: str) -> Refusal:
    """The refusal of a CONNECT. httpx gives only its status line, at whose end the proxy's decision is in brackets."""
    decision = re.search(r"\(([a-z_]+)\)$", message)
    return _denied(decision[1] if decision else "a refusal", "" if decision else message)


# -- robots


class _Robots:
    """The rules that each host's robots.txt has for us, read once for each: RFC 9309."""

    def __init__(self, client: httpx.Client, parameters: WebScraping) -> None:
        self._client = client
        self._respect = parameters.respect_robots
        self._agent = parameters.headers.get("User-Agent", USER_AGENT)
        self._known: dict[str, Callable[[str], bool]] = {}

    def check(self, url: str) -> None:
        """Check a URL against the robots.txt of its host.

        Raises:
            Refusal: robots.txt disallows it.
        """
        if not self._respect:
            return
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._known:
            self._known[origin] = self._read(origin)
        if not self._known[origin](url):
            raise Refusal(
                "robots_disallowed",
                f"robots.txt of {origin} asks not to fetch this page. Set `respect_robots` to false if you may.",
            )

    def _read(self, origin: str) -> Callable[[str], bool]:
        from protego import Protego  # noqa: PLC0415 only where robots are respected

        url = f"{origin}/robots.txt"
        for _ in range(MAX_REDIRECTS + 1):  # RFC 9309, 2.3.1.2
            with _typed_errors(url), self._client.stream("GET", url) as answer:
                _refuse_denied(answer)
                goal = pages.joined(url, answer.headers.get("location", "")) if answer.is_redirect else None
                if goal is not None:
                    url = goal
                    continue
                if answer.status_code >= 500:
                    return lambda _: False  # RFC 9309, 2.3.1.4: unreachable means disallowed
                if answer.status_code != 200:
                    return lambda _: True
                content = _read(answer, MAX_ROBOTS_BYTES)
            rules = Protego.parse(content.decode("utf-8-sig", "replace"))
            return lambda url: bool(rules.can_fetch(url, self._agent))
        return lambda _: True  # RFC 9309, 2.3.1.2: as if there were none


# -- reading


def _decoded(content_type: str | None, content: bytes) -> encodings.Decoded:
    """The text: by a byte order mark, the header, the page's own word, or a guess, as browsers do."""
    declared = http_content_type_encoding(content_type) or html_body_declared_encoding(content)
    if declared is not None and declared.startswith(_WIDE) and b"\0" not in content[:_WIDE_SAMPLE_BYTES]:
        declared = "utf-8"  # what is read byte by byte is no UTF-16, whatever it says: HTML, 13.2.3.2
    found = encodings.decode(content, declared=declared, markup=True)
    return found or encodings.Decoded(content.decode("utf-8", "replace"), "utf-8", 0, content.count(0))


Select = Callable[[Selector], dict[str, Any]]


def _selectors(parameters: WebScraping) -> Select:
    """The function that extracts what is asked for. Selectors are checked before anything is fetched.

    Raises:
        Refusal: one of them is invalid.
    """
    wanted = {name: _extractor(name, extract) for name, extract in parameters.extract.items()}
    matches = _finder(parameters.selector) if parameters.selector else None

    def select(selector: Selector) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if matches is not None:
            elements = matches(selector)
            found["matches"] = [_match(element) for element in elements[:MAX_MATCHES]]
            found["matches_total"] = len(elements)
        if wanted:
            taken = {name: extract(selector) for name, extract in wanted.items()}
            found["extracted"] = {name: value for name, (value, _, _) in taken.items()}
            found["extracted_total"] = {name: total for name, (_, total, _) in taken.items()}
            found["extracted_truncated"] = {name: True for name, (_, _, is_cut) in taken.items() if is_cut}
        return found

    return select


def _finder(text: str) -> Callable[[Selector], list[Selector]]:
    """CSS, or XPath where it begins with ``/``, ``./``, ``(``, a function or an axis."""
    probe = Selector(text="<p/>", type="html")
    is_xpath = _XPATH_FUNCTION.match(text) is not None

    def find(selector: Selector) -> list[Selector]:
        return list(selector.xpath(text) if is_xpath else selector.css(text))

    if "document(" in text.replace(" ", "") or "re:" in text:
        raise Refusal(
            "bad_selector", "XPath functions that read documents or match regular expressions are not served."
        )
    try:
        find(probe)
    except (ValueError, SelectorError, etree.XPathError, SyntaxError) as error:
        if "prefix" in str(error):
            return lambda selector: _with_prefix(find, selector, text)  # which the page may declare
        raise Refusal("bad_selector", f"The selector {text[:200]!r} cannot be read: {str(error)[:300]}") from None
    return find


def _with_prefix(find: Callable[[Selector], list[Selector]], selector: Selector, text: str) -> list[Selector]:
    try:
        return find(selector)
    except (ValueError, etree.XPathError) as error:
        raise Refusal(
            "bad_selector", f"The selector {text[:200]!r} does not fit the page: {str(error)[:300]}"
        ) from None


def _extractor(name: str, extract: str | Extract) -> Callable[[Selector], tuple[Any, int, bool]]:
    """The function that finds the values of one name: they, how many there are, and whether one was cut."""
    wanted = extract if isinstance(extract, Extract) else Extract(selector=extract)
    try:
        find = _finder(wanted.selector)
    except Refusal as refusal:
        raise Refusal("bad_selector", f"extract.{name}: {refusal}") from None

    def one(element: Selector) -> str | None:
        if wanted.attribute is not None:
            return element.attrib.get(wanted.attribute) if hasattr(element.root, "attrib") else None
        return _value(element) if wanted.html else _text(element)

    def take(selector: Selector) -> tuple[Any, int, bool]:
        found = find(selector)
        whole = [one(element) for element in (found[:MAX_MATCHES] if wanted.all else found[:1])]
        values = [_cut(value) for value in whole]
        is_cut = values != whole or (wanted.all and len(found) > MAX_MATCHES)
        return (values if wanted.all else values[0] if values else None), len(found), is_cut

    return take


def _extract(page: Page, select: Select, parameters: WebScraping) -> dict[str, Any]:
    """The whole answer about one page."""
    root, headers = page.root, page.answer.headers
    text = pages.text_of(root) if page.is_html else page.text
    links, links_total = pages.links(root, page.url) if page.is_html else ([], 0)
    found = {
        "url": page.url,
        "status": page.answer.status_code,
        "redirects": page.redirects,
        "content_type": page.media_type,
        "encoding": page.decoded.encoding,
        "encoding_confidence": page.decoded.confidence,
        "unreadable_characters": page.decoded.unreadable,
        "size_bytes": len(page.content),
        "headers": {name: headers[name] for name in _SHOWN_HEADERS if name in headers},
        "title": _cut(pages.title(root)) if page.is_html else None,
        "text": text[:MAX_TEXT_CHARACTERS],
        "text_truncated": len(text) > MAX_TEXT_CHARACTERS,
        "links": links,
        "links_total": links_total,
        "metadata": pages.metadata(root, page.url) if page.is_html else {},
        **select(page.selector()),
    }
    if parameters.tables:
        found |= pages.tables(root)
    if parameters.article:
        found["article"] = pages.article(page.text, page.url) if page.is_html else None
    return found


def _match(element: Selector) -> dict[str, Any]:
    tag = getattr(element.root, "tag", None)
    found: dict[str, Any] = {"tag": tag if isinstance(tag, str) else None}
    for name, whole in (("text", _text(element)), ("html", _value(element))):
        found[name] = _cut(whole)
        if found[name] != whole:
            found[f"{name}_truncated"] = True
    attributes = element.attrib if isinstance(tag, str) else {}
    found["attributes"] = {str(name): _cut(str(value)) for name, value in list(attributes.items())[:MAX_ATTRIBUTES]}
    if len(attributes) > MAX_ATTRIBUTES:
        found["attributes_total"] = len(attributes)
    return found


def _value(element: Selector) -> str:
    """An element as HTML; what XPath computed as it would write it: 2, true, text."""
    value = element.root
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(element.get())


def _text(element: Selector) -> str:
    """The text that a reader would see, spaces collapsed."""
    if not hasattr(element.root, "itertext"):
        return " ".join(_value(element).split())
    return pages.text_of(element.root, is_html=element.type == "html")


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_MATCH_CHARACTERS else text[:MAX_MATCH_CHARACTERS]
