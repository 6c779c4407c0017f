"""Fetches one page through the egress proxy and extracts what is asked for.

The proxy decides what may be reached. Redirects are followed here, one by one: each is a request that the proxy decides
on again. Everything that arrives is bounded: bytes on arrival, text and matches before they go into the result.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
from cssselect import SelectorError
from lxml import etree
from parsel import Selector
from w3lib.encoding import html_to_unicode

from handlers.data.decoding import decode_parameters
from handlers.failures import Refusal
from handlers.parameters.registry import Request
from handlers.parameters.web import Extract, WebScraping

USER_AGENT = "UnityAI-Worker/1 (web_scraping)"
MAX_REDIRECTS = 5
MAX_ROBOTS_BYTES = 512 << 10
MAX_TEXT_CHARACTERS = 200_000
MAX_LINKS = 1000
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
_NOT_SHOWN = ("script", "style", "noscript", "template")


def run(request: Request) -> dict[str, Any]:
    """Do one ``web_scraping`` task.

    Raises:
        Refusal: the page is not allowed or not reachable, is too large, or a selector is invalid.
    """
    parameters: WebScraping = decode_parameters("web_scraping", request.parameters)
    select = _selectors(parameters)
    with _client(parameters) as client:
        pages = _pages(client, parameters)
        first = _extract(next(pages), select)
        return first | ({"pages": [_extract(page, select) for page in pages]} if parameters.follow_links else {})


def rehearse() -> None:
    """Parse a small page, before there is a task. Opens no socket."""
    selector = Selector(text="<html><title>t</title><p>a<a href='/b'>b</a></html>", type="html")
    selector.css("p").getall()
    html_to_unicode("text/html; charset=utf-8", b"<p>")


# -- fetching


class Page:
    """One whole answer, and the redirects that led to it."""

    def __init__(self, answer: httpx.Response, content: bytes, redirects: list[str]) -> None:
        self.answer = answer
        self.content = content
        self.redirects = redirects
        self.url = str(answer.url)
        self.media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        self.encoding, self.text = _decoded(answer.headers.get("content-type"), content)
        self.is_html = self.media_type in _HTML or (not self.media_type and "<" in self.text[:1000])

    def selector(self) -> Selector:
        """Its parsed tree."""
        return Selector(text=self.text or " ", type="html" if self.is_html else "xml", base_url=self.url)


def _client(parameters: WebScraping) -> httpx.Client:
    headers = {"User-Agent": USER_AGENT, "Accept": "text/html,application/xhtml+xml,*/*;q=0.5", **parameters.headers}
    timeout = httpx.Timeout(parameters.timeout_s)
    return httpx.Client(headers=headers, timeout=timeout, follow_redirects=False, http2=False)


def _pages(client: httpx.Client, parameters: WebScraping) -> Iterator[Page]:
    """The page, and then, where links are to be followed, those on its host that it links to."""
    robots = _Robots(client, parameters)
    page = _fetch(client, parameters.url, parameters, robots)
    yield page
    host, seen = urlsplit(page.url).netloc, {urldefrag(parameters.url)[0], urldefrag(page.url)[0]}
    left = parameters.max_pages - 1 if parameters.follow_links and page.is_html else 0
    for link in _links(page, page.selector()):
        address = urldefrag(link["url"])[0]
        if left <= 0:
            return
        if address in seen or urlsplit(address).netloc != host:
            continue
        seen.add(address)
        left -= 1
        try:
            yield _fetch(client, address, parameters, robots)
        except Refusal:
            continue  # a link that leads nowhere is no fault of the page


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
    """The unpacked body. The unpacked bytes are counted, so that a compression bomb is cut off."""
    content = bytearray()
    for part in answer.iter_bytes(1 << 16):
        content += part
        if len(content) > max_bytes:
            raise Refusal("too_large", f"The page has more than {max_bytes >> 10} KiB; ask for more with `max_kib`.")
    return bytes(content)


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

        with _typed_errors(f"{origin}/robots.txt"), self._client.stream("GET", f"{origin}/robots.txt") as answer:
            _refuse_denied(answer)
            if answer.status_code >= 500:
                return lambda _: False  # RFC 9309, 2.3.1.4: unreachable means disallowed
            if answer.status_code != 200:
                return lambda _: True
            text = b""
            for part in answer.iter_bytes(1 << 16):
                text += part
                if len(text) > MAX_ROBOTS_BYTES:
                    break
        rules = Protego.parse(text[:MAX_ROBOTS_BYTES].decode("utf-8", "replace"))
        return lambda url: bool(rules.can_fetch(url, self._agent))


# -- reading


def _decoded(content_type: str | None, content: bytes) -> tuple[str, str]:
    """Encoding and text: by a byte order mark, the header, the page's own word, or a guess, as browsers do.

    Only encodings of text: Python's codecs know transformations too, which a page could ask for by name.
    """
    try:
        encoding, text = html_to_unicode(content_type, content, auto_detect_fun=_guess)
    except (LookupError, ValueError, AssertionError):
        return "utf-8", content.decode("utf-8", "replace")
    return encoding, text


def _guess(content: bytes) -> str | None:
    for encoding in ("utf-8", "cp1252"):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return codecs.lookup(encoding).name
    return None


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
            found["extracted"] = {name: extract(selector) for name, extract in wanted.items()}
        return found

    return select


def _finder(text: str) -> Callable[[Selector], list[Selector]]:
    """CSS, or XPath where it begins with ``/``, ``./`` or ``(``."""
    probe = Selector(text="<p/>", type="html")
    is_xpath = text.lstrip().startswith(("/", "./", "("))

    def find(selector: Selector) -> list[Selector]:
        return list(selector.xpath(text) if is_xpath else selector.css(text))

    if "document(" in text.replace(" ", "") or "re:" in text:
        raise Refusal(
            "bad_selector", "XPath functions that read documents or match regular expressions are not served."
        )
    try:
        find(probe)
    except (ValueError, SelectorError, etree.XPathError, SyntaxError) as error:
        raise Refusal("bad_selector", f"The selector {text[:200]!r} cannot be read: {str(error)[:300]}") from None
    return find


def _extractor(name: str, extract: str | Extract) -> Callable[[Selector], Any]:
    wanted = extract if isinstance(extract, Extract) else Extract(selector=extract)
    try:
        find = _finder(wanted.selector)
    except Refusal as refusal:
        raise Refusal("bad_selector", f"extract.{name}: {refusal}") from None

    def one(element: Selector) -> str | None:
        if wanted.attribute is not None:
            return _cut(element.attrib.get(wanted.attribute)) if hasattr(element.root, "attrib") else None
        return _cut(str(element.get()) if wanted.html else _text(element))

    def take(selector: Selector) -> Any:
        found = find(selector)[:MAX_MATCHES]
        return [one(element) for element in found] if wanted.all else one(found[0]) if found else None

    return take


def _extract(page: Page, select: Select) -> dict[str, Any]:
    """The whole answer about one page."""
    selector = page.selector()
    text = _text(selector) if page.is_html else page.text
    title = selector.css("title").get() if page.is_html else None
    return {
        "url": page.url,
        "status": page.answer.status_code,
        "redirects": page.redirects,
        "content_type": page.media_type,
        "encoding": page.encoding,
        "size_bytes": len(page.content),
        "headers": {name: page.answer.headers[name] for name in _SHOWN_HEADERS if name in page.answer.headers},
        "title": _cut(_text(Selector(text=title, type="html"))) if title else None,
        "text": text[:MAX_TEXT_CHARACTERS],
        "text_truncated": len(text) > MAX_TEXT_CHARACTERS,
        "links": _links(page, selector)[:MAX_LINKS] if page.is_html else [],
        "metadata": _metadata(page, selector) if page.is_html else {},
        **select(selector),
    }


def _match(element: Selector) -> dict[str, Any]:
    tag = getattr(element.root, "tag", None)
    return {
        "tag": tag if isinstance(tag, str) else None,
        "text": _cut(_text(element)),
        "html": _cut(str(element.get())),
        "attributes": {str(name): _cut(str(value)) for name, value in list(element.attrib.items())[:50]}
        if isinstance(tag, str)
        else {},
    }


def _text(element: Selector) -> str:
    """The text that a reader would see, spaces collapsed."""
    if not hasattr(element.root, "itertext"):
        return " ".join(str(element.get()).split())
    excluded = " or ".join(f"ancestor::{name}" for name in _NOT_SHOWN)
    return " ".join(" ".join(element.xpath(f"descendant-or-self::text()[not({excluded})]").getall()).split())


def _links(page: Page, selector: Selector) -> list[dict[str, str]]:
    """Absolute http links with their texts, each once, in the order of the page."""
    base = urljoin(page.url, selector.css("base::attr(href)").get() or "")
    found: dict[str, str] = {}
    for anchor in selector.css("a[href]"):
        try:
            address = urljoin(base, anchor.attrib["href"].strip())
            scheme = urlsplit(address).scheme
        except ValueError:
            continue
        if scheme in ("http", "https") and len(address) <= 2048:
            found.setdefault(address, (_text(anchor) or "")[:200])
    return [{"url": address, "text": text} for address, text in found.items()]


def _metadata(page: Page, selector: Selector) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for meta in selector.css("meta[content]")[:200]:
        name = meta.attrib.get("name") or meta.attrib.get("property")
        if name:
            found.setdefault(name[:100], meta.attrib["content"][:1000])
    canonical = selector.css("link[rel=canonical]::attr(href)").get()
    return {
        "language": selector.css("html::attr(lang)").get(),
        "canonical": urljoin(page.url, canonical) if canonical else None,
        "meta": found,
    }


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_MATCH_CHARACTERS else text[:MAX_MATCH_CHARACTERS]
