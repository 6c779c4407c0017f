"""Takes a page apart: its tree, the text that a reader sees, its tables, links and metadata."""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from lxml import etree
from parsel import Selector

from handlers.failures import Refusal

MAX_LINKS = 1000
MAX_LINK_TEXT = 200
MAX_TABLES = 100
MAX_CELLS = 50_000
MAX_SPAN = 1000
"""HTML, 4.9.11: no cell spans more columns."""
MAX_METAS = 200
MAX_META_CHARACTERS = 1000
_NOT_SHOWN = frozenset({"script", "style", "noscript", "template"})
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "button", "caption", "center", "dd", "details", "dialog",
    "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "head", "header", "hgroup", "hr", "html", "iframe", "input", "legend", "li", "main", "menu", "nav", "ol",
    "optgroup", "option", "p", "pre", "search", "section", "select", "summary", "table", "tbody", "td", "textarea",
    "tfoot", "th", "thead", "title", "tr", "ul",
})  # fmt: skip
"""Elements at whose edges a reader sees a gap."""
_ENTITY = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|&([A-Za-z][A-Za-z0-9]{1,31});", re.DOTALL)
_OF_XML = frozenset({"amp", "lt", "gt", "quot", "apos"})
_SECTIONS = ("thead", "tbody", "tfoot")
_REFRESH = re.compile(r"""\s*[0-9.]+\s*[;,]?\s*(?:url\s*=\s*)?(["']?)(.*?)\1\s*""", re.IGNORECASE | re.DOTALL)
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


def tree(text: str, *, is_html: bool) -> Any:
    """The root of a page.

    In XML a name without a prefix matches as it is written: the namespace that it has by default is taken away.

    Raises:
        Refusal: it is nested too deep to be read whole.
    """
    body = text.replace("\0", "").strip() or ("<html/>" if is_html else "<empty/>")
    if is_html:
        parser: Any = etree.HTMLParser(recover=True, encoding="utf-8", huge_tree=True)
    else:
        body = _XML_DECLARATION.sub("", body)
        body = body if "<!ENTITY" in body else _ENTITY.sub(_spelled_out, body)
        parser = etree.XMLParser(
            recover=True, encoding="utf-8", huge_tree=True, resolve_entities=False, no_network=True
        )
    root = etree.fromstring(body.encode("utf-8", "replace"), parser=parser)
    if any("depth" in entry.message.lower() for entry in parser.error_log):
        raise Refusal("too_deep", "The page has too many elements inside each other to be read whole.")
    if root is None:
        return etree.fromstring(b"<html/>")
    if not is_html:
        _drop_default_namespaces(root)
    return root


def _spelled_out(reference: re.Match[str]) -> str:
    """A sign that HTML has a name for, which feeds use and XML does not know: its parser would drop it."""
    name = reference[1]
    return reference[0] if name is None or name in _OF_XML else html.entities.html5.get(f"{name};", reference[0])


def namespaces(root: Any) -> dict[str, str]:
    """The prefixes that a page declares; of one that is declared twice the first."""
    found: dict[str, str] = {}
    for element in root.iter(etree.Element):
        for prefix, name in element.nsmap.items():
            if prefix:
                found.setdefault(prefix, name)
    return found


def _drop_default_namespaces(root: Any) -> None:
    for element in root.iter(etree.Element):
        if element.prefix is None and element.tag.startswith("{"):
            element.tag = element.tag.rpartition("}")[2]


def text_of(root: Any, *, is_html: bool = True) -> str:
    """The text that a reader would see, with a space where one stands or a block ends, and no other.

    In XML that is no page every element is a block: they are fields, not parts of words.
    """
    pieces: list[str] = []
    hidden = None
    for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        name = element.tag if isinstance(element.tag, str) else ""
        if hidden is None and event in ("start", "end") and (name in _BLOCKS or not is_html):
            pieces.append(" ")
        if hidden is None and event == "start":
            if name in _NOT_SHOWN:
                hidden = element
            else:
                pieces.append(element.text or "")
        elif event == "end" and element is hidden:
            hidden = None
        if hidden is None and event != "start" and element is not root:
            pieces.append(element.tail or "")
    return " ".join("".join(pieces).split())


def title(root: Any) -> str | None:
    """The title of the page; a picture in it may have titles of its own."""
    found = root.xpath("//title[not(ancestor::*[local-name()='svg'])]")
    return text_of(found[0]) if found else None


def base_of(root: Any, url: str) -> str:
    """The URL that links of the page are relative to: that of ``<base>``, or its own."""
    for element in root.iter("base"):
        if element.get("href") is not None:
            return joined(url, element.get("href")) or url
    return url


def joined(base: str, address: str) -> str | None:
    """An absolute http URL; None if it is none."""
    try:
        found = urljoin(base, address.strip())
        return found if urlsplit(found).scheme in ("http", "https") else None
    except ValueError:
        return None


