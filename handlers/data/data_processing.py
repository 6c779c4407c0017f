"""Sums, averages, counts, statistics and correlations over numbers or objects, computed by DuckDB; and rows of tables
(``rows``).

Columns go to DuckDB under names made here, ``c0`` ``c1`` …: a field's own name never becomes SQL.
handlers/README.md says what each operation answers for missing, mixed and non-numeric fields.
"""

from __future__ import annotations

import decimal
import functools
import itertools
import math
import os
import resource
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import duckdb
import msgspec

from handlers.data import rows
from handlers.data.cell_values import exact
from handlers.data.columns import Column, Table, count_distinct, read, table_of
from handlers.data.files import read_file
from handlers.data.tables import register_columns
from handlers.failures import Refusal
from handlers.parameters.data import (
    DataAverage,
    DataCorrelation,
    DataCount,
    DataOperation,
    DataSource,
    DataStatistics,
    DataSum,
)
from handlers.parameters.registry import Request

TOP_VALUES = 5
MAX_SHOWN_CHARACTERS = 256
MAX_CORRELATED_FIELDS = 100

WORKSPACE = "/work"
TEMP_FOLDER = f"{WORKSPACE}/tmp"  # noqa: S108 of the run alone
_TEMP_MIB = 128
_MIB = 1 << 20
_DEFAULT_MEMORY_BYTES = 512 * _MIB
_MAX_THREADS = 4


def run(request: Request) -> dict[str, Any]:
    """Do one ``data_processing`` task.

    Raises:
        Refusal: the operation does not fit the data; says what would.
        MemoryError: DuckDB reached its memory limit.
    """
    try:
        table, asked = read(request.parameters)
        database = _locked_database()
        if table is None:
            table = _load(database, "data", asked.data)
        return {"operation": asked.operation, "rows": table.rows, **_answer(database, table, asked)}
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(str(error)) from None


def _answer(database: duckdb.DuckDBPyConnection, table: Table, asked: DataOperation) -> dict[str, Any]:
    own = database.cursor()  # the views that are made there go with it
    origins = {"data": table.origin}
    if asked.operation in OPERATIONS:
        answer = OPERATIONS[asked.operation](_Query(table, own), asked)
    else:

        def load(name: str, data: Any) -> rows.NamedTable:
            loaded = _load(own, name, data)
            origins["right" if name == "right_table" else name.removeprefix("given_")] = loaded.origin
            return rows.register(own, name, loaded)

        data = rows.register(own, "data", table)
        answer = rows.OPERATIONS[asked.operation](rows.OperationContext(own, data, load), asked)
    files = {name: dict(origin) for name, origin in origins.items() if origin is not None}
    return answer | {"files": files} if files else answer


def _load(database: duckdb.DuckDBPyConnection, name: str, data: Any) -> Table:
    if isinstance(data, DataSource) and data.format is not None:
        return read_file(data, database, _temp_folder(), f"stored_{name}")
    return table_of(data)


def prepare() -> None:
    """Open the database: DuckDB reads ``/proc/self/cgroup`` meanwhile, which a locked child may not."""
    _open_database(_temp_folder())


def rehearse() -> None:
    """Open the database and use it once, before there is a task. Starts no thread, so that a fork may follow."""
    query = _Query(table_of([{"a": 1, "b": 2.5, "c": "x"}, {"a": 2, "b": 3.5}]), _open_database(_temp_folder()))
    _statistics(query, DataStatistics(data=[]))
    _correlation(query, DataCorrelation(data=[]))


# ---- operations -------------------------------------------------------------------------------------------------


def _sum(query: _Query, _asked: DataSum) -> dict[str, Any]:
    expressions = [_total(query, column) for column in query.numbers]
    return query.answer("sum", zip(query.numbers, query.row(expressions), strict=True), skipped=True)


def _average(query: _Query, _asked: DataAverage) -> dict[str, Any]:
    expressions = [_mean(query, column) for column in query.numbers]
    return query.answer("average", zip(query.numbers, query.row(expressions), strict=True), skipped=True)


def _count(query: _Query, _asked: DataCount) -> dict[str, Any]:
    counts = query.row([f"count({query.sql(column)})" for column in query.filled])
    found = dict(zip((column.name for column in query.filled), counts, strict=True))
    return query.answer("count", ((column, found.get(column.name, 0)) for column in query.table.columns))


