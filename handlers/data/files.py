"""Reads files of rows (CSV, JSON lines, Parquet) into columns of NumPy, by DuckDB, which may open nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np

from handlers import inputs
from handlers.data.columns import MAX_FIELDS, Column, Table, too_many_fields
from handlers.failures import Refusal
from handlers.parameters.data import DataSource

MAX_BYTES = 256 << 20
MAX_LINE_BYTES = 16 << 20
_READERS = {
    "csv": "read_csv(?, delim = ?, header = true, strict_mode = true, max_line_size = {line}, quote = '\"', "
    "escape = '\"', comment = '', skip = 0)",
    "jsonl": "read_json(?, format = 'newline_delimited', records = true, maximum_object_size = {line})",
    "parquet": "read_parquet(?)",
}
_DELIMITERS = ",;\t|"
_HEADER_BYTES = 1 << 20
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_DOUBLES = ("UBIGINT", "HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BIGNUM")


def read_file(source: DataSource, database: duckdb.DuckDBPyConnection, folder: str) -> Table:
    """The rows of a file.

    Args:
        source: the file.
        database: reads it; may open files of ``folder`` only.
        folder: where the file is put for that.
    Raises:
        Refusal: the file cannot be read, or is not of its format.
        MemoryError: it takes more memory than there is.
    """
    content = inputs.read(source.file, max_bytes=MAX_BYTES)
    with _put(content, folder) as path:
        try:
            return _columns(source, database, path)
        except (duckdb.OutOfMemoryException, MemoryError):
            raise
        except duckdb.Error as error:
            raise _unreadable(source, error, path) from None


@contextlib.contextmanager
def _put(content: bytes, folder: str) -> Iterator[str]:
    fd, path = tempfile.mkstemp(dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)


def _columns(source: DataSource, database: duckdb.DuckDBPyConnection, path: str) -> Table:
    reader = _READERS[str(source.format)].format(line=MAX_LINE_BYTES)
    given = [path, *([source.delimiter or _find_delimiter(path)] if source.format == "csv" else [])]
    described = database.execute(f"DESCRIBE SELECT * FROM {reader}", given).fetchall()  # noqa: S608 the text is ours
    if len(described) > MAX_FIELDS:
        raise too_many_fields(len(described))
    casts = [_cast(position, kind) for position, (_, kind, *_) in enumerate(described)]
    names = ", ".join(f"c{position}" for position in range(len(casts)))
    # the file's own names never become SQL: its columns are renamed by their places
    found = database.execute(f"SELECT {', '.join(casts)} FROM {reader} AS read({names})", given).fetchnumpy()  # noqa: S608
    columns = tuple(_column(name, found[f"c{position}"]) for position, (name, *_) in enumerate(described))
    rows = len(found["c0"]) if casts else 0
    return Table(rows, columns, is_of_objects=True)


def _find_delimiter(path: str) -> str:
    """The likeliest one, by the header alone: DuckDB's own guess would rather take a faulty file for one column."""
    with open(path, "rb") as file:
        header = file.readline(_HEADER_BYTES).decode("utf-8", "replace")
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=unquoted.count)


def _cast(position: int, kind: str) -> str:
    plain = kind.partition("(")[0]
    target = "BIGINT" if plain in _INTEGERS else "DOUBLE" if plain in _DOUBLES else plain
    if target not in ("BIGINT", "DOUBLE", "BOOLEAN"):
        target = "VARCHAR"  # dates and times as ISO 8601, nested values as their text
    return f"CAST(c{position} AS {target}) AS c{position}"


def _column(name: str, values: Any) -> Column:
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    kind = values.dtype.kind
    if kind == "O":
        texts = np.array([value if isinstance(value, str) else None for value in values.tolist()], dtype=object)
        has_nulls = any(value is None for value in texts)
        return Column(name, "text" if any(value is not None for value in texts) else "empty", texts, has_nulls)
    if mask is not None and mask.all() and len(mask):
        return Column(name, "empty", None, has_nulls=True)
    if kind == "f":
        plain = values.filled(np.nan) if mask is not None else values
        return Column(name, "number", plain, bool(np.isnan(plain).any()))
    has_nulls = mask is not None and bool(mask.any())
    plain = values if has_nulls else np.asarray(values)
    return Column(name, "boolean" if kind == "b" else "number", plain, has_nulls)


def _unreadable(source: DataSource, error: duckdb.Error, path: str) -> Refusal:
    reason = str(error).replace(path, "the file").splitlines()[0][:300]
    return Refusal(
        f"invalid_{source.format}",
        f"The file cannot be read as {source.format}: {reason}. Check its format and encoding.",
    )