def links(root: Any, url: str) -> tuple[list[dict[str, Any]], int]:
    """Absolute http links with their texts, each once, in the order of the page; and how many there are."""
    base = base_of(root, url)
    found: dict[str, dict[str, Any]] = {}
    for anchor in root.iter("a", "area"):
        address = joined(base, anchor.get("href")) if anchor.get("href") is not None else None
        if address is None or address in found:
            continue
        if len(found) < MAX_LINKS:
            text = text_of(anchor) if anchor.tag == "a" else anchor.get("alt", "")
            cut = {"text_truncated": True} if len(text) > MAX_LINK_TEXT else {}
            found[address] = {"url": address, "text": text[:MAX_LINK_TEXT], **cut}
        else:
            found[address] = {}
    return list(found.values())[:MAX_LINKS], len(found)


def metadata(root: Any, url: str) -> dict[str, Any]:
    """Language, canonical URL and meta elements of a page."""
    selector = Selector(root=root, type="html")
    found: dict[str, Any] = {}
    total = truncated = 0
    for meta in root.iter("meta"):
        name = meta.get("name") or meta.get("property")
        if not name or meta.get("content") is None:
            continue
        total += 1
        if len(found) < MAX_METAS and name[:100] not in found:
            found[name[:100]] = meta.get("content")[:MAX_META_CHARACTERS]
            truncated += len(meta.get("content")) > MAX_META_CHARACTERS
    canonical = selector.css("link[rel=canonical]::attr(href)").get()
    return {
        "language": selector.css("html::attr(lang)").get(),
        "canonical": joined(base_of(root, url), canonical) if canonical else None,
        "refresh": _refresh(root, url),
        "meta": found,
        "meta_total": total,
        **({"meta_truncated": truncated} if truncated else {}),
    }


def _refresh(root: Any, url: str) -> str | None:
    """Where a page sends its reader by itself, which is not followed; None where it stays."""
    for meta in root.iter("meta"):
        if (meta.get("http-equiv") or "").lower() == "refresh":
            found = _REFRESH.fullmatch((meta.get("content") or "")[:MAX_META_CHARACTERS])
            return joined(base_of(root, url), found[2]) if found and found[2] else None
    return None


def tables(root: Any) -> dict[str, Any]:
    """The tables of a page as rows of texts, all of one length; a cell that spans several is told once."""
    found: list[list[list[str]]] = []
    total, cells = 0, 0
    for table in root.iter("table"):
        total += 1
        if len(found) < MAX_TABLES and cells < MAX_CELLS:
            rows, is_cut = _grid(table, MAX_CELLS - cells)
            cells += sum(map(len, rows))
            if not is_cut:
                found.append(rows)
    return {"tables": found, "tables_total": total}


def _grid(table: Any, room: int) -> tuple[list[list[str]], bool]:
    rows: list[list[str]] = []
    covered: dict[tuple[int, int], None] = {}
    for number, (row, below) in enumerate(_rows(table)):
        texts: list[str] = []
        for cell in row.iterchildren("td", "th"):
            while (number, len(texts)) in covered:
                texts.append("")
            column, wide, high = len(texts), _span(cell, "colspan"), _span(cell, "rowspan")
            high = below + 1 if cell.get("rowspan", "").strip() == "0" else min(high, below + 1)
            texts += [text_of(cell), *[""] * (wide - 1)]
            room -= wide * high
            if room < 0:
                return rows, True
            covered |= dict.fromkeys((number + n, column + m) for n in range(1, high) for m in range(wide))
        rows.append(texts)
    width = max(map(len, rows), default=0)
    return [row + [""] * (width - len(row)) for row in rows], width * len(rows) > MAX_CELLS


def _rows(table: Any) -> Iterator[tuple[Any, int]]:
    """The rows of a table, each with how many follow in its section: no cell spans more."""
    rows: list[Any] = []
    for child in [*table.iterchildren("tr", *_SECTIONS), None]:
        if child is not None and child.tag == "tr":
            rows.append(child)
            continue
        yield from _counted(rows)
        rows = []
        if child is not None:
            yield from _counted(list(child.iterchildren("tr")))


def _counted(rows: list[Any]) -> Iterator[tuple[Any, int]]:
    return ((row, len(rows) - number) for number, row in enumerate(rows, 1))


def _span(cell: Any, name: str) -> int:
    try:
        return min(max(int(cell.get(name, "1")), 1), MAX_SPAN)
    except ValueError:
        return 1


def article(text: str, url: str) -> dict[str, Any] | None:
    """The main text of a page, by trafilatura; None if it finds none."""
    from trafilatura import bare_extraction  # noqa: PLC0415 half a second, and only where it is asked for

    found = bare_extraction(text, url=url, with_metadata=True, include_comments=False, include_tables=True)
    if found is None or isinstance(found, dict) or not found.text:
        return None
    return {name: getattr(found, name) for name in ("title", "author", "date", "sitename", "text")}
