"""Results of data_processing, one type per operation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Number = int | float | str | None
"""By the JSON rule: a string beyond ±(2⁵³ - 1) and where no double holds it; null where there is none."""


class ReadFile(msgspec.Struct, kw_only=True):
    """How a file of data was read. Which fields there are depends on its format."""

    encoding: str | UnsetType = UNSET
    delimiter: str | UnsetType | None = UNSET
    guessed: Annotated[
        dict[str, float] | UnsetType, Meta(description="What was found out rather than said, with a confidence.")
    ] = UNSET
    short_rows_total: int | UnsetType = UNSET
    unreadable_characters_total: int | UnsetType = UNSET
    not_a_number_total: int | UnsetType = UNSET
    sheet: str | UnsetType = UNSET
    sheets: list[str] | UnsetType = UNSET
    sheets_total: int | UnsetType = UNSET
    empty_rows_total: int | UnsetType = UNSET
    unnamed_fields_total: int | UnsetType = UNSET
    formulas_total: int | UnsetType = UNSET
    formulas_without_value_total: int | UnsetType = UNSET
    error_cells_total: int | UnsetType = UNSET
    merged_cells_total: int | UnsetType = UNSET


class DataResult(msgspec.Struct, kw_only=True, tag_field="operation"):
    """What every operation over data answers."""

    rows: Annotated[int, Meta(description="Of the data.")]
    files: Annotated[dict[str, ReadFile] | UnsetType, Meta(description="How each file was read.")] = UNSET


class SumResult(DataResult, kw_only=True, tag="sum"):
    """Sums."""

    sum: Annotated[
        Number | dict[str, Number], Meta(description="Over an array of numbers one, over objects one for each field.")
    ]
    skipped: Annotated[dict[str, str] | UnsetType, Meta(description="Fields that are no numbers → their sort.")] = UNSET
    out_of_range: Annotated[list[str] | UnsetType, Meta(description="Fields beyond ±1.8e308, null above.")] = UNSET


class AverageResult(DataResult, kw_only=True, tag="average"):
    """Means."""

    average: Annotated[
        Number | dict[str, Number], Meta(description="Over an array of numbers one, over objects one for each field.")
    ]
    skipped: Annotated[dict[str, str] | UnsetType, Meta(description="Fields that are no numbers → their sort.")] = UNSET
    out_of_range: Annotated[list[str] | UnsetType, Meta(description="Fields beyond ±1.8e308, null above.")] = UNSET


class CountResult(DataResult, kw_only=True, tag="count"):
    """Numbers of values other than null."""

    count: int | dict[str, int]


class Quartiles(msgspec.Struct, kw_only=True):
    """Interpolated."""

    q1: Number
    q2: Number
    q3: Number


class CommonValue(msgspec.Struct, kw_only=True):
    """One of the most common values of a field."""

    value: Annotated[Any, Meta(description="A text is cut at 256 characters.")]
    count: int


class FieldSummary(msgspec.Struct, kw_only=True):
    """A field, or an array of numbers. A field of numbers has everything but `top`; any other has `top`."""

    type: Literal["number", "text", "boolean", "mixed", "empty"]
    count: int
    nulls: int
    distinct: int
    sum: Number | UnsetType = UNSET
    mean: Number | UnsetType = UNSET
    std: Annotated[Number | UnsetType, Meta(description="Of a sample.")] = UNSET
    min: Number | UnsetType = UNSET
    max: Number | UnsetType = UNSET
    median: Number | UnsetType = UNSET
    quartiles: Quartiles | UnsetType = UNSET
    out_of_range: list[str] | UnsetType = UNSET
    top: Annotated[list[CommonValue] | UnsetType, Meta(description="The five most common values.")] = UNSET


_SUMMARY = {"$ref": "#/components/schemas/FieldSummary"}


class StatisticsResult(DataResult, kw_only=True, tag="statistics"):
    """Summaries."""

    statistics: Annotated[
        Any,
        Meta(
            description="Over an array of numbers one summary, over objects one for each field.",
            extra_json_schema={"anyOf": [_SUMMARY, {"type": "object", "additionalProperties": _SUMMARY}]},
        ),
    ]


class FieldPair(msgspec.Struct, kw_only=True):
    """How two fields go together."""

    fields: Annotated[list[str], Meta(min_length=2, max_length=2)]
    correlation: Annotated[float | None, Meta(description="-1 to 1; null if one of the two does not vary.")]
    count: Annotated[int, Meta(description="Rows that have both values.")]
    out_of_range: bool | UnsetType = UNSET


class CorrelationResult(DataResult, kw_only=True, tag="correlation"):
    """Correlations."""

    method: Literal["pearson", "spearman"]
    fields: list[str]
    matrix: dict[str, dict[str, float | None]]
    pairs: list[FieldPair]
    skipped: Annotated[dict[str, str], Meta(description="Fields that are no numbers → their sort.")]


class Picture(msgspec.Struct, kw_only=True):
    """A chart that was drawn, as an artifact."""

    artifact: str
    media_type: str
    width: int
    height: int
    groups_drawn: int | UnsetType = UNSET
    groups_total: int | UnsetType = UNSET
    fields_drawn: list[str] | UnsetType = UNSET
    fields_total: int | UnsetType = UNSET


class RowsResult(DataResult, kw_only=True):
    """What every operation that answers with rows has."""

    fields: list[str]
    rows_returned: int
    more: Annotated[bool, Meta(description="Whether `limit` left rows out.")]
    data: Annotated[
        list[dict[str, Any]] | UnsetType, Meta(description="The rows; absent where they are an artifact (`output`).")
    ] = UNSET
    artifact: Annotated[str | UnsetType, Meta(description="The file that has the rows.")] = UNSET
    numbers_as_text_total: int | UnsetType = UNSET
    out_of_range: Annotated[list[str] | UnsetType, Meta(description="Fields with a value beyond ±1.8e308.")] = UNSET


class SelectResult(RowsResult, kw_only=True, tag="select"):
    """Rows with some of their fields."""


class FilterResult(RowsResult, kw_only=True, tag="filter"):
    """Rows that meet conditions."""


class SortResult(RowsResult, kw_only=True, tag="sort"):
    """Rows in an order."""


class GroupResult(RowsResult, kw_only=True, tag="group"):
    """One row per group."""

    chart: Picture | UnsetType = UNSET


class JoinResult(RowsResult, kw_only=True, tag="join"):
    """Rows of two tables."""


class PivotResult(RowsResult, kw_only=True, tag="pivot"):
    """One row per value of `index`."""

    rows_left_out_total: int


class QueryResult(RowsResult, kw_only=True, tag="query"):
    """The rows of a SELECT."""


class HistogramBin(msgspec.Struct, kw_only=True):
    """A range, without its upper end unless it is the last, and how many values lie in it."""

    from_: Number = msgspec.field(name="from")
    to: Number
    count: int


class HistogramResult(DataResult, kw_only=True, tag="histogram"):
    """How the values of a field are spread."""

    field: str
    count: int
    nulls: int
    bins: list[HistogramBin]
    out_of_range_total: int | UnsetType = UNSET
    chart: Picture | UnsetType = UNSET
