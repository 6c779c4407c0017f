"""What a task may ask for: one Struct per task type, in the names of the service's interface.

The API validates with these and shows them on its OpenAPI page; inside the sandbox the handlers decode with the very
same types. Standard library and msgspec only, because the API imports this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from handlers.data_options import MAX_ROWS, Aggregate, Condition, FieldName, Function, Scalar, SortKey
from handlers.image_options import OPTIONS, Options, Output

SCRIPT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py")
"""A ``script`` that matches this as a whole names a file of the scripts directory; any other is Python source."""

MAX_SCRIPT_CHARACTERS = 1 << 20

MAX_TEXTS = 1000
MAX_INPUT_CHARACTERS = 100_000
"""Of each text that models are asked about."""
MAX_CATEGORIES = 100

MAX_PATH_CHARACTERS = 512
MAX_TEXT_CHARACTERS = 1_000_000
"""Of a document; so much fits into a result twice, whatever the characters are."""

INPUTS_FOLDER = "/inputs"
"""Where a run sees the operator's ``FILES_DIR``. A path may begin with it."""

_PATH_PART = r"(?!\.\.?(/|$))[^/\\\x00-\x1f\x7f]+"
_PATH = rf"^(/inputs/)?{_PATH_PART}(/{_PATH_PART})*$(?!\n)"
_TABLE = r"^[a-z_][a-z0-9_]{0,62}$(?!\n)"
_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)"
_INPUT_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_. -]*$(?!\n)"
_FILE_ID = r"^file_[0-9a-f]{32}$(?!\n)"
_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x20\x7f\\@/?#]+([/?#][^\x00-\x20\x7f\\]*)?$(?!\n)"
_PAGES = r"^[1-9][0-9]{0,6}(-[1-9][0-9]{0,6})?(,[1-9][0-9]{0,6}(-[1-9][0-9]{0,6})?)*$(?!\n)"
_IN_WORDS = MappingProxyType(
    {
        _PATH: "a path must be relative to FILES_DIR, such as `reports/may.pdf`, "
        "without `.`, `..`, `\\` and control characters",
        _FILE_ID: "a file_id is `file_` and 32 hexadecimal digits, as the upload answered",
        _URL: "a url must begin with http:// or https://, and hold no user name, space or backslash",
        _INPUT_NAME: "a name of letters, digits, spaces and _ . - that does not begin with . or -",
        _TABLE: "a table is named by small letters, digits and _, and begins with no digit",
        _MODEL_NAME: "a model is named by letters, digits and . _ - that begin with a letter or digit",
        _PAGES: "pages are numbers and ranges, such as `1-3,7`",
    }
)
"""Pattern → what to say instead of it."""

InputPath = Annotated[str, Meta(pattern=_PATH, max_length=MAX_PATH_CHARACTERS)]
"""Path of a file below the operator's ``FILES_DIR``; ``/inputs/x`` is the same as ``x``."""
Encoding = Literal[
    "utf-8", "utf-16", "utf-32", "ascii", "windows-1250", "windows-1251", "windows-1252", "windows-1253",
    "windows-1254", "iso-8859-1", "iso-8859-2", "iso-8859-15", "koi8-r", "shift_jis", "euc-jp", "gb18030", "big5",
    "euc-kr",
]  # fmt: skip
ExtractName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$(?!\n)")]
HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,99}$(?!\n)")]
HeaderValue = Annotated[str, Meta(pattern=r"^[\x20-\x7e]{0,4096}$(?!\n)")]
_NOT_YOUR_HEADERS = frozenset({
    "host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect", "keep-alive",
    "accept-encoding", "content-encoding",
})  # fmt: skip
InputName = Annotated[str, Meta(pattern=_INPUT_NAME, max_length=128)]
"""Name of a file in the workspace."""
FileId = Annotated[str, Meta(pattern=_FILE_ID)]


Category = Annotated[str, Meta(min_length=1, max_length=200)]


class InputFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file, given in exactly one of four ways."""

    text: Annotated[str | None, Meta(description="Its content, as text.", examples=["to be or not to be"])] = None
    base64: Annotated[str | None, Meta(description="Its content, in base64.", examples=["aGVsbG8="])] = None
    file_id: Annotated[
        FileId | None, Meta(description="Id of an uploaded file.", examples=["file_0123456789abcdef0123456789abcdef"])
    ] = None
    path: Annotated[
        InputPath | None,
        Meta(description="Path of a file below the operator's FILES_DIR.", examples=["reports/may.pdf"]),
    ] = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(f"`{name}`" for name in given) or "none"
            raise ValueError(f"A file has exactly one of `text`, `base64`, `file_id`, `path`; here it has {found}")


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sandbox hands to ``handlers.entry.main``, as JSON."""

    task_type: str
    parameters: msgspec.Raw
    source: str | None = None
    """Python source of the named script; only for a ``custom_script`` that names a file."""
    source_name: str | None = None
    """Name of that file, e.g. ``data_analysis.py``."""


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


class DocumentProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Text, facts or a summary of a PDF, Word or text document."""

    document_type: Annotated[
        Literal["pdf", "docx", "txt"],
        Meta(description="What the content is. It is checked against the content's first bytes.", examples=["txt"]),
    ]
    content: Annotated[
        Annotated[str, Meta(min_length=1)] | InputFile,
        Meta(
            description="The document. As an object: `text`, `base64`, `file_id` or `path`. As a string, for pdf and "
            "docx: a path below FILES_DIR if it has a `.`, otherwise base64 (which has none). As a string, for txt: "
            'the text itself; one that looks like a path is refused, write `{"text": …}` or `{"path": …}` then.',
            examples=["It was the best of times. It was the worst of times.", {"path": "reports/may.pdf"}],
        ),
    ]
    operation: Annotated[
        Literal["extract_text", "analyze", "summarize"],
        Meta(
            description="`extract_text`: the text, by page or paragraph. `analyze`: counts, language, metadata, "
            "headings, images. `summarize`: its most telling sentences.",
            examples=["analyze"],
        ),
    ]
    sentences: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(description="Of a summary: how many sentences; 3 unless given.", examples=[3]),
    ] = None
    pages: Annotated[
        Annotated[str, Meta(pattern=_PAGES, max_length=200)] | None,
        Meta(description="Of a pdf: which pages, the first is 1; all unless given.", examples=["1-3,7"]),
    ] = None
    password: Annotated[
        Annotated[str, Meta(min_length=1, max_length=127)] | None,
        Meta(description="Of an encrypted pdf. It is stored with the task.", examples=["correct horse"]),
    ] = None
    encoding: Annotated[
        Encoding | None,
        Meta(description="Of a txt that is given as bytes; found out unless given.", examples=["windows-1252"]),
    ] = None
    max_characters: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_TEXT_CHARACTERS)],
        Meta(description="No more of the text is read; the result says `truncated` then.", examples=[100_000]),
    ] = MAX_TEXT_CHARACTERS

    def __post_init__(self) -> None:
        if self.document_type != "txt":
            _refuse_text_for(self.document_type, self.content)
        for name, owner, value in (
            ("sentences", "summarize", self.operation), ("pages", "pdf", self.document_type),
            ("password", "pdf", self.document_type), ("encoding", "txt", self.document_type),
        ):  # fmt: skip
            if getattr(self, name) is not None and value != owner:
                raise ValueError(f"`{name}` goes with `{owner}` only, not with `{value}` - at `$.{name}`")


class ImageProcessing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resizes, crops, filters, converts or analyzes an image."""

    image_path: Annotated[
        InputPath | InputFile,
        Meta(
            description="The image. As a string: a path below FILES_DIR, always. As an object: `base64`, `file_id` or "
            "`path`. PNG, JPEG, WebP, GIF, BMP and TIFF are read, told by their content and not by their name.",
            examples=["photos/logo.png", {"file_id": "file_0123456789abcdef0123456789abcdef"}],
        ),
    ]
    operation: Annotated[
        Literal["resize", "crop", "filter", "analyze", "convert", "thumbnail", "pipeline"],
        Meta(description="What to do. `pipeline` does several of the others in a row.", examples=["resize"]),
    ]
    options: Annotated[
        msgspec.Raw,
        Meta(
            description="Of the operation; others are refused.",
            examples=[{"width": 640, "height": 480, "mode": "fit"}, {"name": "blur", "amount": 2}],
        ),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    output: Annotated[
        Output, Meta(description="How the image is handed over; not of `analyze`.", examples=[{"name": "logo"}])
    ] = Output()

    def __post_init__(self) -> None:
        if isinstance(self.image_path, InputFile) and self.image_path.text is not None:
            raise ValueError("An image is not text; use `base64`, `file_id` or `path` - at `$.image_path.text`")
        if self.operation == "analyze" and self.output != Output():
            raise ValueError("`analyze` makes no image, so it takes no `output` - at `$.output`")
        image_options(self)


class MlInference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks models about texts: sentiment, categories, names, language and readability."""

    model_type: Annotated[
        Literal["sentiment", "classification", "entity_extraction", "text_analysis"],
        Meta(
            description="What to ask. `sentiment`: positive, neutral or negative (English). `classification`: which of "
            "some categories. `entity_extraction`: names of people, places, dates … and where they are (English). "
            "`text_analysis`: language and counts of any text; readability and key phrases of an English one.",
            examples=["sentiment"],
        ),
    ]
    input_data: Annotated[
        Annotated[str, Meta(max_length=MAX_INPUT_CHARACTERS)]
        | Annotated[list[Annotated[str, Meta(max_length=MAX_INPUT_CHARACTERS)]], Meta(max_length=MAX_TEXTS)],
        Meta(
            description="A text, or an array of at most 1,000; each of at most 100,000 characters. The answer has the "
            "same form: one for a text, an array for an array, in its order.",
            examples=["This product is absolutely amazing!", ["I love it.", "It broke after two days."]],
        ),
    ]
    categories: Annotated[
        Annotated[list[Category], Meta(min_length=2, max_length=MAX_CATEGORIES)] | None,
        Meta(
            description="Of a classification: your own categories, in words. Unless given: business, education, "
            "entertainment, environment, health, politics, science, sports, technology, travel.",
            examples=[["billing", "delivery", "product quality"]],
        ),
    ] = None
    model: Annotated[
        Annotated[str, Meta(pattern=_MODEL_NAME, max_length=100)] | None,
        Meta(
            description="Of a sentiment or classification: a text classifier that the operator has put in MODELS_DIR. "
            "It has categories of its own.",
            examples=["support-tickets"],
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, owners in (("categories", ("classification",)), ("model", ("sentiment", "classification"))):
            if getattr(self, name) is not None and self.model_type not in owners:
                known = " and ".join(f"`{owner}`" for owner in owners)
                raise ValueError(f"`{name}` goes with {known} only, not with `{self.model_type}` - at `$.{name}`")
        if self.model is not None and self.categories is not None:
            raise ValueError("A `model` has categories of its own; leave one of the two out - at `$.categories`")
        for index, category in enumerate(self.categories or ()):
            if not category.strip() or category in (self.categories or ())[:index]:
                fault = "is there twice" if category.strip() else "is empty"
                raise ValueError(f"The category {category!r} {fault} - at `$.categories[{index}]`")


class CustomScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python script that nobody has read, or one of the named scripts."""

    script: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MAX_SCRIPT_CHARACTERS,
            description="Python source, or the name of a file in the scripts directory (letters, digits, `_` and `-`, "
            "then `.py`). The result is what it assigns to `result`, or what its `main(args)` returns.",
            examples=["result = sum(args)", "data_analysis.py"],
        ),
    ]
    args: Annotated[
        msgspec.Raw,
        Meta(
            description="Any JSON; the script finds it in its global `args`.",
            examples=[[1, 2, 3], {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}],
        ),
    ] = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    inputs: Annotated[
        dict[InputName, InputFile],
        Meta(
            max_length=64,
            description="Files that the script finds as `inputs/NAME` in its working directory. Files that it writes "
            "to `artifacts/` are kept with the task.",
            examples=[{"table.csv": {"text": "x,y\n1,2\n"}}],
        ),
    ] = {}


