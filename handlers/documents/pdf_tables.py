"""Finds the tables of a PDF by pdfplumber: from drawn lines, cell by cell."""

from __future__ import annotations

import io
from typing import Any

import pdfplumber

from handlers import progress
from handlers.documents.reading import clean
from handlers.failures import Refusal

MAX_PAGES = 200
"""Looked through for tables, a tenth of a second each or more."""
MAX_CELLS = 50_000


def find(content: bytes, password: str | None, numbers: list[int]) -> dict[str, Any]:
    """The tables of some pages, as rows of texts; a cell that spans several is told once, the others are empty.

    Args:
        content: the file.
        password: that it opens with.
        numbers: of the pages, the first is 1.
    Raises:
        Refusal: the library cannot read the document.
    """
    tables: list[dict[str, Any]] = []
    cells, truncated = 0, len(numbers) > MAX_PAGES
    try:
        with pdfplumber.open(io.BytesIO(content), password=password or "", unicode_norm=None) as pdf:
            for number in progress.through(numbers[:MAX_PAGES], min(len(numbers), MAX_PAGES), "pages"):
                page = pdf.pages[number - 1]
                for rows in page.extract_tables():
                    cells += sum(map(len, rows))
                    if cells > MAX_CELLS:
                        return {"tables": tables, "tables_truncated": True}
                    tables.append({"page": number, "rows": [[clean(cell or "") for cell in row] for row in rows]})
                page.close()
    except (Refusal, MemoryError):
        raise
    except Exception as error:  # pdfminer has no list of what it raises over broken input
        raise Refusal(
            "corrupt_document", f"No tables could be looked for ({type(error).__name__}); leave `tables` out."
        ) from None
    return {"tables": tables, "tables_truncated": truncated}
