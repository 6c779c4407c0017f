"""Results of web_scraping."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType


class WebLink(msgspec.Struct, kw_only=True):
    """A link, by its whole URL."""

    url: str
    text: str
    text_truncated: bool | UnsetType = UNSET


class WebMatch(msgspec.Struct, kw_only=True):
    """An element that `selector` finds."""

    tag: str | None
    text: str
    text_truncated: bool | UnsetType = UNSET
    html: str
    html_truncated: bool | UnsetType = UNSET
    attributes: dict[str, str]
    attributes_total: int | UnsetType = UNSET


class WebArticle(msgspec.Struct, kw_only=True):
    """The main text of a page."""

    title: str | None
    author: str | None
    date: str | None
    sitename: str | None
    text: str


class FailedPage(msgspec.Struct, kw_only=True):
    """A link that was not followed to its end."""

    url: str
    code: str


class WebPage(msgspec.Struct, kw_only=True):
    """A page."""

    url: str
    status: int
    redirects: list[str]
    content_type: str | None
    encoding: str | None
    encoding_confidence: float | None
    unreadable_characters: int
    size_bytes: int
    headers: dict[str, str]
    title: str | None
    text: str
    text_truncated: bool
    links: list[WebLink]
    links_total: int
    metadata: Annotated[
        dict[str, Any], Meta(description="Language, canonical URL, where it sends readers, meta elements.")
    ]
    matches: Annotated[list[WebMatch] | UnsetType, Meta(description="With `selector`.")] = UNSET
    matches_total: int | UnsetType = UNSET
    extracted: Annotated[dict[str, Any] | UnsetType, Meta(description="With `extract`: name → what was found.")] = UNSET
    extracted_total: dict[str, int] | UnsetType = UNSET
    extracted_truncated: dict[str, bool] | UnsetType = UNSET
    tables: Annotated[list[list[list[str]]] | UnsetType, Meta(description="With `tables`: the rows of each.")] = UNSET
    tables_total: int | UnsetType = UNSET
    article: WebArticle | UnsetType | None = UNSET


class WebScrapingResult(WebPage, kw_only=True):
    """The page that was asked for; with `follow_links` the others beside it."""

    pages: list[WebPage] | UnsetType = UNSET
    pages_failed: list[FailedPage] | UnsetType = UNSET
    pages_failed_total: int | UnsetType = UNSET
