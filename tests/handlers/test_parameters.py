"""Validation of parameters: what is accepted, and that every refusal names the path of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from handlers import entry
from handlers.parameters import registry as parameters
from handlers.parameters.script import SCRIPT_NAME

REFUSED = {
    "no operation": ("data_processing", {"data": []}, "it is required; it must be one of: sum"),
    "unknown operation": ("data_processing", {"operation": "median", "data": []}, "`$.operation`"),
    "text as a number": ("data_processing", {"operation": "sum", "data": [1, "2"]}, "`$.data[1]`"),
    "boolean as a number": ("data_processing", {"operation": "sum", "data": [1, True]}, "`$.data[1]`"),
    "array in the data": ("data_processing", {"operation": "sum", "data": [[1]]}, "`$.data[0]`"),
    "object among numbers": ("data_processing", {"operation": "sum", "data": [1, {"a": 1}]}, "`$.data[1]`"),
    "number among objects": ("data_processing", {"operation": "sum", "data": [{"a": 1}, 2]}, "`$.data[1]`"),
    "null among objects": ("data_processing", {"operation": "sum", "data": [{"a": 1}, None]}, "`$.data[1]`"),
    "object after null": ("data_processing", {"operation": "sum", "data": [None, {"a": 1}]}, "`$.data[1]`"),
    "nested value": ("data_processing", {"operation": "sum", "data": [{"a": 1, "b": [1]}]}, "`$.data[0].b`"),
    "unknown field": ("data_processing", {"operation": "sum", "data": [], "x": 1}, "unknown field `x`"),
    "data is an object": ("data_processing", {"operation": "sum", "data": {}}, "`$.data`"),
    "a field is missing": ("data_processing", {"operation": "group", "data": []}, "`group` needs `group_by`"),
    "no data": ("data_processing", {"operation": "sum"}, "`sum` needs `data`"),
    "a field of another operation": (
        "data_processing", {"operation": "sum", "data": [], "method": "pearson"},
        "`method` does not go with `sum` - at `$.method`",
    ),
    "an operation that is none": (
        "data_processing", {"operation": "median", "data": []},
        ("Invalid value 'median'; it must be one of: sum, average, count, statistics, correlation, select, filter, "
         "sort, group, join, pivot, histogram, query - at `$.operation`"),
    ),
    "a choice that is none": (
        "data_processing", {"operation": "join", "data": [], "right": [], "on": ["a"], "how": "outer"},
        "Invalid enum value 'outer'; it must be one of: inner, left, right, full - at `$.how`",
    ),
    "numbers among objects of the other side": (
        "data_processing", {"operation": "join", "data": [], "right": [{"a": 1}, 2], "on": ["a"]}, "`$.right[1]`",
    ),
    "objects among numbers of a table": (
        "data_processing", {"operation": "query", "data": [], "sql": "x", "tables": {"t": [1, {}]}}, "`$.tables.t[1]`",
    ),
    "no script": ("custom_script", {}, "it is required - at `$.script`"),
    "empty script": ("custom_script", {"script": ""}, "`$.script`"),
    "long script": ("custom_script", {"script": "x" * ((1 << 20) + 1)}, "`$.script`"),
    "script is a number": ("custom_script", {"script": 1}, "`$.script`"),
    "unknown field of a script": ("custom_script", {"script": "x", "arg": 1}, "unknown field `arg`"),
    "not an object": ("custom_script", [], "Expected `object`"),
    "unknown model type": ("ml_inference", {"model_type": "ner", "input_data": "x"}, "`$.model_type`"),
    "no texts": ("ml_inference", {"model_type": "sentiment"}, "it is required - at `$.input_data`"),
    "a number as a text": ("ml_inference", {"model_type": "sentiment", "input_data": 1}, "`$.input_data`"),
    "a number among texts": ("ml_inference", {"model_type": "sentiment", "input_data": ["x", 1]}, "`$.input_data[1]`"),
    "a long text": ("ml_inference", {"model_type": "sentiment", "input_data": "x" * 100_001}, "`$.input_data`"),
    "a long text of many": (
        "ml_inference", {"model_type": "sentiment", "input_data": ["x", "x" * 100_001]}, "`$.input_data[1]`",
    ),
    "too many texts": ("ml_inference", {"model_type": "sentiment", "input_data": ["x"] * 1001}, "`$.input_data`"),
    "categories of a sentiment": (
        "ml_inference", {"model_type": "sentiment", "input_data": "x", "categories": ["a", "b"]}, "`$.categories`",
    ),
    "a model of names": (
        "ml_inference", {"model_type": "entity_extraction", "input_data": "x", "model": "m"}, "`$.model`",
    ),
    "one category": (
        "ml_inference", {"model_type": "classification", "input_data": "x", "categories": ["a"]}, "`$.categories`",
    ),
    "one category in two spellings": (
        "ml_inference", {"model_type": "classification", "input_data": "x", "categories": ["a b", " A  b"]},
        "All categories are the same one; name two at least - at `$.categories`",
    ),
    "several sentiments": (
        "ml_inference", {"model_type": "sentiment", "input_data": "x", "multi_label": True}, "`$.multi_label`",
    ),
    "several labels of an own model": (
        "ml_inference", {"model_type": "classification", "input_data": "x", "multi_label": True, "model": "m"},
        "`$.multi_label`",
    ),
    "an empty category": (
        "ml_inference", {"model_type": "classification", "input_data": "x", "categories": ["a", " "]},
        "The category ' ' is empty - at `$.categories[1]`",
    ),
    "a model and categories": (
        "ml_inference", {"model_type": "classification", "input_data": "x", "model": "m", "categories": ["a", "b"]},
        "leave one of the two out",
    ),
    "a path as a model": (
        "ml_inference", {"model_type": "sentiment", "input_data": "x", "model": "../m"}, "a model is named by letters",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("task_type", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(task_type: str, value: Any, message: str) -> None:
    """A wrong parameter is refused by its path."""
    with pytest.raises(msgspec.ValidationError) as raised:
        parameters.decode(task_type, json.dumps(value).encode())
    assert message in str(raised.value)


NOT_JSON = {
    "empty": b"",
    "cut": b'{"script": "x',
    "nan": b'{"script": "x", "args": NaN}',
    "infinite number": b'{"operation": "sum", "data": [1e999]}',
    "not utf-8": b'{"script": "\xff"}',
    "lone surrogate": b'{"script": "\\ud800"}',
    "deep": b'{"script": "x", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long integer": b'{"operation": "sum", "data": [' + b"9" * 10_000 + b"]}",
}


@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("task_type", sorted(parameters.PARAMETERS))
def test_not_json(task_type: str, raw: bytes) -> None:
    """Bytes that are no JSON raise one sort of exception only."""
    with pytest.raises(msgspec.ValidationError):
        parameters.decode(task_type, raw)


ACCEPTED = {
    "numbers": {"operation": "sum", "data": [1, 2.5, None]},
    "nothing": {"operation": "count", "data": []},
    "objects": {"operation": "statistics", "data": [{"a": 1, "b": "x", "c": True, "d": None}, {}]},
}


@pytest.mark.parametrize("value", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(value: dict[str, Any]) -> None:
    """Numbers with nulls, and objects of scalars, are data."""
    assert value["data"] == parameters.decode("data_processing", json.dumps(value).encode()).data


NAMES = {"data_analysis.py": True, "a-b_1.py": True, "../x.py": False, "/etc/x.py": False, "x.PY": False, ".py": False,
         "a/b.py": False, "a.b.py": False, "x.py\n": False, "é.py": False, "result = 1": False}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), NAMES.items(), ids=NAMES)
def test_script_name(script: str, expected: bool) -> None:
    """Only a plain file name ending in .py names a file; all else is source."""
    assert expected is bool(SCRIPT_NAME.fullmatch(script))


def test_schema_describes_every_field() -> None:
    """The OpenAPI page has a description and an example for each parameter; what tells Structs apart needs none."""
    for task_type in parameters.PARAMETERS:
        for struct in parameters.structs(task_type):
            _, components = msgspec.json.schema_components([struct])
            schema = components[struct.__name__]
            assert schema["description"]
            fields = schema["properties"].items()
            missing = [name for name, field in fields if not (field.get("description") and field.get("examples"))]
            assert [name for name in missing if name != parameters.tag_field(task_type)] == [], struct


def test_no_task_type_is_forgotten() -> None:
    """Each task type has a handler, and each handler its parameters."""
    assert set(parameters.PARAMETERS) == set(entry.HANDLERS)
