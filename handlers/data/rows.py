"""Selections, groups, joins, pivots, histograms and SQL over tables. They give rows, as JSON or as a file.

Nothing that a caller names becomes SQL: fields are looked up and appear as ``c0`` ``c1`` …, values are bound. Only the
text of ``query`` is the caller's own SQL: one SELECT that reads nothing but the tables.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import numpy as np

from handlers.data import charts
from handlers.data.cell_values import exact
from handlers.data.cells import iso_text
from handlers.data.columns import Column, Table, distinct_names
from handlers.data.exact_numbers import decode_exactly
from handlers.data.mixed import mixed_condition, mixed_order, within_reach
from handlers.data.table_files import TABLE_FILES
from handlers.data.tables import forget, register_columns
from handlers.failures import Refusal
from handlers.parameters.data import (
    DEFAULT_LIMIT,
    DataGroup,
    DataHistogram,
    DataJoin,
    DataPivot,
    DataQuery,
    RowsOperation,
    SelectionOperation,
)
from handlers.parameters.data_options import Aggregate, Condition, SortKey

MAX_PIVOT_FIELDS = 1000
_COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_FUNCTIONS = {
    "count": "count({})", "sum": "sum({})", "mean": "avg({})", "median": "median({})", "min": "min({})",
    "max": "max({})", "std": "stddev_samp({})", "distinct": "count(DISTINCT {})", "first": "any_value({})",
}  # fmt: skip
_BY_TYPE: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "DOUBLE": {"sum": "fsum({})", "mean": "favg({})"},  # which make up for the rounding of doubles
    # from the least one on, or large integers that lie close together would all be one double
    "BIGINT": {"std": "stddev_samp(CAST(CAST({0} AS HUGEINT) - (SELECT min({0}) FROM {table}) AS DOUBLE))"},
})  # fmt: skip
"""DuckDB's type → what is computed in another way there."""
_TEMPORAL = ("DATE", "TIME", "INTERVAL")
_INFINITIES = ("-Infinity", "Infinity")
_OF_NUMBERS = ("sum", "mean", "median", "std")


class NamedTable(NamedTuple):
    """A table that the database knows under a name."""

    name: str
    table: Table
    places: dict[str, int]
    """Field → its column, ``c0`` ``c1`` …"""

    def sql(self, field: str, parameter: str) -> str:
        """A field's column.

        Raises:
            Refusal: there is no such field.
        """
        if field not in self.places:
            known = ", ".join(sorted(self.places)[:20]) or "none"
            raise Refusal("unknown_field", f"`{parameter}` names the field {field!r}; there are: {known}.")
        return f"{self.name}.c{self.places[field]}"

    def column(self, field: str) -> Column:
        """The column of a field that exists."""
        return self.table.columns[self.places[field]]


class OutputField(NamedTuple):
    """A field of the answer: its SQL, its name, and whether its values are JSON text."""

    sql: str
    name: str
    is_json: bool = False
    is_computed: bool = False
    """Whether it is an aggregate over numbers, which may be beyond what a double holds."""


def register(database: duckdb.DuckDBPyConnection, name: str, table: Table) -> NamedTable:
    """Give the database a table.

    Raises:
        Refusal: it is an array of numbers.
    """
    if not table.is_of_objects and table.rows:
        raise Refusal("objects_required", 'This needs objects such as {"x": 1, "y": 2}, or a file, not numbers.')
    columns = table.columns if table.is_of_objects else ()
    register_columns(database, name, table if columns else dataclasses.replace(table, columns=()))
    return NamedTable(name, table, {column.name: place for place, column in enumerate(columns)})


