"""The rule by which texts become values: which columns of a CSV are numbers or booleans, and which stay text.

All values of a column decide, never a sample. A column becomes numbers only where every text comes back from its number
unchanged in value, so a code such as ``007``, ``0x1F``, ``+49``, ``F`` or ``1_000`` stays text. README.md has the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import duckdb
import numpy as np

from handlers.data.columns import MAX_DIGITS, Column, FieldKind
from handlers.failures import Refusal

BOOLEANS = ("true", "false", "True", "False", "TRUE", "FALSE")
_GLANCE_ROWS = 1000
_FAST_DIGITS, _DOUBLE_DIGITS = 18, 15
"""Most digits of a DECIMAL or an integer in 64 bits; of a decimal that a double surely holds."""


class Notation(NamedTuple):
    """How a file writes numbers."""

    decimal: str = "."
    thousands: str | None = None

    @property
    def integer(self) -> str:
        """Pattern of an integer."""
        return f"0|-?{self._whole(zero=False)}"

    @property
    def number(self) -> str:
        """Pattern of any number."""
        point = re.escape(self.decimal)
        return f"-?(({self._whole(zero=True)})({point}[0-9]+)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"

    @property
    def given_integer(self) -> str:
        """Pattern of an integer where the caller says that it is one: also with a plus, or zeros in front."""
        return f"[+-]?{self._given_whole}"

    @property
    def given_number(self) -> str:
        """Pattern of any number where the caller says that it is one."""
        point = re.escape(self.decimal)
        return f"[+-]?({self._given_whole}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"

    @property
    def _given_whole(self) -> str:
        if self.thousands is None:
            return "[0-9]+"
        return f"([0-9]+|[0-9]{{1,3}}({re.escape(self.thousands)}[0-9]{{3}})+)"

    def plain(self, sql: str) -> str:
        """SQL of a text with the number as everybody writes it."""
        if self.thousands is not None:
            sql = f"replace({sql}, {literal(self.thousands)}, '')"
        return sql if self.decimal == "." else f"replace({sql}, {literal(self.decimal)}, '.')"

    def _whole(self, *, zero: bool) -> str:
        forms = ["0"] * zero + ["[1-9][0-9]*"]
        if self.thousands is not None:
            forms.append(f"[1-9][0-9]{{0,2}}({re.escape(self.thousands)}[0-9]{{3}})+")
        return f"({'|'.join(forms)})"


class ColumnType(NamedTuple):
    """The type of a column of texts."""

    kind: FieldKind
    sql_type: str
    sql: str
    """Its value in SQL, from the text in the column."""
    has_nulls: bool


def literal(text: str) -> str:
    """A text as a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"


def find_types(
    database: duckdb.DuckDBPyConnection, table: str, names: Mapping[int, str], notation: Notation
) -> dict[int, ColumnType]:
    """The types of columns ``c0`` ``c1`` … of a table of texts, by all their values.

    Args:
        database: has the table.
        table: its name in SQL.
        names: place of each column to look at → the field's name, for refusals.
        notation: how the file writes numbers.
    Raises:
        Refusal: a column of numbers has one that no number of JSON can be.
    """
    kinds = _first_kinds(database, table, names, _tests(notation))
    filled = _ask(database, table, {place: ["count(*)", f"count(c{place})"] for place in names})
    return {
        place: _type(database, table, Field(f"c{place}", name, *filled[place]), kinds.get(place), notation)
        for place, name in names.items()
    }


class Field(NamedTuple):
    """A column of texts: its name in SQL, the field's name, how many rows there are, how many have a text."""

    column: str
    name: str
    rows: int
    filled: int