class Extract(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to take out under one name."""

    selector: Annotated[str, Meta(min_length=1, max_length=2000, description="CSS, or XPath.", examples=["h1"])]
    attribute: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100)] | None,
        Meta(description="Take this attribute instead of the text.", examples=["href"]),
    ] = None
    html: Annotated[bool, Meta(description="Take the element's HTML instead of its text.", examples=[False])] = False
    all: Annotated[bool, Meta(description="Take every match as an array, not the first.", examples=[True])] = False

    def __post_init__(self) -> None:
        if self.attribute is not None and self.html:
            raise ValueError("`attribute` and `html` exclude each other")


class WebScraping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fetches a web page and takes out what is asked for."""

    url: Annotated[
        str,
        Meta(
            pattern=_URL,
            max_length=2048,
            description="http or https, without user name and password.",
            examples=["https://example.com"],
        ),
    ]
    selector: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2000)] | None,
        Meta(
            description="CSS, which may be a list, or XPath if it begins with `/`, `./` or `(`. What it finds is in "
            "`matches`.",
            examples=["h1, h2, p"],
        ),
    ] = None
    extract: Annotated[
        dict[ExtractName, Annotated[str, Meta(min_length=1, max_length=2000)] | Extract],
        Meta(
            max_length=100,
            description="Name → selector, or an object with more to say of it.",
            examples=[{"title": "h1", "links": {"selector": "a", "attribute": "href", "all": True}}],
        ),
    ] = {}
    headers: Annotated[
        dict[HeaderName, HeaderValue],
        Meta(max_length=32, description="Headers of the request.", examples=[{"Accept-Language": "de"}]),
    ] = {}
    respect_robots: Annotated[bool, Meta(description="Ask robots.txt first.", examples=[True])] = True
    follow_links: Annotated[
        bool, Meta(description="Fetch the pages on the same host that it links to, too.", examples=[False])
    ] = False
    max_pages: Annotated[
        Annotated[int, Meta(ge=1, le=20)], Meta(description="With `follow_links`: pages in all.", examples=[5])
    ] = 5
    max_kib: Annotated[
        Annotated[int, Meta(ge=1, le=16384)], Meta(description="Largest page, unpacked.", examples=[4096])
    ] = 4096
    timeout_s: Annotated[
        Annotated[float, Meta(gt=0, le=60)],
        Meta(description="Longest wait for a connection, and for each part of an answer.", examples=[10]),
    ] = 10.0

    def __post_init__(self) -> None:
        for name in self.headers:
            if name.lower() in _NOT_YOUR_HEADERS or name.lower().startswith("proxy-"):
                raise ValueError(f"`{name}` is set by the service itself")