class OperationContext(NamedTuple):
    """The input of every operation."""

    database: duckdb.DuckDBPyConnection
    data: NamedTable
    load: Callable[[str, Any], NamedTable]
    """Gives the database another table of the parameters, under a name."""

    def rows(
        self, asked: RowsOperation, shown: Sequence[OutputField], rest: str, values: Sequence[Any] = ()
    ) -> dict[str, Any]:
        """The answer of a SELECT.

        Raises:
            Refusal: DuckDB cannot compute an aggregate.
        """
        fields = ", ".join(f"{field.sql} AS s{place}" for place, field in enumerate(shown))
        select = f"SELECT {fields} {rest} LIMIT {asked.limit + 1} OFFSET {asked.offset}"
        try:
            return self.answer(asked, shown, self.database.execute(select, list(values)))
        except duckdb.OutOfRangeException:
            raise Refusal(
                "number_out_of_range",
                "An aggregate is too large to compute: beyond ±1.8e308, or of more than 38 digits; scale the data.",
            ) from None

    def answer(self, asked: RowsOperation, shown: Sequence[OutputField], found: Any) -> dict[str, Any]:
        """Rows of a result, up to a limit, in the form that was asked for."""
        limit = asked.limit
        names = distinct_names([field.name for field in shown])
        rows = found.fetchmany(limit + 1)
        more = len(rows) > limit
        plain_value = _plain if asked.output == "rows" else _plain_but_decimal
        convert = [_from_json if field.is_json else plain_value for field in shown]
        beyond = _take_beyond(rows, shown)
        plain = ([function(value) for function, value in zip(convert, row, strict=True)] for row in rows[:limit])
        answer: dict[str, Any] = {"fields": names, "rows_returned": min(len(rows), limit), "more": more}
        if beyond:
            answer["out_of_range"] = [names[place] for place in beyond]
        if asked.output != "rows":
            return answer | TABLE_FILES[asked.output](names, plain)
        return answer | {"data": [dict(zip(names, row, strict=True)) for row in plain]}


def _take_beyond(rows: list[Any], shown: Sequence[OutputField]) -> list[int]:
    """Replace what is beyond ±1.8e308 in computed fields by null; the places of the fields that had such values."""
    computed = [place for place, field in enumerate(shown) if field.is_computed]
    beyond: dict[int, None] = {}
    for number, row in enumerate(rows) if computed else ():
        found = [place for place in computed if isinstance(row[place], float) and not math.isfinite(row[place])]
        if found:
            rows[number] = [None if place in found else value for place, value in enumerate(row)]
            beyond.update(dict.fromkeys(found))
    return sorted(beyond)


def select(context: OperationContext, asked: SelectionOperation) -> dict[str, Any]:
    """``select``, ``filter`` and ``sort``: which fields, which rows, in which order."""
    data = context.data
    fields = asked.fields or list(data.places)
    shown = [_as_is(data, field, "fields") for field in fields]
    where, values = _where(data, asked.where or (), asked.match)
    order = f" ORDER BY {', '.join(_key(data, key) for key in asked.by)}" if asked.by else ""
    return context.rows(asked, shown or [OutputField("NULL", "")], f"FROM data{where}{order}", values)


def group(context: OperationContext, asked: DataGroup) -> dict[str, Any]:
    """A row for each group of rows that are alike, with its aggregates. In the order of the groups' fields."""
    data = context.data
    keys = [_as_is(data, field, "group_by") for field in asked.group_by]
    shown = [*keys, *(_aggregate(data, aggregate) for aggregate in asked.aggregates)]
    by = ", ".join(key.sql for key in keys)
    rest = f"FROM data GROUP BY {by} ORDER BY {by}" if keys else "FROM data"
    chart = {"chart": _draw_groups(context, asked, shown, rest)} if asked.chart else {}
    return context.rows(asked, shown, rest) | chart


def _draw_groups(context: OperationContext, asked: DataGroup, shown: list[OutputField], rest: str) -> dict[str, Any]:
    """A chart of the first groups, whatever part of them the answer lists."""
    fields = ", ".join(f"{field.sql} AS s{place}" for place, field in enumerate(shown))
    total = context.database.execute(f"SELECT count(*) FROM (SELECT 1 {rest.partition(' ORDER ')[0]})").fetchall()[0][0]  # noqa: S608 ours
    rows = context.database.execute(f"SELECT {fields} {rest} LIMIT {charts.MAX_BARS}").fetchall()
    keys, names = len(asked.group_by), distinct_names([field.name for field in shown])
    labels = [" · ".join(map(_label, row[:keys])) or "all rows" for row in rows]
    series = [charts.Series(name, [row[place] for row in rows]) for place, name in enumerate(names) if place >= keys]
    title = f"{', '.join(one.name for one in series)} by {', '.join(asked.group_by)}" if keys else "All rows"
    return charts.draw_groups(charts.ChartData(title, labels, series, ", ".join(asked.group_by)), int(total))


def _label(value: Any) -> str:
    return "(null)" if value is None else _name_of(value)


def _name_of(value: Any) -> str:
    """A value as the name of a field: a boolean as JSON has it."""
    return str(value).lower() if isinstance(value, bool) else str(_plain(value))


