"""The parameters of ``data_processing``: a union of one Struct per operation, told apart by ``operation``."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from handlers.parameters.data_options import MAX_ROWS, Aggregate, Condition, FieldName, Function, Scalar, SortKey
from handlers.parameters.encodings import Encoding
from handlers.parameters.files import FileId, InputFile, InputPath
from handlers.parameters.patterns import TABLE_NAME

Character = Annotated[str, Meta(min_length=1, max_length=1, pattern=r"^[^\r\n\0]$")]
FieldType = Literal["text", "integer", "number", "boolean", "date", "datetime"]
_SHEETS = ("xlsx", "ods")
_OPTIONS = {
    **dict.fromkeys(("encoding", "delimiter", "quote", "decimal", "thousands"), ("csv",)),
    **dict.fromkeys(("nulls", "header", "skip_lines", "types"), ("csv", *_SHEETS)),
    "sheet": _SHEETS,
}
"""Option → the formats that it goes with."""

DEFAULT_LIMIT = 10_000
"""Rows of an answer unless the request gives a ``limit``."""


class DataSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data that is not an array of rows: columns, or a file of rows, given in exactly one of four ways."""

    columns: Annotated[
        dict[str, list[Scalar]] | None,
        Meta(description="Field → its values, all of one length.", examples=[{"x": [1, 2, 3], "y": [2, 4, 7]}]),
    ] = None
    format: Annotated[
        Literal["csv", "jsonl", "parquet", "xlsx", "ods"] | None,
        Meta(
            description="Format of the file: CSV, one JSON object a line, Parquet, or a spreadsheet of Excel or "
            "OpenDocument. Macros are not run, and formulas have the values that the file has for them.",
            examples=["csv"],
        ),
    ] = None
    sheet: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | Annotated[str, Meta(min_length=1, max_length=255)] | None,
        Meta(
            description="Sheet of a spreadsheet, by its name or its number from 1; the first visible one unless given.",
            examples=["Sales", 2],
        ),
    ] = None
    encoding: Annotated[
        Encoding | None,
        Meta(description="Encoding of a CSV; found out unless given.", examples=["windows-1252"]),
    ] = None
    delimiter: Annotated[
        Character | None, Meta(description="Delimiter of a CSV; found in the header unless given.", examples=[";"])
    ] = None
    quote: Annotated[Character | None, Meta(description='Quote of a CSV; `"` unless given.', examples=["'"])] = None
    decimal: Annotated[
        Literal[".", ","] | None, Meta(description="Decimal mark of a CSV's numbers; `.` unless given.", examples=[","])
    ] = None
    thousands: Annotated[
        Literal[",", ".", " ", "'", "_", "\u00a0", "\u202f", "\u2019"] | None,
        Meta(description="Mark between the thousands of a CSV's numbers; none unless given.", examples=["."]),
    ] = None
    nulls: Annotated[
        Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)] | None,
        Meta(
            description="Texts of a CSV or a spreadsheet that mean null, beside the empty one.", examples=[["NA", "-"]]
        ),
    ] = None
    header: Annotated[
        bool | None,
        Meta(
            description="Whether the first line of a CSV, or the first row with values of a spreadsheet, names the "
            "fields, which it does unless given. Otherwise they are `column_1`, `column_2` and so on.",
            examples=[False],
        ),
    ] = None
    skip_lines: Annotated[
        Annotated[int, Meta(ge=0, le=10_000)] | None,
        Meta(description="Lines of a CSV, or rows of a spreadsheet, before its header.", examples=[2]),
    ] = None
    types: Annotated[
        dict[FieldName, FieldType] | None,
        Meta(
            description="Field of a CSV or a spreadsheet → the type of its values; found out from all values unless "
            "given.",
            examples=[{"zip": "text"}],
        ),
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
        self._check_options()
        if self.columns is not None and len(set(map(len, self.columns.values()))) > 1:
            raise ValueError("The columns differ in length; fill up the shorter ones with null")

    def _check_options(self) -> None:
        options = [name for name in _OPTIONS if getattr(self, name) is not None and self.format not in _OPTIONS[name]]
        if options:
            known = " and ".join(f"`{form}`" for form in _OPTIONS[options[0]])
            raise ValueError(f"`{options[0]}` goes with the format {known} only")
        if self.format in _SHEETS and self.text is not None:
            raise ValueError("A spreadsheet is bytes: send it as `base64`, `file_id` or `path`")
        if self.encoding is not None and self.text is not None:
            raise ValueError("`encoding` goes with bytes (`base64`, `file_id`, `path`); `text` has none")
        marks = {
            "delimiter": self.delimiter,
            "quote": self.quote or '"',
            "decimal": self.decimal or ".",
            "thousands": self.thousands,
        }
        for one, other in itertools.combinations(marks, 2):
            if marks[one] == marks[other] is not None and (one, other) != ("delimiter", "decimal"):
                raise ValueError(f"`{one}` and `{other}` are the same character")

    @property
    def file(self) -> InputFile:
        """The file, where the data is not ``columns``."""
        return InputFile(text=self.text, base64=self.base64, file_id=self.file_id, path=self.path)


_CHART = Meta(description="Whether to draw a chart, as the artifact `chart.png`.", examples=[True])
Data = list[int | float | dict[str, Scalar] | None] | DataSource
TableName = Annotated[str, Meta(pattern=TABLE_NAME)]
Fields = Annotated[list[FieldName], Meta(min_length=1, max_length=1000)]
Conditions = Annotated[list[Condition], Meta(min_length=1, max_length=100)]
SortKeys = Annotated[list[SortKey], Meta(min_length=1, max_length=100)]

_WHICH_FIELDS = Meta(description="The fields to return, in this order.", examples=[["category", "value"]])
_WHICH_ROWS = Meta(
    description="The conditions that rows must meet.", examples=[[{"field": "value", "op": "ge", "value": 15}]]
)
_WHICH_ORDER = Meta(
    description="The keys to sort by, the first one first.", examples=[[{"field": "value", "descending": True}]]
)


class DataOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="operation"):
    """Sums, statistics and correlations over numbers or objects; selections, groups, joins and SQL over objects."""

    data: Annotated[
        Data,
        Meta(
            description="An array of numbers (null for a missing one), or an array of objects whose fields are text, "
            "numbers, booleans or null; not both in one array. A field that an object lacks counts as null. Or an "
            "object: `columns`, or a file as CSV, JSON lines, Parquet or a spreadsheet.",
            examples=[
                [
                    {"category": "A", "month": "May", "value": 10, "visits": 3},
                    {"category": "B", "month": "May", "value": 20, "visits": 5},
                    {"category": "A", "month": "June", "value": 15, "visits": 4},
                ],
                [3, 5.5, None, 8],
                {"columns": {"x": [1, 2, 3], "y": [2, 4, 7]}},
                {"format": "csv", "text": "x,y\n1,2\n3,4\n"},
            ],
        ),
    ]

    @property
    def operation(self) -> str:
        """Name of the operation, as requests have it."""
        return str(self.__struct_config__.tag)

    def __post_init__(self) -> None:
        _refuse_mixture(self.data, "$.data")