def _statistics(query: _Query, _asked: DataStatistics) -> dict[str, Any]:
    described = dict(zip((column.name for column in query.numbers), _describe_numbers(query), strict=True))
    for column in query.table.columns:
        if column.kind == "empty":
            described[column.name] = {"type": "empty", "count": 0, "nulls": query.table.rows, "distinct": 0}
        elif column.kind != "number":
            described[column.name] = _describe_values(query, column)
    return query.answer("statistics", ((column, described[column.name]) for column in query.table.columns))


def _correlation(query: _Query, asked: DataCorrelation) -> dict[str, Any]:
    if not query.table.is_of_objects and query.table.rows:
        raise Refusal(
            "objects_required",
            'A correlation needs at least two fields; send objects such as {"x": 1, "y": 2} instead of numbers.',
        )
    columns = query.numbers if query.table.is_of_objects else []
    if len(columns) > MAX_CORRELATED_FIELDS:
        raise Refusal(
            "too_many_fields",
            f"The data has {len(columns)} numeric fields; at most {MAX_CORRELATED_FIELDS} can be correlated at once.",
        )
    pairs = _correlate(query, columns, asked.method)
    return {
        "method": asked.method,
        "fields": [column.name for column in columns],
        "matrix": _matrix(query, columns, pairs),
        "pairs": pairs,
        "skipped": query.skipped if query.table.is_of_objects else {},
    }


OPERATIONS: Mapping[str, Callable[[_Query, Any], dict[str, Any]]] = MappingProxyType(
    {"sum": _sum, "average": _average, "count": _count, "statistics": _statistics, "correlation": _correlation}
)
"""Operation → the function that does it, with a query and the operation's parameters."""


def _total(query: _Query, column: Column) -> str:
    # fsum compensates the rounding of doubles; over integers and decimals sum is exact
    return f"coalesce({'fsum' if column.sql_type == 'DOUBLE' else 'sum'}({query.sql(column)}), 0)"


def _mean(query: _Query, column: Column) -> str:
    return f"{'favg' if column.sql_type == 'DOUBLE' else 'avg'}({query.sql(column)})"


def _describe_numbers(query: _Query) -> list[dict[str, Any]]:
    expressions = []
    for column, centred in zip(query.numbers, query.centred(query.numbers), strict=True):
        name = query.sql(column)
        expressions += [
            f"count({name})", _total(query, column), _mean(query, column), f"stddev_samp({centred})",
            f"min({name})", f"max({name})", f"quantile_cont(CAST({name} AS DOUBLE), [0.25, 0.5, 0.75])",
        ]  # fmt: skip
    found = query.row(expressions)
    size = len(found) // max(len(query.numbers), 1)
    return [
        _number_summary(query.table.rows, query.count_distinct(column), found[index * size : (index + 1) * size])
        for index, column in enumerate(query.numbers)
    ]


def _number_summary(rows: int, distinct: int, found: Sequence[Any]) -> dict[str, Any]:
    count, total, mean, std, lowest, highest, quartiles = found
    q1, median, q3 = quartiles or (None, None, None)
    if count > 1 and lowest == highest:
        std = 0.0  # threads may leave a rounding error between them
    summary = {
        "type": "number", "count": count, "nulls": rows - count, "distinct": distinct,
        "sum": total, "mean": mean, "std": std, "min": lowest, "max": highest, "median": median,
    }  # fmt: skip
    quartiles = {"q1": q1, "q2": median, "q3": q3}
    beyond = [*_take_beyond(summary), *_take_beyond(quartiles)]
    return summary | {"quartiles": quartiles} | ({"out_of_range": beyond} if beyond else {})


def _describe_values(query: _Query, column: Column) -> dict[str, Any]:
    """Counts and the most common values of a field that is not numeric."""
    count, distinct, top = query.one(
        f"""WITH counted AS (
                SELECT {query.sql(column)} AS value, count(*) AS times FROM data
                WHERE value IS NOT NULL GROUP BY value
            ), top AS (SELECT * FROM counted ORDER BY times DESC, value LIMIT {TOP_VALUES})
            SELECT (SELECT coalesce(sum(times), 0) FROM counted), (SELECT count(*) FROM counted),
                   (SELECT list({{'value': value, 'count': times}} ORDER BY times DESC, value) FROM top)"""  # noqa: S608 nothing in it is a caller's
    )
    shown = [{"value": _shown(column, item["value"]), "count": item["count"]} for item in top]
    nulls = query.table.rows - count
    return {"type": column.kind, "count": count, "nulls": nulls, "distinct": distinct, "top": shown}


