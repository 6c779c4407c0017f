"""The parameters of ``data_processing``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.parameters.data_options import MAX_ROWS, Aggregate, Condition, FieldName, Function, Scalar, SortKey
from handlers.parameters.files import FileId, InputFile, InputPath
from handlers.parameters.patterns import (
    _TABLE,
)


class DataSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data that is no array of rows: columns, or a file of rows in exactly one of four ways."""

    columns: Annotated[
        dict[str, list[Scalar]] | None,
        Meta(description="Field → its values, all of one length.", examples=[{"x": [1, 2, 3], "y": [2, 4, 7]}]),
    ] = None
    format: Annotated[
        Literal["csv", "jsonl", "parquet"] | None,
        Meta(description="Of a file: CSV with a header (UTF-8), a JSON object a line, or Parquet.", examples=["csv"]),
    ] = None
    delimiter: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1)] | None,
        Meta(description="Of a CSV; found out unless given.", examples=[";"]),
    ] = None
    text: Annotated[str | None, Meta(description="The file's content, as text.", examples=["x,y\n1,2\n3,4\n"])] = None
    base64: Annotated[str | None, Meta(description="The file's content, in base64.")] = None
    file_id: Annotated[FileId | None, Meta(description="Id of an uploaded file.")] = None
    path: Annotated[InputPath | None, Meta(description="Path of a file below the operator's FILES_DIR.")] = None

    def __post_init__(self) -> None:
        given = [name for name in ("text", "base64", "file_id", "path") if getattr(self, name) is not None]
        if (self.columns is None) == (self.format is None):
            raise ValueError("Data as an object has either `columns`, or `format` and a file")
        if len(given) != (0 if self.format is None else 1):
            found = ", ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"A file has exactly one of `text`, `base64`, `file_id`, `path`; here it has {found}")
        if self.delimiter is not None and self.format != "csv":
            raise ValueError("`delimiter` goes with the format `csv` only")
        if self.columns is not None and len(set(map(len, self.columns.values()))) > 1:
            raise ValueError("The columns differ in length; fill up the shorter ones with null")

    @property
    def file(self) -> InputFile:
        """The file."""
        return InputFile(text=self.text, base64=self.base64, file_id=self.file_id, path=self.path)


Data = list[int | float | dict[str, Scalar] | None] | DataSource


_DATA = Meta(
    description="An array of numbers (null for a missing one), or an array of objects whose fields are text, "
    "numbers, booleans or null; not both in one array. A field that an object lacks counts as null. Or an object: "
    "`columns`, or a file as CSV, JSON lines or Parquet.",
    examples=[
        [{"value": 10, "category": "A"}, {"value": 20, "category": "B"}, {"value": 15, "category": "A"}],
        [3, 5.5, None, 8],
        {"columns": {"x": [1, 2, 3], "y": [2, 4, 7]}},
        {"format": "csv", "text": "x,y\n1,2\n3,4\n"},
    ],
)


TableName = Annotated[str, Meta(pattern=_TABLE)]


Fields = Annotated[list[FieldName], Meta(min_length=1, max_length=1000)]


_ROWS = ("select", "filter", "sort")


_OWNERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "method": ("correlation",), "fields": _ROWS, "where": _ROWS, "match": _ROWS, "by": _ROWS,
        "group_by": ("group",), "aggregates": ("group",), "right": ("join",), "on": ("join",), "how": ("join",),
        "index": ("pivot",), "columns": ("pivot",), "values": ("pivot",), "function": ("pivot",),
        "field": ("histogram",), "bins": ("histogram",), "sql": ("query",), "tables": ("query",),
        "limit": (*_ROWS, "group", "join", "pivot", "query"), "offset": (*_ROWS, "group", "join", "pivot", "query"),
        "output": (*_ROWS, "group", "join", "pivot", "query"),
    }
)  # fmt: skip
"""Parameter → the operations that it belongs to."""


_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "select": ("fields",), "filter": ("where",), "sort": ("by",), "group": ("group_by", "aggregates"),
        "join": ("right", "on"), "pivot": ("index", "columns", "values"), "histogram": ("field",), "query": ("sql",),
    }
)  # fmt: skip


class DataProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums, statistics and correlations over numbers or objects; selections, groups, joins and SQL over objects."""

    operation: Annotated[
        Literal["sum", "average", "count", "statistics", "correlation", "select", "filter", "sort", "group", "join",
                "pivot", "histogram", "query"],
        Meta(
            description="What to compute. From `correlation` on it needs objects. `select`, `filter` and `sort` take "
            "each other's parameters, too: one of them can do all three.",
            examples=["statistics"],
        ),
    ]  # fmt: skip
    data: Annotated[Data, _DATA]
    method: Annotated[
        Literal["pearson", "spearman"] | None,
        Meta(
            description="Of a correlation: of the values, or of their ranks; `pearson` unless given.",
            examples=["spearman"],
        ),
    ] = None
    fields: Annotated[Fields | None, Meta(description="Which fields, in this order.", examples=[["category"]])] = None
    where: Annotated[
        Annotated[list[Condition], Meta(min_length=1, max_length=100)] | None,
        Meta(description="Which rows.", examples=[[{"field": "value", "op": "ge", "value": 15}]]),
    ] = None
    match: Annotated[
        Literal["all", "any"] | None,
        Meta(description="Whether a row must be as all conditions say, or as one; `all`.", examples=["any"]),
    ] = None
    by: Annotated[
        Annotated[list[SortKey], Meta(min_length=1, max_length=100)] | None,
        Meta(description="What to sort by, first things first.", examples=[[{"field": "value", "descending": True}]]),
    ] = None
    group_by: Annotated[
        Annotated[list[FieldName], Meta(max_length=100)] | None,
        Meta(description="Rows that are alike in these are a group; with none all rows are.", examples=[["category"]]),
    ] = None
    aggregates: Annotated[
        Annotated[list[Aggregate], Meta(min_length=1, max_length=100)] | None,
        Meta(description="What to tell of each group.", examples=[[{"function": "mean", "field": "value"}]]),
    ] = None
    right: Annotated[
        Data | None,
        Meta(
            description="The other side of a join, in any form that `data` has.",
            examples=[[{"category": "A", "name": "first"}]],
        ),
    ] = None
    on: Annotated[
        Fields | None, Meta(description="Fields that both sides have and that must be equal.", examples=[["category"]])
    ] = None
    how: Annotated[
        Literal["inner", "left", "right", "full"] | None,
        Meta(
            description="Which rows without a partner stay: none, those of `data`, of `right`, or all; `inner`.",
            examples=["left"],
        ),
    ] = None
    index: Annotated[
        Fields | None,
        Meta(description="Of a pivot: fields of which each row is one combination.", examples=[["category"]]),
    ] = None
    columns: Annotated[
        FieldName | None, Meta(description="Of a pivot: the field whose values become fields.", examples=["month"])
    ] = None
    values: Annotated[
        FieldName | None, Meta(description="Of a pivot: the field that fills them.", examples=["value"])
    ] = None
    function: Annotated[
        Function | None, Meta(description="Of a pivot: what to make of several values; `sum`.", examples=["mean"])
    ] = None
    field: Annotated[FieldName | None, Meta(description="Of a histogram: which number.", examples=["value"])] = None
    bins: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None, Meta(description="Of a histogram; 10.", examples=[20])
    ] = None
    sql: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100_000)] | None,
        Meta(
            description="One SELECT in DuckDB's SQL over the table `data` and those of `tables`.",
            examples=["SELECT category, avg(value) AS mean FROM data GROUP BY category ORDER BY category"],
        ),
    ] = None
    tables: Annotated[
        Annotated[dict[TableName, Data], Meta(max_length=10)] | None,
        Meta(
            description="Further tables of a query, by name.",
            examples=[{"names": [{"category": "A", "name": "first"}]}],
        ),
    ] = None
    limit: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ROWS)] | None,
        Meta(description="Rows of the answer at most; 10,000.", examples=[100]),
    ] = None
    offset: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Rows to pass over first.", examples=[100])
    ] = None
    output: Annotated[
        Literal["rows", "csv"] | None,
        Meta(
            description="`rows` in the answer; or `csv`: the artifact `result.csv`, in which a text that a spreadsheet "
            "would take for a formula begins with an apostrophe.",
            examples=["csv"],
        ),
    ] = None

    def __post_init__(self) -> None:
        for data in (self.data, self.right, *(self.tables or {}).values()):
            if isinstance(data, list):
                _refuse_mixture(data)
        for name, owners in _OWNERS.items():
            if getattr(self, name) is not None and self.operation not in owners:
                raise ValueError(f"`{name}` does not go with `{self.operation}` - at `$.{name}`")
        for name in _NEEDED.get(self.operation, ()):
            if getattr(self, name) is None:
                raise ValueError(f"`{self.operation}` needs `{name}`")


def _refuse_mixture(data: list[Any]) -> None:
    kinds = set(map(type, data))
    if dict not in kinds or len(kinds) == 1:
        return
    is_object = isinstance(data[0], dict)
    index = next(index for index, item in enumerate(data) if isinstance(item, dict) is not is_object)
    expected, got = ("object", "null" if data[index] is None else "number") if is_object else ("number", "object")
    raise ValueError(f"Expected `{expected}`, got `{got}`: an array has one sort only - at `$.data[{index}]`")