def _tests(notation: Notation) -> dict[str, str]:
    """Kind → SQL that is true where the text ``{0}`` is of it. What is of one kind is of the next numbers, too."""
    # cheap, and as strict as the pattern: the text of the number is the text, without zeros in front, plus or spaces
    short = {"short integer": "CAST(TRY_CAST({0} AS BIGINT) AS VARCHAR) = {0}"} if notation == Notation() else {}
    patterns = {"integer": notation.integer, "number": notation.number}
    known = ", ".join(map(literal, BOOLEANS))
    return {
        **short,
        **{kind: f"regexp_full_match({{0}}, {_escaped(literal(pattern))})" for kind, pattern in patterns.items()},
        "boolean": f"{{0}} IN ({known})",
    }


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _first_kinds(
    database: duckdb.DuckDBPyConnection, table: str, places: Iterable[int], tests: Mapping[str, str]
) -> dict[int, str]:
    """The first kind of each column that all of its texts are of; none for a column of other texts."""
    glance = f"(SELECT * FROM {table} LIMIT {_GLANCE_ROWS})"  # noqa: S608 names of ours
    found: dict[int, str] = {}
    for kind, test in tests.items():
        left = [place for place in places if place not in found]
        for source in (glance, table):  # some rows rule out much, all rows decide
            asked = {place: [f"count(c{place})", f"count_if({test.format(f'c{place}')})"] for place in left}
            left = [place for place, (filled, fits) in _ask(database, source, asked).items() if filled == fits]
        found.update(dict.fromkeys(left, kind))
    return found


def _ask(
    database: duckdb.DuckDBPyConnection, source: str, expressions: Mapping[int, list[str]]
) -> dict[int, tuple[int, ...]]:
    """Aggregates of several columns in one pass, by the column's place."""
    if not expressions:
        return {}
    flat = ", ".join(sql for each in expressions.values() for sql in each)
    found = iter(database.execute(f"SELECT {flat} FROM {source}").fetchone() or ())  # noqa: S608 nothing in it is a caller's
    return {place: tuple(int(next(found) or 0) for _ in each) for place, each in expressions.items()}


def _type(
    database: duckdb.DuckDBPyConnection, table: str, field: Field, kind: str | None, notation: Notation
) -> ColumnType:
    has_nulls = field.filled < field.rows
    if not field.filled:
        return ColumnType("empty", "VARCHAR", "NULL", has_nulls)
    if kind == "boolean":
        return ColumnType("boolean", "BOOLEAN", f"CAST({field.column} AS BOOLEAN)", has_nulls)
    sql_type = None
    if kind == "short integer":
        sql_type = "BIGINT"
    elif kind is not None:
        sql_type = _number_type(database, table, field, notation, is_integer=kind == "integer")
    if sql_type is None:  # also where no type of ours holds such numbers: they stay as they are written
        return ColumnType("text", "VARCHAR", field.column, has_nulls)
    return ColumnType("number", sql_type, f"CAST({notation.plain(field.column)} AS {sql_type})", has_nulls)


def _number_type(
    database: duckdb.DuckDBPyConnection, table: str, field: Field, notation: Notation, *, is_integer: bool
) -> str | None:
    """DuckDB's type that holds each number of a column as it is written; None where none does.

    Raises:
        Refusal: a number that no number of JSON can be.
    """
    text = notation.plain(field.column)
    digits, point = f"ltrim({text}, '-')", f"strpos({text}, '.')"
    whole = f"CASE WHEN {point} = 0 THEN length({digits}) ELSE strpos({digits}, '.') - 1 END"
    scale = f"CASE WHEN {point} = 0 THEN 0 ELSE length({text}) - {point} END"
    lengths = [f"max({whole})", f"max({scale})", f"count_if({text} ILIKE '%e%')"]
    before, after, exponents = _ask(database, table, {0: lengths})[0]
    if is_integer:
        return "BIGINT" if before <= _FAST_DIGITS else "HUGEINT" if before <= MAX_DIGITS else None
    if not exponents and before + after <= _FAST_DIGITS:
        return f"DECIMAL({_FAST_DIGITS}, {after})"
    if _doubles_hold(database, table, field, text):
        return "DOUBLE"
    return f"DECIMAL({MAX_DIGITS}, {after})" if not exponents and before + after <= MAX_DIGITS else None