def _shown(column: Column, value: Any) -> Any:
    if column.kind == "mixed":
        value = msgspec.json.decode(value)
    if isinstance(value, str) and len(value) > MAX_SHOWN_CHARACTERS:
        return value[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return value


def _correlate(query: _Query, columns: Sequence[Column], method: str) -> list[dict[str, Any]]:
    couples = list(itertools.combinations(columns, 2))
    if method == "spearman":
        return [_pair(first, second, *_correlate_ranks(query, first, second)) for first, second in couples]
    centred = dict(zip((column.name for column in columns), query.centred(columns), strict=True))
    expressions = []
    for first, second in couples:
        a, b = centred[first.name], centred[second.name]
        expressions += [f"regr_count({a}, {b})", _corr(a, b, has_nulls=first.has_nulls or second.has_nulls)]
    found = iter(query.row(expressions))
    pairs = []
    for first, second in couples:
        pairs.append(_pair(first, second, next(found), next(found)))
    return pairs


def _pair(first: Column, second: Column, count: int, value: float | None) -> dict[str, Any]:
    pair = {"fields": [first.name, second.name], "correlation": None, "count": count}
    if value is not None and math.isinf(value):
        return pair | {"out_of_range": True}
    return pair if value is None else pair | {"correlation": max(-1.0, min(1.0, value))}


def _correlate_ranks(query: _Query, first: Column, second: Column) -> list[Any]:
    """Spearman: over the rows that have both, each value's rank among them; those alike share the mean of theirs."""
    a, b = query.sql(first), query.sql(second)
    ranks = (
        f"rank() OVER (ORDER BY {x}) + (count(*) OVER (PARTITION BY {x}) - 1) / 2 AS {y}"
        for x, y in ((a, "x"), (b, "y"))
    )
    both = f"(SELECT {', '.join(ranks)} FROM data WHERE {a} IS NOT NULL AND {b} IS NOT NULL)"  # noqa: S608 ours
    return query.row(["count(*)", _corr("x", "y", has_nulls=False)], both)


def _corr(a: str, b: str, *, has_nulls: bool) -> str:
    """``corr`` over the rows that have both; NULL where one of the two is constant over these rows.

    Infinity where its sums are beyond what a double holds: DuckDB has NaN then. Constant is told by its extremes: the
    variance of a constant may be a rounding error instead of zero.
    """
    only_b, only_a = (f" FILTER ({b} IS NOT NULL)", f" FILTER ({a} IS NOT NULL)") if has_nulls else ("", "")
    varies = f"min({a}){only_b} < max({a}){only_b} AND min({b}){only_a} < max({b}){only_a}"
    return f"CASE WHEN {varies} THEN coalesce(nullif(corr({a}, {b}), 'nan'::DOUBLE), 'inf'::DOUBLE) END"


def _matrix(query: _Query, columns: Sequence[Column], pairs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    varies = query.row([f"min({query.sql(column)}) < max({query.sql(column)})" for column in columns])
    matrix: dict[str, dict[str, Any]] = {column.name: {} for column in columns}
    both = {tuple(pair["fields"]): pair["correlation"] for pair in pairs}
    for (row, row_varies), column in itertools.product(zip(columns, varies, strict=True), columns):
        names = (row.name, column.name)
        itself = 1.0 if row_varies else None
        matrix[row.name][column.name] = itself if row is column else both.get(names, both.get(names[::-1]))
    return matrix


# ---- database ---------------------------------------------------------------------------------------------------


class _Query:
    """Selects over the columns of one table."""

    def __init__(self, table: Table, database: duckdb.DuckDBPyConnection) -> None:
        self.table = table
        self.numbers = [column for column in table.columns if column.kind == "number"]
        self.filled = [column for column in table.columns if column.kind != "empty"]
        self.skipped = {column.name: column.kind for column in table.columns if column.kind != "number"}
        self._names = {column.name: f"c{place}" for place, column in enumerate(table.columns)}
        self._database = database
        if self.filled:
            register_columns(database, "data", table)

    def sql(self, column: Column) -> str:
        """Name of a column in SQL."""
        return self._names[column.name]

    def centred(self, columns: Sequence[Column]) -> list[str]:
        """SQL of each column for what looks at distances only: less its least value, where that is far from zero.

        The squares of large numbers that lie close together would take up all digits of a double.
        """
        names = [self.sql(column) for column in columns]
        asked = [f"CAST({end}({name}) AS VARCHAR)" for name in names for end in ("min", "max")]
        ends = self.one(f"SELECT {', '.join(asked)} FROM data") if asked else ()  # noqa: S608 nothing in it is a caller's
        found = []
        for place, (name, column) in enumerate(zip(names, columns, strict=True)):
            low, high = ends[2 * place], ends[2 * place + 1]
            shift = f"CAST({name} - CAST('{low}' AS {column.sql_type}) AS DOUBLE)"
            found.append(shift if low is not None and _is_far(float(low), float(high)) else name)
        return found

    def count_distinct(self, column: Column) -> int:
        """Different values of a column of numbers."""
        name = self.sql(column)
        if column.sql_type in ("BIGINT", "DOUBLE"):
            values: Any = column.values
            if values is None:
                values = self._database.execute(f"SELECT {name} FROM data WHERE {name} IS NOT NULL").fetchnumpy()[name]  # noqa: S608
            return count_distinct(values)
        return int(self.one(f"SELECT count(DISTINCT {name}) FROM data")[0])  # noqa: S608

    def row(self, expressions: Sequence[str], source: str = "data") -> list[Any]:
        """One value for each aggregate expression, over the rows of a source."""
        if not expressions:
            return []
        try:
            found = self.one(f"SELECT {', '.join(expressions)} FROM {source}")  # noqa: S608 nothing in it is a caller's
        except duckdb.OutOfRangeException:
            found = tuple(self._one_or_beyond(expression, source) for expression in expressions)
        return [_plain_number(value) for value in found]

    def _one_or_beyond(self, expression: str, source: str) -> Any:
        """The value of an aggregate; infinity where it is beyond what DuckDB can compute."""
        try:
            return self.one(f"SELECT {expression} FROM {source}")[0]  # noqa: S608
        except duckdb.OutOfRangeException:
            return math.inf

    def one(self, sql: str) -> tuple[Any, ...]:
        """The only row of a select."""
        found: list[tuple[Any, ...]] = self._database.execute(sql).fetchall()
        return found[0]

    def answer(self, name: str, found: Any, *, skipped: bool = False) -> dict[str, Any]:
        """``name`` → values by field, or the value itself over an array of numbers."""
        values = {column.name: value for column, value in found}
        if not self.table.is_of_objects:
            if _is_beyond(values[""]) or (isinstance(values[""], dict) and "out_of_range" in values[""]):
                raise Refusal(
                    "number_out_of_range", "An answer is beyond ±1.8e308, too large for a number; scale the data."
                )
            return {name: values[""]}
        answer = {name: values, "skipped": self.skipped} if skipped else {name: values}
        beyond = _take_beyond(values)
        return answer | {"out_of_range": beyond} if beyond else answer


def _plain_number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return exact(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_far(low: float, high: float) -> bool:
    """Whether numbers lie closer to each other than to zero."""
    return math.isfinite(high - low) and high - low < max(low, -high)


def _is_beyond(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _take_beyond(values: dict[str, Any]) -> list[str]:
    """Replace the values beyond ±1.8e308 by null; their names."""
    names = [name for name, value in values.items() if _is_beyond(value)]
    values.update(dict.fromkeys(names))
    return names


def _temp_folder() -> str:
    """The one folder that DuckDB may open files of: the workspace's, wherever that is."""
    return TEMP_FOLDER if os.environ.get("HOME") == WORKSPACE else tempfile.gettempdir()


@functools.cache
def _open_database(folder: str) -> duckdb.DuckDBPyConnection:
    """Open a database in memory, closed to the outside. Single-threaded so far, so that it survives a fork."""
    database = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "async_threads": 0,
            "python_enable_replacements": False,  # or a name in SQL could mean a variable of ours
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "pandas_analyze_sample": 0,  # objects are text, whatever the first of them look like
            "temp_directory": folder,
            "secret_directory": folder,
            "max_temp_directory_size": f"{_TEMP_MIB}MiB",
        },
    )
    # in this order: without external access the list of folders can no longer be changed
    database.execute(f"SET allowed_directories = ['{folder}']")
    database.execute("SET enable_external_access = false")
    return database


@functools.cache
def _locked_database() -> duckdb.DuckDBPyConnection:
    """The database with this process's memory and threads, and its configuration locked."""
    database = _open_database(_temp_folder())
    database.execute(f"SET memory_limit = '{_memory_bytes() // _MIB}MiB'")
    database.execute(f"SET threads = {min(_MAX_THREADS, len(os.sched_getaffinity(0)))}")
    database.execute("SET lock_configuration = true")
    return database


def _memory_bytes() -> int:
    """Half of what the process may have: the data itself lies outside of DuckDB's account."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return _DEFAULT_MEMORY_BYTES if limit == resource.RLIM_INFINITY else limit // 2
