"""Reads PDF by pdfium. Nothing is run or fetched: scripts, actions, links and attached files stay data.

A page is drawn only where it holds pictures and no text, which is then read by OCR.
"""

from __future__ import annotations

import ctypes
import functools
import io
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from handlers import ocr, progress
from handlers.documents import pdf_marks, pdf_spaces, pdf_vertical
from handlers.documents.reading import PDF, UNREADABLE, Allowance, DocumentText, clean, flow, looks_like
from handlers.failures import Refusal
from handlers.parameters.documents import Ocr

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
_HYPHEN = "\ufffe"
"""The character that pdfium writes for a hyphen at a line's end, in place of both."""
_NO_SIGN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Codes of a font that does not say what they mean, such as TeX's ligatures, which stand where text has controls."""
_LEAST_LETTERS = 30
"""A page with fewer letters and digits, most of which a picture covers, is a scan with a stamp on it."""
_MOST_OF_A_PAGE = 0.5
_SAMPLED = 400
"""Characters of a page that are asked for their direction."""
_FONTS = os.path.join(os.path.dirname(__file__), "fonts")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:([+-])(\d\d)'?(\d\d)?|Z)?")


class PdfDocument:
    """An opened PDF."""

    def __init__(
        self, content: bytes, *, password: str | None, pages: str | None, read_scans: Ocr = "auto", tables: bool = False
    ) -> None:
        """
        Args:
            content: the file.
            password: the user's or the owner's.
            pages: numbers and ranges, the first is 1; None for all.
            read_scans: which pages to read by OCR.
            tables: whether to look for tables.
        Raises:
            Refusal: not a PDF, broken, encrypted, too many pages, or a page that it does not have.
        """
        _give_fonts()
        self._pdf, self._content = _open(content, password)
        self._pdf.init_forms()
        self._password, self._with_tables = password, tables
        count = len(self._pdf)
        if count > MAX_PAGES:
            raise Refusal(
                "document_too_large", f"The document has {count} pages; at most {MAX_PAGES} can be processed. Split it."
            )
        self._numbers = list(range(1, count + 1)) if pages is None else _selected(pages, count)
        self._read_scans: Ocr = read_scans

    def read(self, max_characters: int) -> DocumentText:
        """Its text; ``parts`` have it by page, and what was filled in and noted on them.

        Raises:
            Refusal: a page is broken.
        """
        allowance, scans, marks = Allowance(max_characters), _Scans(self._read_scans), pdf_marks.Marks()
        pages: list[dict[str, Any]] = []
        raw, unreadable = [], 0
        for number in progress.through(self._numbers, len(self._numbers), "pages"):
            page = marks.take(self._pdf, self._page(number), number)
            text, unknown = _text(page, number)
            text, by_ocr = scans.read(page, text)
            page.close()
            unreadable += unknown
            raw.append(allowance.take(text))
            pages.append({"page": number, "text": raw[-1].replace(_HYPHEN, "-\n"), **by_ocr})
            if allowance.exceeded:
                break
        beside = {"unreadable_characters": unreadable, "unread_pages_total": scans.unread, **marks.found()}
        tables = self._tables() if self._with_tables else {}
        prose = flow("\n".join(text.replace(_HYPHEN, "") for text in raw))
        text = "\n\n".join(page["text"] for page in pages)
        return DocumentText(text, allowance.exceeded, prose, {"pages": pages, **beside, **tables}, beside)

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
            **pdf_marks.attachments(self._pdf),
            "metadata": self._metadata(),
            "headings": self._headings(),
            "images": self._images(),
        }

    def _pages(self) -> Iterator[tuple[int, pypdfium2.PdfPage]]:
        for number in self._numbers:
            page = self._page(number)
            yield number, page
            page.close()

    def _page(self, number: int) -> pypdfium2.PdfPage:
        try:
            return self._pdf[number - 1]
        except pypdfium2.PdfiumError:
            raise _broken_page(number) from None

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

    def _tables(self) -> dict[str, Any]:
        from handlers.documents import pdf_tables  # noqa: PLC0415 its library takes half a second

        return pdf_tables.find(self._content, self._password, self._numbers)


class _Scans:
    """Reads the pages that are pictures, as long as there is time."""

    def __init__(self, wanted: Ocr) -> None:
        self._wanted = wanted
        self._budget = ocr.Budget()
        self.unread = 0
        """Pages with pictures and no text that were not read."""

    def read(self, page: pypdfium2.PdfPage, text: str) -> tuple[str, dict[str, Any]]:
        """The text of a page with what its pictures say, and how sure that is; nothing where no picture was read."""
        if self._wanted != "always" and not _is_scan(page, text):
            return text, {}
        if self._wanted == "never" or self._budget.is_spent:
            self.unread += 1
            return text, {}
        width, height = page.get_size()
        scale = min(ocr.MAX_SIDE / max(width, height, 1), 10)
        lines = ocr.read(page.render(scale=scale, may_draw_forms=False).to_pil())
        known = set(map(str.strip, text.split("\n")))
        read = "\n".join(line.text for line in lines if line.text.strip() not in known)
        return f"{text}\n{read}".strip(), {"ocr": {"lines": len(lines), "confidence": ocr.confidence(lines)}}