def _doubles_hold(database: duckdb.DuckDBPyConnection, table: str, field: Field, text: str) -> bool:
    mantissa = f"regexp_extract({text}, '^-?([0-9.]*)', 1)"
    double = f"TRY_CAST({text} AS DOUBLE)"
    digits = f"length(rtrim(ltrim(replace({mantissa}, '.', ''), '0'), '0'))"
    held = f"{digits} <= {_DOUBLE_DIGITS} OR CAST({double} AS VARCHAR) = {text}"
    lost = f"isinf({double}) OR ({double} = 0 AND regexp_matches({mantissa}, '[1-9]'))"
    count, lost_count = _ask(database, table, {0: [f"count_if({held})", f"count_if({lost})"]})[0]
    if lost_count:
        raise Refusal(
            "number_out_of_range",
            f"The field {field.name!r} has a number beyond ±1.8e308, or nearer to zero than 4.9e-324; leave it out, or "
            'name the field as `{"types": {…: "text"}}`.',
        )
    return count == field.filled


TYPES = {
    "text": "VARCHAR",
    "integer": "HUGEINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "datetime": "TIMESTAMP",
}
"""The types that a caller may give a field → DuckDB's."""
_DATE = "[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
_SHAPES = {
    "date": f" *{_DATE}([T ]00:00(:00([.]0+)?)?)? *",
    "datetime": f" *{_DATE}([T ][0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}([.][0-9]{{1,6}}0*)?)?)? *",  # microseconds
}
"""What DuckDB's casts would change: they cut times, and know more dates. Of numbers they take hex and "nan", and round
fractions: their shapes are those of the file's ``Notation``."""
_OFFSET = "[T ][0-9:.]+ ?(Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
"""The offset of a date and time, which a cast would drop."""


class GivenType(NamedTuple):
    """A column of texts, and the type that the caller gives it."""

    table: str
    column: str
    """Both as SQL names them."""
    field: str
    wanted: str
    """A key of ``TYPES``."""


def give_type(database: duckdb.DuckDBPyConnection, given: GivenType, notation: Notation) -> ColumnType:
    """The type that the caller gives a column of texts.

    Raises:
        Refusal: a value is not of that type; says which and where.
    """
    wanted, column = given.wanted, given.column
    offset = f"regexp_extract({column}, {literal(_OFFSET)}, 1)"
    written = f"left({column}, length({column}) - length({offset}))" if wanted == "datetime" else column
    text = notation.plain(column) if wanted in ("integer", "number") else written
    value = f"TRY_CAST({text} AS {TYPES[wanted]})"
    wrong = f"{column} IS NOT NULL AND {_is_wrong(written, value, wanted, notation)}"
    rows, filled, first = database.execute(
        f"SELECT count(*), count({column}), min(rowid) FILTER ({wrong}) FROM {given.table}"  # noqa: S608 names of ours
    ).fetchone() or (0, 0, None)
    if first is not None:
        raise _refuse_value(database, given, first)
    if not filled:
        return ColumnType("empty", "VARCHAR", "NULL", has_nulls=rows > 0)
    if wanted in ("date", "datetime"):
        shown = iso_text(value, TYPES[wanted])
        return ColumnType("text", "VARCHAR", shown if wanted == "date" else f"{shown} || {_iso(offset)}", filled < rows)
    if wanted == "number":
        sql_type = _given_number_type(database, given, Field(column, given.field, rows, filled), notation)
        return ColumnType("number", sql_type, f"TRY_CAST({text} AS {sql_type})", filled < rows)
    kind: FieldKind = wanted if wanted in ("text", "boolean") else "number"  # type: ignore[assignment]
    return ColumnType(kind, TYPES[wanted], value, filled < rows)


def _given_number_type(database: duckdb.DuckDBPyConnection, given: GivenType, field: Field, notation: Notation) -> str:
    """DOUBLE, or a decimal where no double holds each number.

    Raises:
        Refusal: neither holds them.
    """
    if _doubles_hold(database, given.table, field, notation.plain(field.column)):
        return TYPES["number"]
    found = _number_type(database, given.table, field, notation, is_integer=False)
    if found is None:
        raise Refusal(
            "number_out_of_range",
            f"No type of numbers holds each value of {given.field!r}: some have more than {MAX_DIGITS} digits. Give it "
            "the type `text`.",
        )
    return found