PARAMETERS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "custom_script": CustomScript,
        "data_processing": DataProcessing,
        "document_processing": DocumentProcessing,
        "image_processing": ImageProcessing,
        "ml_inference": MlInference,
        "web_scraping": WebScraping,
    }
)
"""Task type → type of its parameters."""


def decode(task_type: str, raw: msgspec.Raw | bytes, *, decoder: Callable[[Any], Any] | None = None) -> Any:
    """Parameters of a task type, checked.

    Does more than ``msgspec.json.decode``: every fault is a ``ValidationError``, and its path names the field.

    Args:
        task_type: a key of ``PARAMETERS``.
        raw: the parameters as JSON.
        decoder: decodes ``raw`` to the type that it is given; default ``decode_json``.
    Raises:
        msgspec.ValidationError: not JSON, or not what the task type takes; says where, relative to the parameters.
    """
    try:
        return decoder(PARAMETERS[task_type]) if decoder else decode_json(raw, PARAMETERS[task_type])
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(_with_field_name(_in_words(str(error)), raw)) from None


def image_options(parameters: ImageProcessing) -> Options:
    """The options of an ``image_processing`` task, of its operation's type.

    Raises:
        ValueError: they are not; says where, relative to the parameters.
    """
    try:
        options: Options = decode_json(parameters.options, OPTIONS[parameters.operation])
        fields = decode_json(parameters.options, dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise ValueError(f"{message} - at `$.options{place or '`'}") from None
    if "operation" in fields:  # the tag, which only the steps of a pipeline have
        raise ValueError("Object contains unknown field `operation` - at `$.options`")
    return options


def _refuse_text_for(document_type: str, content: str | InputFile) -> None:
    """A pdf or docx is bytes; a string with a dot names a file."""
    if isinstance(content, InputFile):
        if content.text is not None:
            raise ValueError(f"A {document_type} is not text; use `base64`, `file_id` or `path` - at `$.content.text`")
    elif is_path(content) and not (len(content) <= MAX_PATH_CHARACTERS and re.search(_PATH, content)):
        raise ValueError(f"A string with a `.` is a path here, and {_IN_WORDS[_PATH]} - at `$.content`")


def is_path(content: str) -> bool:
    """Whether a pdf's or docx's content, given as a string, names a file: base64 has no dot, and a file's name has."""
    return "." in content


_FEW = 32


def file_ids(parameters: Any) -> tuple[str, ...]:
    """The uploaded files that parameters name, each once. Looks into Structs, and into arrays and objects of Structs.

    Data without a Struct in it is not walked through, however large it is.
    """
    found: dict[str, None] = {}
    waiting = [parameters]
    while waiting:
        value = waiting.pop()
        if isinstance(value, InputFile | DataSource):
            found |= {value.file_id: None} if value.file_id else {}
        elif isinstance(value, msgspec.Struct):
            waiting += [getattr(value, name) for name in value.__struct_fields__]
        elif isinstance(value, list | tuple | dict) and value:
            inner = list(value.values()) if isinstance(value, dict) else value
            shown = inner if len(inner) <= _FEW else (inner[0], inner[-1])
            if any(isinstance(one, msgspec.Struct) for one in shown):
                waiting += inner
    return tuple(found)


def decode_json(raw: msgspec.Raw | bytes, type_: Any = Any) -> Any:
    """``msgspec.json.decode`` with one sort of exception for all faults of the input.

    Raises:
        msgspec.ValidationError: not UTF-8, not JSON, nested too deep, or not of the type.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise msgspec.ValidationError(str(error)) from None
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"JSON is not UTF-8: {error.reason} (byte {error.start})") from None
    except RecursionError:
        raise msgspec.ValidationError("JSON is nested too deep") from None


def _refuse_mixture(data: list[Any]) -> None:
    kinds = set(map(type, data))
    if dict not in kinds or len(kinds) == 1:
        return
    is_object = isinstance(data[0], dict)
    index = next(index for index, item in enumerate(data) if isinstance(item, dict) is not is_object)
    expected, got = ("object", "null" if data[index] is None else "number") if is_object else ("number", "object")
    raise ValueError(f"Expected `{expected}`, got `{got}`: an array has one sort only - at `$.data[{index}]`")


def _in_words(message: str) -> str:
    """Replace a pattern, which says little to people, by what it asks for."""
    for pattern, words in _IN_WORDS.items():
        message = message.replace(f"Expected `str` matching regex {pattern!r}", words)
    return message


def _with_field_name(message: str, raw: msgspec.Raw | bytes) -> str:
    """Replace msgspec's ``[...]``, which stands for some value of an object, by the field's name."""
    place = re.search(r"at `\$\.data\[(\d+)\]\[\.\.\.\]`$", message)
    if place is None:
        return message

    class Rows(msgspec.Struct):
        data: list[msgspec.Raw]

    row = msgspec.json.decode(msgspec.json.decode(raw, type=Rows).data[int(place[1])], type=dict[str, msgspec.Raw])
    for name, value in row.items():
        try:
            msgspec.json.decode(value, type=Scalar)
        except msgspec.ValidationError:
            return message.replace("[...]`", f".{name}`")
    return message
