"""Gives tables to DuckDB."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np

from handlers.data.columns import Column, Table


def register_columns(database: duckdb.DuckDBPyConnection, name: str, table: Table) -> None:
    """Make a table known to the database by a name, its columns as ``c0`` ``c1`` …

    Args:
        database: gets it.
        name: of the table in SQL; nothing of the request.
        table: its values stay where they are, in NumPy or in a table of the database.
    """
    if table.stored is not None:
        database.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {table.stored}")  # noqa: S608 names of ours
        return
    values = {f"c{place}": _values(column, table.rows) for place, column in enumerate(table.columns)}
    values = values or {"c0": np.full(table.rows, np.nan)}
    casts = {f"c{place}": column.sql_type for place, column in enumerate(table.columns) if _is_text(column)}
    if not casts:
        database.register(name, values)
        return
    database.register(f"texts_of_{name}", values)
    replaced = ", ".join(f"CAST({column} AS {sql_type}) AS {column}" for column, sql_type in casts.items())
    typed = f"typed_{name}"
    database.execute(f"CREATE OR REPLACE TEMP TABLE {typed} AS SELECT * REPLACE ({replaced}) FROM texts_of_{name}")  # noqa: S608
    database.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {typed}")  # noqa: S608


def forget(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """Free the name of a table that ``register_columns`` made known."""
    database.unregister(name)
    database.execute(f"DROP VIEW IF EXISTS {name}")


def _values(column: Column, rows: int) -> Any:
    return np.full(rows, np.nan) if column.values is None else column.values  # DuckDB takes NaN of NumPy for null


def _is_text(column: Column) -> bool:
    """Whether a column has numbers as texts, since NumPy has no type for them."""
    return column.kind == "number" and column.values is not None and column.values.dtype.kind == "O"