def _iso(offset: str) -> str:
    """SQL of an offset with its minutes."""
    with_colon = f"regexp_replace({offset}, '^([+-]..)([0-9][0-9])$', '\\1:\\2')"
    return f"regexp_replace({with_colon}, '^([+-][0-9][0-9])$', '\\1:00')"


def _is_wrong(text: str, value: str, wanted: str, notation: Notation) -> str:
    """SQL that is true where a text, as the file has it, is not of the type."""
    shapes = {**_SHAPES, "integer": notation.given_integer, "number": notation.given_number}
    if wanted not in shapes:
        return f"{value} IS NULL"
    wrong = f"{value} IS NULL OR NOT regexp_full_match({text}, {literal(shapes[wanted])})"
    return f"({wrong} OR isinf(CAST({value} AS DOUBLE)))" if wanted in ("integer", "number") else f"({wrong})"


def give_column(
    database: duckdb.DuckDBPyConnection, field: str, texts: np.ndarray[Any, Any], wanted: str, notation: Notation
) -> Column:
    """A column of texts outside of the database, with the type that the caller gives it.

    Raises:
        Refusal: a value is not of that type; says which and where.
    """
    database.register("given_texts", {"c0": texts})
    database.execute("CREATE OR REPLACE TEMP TABLE typed_texts AS SELECT CAST(c0 AS VARCHAR) AS c0 FROM given_texts")
    found = give_type(database, GivenType("typed_texts", "c0", field, wanted), notation)
    if found.kind == "empty":
        return Column(field, "empty", None, found.has_nulls)
    # integers of this size and decimals have no type in NumPy
    is_plain = found.kind != "number" or found.sql_type == "DOUBLE"
    shown = found.sql if is_plain else f"CAST({found.sql} AS VARCHAR)"
    values = _unmasked(database.execute(f"SELECT {shown} AS c0 FROM typed_texts ORDER BY rowid").fetchnumpy()["c0"])  # noqa: S608 ours
    return Column(field, found.kind, values, found.has_nulls, found.sql_type if found.kind == "number" else "")


def _unmasked(values: Any) -> np.ndarray[Any, Any]:
    """Nulls as a ``Column`` has them: None among objects, NaN among doubles, the mask of booleans as it is."""
    if not isinstance(values, np.ma.MaskedArray) or values.dtype.kind == "b":
        return np.asanyarray(values)
    return values.filled(None if values.dtype.kind == "O" else np.nan)


def _refuse_value(database: duckdb.DuckDBPyConnection, given: GivenType, row: int) -> Refusal:
    sql = f"SELECT {given.column} FROM {given.table} WHERE rowid = ?"  # noqa: S608 names of ours
    (found,) = database.execute(sql, [row]).fetchone() or ("",)
    return Refusal(
        "value_of_another_kind",
        f"`types` says that {given.field!r} is {given.wanted}; row {row + 1} of the data has {found!r:.80}.",
    )


def iso_text(sql: str, sql_type: str) -> str:
    """SQL that writes a value of another type as a text: dates and times as ISO 8601, nested values as JSON."""
    plain = sql_type.partition("(")[0]
    if plain.startswith("TIMESTAMP"):
        text = f"replace(CAST({sql} AS VARCHAR), ' ', 'T')"
        # an offset of whole hours is written without its minutes, which not every reader of ISO 8601 takes
        return f"regexp_replace({text}, '([+-][0-9]{{2}})$', '\\1:00')" if plain.endswith("ZONE") else text
    if plain == "BLOB":
        return f"base64({sql})"
    if plain in ("STRUCT", "MAP", "UNION", "JSON", "VARIANT") or sql_type.endswith("]"):
        return f"CAST(to_json({sql}) AS VARCHAR)"
    return f"CAST({sql} AS VARCHAR)"
