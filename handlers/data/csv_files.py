"""Reads CSV files into DuckDB as texts, each cell as it is written; ``cells`` then decides on types.

DuckDB reads what is well formed. What it refuses is read again by the ``csv`` module of Python, which knows the line of
each row: short rows are filled with nulls and counted, anything else is refused with the line and the reason.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb

from handlers.data.cells import GivenType, Notation, find_types, give_type, literal
from handlers.data.columns import MAX_FIELDS, Column, Table, distinct_names, too_many_fields
from handlers.failures import Refusal
from handlers.parameters.data import DataSource

MAX_LINE_BYTES = 16 << 20
_MAX_HEADER_CHARACTERS = 1 << 20
"""Looked at for delimiters."""
_DELIMITERS = ",;\t|"
_SPACE = re.compile(r"[\s\0]*")


class Dialect(NamedTuple):
    """How a file separates its cells."""

    delimiter: str
    quote: str
    guessed: float | None = None
    """Share of the header's delimiters that are this one; ``None`` where there are no others, or the caller says."""


class Head(NamedTuple):
    """The names of the columns, and the rows that follow."""

    names: list[str]
    rest: str
    lines: int
    """Lines before ``rest``."""


def read_csv(source: DataSource, text: str, path: str, database: duckdb.DuckDBPyConnection, name: str) -> Table:
    """The rows of a CSV.

    Args:
        source: the options of the file.
        text: its content.
        path: of a file that the database may read, to be overwritten.
        database: keeps the rows.
        name: of the table that keeps them.
    Raises:
        Refusal: the file is not a CSV, or a value has not the type that ``types`` says.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    skip = source.skip_lines or 0
    if _SPACE.fullmatch(text):
        return Table(0, (), is_of_objects=True, origin={"delimiter": source.delimiter, "short_rows_total": 0})
    notation = Notation(source.decimal or ".", source.thousands)
    dialect = _find_dialect(source, text, skip)
    head = _read_head(text, dialect, skip, has_header=source.header is not False)
    if len(head.names) > MAX_FIELDS:
        raise too_many_fields(len(head.names))
    nulls = ["", *(source.nulls or ())]
    short = _load(database, path, dialect, head, nulls)
    origin: dict[str, Any] = {"delimiter": dialect.delimiter, "short_rows_total": short}
    if dialect.guessed is not None:
        origin["guessed"] = {"delimiter": round(dialect.guessed, 2)}
    try:
        table = _type_columns(source, database, head.names, notation, name)
        return dataclasses.replace(table, origin=origin)
    finally:
        database.execute("DROP TABLE IF EXISTS texts")


def _type_columns(
    source: DataSource, database: duckdb.DuckDBPyConnection, names: list[str], notation: Notation, stored: str
) -> Table:
    """Make the table ``stored`` of the table ``texts``, each column with its type."""
    wanted = source.types or {}
    if unknown := sorted(set(wanted) - set(names)):
        known = ", ".join(names[:20])
        raise Refusal("unknown_field", f"`types` names the field {unknown[0]!r}; the file has: {known}.")
    free = {place: name for place, name in enumerate(names) if name not in wanted}
    types = find_types(database, "texts", free, notation)
    for place, name in enumerate(names):
        if name in wanted:
            types[place] = give_type(database, GivenType("texts", f"c{place}", name, wanted[name]), notation)
    values = ", ".join(f"{types[place].sql} AS c{place}" for place in range(len(names)))
    database.execute(f"CREATE OR REPLACE TABLE {stored} AS SELECT {values} FROM texts")  # noqa: S608 nothing in it is a caller's
    rows = (database.execute(f"SELECT count(*) FROM {stored}").fetchone() or (0,))[0]  # noqa: S608
    columns = tuple(
        Column(name, types[place].kind, None, types[place].has_nulls, types[place].sql_type)
        for place, name in enumerate(names)
    )
    return Table(rows, columns, is_of_objects=True, stored=stored)


def _find_dialect(source: DataSource, text: str, skip: int) -> Dialect:
    """Take the likeliest delimiter by the header alone: a guess by all rows would take a faulty file for one column."""
    quote = source.quote or '"'
    if source.delimiter is not None:
        return Dialect(source.delimiter, quote)
    lines = itertools.islice(io.StringIO(text, newline=""), skip, None)
    unquoted = _outside_quotes((line for line in lines if line.strip()), quote)
    counts = {one: unquoted.count(one) for one in _DELIMITERS if one not in (source.decimal, source.thousands)}
    best = max(counts, key=counts.__getitem__)
    total = sum(counts.values())
    return Dialect(best, quote, counts[best] / total if counts[best] < total else None)


def _outside_quotes(lines: Iterable[str], quote: str) -> str:
    """What stands outside of quotes in the first row, which may go on over several lines within them."""
    pieces: list[str] = []
    quotes = size = 0
    for line in lines:
        parts = line.split(quote)
        pieces += parts[quotes % 2 :: 2]
        quotes, size = quotes + len(parts) - 1, size + len(line)
        if quotes % 2 == 0 or size > _MAX_HEADER_CHARACTERS:
            break
    return "".join(pieces)


def _read_head(text: str, dialect: Dialect, skip: int, *, has_header: bool) -> Head:
    lines = io.StringIO(text, newline="")
    for _ in range(skip):
        lines.readline()
    begin = lines.tell()
    counted = _Counted(lines)
    reader = _reader(counted, dialect)
    try:
        first: list[str] = next((row for row in reader if row), [])
    except csv.Error as error:
        raise _refuse(skip + reader.line_num, str(error)) from None
    if not has_header:
        return Head([f"column_{number}" for number in range(1, len(first) + 1)], text[begin:], skip)
    names = [name or f"column_{number}" for number, name in enumerate(first, 1)]
    return Head(distinct_names(names), text[begin + counted.characters :], skip + reader.line_num)


class _Counted:
    """Lines, and how many characters of them were read."""

    def __init__(self, lines: io.StringIO) -> None:
        self._lines = lines
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.characters += len(line)
            yield line


def _reader(lines: Iterable[str], dialect: Dialect) -> Any:
    return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)


def _load(database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, head: Head, nulls: Sequence[str]) -> int:
    """Put the rows into the table ``texts``; how many had fewer cells than the header."""
    width = len(head.names)
    # a blank line is no row, which DuckDB does not see where there is one column only
    text = _with_plain_line_ends(head.rest, dialect) if width > 1 else None
    if text is not None and _fill_from(text, database, path, dialect, _Layout(width, nulls)):
        return 0
    short = _rewrite(path, dialect, head)
    _fill(database, path, Dialect(",", '"'), _Layout(width, nulls))
    return short


def _with_plain_line_ends(text: str, dialect: Dialect) -> str | None:
    """The text with each line ended by a line feed; None where a carriage return may be a part of a quoted cell."""
    if "\r" not in text:
        return text
    return None if dialect.quote in text else text.replace("\r\n", "\n").replace("\r", "\n")


class _Layout(NamedTuple):
    width: int
    nulls: Sequence[str]


def _fill_from(text: str, database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, layout: _Layout) -> bool:
    """Have DuckDB read a text as it is. Whether it could: a row may be short, or no row at all."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    try:
        _fill(database, path, dialect, layout)
    except (duckdb.OutOfMemoryException, MemoryError):
        raise
    except duckdb.Error:
        return False
    return True