def join(context: OperationContext, asked: DataJoin) -> dict[str, Any]:
    """Two tables side by side where the fields of ``on`` are equal; nulls are equal to nothing."""
    left = context.data
    right = context.load("right_table", asked.right)
    pairs = [(left.sql(field, "on"), right.sql(field, "on")) for field in asked.on]
    for field in asked.on:
        if left.column(field).kind != right.column(field).kind:
            kinds = f"{left.column(field).kind} in `data` and {right.column(field).kind} in `right`"
            raise Refusal("field_of_another_kind", f"The field {field!r} is {kinds}; it must be the same in both.")
    shown = [
        OutputField(f"coalesce({a}, {b})", field, _is_json(left, field))
        for field, (a, b) in zip(asked.on, pairs, strict=True)
    ]
    shown += [_as_is(left, field, "data") for field in left.places if field not in asked.on]
    shown += [_as_is(right, field, "right") for field in right.places if field not in asked.on]
    equal = " AND ".join(f"{a} = {b}" for a, b in pairs)
    return context.rows(asked, shown, f"FROM data {asked.how.upper()} JOIN right_table ON {equal}")


def pivot(context: OperationContext, asked: DataPivot) -> dict[str, Any]:
    """The values of one field become fields; another fills them.

    Raises:
        Refusal: there are too many.
    """
    data = context.data
    across = data.sql(asked.columns, "columns")
    function = Aggregate(function=asked.function, field=asked.values)
    filled = _aggregate(data, function, parameter="values")
    found = context.database.execute(
        f"SELECT DISTINCT {across} FROM data WHERE {across} IS NOT NULL ORDER BY 1 LIMIT {MAX_PIVOT_FIELDS + 1}"  # noqa: S608
    ).fetchall()
    if len(found) > MAX_PIVOT_FIELDS:
        raise Refusal(
            "too_many_fields", f"{asked.columns!r} has more than {MAX_PIVOT_FIELDS} values, and each would be a field."
        )
    keys = [_as_is(data, field, "index") for field in asked.index]
    cells = [
        filled._replace(sql=f"{filled.sql} FILTER ({across} = ?)", name=_name_of(value), is_json=False)
        for (value,) in found
    ]
    by = ", ".join(key.sql for key in keys)
    rest = f"FROM data GROUP BY {by} ORDER BY {by}"
    answer = context.rows(asked, [*keys, *cells], rest, [value for (value,) in found])
    left_out = context.database.execute(f"SELECT count(*) FROM data WHERE {across} IS NULL").fetchall()[0][0]  # noqa: S608
    return answer | {"rows_left_out_total": left_out}


def histogram(context: OperationContext, asked: DataHistogram) -> dict[str, Any]:
    """How many numbers fall into each of ``bins`` ranges of one width; the last holds its upper end, too."""
    data = context.data
    name = data.sql(asked.field, "field")
    _refuse_kind(data, asked.field, "histogram")
    sql = f"SELECT CAST({name} AS DOUBLE) AS x FROM data WHERE {name} IS NOT NULL"  # noqa: S608
    filled = np.asarray(context.database.execute(sql).fetchnumpy()["x"])
    numbers = filled[np.isfinite(filled)]
    beyond = len(filled) - len(numbers)  # infinities, which have no place
    counts = {"count": len(numbers), "nulls": data.table.rows - len(filled)}
    answer = {"field": asked.field, **counts, **({"out_of_range_total": beyond} if beyond else {})}
    if not len(numbers):
        return {**answer, "bins": []}
    edges = _edges(float(numbers.min()), float(numbers.max()), asked.bins)
    found = np.histogram(numbers, np.array(edges))[0].tolist()
    ranges = [{"from": edges[number], "to": edges[number + 1], "count": count} for number, count in enumerate(found)]
    answer["bins"] = ranges
    return answer | {"chart": charts.draw_histogram(asked.field, ranges, counts["nulls"])} if asked.chart else answer


def _edges(low: float, high: float, bins: int) -> list[float]:
    """Where the ranges begin, and where the last one ends; one range where there is no room for more."""
    width = high / bins - low / bins  # not of the difference, which may be infinite
    shares = (number / bins for number in range(bins))
    edges = (
        [low + width * number for number in range(bins)]
        if math.isfinite(width * bins)
        else [low * (1 - share) + high * share for share in shares]
    )
    has_room = all(one < other for one, other in itertools.pairwise([*edges, high]))
    return [*edges, high] if has_room else [low, high]


