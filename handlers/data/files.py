"""Reads files of rows (CSV, JSON lines, Parquet, spreadsheets) into tables. DuckDB may open nothing else."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator

import duckdb

from handlers import inputs
from handlers.data.cells import iso_text
from handlers.data.columns import MAX_FIELDS, Column, FieldKind, Table, table_of_lines, too_many_fields
from handlers.data.csv_files import read_csv
from handlers.data.sheets import read_sheet
from handlers.encodings import Decoded, decode
from handlers.failures import Refusal
from handlers.parameters.data import DataSource

MAX_BYTES = 256 << 20
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_MAY_BE_NO_NUMBER = ("FLOAT", "DOUBLE")
_NUMBERS = {
    **dict.fromkeys(_INTEGERS, "BIGINT"),
    **dict.fromkeys(("UBIGINT", "HUGEINT"), "HUGEINT"),
    **dict.fromkeys(_MAY_BE_NO_NUMBER, "DOUBLE"),
}


def read_file(source: DataSource, database: duckdb.DuckDBPyConnection, folder: str, name: str) -> Table:
    """The rows of a file.

    Args:
        source: the file, and how to read it.
        database: reads it, and keeps the rows; may open files of ``folder`` only.
        folder: where the file is put for that.
        name: of the database's table.
    Raises:
        Refusal: the file cannot be read, or is not of its format.
        MemoryError: it takes more memory than there is.
    """
    content = inputs.read(source.file, max_bytes=MAX_BYTES)
    if source.format == "jsonl":
        return table_of_lines(content.removeprefix(codecs.BOM_UTF8))
    if source.format in ("xlsx", "ods"):
        return read_sheet(source, content, database)
    with _put(content if source.format == "parquet" else b"", folder) as path:
        if source.format == "csv":
            return _read_csv(source, content, path, database, name)
        return _read_parquet(path, database, name)


@contextlib.contextmanager
def _put(content: bytes, folder: str) -> Iterator[str]:
    fd, path = tempfile.mkstemp(dir=folder)
    try:
        with open(fd, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)


def _read_csv(source: DataSource, content: bytes, path: str, database: duckdb.DuckDBPyConnection, name: str) -> Table:
    if source.text is not None:
        return read_csv(source, source.text.removeprefix("\ufeff"), path, database, name)
    decoded = _decode(content, source.encoding)
    table = read_csv(source, decoded.text.removeprefix("\ufeff"), path, database, name)
    origin = {
        "encoding": decoded.encoding,
        **(table.origin or {}),
        "unreadable_characters_total": decoded.unreadable,
    }
    if decoded.confidence < 1:
        origin["guessed"] = {"encoding": decoded.confidence, **origin.get("guessed", {})}
    return dataclasses.replace(table, origin=origin)


def _decode(content: bytes, encoding: str | None) -> Decoded:
    if encoding is not None:
        try:
            return Decoded(content.decode(encoding), encoding, 1, 0)
        except UnicodeDecodeError as error:
            raise Refusal(
                "invalid_csv",
                f"The file cannot be read as csv: byte {error.start} is not {encoding}. Leave `encoding` out to have "
                "it found.",
            ) from None
    decoded = decode(content)
    if decoded is None:
        raise Refusal("invalid_csv", "The file cannot be read as csv: it has zero bytes, so it is not text.")
    return decoded


def _read_parquet(path: str, database: duckdb.DuckDBPyConnection, name: str) -> Table:
    try:
        described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [path]).fetchall()
        if len(described) > MAX_FIELDS:
            raise too_many_fields(len(described))
        types = [sql_type for _, sql_type, *_ in described]
        values = [f"{_value(f'c{place}', sql_type)} AS c{place}" for place, sql_type in enumerate(types)]
        # the file's own names never become SQL: its columns are renamed by their places
        renamed = ", ".join(f"c{place}" for place in range(len(types)))
        database.execute(
            f"CREATE OR REPLACE TABLE {name} AS SELECT {', '.join(values)} FROM read_parquet(?) AS read({renamed})",  # noqa: S608 the text is ours
            [path],
        )
        table = _table_of_stored(database, name, [column for column, *_ in described], types)
        return dataclasses.replace(table, origin={"not_a_number_total": _count_no_numbers(database, path, types)})
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        reason = str(error).replace(path, "the file").splitlines()[0][:300]
        raise Refusal("invalid_parquet", f"The file cannot be read as parquet: {reason}. Check its format.") from None


def _count_no_numbers(database: duckdb.DuckDBPyConnection, path: str, types: list[str]) -> int:
    """How many NaN there are, each of which became null."""
    places = [place for place, sql_type in enumerate(types) if sql_type in _MAY_BE_NO_NUMBER]
    counts = " + ".join(["0", *(f"count_if(isnan(c{place}))" for place in places)])
    renamed = ", ".join(f"c{place}" for place in range(len(types)))
    sql = f"SELECT {counts} FROM read_parquet(?) AS read({renamed})"  # noqa: S608 the text is ours
    return int((database.execute(sql, [path]).fetchone() or (0,))[0])


def _value(column: str, sql_type: str) -> str:
    """SQL of a column with the types that fields may have."""
    if sql_type in ("BOOLEAN", "VARCHAR") or sql_type.startswith("DECIMAL"):
        return column
    if sql_type in _MAY_BE_NO_NUMBER:
        return f"nullif(CAST({column} AS DOUBLE), 'nan'::DOUBLE)"
    if (target := _NUMBERS.get(sql_type)) is not None:
        return f"CAST({column} AS {target})"
    return iso_text(column, sql_type)


def _table_of_stored(database: duckdb.DuckDBPyConnection, name: str, fields: list[str], types: list[str]) -> Table:
    counts = ", ".join(["count(*)", *(f"count(c{place})" for place in range(len(fields)))])
    rows, *filled = database.execute(f"SELECT {counts} FROM {name}").fetchone() or (0,)  # noqa: S608
    columns = []
    for field, sql_type, count in zip(fields, types, filled, strict=True):
        number = sql_type if sql_type.startswith("DECIMAL") else _NUMBERS.get(sql_type, "")
        kind: FieldKind = "number" if number else "boolean" if sql_type == "BOOLEAN" else "text"
        columns.append(Column(field, kind if count else "empty", None, count < rows, number))
    return Table(rows, tuple(columns), is_of_objects=True, stored=name)