class DataSum(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sum"):
    """Sum of each number field, or of the numbers."""


class DataAverage(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="average"):
    """Mean of each number field, or of the numbers."""


class DataCount(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="count"):
    """How many values other than null each field has."""


class DataStatistics(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="statistics"):
    """Counts, mean, deviation and quartiles of each number field; the most common values of others."""


class DataCorrelation(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="correlation"):
    """Correlation of each pair of number fields. Needs objects."""

    method: Annotated[
        Literal["pearson", "spearman"],
        Meta(description="Correlation of the values (Pearson) or of their ranks (Spearman).", examples=["spearman"]),
    ] = "pearson"


class RowsOperation(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operation that answers with rows. Needs objects, columns or a file."""

    limit: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ROWS)], Meta(description="Most rows in the answer.", examples=[100])
    ] = DEFAULT_LIMIT
    offset: Annotated[Annotated[int, Meta(ge=0)], Meta(description="Rows to skip.", examples=[100])] = 0
    output: Annotated[
        Literal["rows", "csv", "xlsx", "ods"],
        Meta(
            description="`rows`: in the answer. `csv`: as the artifact `result.csv`, where a text that a spreadsheet "
            "would take for a formula gets an apostrophe in front. `xlsx`, `ods`: as the artifact `result.xlsx` "
            "or `result.ods`, where it is a cell of text.",
            examples=["csv"],
        ),
    ] = "rows"


class SelectionOperation(RowsOperation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shared parameters of ``select``, ``filter`` and ``sort``: each takes all, and requires its own."""

    fields: Annotated[Fields | None, _WHICH_FIELDS] = None
    where: Annotated[Conditions | None, _WHICH_ROWS] = None
    match: Annotated[
        Literal["all", "any"],
        Meta(description="Whether a row must meet all conditions of `where`, or any one.", examples=["any"]),
    ] = "all"
    by: Annotated[SortKeys | None, _WHICH_ORDER] = None


class DataSelect(SelectionOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="select"):
    """Returns some of the fields. May also choose rows and sort them."""

    fields: Annotated[Fields, _WHICH_FIELDS]


class DataFilter(SelectionOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="filter"):
    """Returns the rows that meet conditions. May also choose fields and sort the rows."""

    where: Annotated[Conditions, _WHICH_ROWS]


class DataSort(SelectionOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sort"):
    """Returns the rows in an order. May also choose rows and fields."""

    by: Annotated[SortKeys, _WHICH_ORDER]


class DataGroup(RowsOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="group"):
    """Returns one row for each group of rows that are equal in some fields."""

    group_by: Annotated[
        Annotated[list[FieldName], Meta(max_length=100)],
        Meta(
            description="Fields in which the rows of a group are equal; an empty array makes all rows one group.",
            examples=[["category"]],
        ),
    ]
    aggregates: Annotated[
        Annotated[list[Aggregate], Meta(min_length=1, max_length=100)],
        Meta(description="The values to compute for each group.", examples=[[{"function": "mean", "field": "value"}]]),
    ]
    chart: Annotated[bool, _CHART] = False


class DataJoin(RowsOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="join"):
    """Joins two tables where some of their fields are equal."""

    right: Annotated[
        Data,
        Meta(
            description="The other table, in any form that `data` may have.",
            examples=[[{"category": "A", "name": "first"}]],
        ),
    ]
    on: Annotated[Fields, Meta(description="Fields that both tables have and that must be equal.",
                               examples=[["category"]])]  # fmt: skip
    how: Annotated[
        Literal["inner", "left", "right", "full"],
        Meta(
            description="Which rows without a partner are kept: none, those of `data`, those of `right`, or all.",
            examples=["left"],
        ),
    ] = "inner"

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_mixture(self.right, "$.right")


class DataPivot(RowsOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pivot"):
    """Turns the values of one field into fields, and fills them with the values of another."""

    index: Annotated[Fields, Meta(description="Fields whose combinations are the rows.", examples=[["category"]])]
    columns: Annotated[FieldName, Meta(description="The field whose values become fields.", examples=["month"])]
    values: Annotated[FieldName, Meta(description="The field that fills them.", examples=["value"])]
    function: Annotated[Function, Meta(description="How several values are combined.", examples=["mean"])] = "sum"


class DataHistogram(DataOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="histogram"):
    """Counts the numbers of a field in ranges of one width. Needs objects, columns or a file."""

    field: Annotated[FieldName, Meta(description="The number field to count.", examples=["value"])]
    bins: Annotated[Annotated[int, Meta(ge=1, le=1000)], Meta(description="Number of ranges.", examples=[20])] = 10
    chart: Annotated[bool, _CHART] = False


class DataQuery(RowsOperation, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="query"):
    """One SELECT in DuckDB's SQL."""

    sql: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100_000)],
        Meta(
            description="One SELECT in DuckDB's SQL over the table `data` and those of `tables`.",
            examples=["SELECT category, avg(value) AS mean FROM data GROUP BY category ORDER BY category"],
        ),
    ]
    tables: Annotated[
        Annotated[dict[TableName, Data], Meta(max_length=10)],
        Meta(description="Further tables, by name.", examples=[{"names": [{"category": "A", "name": "first"}]}]),
    ] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, data in self.tables.items():
            _refuse_mixture(data, f"$.tables.{name}")


DataProcessing = (
    DataSum
    | DataAverage
    | DataCount
    | DataStatistics
    | DataCorrelation
    | DataSelect
    | DataFilter
    | DataSort
    | DataGroup
    | DataJoin
    | DataPivot
    | DataHistogram
    | DataQuery
)


def _refuse_mixture(data: Data, place: str) -> None:
    """Refuse an array of objects and numbers."""
    if not isinstance(data, list):
        return
    kinds = set(map(type, data))
    if dict not in kinds or len(kinds) == 1:
        return
    is_object = isinstance(data[0], dict)
    index = next(index for index, item in enumerate(data) if isinstance(item, dict) is not is_object)
    expected, got = ("object", "null" if data[index] is None else "number") if is_object else ("number", "object")
    raise ValueError(f"Expected `{expected}`, got `{got}`: all items must be of one kind - at `{place}[{index}]`")