def query(context: OperationContext, asked: DataQuery) -> dict[str, Any]:
    """One SELECT over the tables, under their own names and the fields' own.

    Raises:
        Refusal: it is not one SELECT, or DuckDB refuses it, and why.
    """
    tables = {"data": context.data}
    for name, data in asked.tables.items():
        if name == "data":
            raise Refusal("invalid_sql", "`tables` cannot have a table `data`: that is the name of the first one.")
        tables[name] = context.load(f"given_{name}", data)
    for name, table in tables.items():
        _make_view(context.database, name, table)
    statement = _one_select(asked.sql)
    try:
        shown, found = _ask(context.database, statement)
        for _ in range(asked.offset // DEFAULT_LIMIT):
            found.fetchmany(DEFAULT_LIMIT)
        found.fetchmany(asked.offset % DEFAULT_LIMIT)
        return context.answer(asked, shown, found)
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise Refusal("invalid_sql", f"DuckDB refuses the query: {_first_line(error)}") from None


OPERATIONS: Mapping[str, Callable[[OperationContext, Any], dict[str, Any]]] = MappingProxyType(
    {
        "select": select, "filter": select, "sort": select, "group": group, "join": join, "pivot": pivot,
        "histogram": histogram, "query": query,
    }
)  # fmt: skip
"""Operation → the function that does it, with what it works on and the operation's parameters."""


def _as_is(table: NamedTable, field: str, parameter: str) -> OutputField:
    return OutputField(table.sql(field, parameter), field, _is_json(table, field))


def _is_json(table: NamedTable, field: str) -> bool:
    return table.column(field).kind == "mixed"


def _where(data: NamedTable, conditions: Sequence[Condition], match: str) -> tuple[str, list[Any]]:
    parts, values = [], []
    for condition in conditions:
        part, more = _condition(data, condition)
        parts.append(part)
        values += more
    glue = " AND " if match == "all" else " OR "
    return (f" WHERE {glue.join(parts)}" if parts else ""), values


def _condition(data: NamedTable, condition: Condition) -> tuple[str, list[Any]]:
    name, op, value = data.sql(condition.field, "where"), condition.op, condition.value
    if op in ("is_null", "not_null"):
        return f"{name} IS {'NOT ' if op == 'not_null' else ''}NULL", []
    kind = data.column(condition.field).kind
    if kind == "mixed":
        return mixed_condition(name, op, value)
    if op in ("in", "not_in"):
        known = [_bound(kind, one, condition) for one in value if one is not None]  # type: ignore[union-attr]
        if not known:
            return ("false" if op == "in" else f"{name} IS NOT NULL"), []
        return f"{name} {'NOT ' if op == 'not_in' else ''}IN ({', '.join('?' * len(known))})", known
    bound = _bound(kind, value, condition)
    if op in _COMPARISONS:
        return f"{name} {_COMPARISONS[op]} ?", [bound]
    return f"{op}({name}, ?)", [bound]


def _bound(kind: str, value: Any, condition: Condition) -> Any:
    """A value as it is bound beside a column of a kind.

    Raises:
        Refusal: the two can never be compared.
    """
    fits = {"number": (int, float), "text": (str,), "boolean": (bool,)}.get(kind, (object,))
    if not isinstance(value, fits) or (kind == "number" and isinstance(value, bool)):
        raise Refusal(
            "value_of_another_kind",
            f"The field {condition.field!r} is {kind}; `{condition.op}` compares it with {value!r:.80}.",
        )
    return within_reach(value)


def _key(data: NamedTable, key: SortKey) -> str:
    name = data.sql(key.field, "by")
    by = mixed_order(name) if _is_json(data, key.field) else [name]
    return ", ".join(f"{sql} {'DESC' if key.descending else 'ASC'} NULLS {key.nulls.upper()}" for sql in by)


def _aggregate(data: NamedTable, aggregate: Aggregate, parameter: str = "aggregates") -> OutputField:
    if aggregate.field is None:
        return OutputField("count(*)", aggregate.shown)
    name = data.sql(aggregate.field, parameter)
    if aggregate.function in _OF_NUMBERS:
        _refuse_kind(data, aggregate.field, aggregate.function)
    if aggregate.function in ("min", "max") and _is_json(data, aggregate.field):
        raise Refusal(
            "field_of_another_kind",
            f"`{aggregate.function}` needs values of one kind, and the field {aggregate.field!r} is mixed.",
        )
    is_value = aggregate.function in ("min", "max", "first")
    special = _BY_TYPE.get(data.column(aggregate.field).sql_type, {})
    sql = special.get(aggregate.function, _FUNCTIONS[aggregate.function]).format(name, table=data.name)
    is_json = is_value and _is_json(data, aggregate.field)
    return OutputField(sql, aggregate.shown, is_json, aggregate.function in _OF_NUMBERS)


def _refuse_kind(data: NamedTable, field: str, what: str) -> None:
    if (kind := data.column(field).kind) not in ("number", "empty"):
        raise Refusal("number_required", f"`{what}` needs numbers, and the field {field!r} is {kind}.")


def _make_view(database: duckdb.DuckDBPyConnection, name: str, table: NamedTable) -> None:
    """A table under the fields' own names, quoted.

    Raises:
        Refusal: two of them are one to SQL, which does not know capital letters.
    """
    folded: dict[str, str] = {}
    for field in table.places:
        if (other := folded.setdefault(field.lower(), field)) != field:
            raise Refusal("ambiguous_field", f"SQL cannot tell the fields {other!r} and {field!r} apart; rename one.")
    fields = ", ".join(f"c{place} AS {_quoted(field)}" for field, place in table.places.items()) or "c0 AS nothing"
    if name == table.name:  # the columns themselves step aside for the view
        database.execute(f"CREATE TEMP TABLE given_{name} AS SELECT * FROM {name}")  # noqa: S608 a name that was checked
        forget(database, name)
        database.execute(f"CREATE TEMP VIEW {name} AS SELECT {fields} FROM given_{name}")  # noqa: S608
    else:
        database.execute(f"CREATE TEMP VIEW {name} AS SELECT {fields} FROM {table.name}")  # noqa: S608


def _quoted(name: str) -> str:
    if "\0" in name:
        raise Refusal("ambiguous_field", "A field's name has a NUL in it, which SQL cannot name; rename it.")
    return '"' + name.replace('"', '""') + '"'


def _one_select(sql: str) -> Any:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise Refusal("invalid_sql", f"The SQL cannot be understood: {_first_line(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(statement.type.name for statement in statements) or "none"
        raise Refusal("one_select_only", f"`sql` must be one SELECT statement; it is: {kinds}.")
    return statements[0]


def _ask(database: duckdb.DuckDBPyConnection, statement: Any) -> tuple[list[OutputField], Any]:
    """Run a SELECT; the fields of its answer, and the answer, with dates and intervals as DuckDB writes them.

    Python's own types would change them: an interval of a month is not 30 days, and a date may be infinite.
    """
    asked = database.sql(statement.query)  # bound, not run
    types = [str(sql_type) for sql_type in asked.types]
    temporal = [any(word in sql_type for word in _TEMPORAL) for sql_type in types]
    nested = [sql_type.endswith((")", "]")) and not sql_type.startswith("DECIMAL") for sql_type in types]
    is_json = [a and b for a, b in zip(temporal, nested, strict=True)]
    shown = [OutputField("", name, json) for name, json in zip(asked.columns, is_json, strict=True)]
    if not any(temporal):
        return shown, database.execute(statement)
    values = [iso_text(f"c{place}", types[place]) if special else f"c{place}" for place, special in enumerate(temporal)]
    renamed = ", ".join(f"c{place}" for place in range(len(types)))
    text = statement.query.strip().rstrip(";")  # one statement, as was checked: the line break ends its last comment
    return shown, database.execute(f"SELECT {', '.join(values)} FROM ({text}\n) AS asked({renamed})")  # noqa: S608


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0][:300]


def _from_json(value: Any) -> Any:
    return None if value is None else _plain(decode_exactly(value))


def _plain_but_decimal(value: Any) -> Any:
    return value if isinstance(value, decimal.Decimal) else _plain(value)


def _plain(value: Any) -> Any:
    """Convert a value of DuckDB to one that JSON can hold."""
    if isinstance(value, str | int | bool | None):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else _INFINITIES[value > 0]
    if isinstance(value, decimal.Decimal):
        return exact(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, bytes):
        raise Refusal("invalid_sql", "An answer has bytes, which JSON cannot hold; use hex() or base64().")
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
