"""What a value of an answer is in a cell of a spreadsheet, all of whose numbers are doubles."""

from __future__ import annotations

import decimal
from typing import Any

import msgspec

from handlers.failures import Refusal
from handlers.jsonable import MAX_SAFE_INTEGER
from handlers.text import clean_text

MAX_CELL_CHARACTERS = 32_767
"""Of Excel's cells, in units of UTF-16, and of LibreOffice's."""


def exact(value: decimal.Decimal) -> float | str:
    """A decimal as a number where a double holds it, else as text: no reader must get another value."""
    number = float(value)
    return number if decimal.Decimal(repr(number)) == value else f"{value:f}"


def too_long(where: str) -> Refusal:
    """The refusal of a text that no cell can hold.

    Args:
        where: of the answer the text stands.
    """
    said = f"A text of {where} is longer than the {MAX_CELL_CHARACTERS} characters of a cell; take `csv` as `output`."
    return Refusal("text_too_long", said)


def flat(value: Any) -> Any:
    """A value that a cell can have; a nested one as JSON text."""
    if isinstance(value, decimal.Decimal):
        return exact(value)
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def cell_value(given: Any) -> tuple[Any, bool]:
    """The value of a cell, and whether it is a number as text, since no double holds it."""
    value = str(given) if type(given) is int and abs(given) > MAX_SAFE_INTEGER else flat(given)
    is_text = isinstance(value, str)
    return clean_text(value) if is_text else value, is_text and isinstance(given, int | decimal.Decimal)
