"""Reads PDF by pdfium. Nothing is rendered, run or fetched: scripts, actions, links and attached files stay data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from handlers import progress
from handlers.documents.reading import PDF, Allowance, DocumentText, clean, flow, looks_like
from handlers.failures import Refusal

MAX_PAGES = 5000
MAX_HEADINGS = 1000
MAX_IMAGES = 200
"""Images that are named one by one; all are counted."""
MAX_OBJECTS = 200_000
"""Of all pages together, looked through for images."""
_MAX_FORM_DEPTH = 5
_HEADER_WITHIN_BYTES = 1024
_MAY_COPY = 1 << 4
"""ISO 32000-1, table 22: bit 5."""
_HYPHEN = "\x02"
"""The character that pdfium writes for a hyphen at which a word was broken."""
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:([+-])(\d\d)'?(\d\d)?|Z)?")


class PdfDocument:
    """An opened PDF."""

    def __init__(self, content: bytes, *, password: str | None, pages: str | None) -> None:
        """
        Args:
            content: the file.
            password: the user's or the owner's.
            pages: numbers and ranges, the first is 1; None for all.
        Raises:
            Refusal: not a PDF, broken, encrypted, too many pages, or a page that it does not have.
        """
        self._pdf = _open(content, password)
        count = len(self._pdf)
        if count > MAX_PAGES:
            raise Refusal(
                "document_too_large", f"The document has {count} pages; at most {MAX_PAGES} can be processed. Split it."
            )
        self._numbers = list(range(1, count + 1)) if pages is None else _selected(pages, count)

    def read(self, max_characters: int) -> DocumentText:
        """Its text; ``parts`` have it by page.

        Raises:
            Refusal: a page is broken.
        """
        allowance = Allowance(max_characters)
        pages = []
        for number, page in progress.through(self._pages(), len(self._numbers), "pages"):
            text = allowance.take(_text(page, number))
            pages.append({"page": number, "text": text})
            if allowance.exceeded:
                break
        texts = [str(page["text"]) for page in pages]
        return DocumentText("\n\n".join(texts), allowance.exceeded, flow("\n".join(texts)), {"pages": pages})

    def facts(self) -> dict[str, Any]:
        """Facts beside its text. Headings are the outline's.

        Raises:
            Refusal: a page is broken.
        """
        version = self._pdf.get_version()
        return {
            "pages": len(self._pdf),
            "pages_read": len(self._numbers),
            "page_size_pt": [round(side, 2) for side in self._pdf.get_page_size(self._numbers[0] - 1)],
            "pdf_version": f"{version // 10}.{version % 10}" if version else None,
            "attachments": self._pdf.count_attachments(),
            "metadata": self._metadata(),
            "headings": self._headings(),
            "images": self._images(),
        }

    def _pages(self) -> Iterator[tuple[int, pypdfium2.PdfPage]]:
        for number in self._numbers:
            try:
                page = self._pdf[number - 1]
            except pypdfium2.PdfiumError:
                raise _broken_page(number) from None
            yield number, page
            page.close()

    def _metadata(self) -> dict[str, str]:
        found = {}
        for key, value in self._pdf.get_metadata_dict(skip_empty=True).items():
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()
            found[name] = _iso_date(value) if key.endswith("Date") else clean(value)
        return found

    def _headings(self) -> list[dict[str, Any]]:
        """The document's outline (its bookmarks)."""
        headings = []
        for bookmark in itertools.islice(self._pdf.get_toc(), MAX_HEADINGS):
            goal = bookmark.get_dest()
            index = goal.get_index() if goal is not None else None
            page = None if index is None else index + 1
            headings.append({"level": bookmark.level + 1, "text": clean(bookmark.get_title()), "page": page})
        return headings

    def _images(self) -> dict[str, Any]:
        count, looked_at = 0, 0
        named: list[dict[str, int]] = []
        for number, page in self._pages():
            objects = page.get_objects(max_depth=_MAX_FORM_DEPTH)
            for one in itertools.islice(objects, MAX_OBJECTS - looked_at):
                looked_at += 1
                if not isinstance(one, pypdfium2.PdfImage):
                    continue
                count += 1
                if len(named) < MAX_IMAGES:
                    width, height = one.get_px_size()
                    named.append({"page": number, "width": width, "height": height})
        return {"count": count, "complete": looked_at < MAX_OBJECTS, "first": named}


def _open(content: bytes, password: str | None) -> pypdfium2.PdfDocument:
    kind = looks_like(content)
    if kind != PDF and (kind is not None or b"%PDF-" not in content[:_HEADER_WITHIN_BYTES]):
        raise Refusal(
            "wrong_document_type",
            f"The content is not a PDF: it {'looks like ' + kind if kind else 'does not begin like one'}. Name its "
            "type by `document_type`; a file without a `.` in its name is given as `{\"path\": …}`.",
        )  # fmt: skip
    try:
        pdf = pypdfium2.PdfDocument(content, password=password)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            wrong = "the `password` is wrong" if password else "it needs a `password`"
            raise Refusal("encrypted_document", f"The document is encrypted and {wrong}.") from None
        if error.err_code == pdfium.FPDF_ERR_SECURITY:
            raise Refusal(
                "encrypted_document", "The document is encrypted by a method that is not supported."
            ) from None
        raise Refusal("corrupt_document", "The PDF is broken, cut off, or has no page; save it again.") from None
    if not pdfium.FPDF_GetDocPermissions(pdf) & _MAY_COPY:
        raise Refusal(
            "encrypted_document",
            "The document is encrypted and forbids to take text out of it; give its owner's password as `password`.",
        )
    return pdf


def _selected(pages: str, count: int) -> list[int]:
    numbers: dict[int, None] = {}
    for part in pages.split(","):
        first, _, last = part.partition("-")
        start, end = int(first), int(last or first)
        if not start <= end <= count:
            raise Refusal("no_such_page", f"There are no pages {part}; the document has {count}, the first is 1.")
        numbers.update(dict.fromkeys(range(start, end + 1)))
    return list(numbers)


def _text(page: pypdfium2.PdfPage, number: int) -> str:
    try:
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        raise _broken_page(number) from None
    try:
        return clean(text_page.get_text_bounded().replace(_HYPHEN, "")).strip()
    finally:
        text_page.close()


def _broken_page(number: int) -> Refusal:
    return Refusal("corrupt_document", f"Page {number} is broken; leave it out by `pages`, or save the document again.")


def _iso_date(value: str) -> str:
    """A date of ISO 32000-1, 7.9.4, as ISO 8601; as it is where it is none."""
    found = _DATE.match(value)
    if found is None:
        return clean(value)
    year, month, day, hour, minute, second, sign, offset_h, offset_min = found.groups()
    try:
        offset = timedelta(hours=int(offset_h or 0), minutes=int(offset_min or 0))
        zone = timezone(-offset if sign == "-" else offset) if sign or value.endswith("Z") else None
        numbers = (int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))
        return datetime(*numbers, tzinfo=zone).isoformat()
    except ValueError:
        return clean(value)
