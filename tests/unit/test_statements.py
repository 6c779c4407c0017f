"""The statements of the store: parameters by name, columns from the fields of a Struct."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest

from engine.model.errors import OldServerError, QueueUnavailableError
from engine.queue import queue
from engine.store import connect
from engine.store.columns import Columns
from engine.store.database import COLUMNS, SQL_DIR
from engine.store.statements import load_statements


class Colour(enum.StrEnum):
    """A word that PostgreSQL has as text."""

    RED = "red"


class Inner(msgspec.Struct, frozen=True):
    """Columns within columns."""

    colour: Colour
    labels: dict[str, str]


class Outer(msgspec.Struct, frozen=True):
    """Columns of a table."""

    row_id: UUID
    inner: Inner
    names: tuple[str, ...]
    size: int | None = None
    elsewhere: str = ""


@pytest.fixture
def columns() -> Columns[Outer]:
    """The columns of ``Outer``, one of whose fields is none."""
    return Columns(Outer, without=("elsewhere",))


def load(folder: Path, text: str, columns: Columns[Outer]) -> tuple[str, tuple[str, ...]]:
    """The only statement of a file of this text."""
    path = folder / "queries.sql"
    path.write_text(text)
    [statement] = load_statements(path, (columns,)).values()
    return statement


def test_each_parameter_is_numbered_once(tmp_path: Path, columns: Columns[Outer]) -> None:
    """A name that stands twice is one parameter; a cast is none."""
    text = "-- name: one\n-- Says :what it does.\nSELECT :a::text, :b, :a\n"
    assert ("SELECT $1::text, $2, $1", ("a", "b")) == load(tmp_path, text, columns)


def test_places_are_filled_with_columns_and_fragments(tmp_path: Path, columns: Columns[Outer]) -> None:
    """The columns of a Struct, of a table, as parameters; a fragment may have places of its own."""
    text = (
        "-- fragment: Rest\n-- More.\n{t.Outer}, x\n-- name: one\n-- Stores it.\n"
        "INSERT INTO t ({Outer}) VALUES ({:Outer}) RETURNING {Rest}\n"
    )
    names = ("colour", "labels", "row_id", "names", "size")
    of_table = ", ".join(f"t.{name}" for name in names)
    sql = f"INSERT INTO t ({', '.join(names)}) VALUES ($1, $2, $3, $4, $5) RETURNING {of_table}, x"
    assert (sql, names) == load(tmp_path, text, columns)


def test_arguments_are_bound_by_name(tmp_path: Path, columns: Columns[Outer]) -> None:
    """One too many or too few is an error, never a value in the wrong place."""
    path = tmp_path / "queries.sql"
    path.write_text("-- name: one\n-- Says it.\nSELECT :b, :a\n")
    statement = load_statements(path, (columns,))["one"]
    assert [2, 1] == statement.bind({"a": 1, "b": 2})
    for wrong in ({"a": 1}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(TypeError, match="takes"):
            statement.bind(wrong)


@pytest.mark.parametrize(
    "text",
    ["-- name: bare\nSELECT 1\n", "-- name: a\n-- One.\nSELECT 1\n-- name: a\n-- Two.\nSELECT 2\n"],
    ids=["no sentence", "twice"],
)
def test_statement_without_a_sentence_or_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    """Each statement has a name of its own and a sentence that says what it does."""
    path = tmp_path / "queries.sql"
    path.write_text(text)
    with pytest.raises(ValueError, match="given twice, or without a description"):
        load_statements(path, ())


def test_struct_survives_its_columns(columns: Columns[Outer]) -> None:
    """Each value is read from its column as its field's type has it."""
    outer = Outer(row_id=uuid4(), inner=Inner(Colour.RED, {"a": "b"}), names=("x", "y"), elsewhere="here")
    row = columns.values(outer)
    assert ("red", '{"a":"b"}', ["x", "y"]) == (row["colour"], row["labels"], row["names"])
    assert outer == columns.read(row, elsewhere="here")


def test_every_statement_is_complete() -> None:
    """Nothing in the engine's own statements is left to be filled in."""
    statements = load_statements(SQL_DIR / "queries.sql", COLUMNS)
    assert len(statements) > 30
    assert [] == [
        name for name, statement in statements.items() if "{" in statement.sql or ":" in statement.sql.replace("::", "")
    ]


def test_types_of_the_schema_are_known_before_a_pooler_is_used() -> None:
    """Each type that a migration makes is among those that asyncpg looks up at once."""
    made = [
        name
        for path in SQL_DIR.glob("0*.sql")
        for name in re.findall(r"CREATE (?:TYPE|DOMAIN) (\w+)", path.read_text())
    ]
    assert set(made) == set(connect.OUR_TYPES)


def test_servers_that_are_too_old_are_named() -> None:
    """The least versions pass; what comes before them is refused with both versions in words."""
    connect.check_version(140_000, "14.0")
    with pytest.raises(OldServerError, match=r"PostgreSQL 13\.22 is too old: .* 14 or later"):
        connect.check_version(130_022, "13.22")
    for version in ("6.2.0", "7.0.15", "8.1", "10.0.0"):
        queue.require_version(version)
    with pytest.raises(QueueUnavailableError, match=r"Redis 6\.0\.16 is too old: .* 6\.2 or later, or Valkey"):
        queue.require_version("6.0.16")