def _is_scan(page: pypdfium2.PdfPage, text: str) -> bool:
    """Whether a page has next to no text, and pictures over most of it."""
    letters = sum(map(str.isalnum, text))
    if letters >= _LEAST_LETTERS:
        return False
    width, height = page.get_size()
    covered, has_pictures = 0.0, False
    for one in itertools.islice(page.get_objects(max_depth=_MAX_FORM_DEPTH), MAX_OBJECTS):
        if isinstance(one, pypdfium2.PdfImage):
            left, bottom, right, top = one.get_bounds()
            covered += (right - left) * (top - bottom)
            has_pictures = True
    return has_pictures and (letters == 0 or covered > _MOST_OF_A_PAGE * width * height)


@functools.cache
def _give_fonts() -> None:
    """Let pdfium see one font, our own, wherever it runs.

    A PDF may name a font of East Asian text without bringing it. Text whose signs have no size is no text to pdfium,
    so it needs a font that has them; of the host's fonts there are none inside the sandbox. Called before a document
    is open, because the library is started anew.
    """
    paths = (ctypes.POINTER(ctypes.c_char) * 2)()
    name = ctypes.create_string_buffer(_FONTS.encode())
    paths[0] = ctypes.cast(name, ctypes.POINTER(ctypes.c_char))
    config = pdfium.FPDF_LIBRARY_CONFIG()
    config.version = 2
    config.m_pUserFontPaths = ctypes.cast(paths, type(config.m_pUserFontPaths))
    pdfium.FPDF_DestroyLibrary()
    pdfium.FPDF_InitLibraryWithConfig(config)


def _open(content: bytes, password: str | None) -> tuple[pypdfium2.PdfDocument, bytes]:
    """The document, and its content: of one that an empty password of its owner opens, without the encryption."""
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
            if not password and (opened := _opened_by_owner(content)) is not None:
                return pypdfium2.PdfDocument(opened), opened
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
    return pdf, content


def _opened_by_owner(content: bytes) -> bytes | None:
    """The document without its encryption, if its owner's password is empty: pdfium tries only the user's so."""
    import pypdf  # noqa: PLC0415 for few documents

    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.decrypt("") == pypdf.PasswordType.NOT_DECRYPTED:
            return None
        made = io.BytesIO()
        pypdf.PdfWriter(clone_from=reader).write(made)
    except MemoryError:
        raise
    except Exception:  # it has no list of what it raises over broken input; then the password is asked for
        return None
    return made.getvalue()


def _selected(pages: str, count: int) -> list[int]:
    numbers: dict[int, None] = {}
    for part in pages.split(","):
        first, _, last = part.partition("-")
        start, end = int(first), int(last or first)
        if not start <= end <= count:
            raise Refusal("no_such_page", f"There are no pages {part}; the document has {count}, the first is 1.")
        numbers.update(dict.fromkeys(range(start, end + 1)))
    return list(numbers)


def _text(page: pypdfium2.PdfPage, number: int) -> tuple[str, int]:
    """The text of a page, line by line as drawn, and how many characters of it have no known meaning."""
    turned = page.get_rotation()
    try:
        text_page = page.get_textpage()
        upright = _upright(text_page)
        if upright != turned:  # pdfium reads lines that do not stand upright from the last to the first
            text_page.close()
            page.set_rotation(upright)
            text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        raise _broken_page(number) from None
    try:
        signs = _signs(text_page)
        unknown = _unknown(text_page, signs)
        read = pdf_vertical.in_order(text_page, signs) or pdf_spaces.restore(text_page, signs)
        text = _NO_SIGN.sub(UNREADABLE, read).replace("\r\n", "\n")
        return clean(text, keep=_HYPHEN).strip(), unknown
    finally:
        text_page.close()
        page.set_rotation(turned)


def _signs(text_page: pypdfium2.PdfTextPage) -> str:
    """The text of a page as pdfium gives it, with a zero where it has the mark of a hyphen and there is none."""
    signs: str = text_page.get_text_range()
    if _HYPHEN not in signs or len(signs) != text_page.count_chars():
        return signs
    return "".join(
        "\0" if sign == _HYPHEN and pdfium.FPDFText_IsHyphen(text_page, place) != 1 else sign
        for place, sign in enumerate(signs)
    )


def _unknown(text_page: pypdfium2.PdfTextPage, signs: str) -> int:
    """How many characters of a page have no known meaning: pdfium knows none, or has taken their code for one."""
    count = text_page.count_chars()
    codes = {found.start() for found in _NO_SIGN.finditer(signs)}
    no_meaning = {place for place in range(count) if pdfium.FPDFText_HasUnicodeMapError(text_page, place) == 1}
    return len(no_meaning | codes) if len(signs) == count else len(no_meaning) + len(codes)


def _upright(text_page: pypdfium2.PdfTextPage) -> int:
    """The rotation at which most of a page's characters stand upright: 0, 90, 180 or 270."""
    count = text_page.count_chars()
    turns = Counter(
        round(pdfium.FPDFText_GetCharAngle(text_page, place) / math.tau * 4) % 4
        for place in range(0, count, max(count // _SAMPLED, 1))
    )
    return (4 - turns.most_common(1)[0][0]) % 4 * 90 if turns else 0


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