def _fill(database: duckdb.DuckDBPyConnection, path: str, dialect: Dialect, layout: _Layout) -> None:
    columns = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(layout.width))
    quote = literal(dialect.quote)
    # the line end is said: DuckDB would take one within quotes for it
    database.execute(
        f"""CREATE OR REPLACE TABLE texts AS SELECT * FROM read_csv(?, auto_detect = false, header = false,
            columns = {{{columns}}}, delim = {literal(dialect.delimiter)}, quote = {quote}, escape = {quote},
            nullstr = [{", ".join(map(literal, layout.nulls))}], strict_mode = true, comment = '',
            new_line = '\\n', max_line_size = {MAX_LINE_BYTES})""",  # noqa: S608 options of one character and texts, as literals
        [path],
    )


def _rewrite(path: str, dialect: Dialect, head: Head) -> int:
    """Write the rows anew, each with as many cells as the header; how many had fewer.

    Raises:
        Refusal: a row cannot be read, or has more cells than the header.
    """
    width, short, previous = len(head.names), 0, head.lines
    reader = _reader(io.StringIO(head.rest, newline=""), dialect)
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for row in reader:
                line, previous = previous + 1, head.lines + reader.line_num
                if any(row[width:]):
                    raise _refuse(line, f"it has {len(row)} columns, and the header has {width}")
                if row:
                    short += len(row) < width
                    writer.writerow(row[:width] + [""] * (width - len(row)))
    except csv.Error as error:
        raise _refuse(previous + 1, str(error)) from None
    return short


def _refuse(line: int, reason: str) -> Refusal:
    return Refusal(
        "invalid_csv",
        f"The file cannot be read as csv: line {line}: {reason}. Check the file, or say how it is written by "
        "`delimiter`, `quote`, `encoding`, `header` or `skip_lines` (lines before the header).",
    )
