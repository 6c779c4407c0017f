"""Everything that is wrong with a request is named at once: where, and what to write instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.body.check import check
from engine.model.errors import InvalidRequestError
from handlers.parameters.faults import MAX_FAULTS


def faults_of(body: bytes | dict[str, Any]) -> dict[str, str]:
    """Path → message of each fault of a body."""
    with pytest.raises(InvalidRequestError) as refused:
        check(body if isinstance(body, bytes) else json.dumps(body).encode())
    return {fault.path: fault.message for fault in refused.value.errors}


def script(**parameters: Any) -> dict[str, Any]:
    return {"task_type": "custom_script", "parameters": {"script": "result = 1"} | parameters}


MANY: dict[str, tuple[dict[str, Any], set[str]]] = {
    "fields of the request": (
        script() | {"timeout_s": "soon", "memory_mib": 1, "priority": "urgent", "labels": {"a": 1, "b c": "d"}},
        {"$.timeout_s", "$.memory_mib", "$.priority", "$.labels.a", '$.labels["b c"]'},
    ),
    "the request and its parameters": (
        script(inputs={"a.csv": {"text": 1}}, arg=1) | {"timout_s": 5},
        {"$.timout_s", '$.parameters.inputs["a.csv"].text', "$.parameters.arg"},
    ),
    "what is missing and what is wrong": (
        {"task_type": "data_processing", "parameters": {"operation": "group", "data": [1, "x"], "limit": 0}},
        {"$.parameters.group_by", "$.parameters.aggregates", "$.parameters.data[1]", "$.parameters.limit"},
    ),
    "items of an array": (
        {"task_type": "ml_inference", "parameters": {"model_type": "moods", "input_data": ["a", 1, None]}},
        {"$.parameters.model_type", "$.parameters.input_data"},
    ),
    "an unknown task type, and more": (
        {"task_type": "custom_scrip", "parameters": {}, "timeout_s": -1},
        {"$.task_type", "$.timeout_s"},
    ),
    "parameters that are missing as a whole": (
        {"task_type": "custom_script", "timeout_s": 0},
        {"$.parameters", "$.timeout_s"},
    ),
    "steps of a pipeline": (
        {"task_type": "web_scraping", "parameters": {"url": "ftp://x", "extract": {"a": {"selector": 1, "attr": "b"}}}},
        {"$.parameters.url", "$.parameters.extract.a"},
    ),
}


@pytest.mark.parametrize(("body", "paths"), MANY.values(), ids=MANY)
def test_every_fault_is_named_at_once(body: dict[str, Any], paths: set[str]) -> None:
    """Each with the path of the field itself, those of the request and those of the parameters together."""
    found = faults_of(body)
    assert paths == {next((path for path in paths if place.startswith(path)), place) for place in found}


NEAR = {
    "a field": (script() | {"timout_s": 5}, "$.timout_s", "did you mean `timeout_s`?"),
    "a parameter": (script(arg=1), "$.parameters.arg", "did you mean `args`?"),
    "a task type": (script() | {"task_type": "custom_scirpt"}, "$.task_type", "did you mean `custom_script`?"),
    "an operation": (
        {"task_type": "data_processing", "parameters": {"operation": "averge", "data": []}},
        "$.parameters.operation",
        "did you mean `average`?",
    ),
    "a file in a file": (
        script(inputs={"a": {"text": ""}, "a/b/c.py": {"text": ""}}),
        "$.parameters",
        "`a` is a file, and `a/b/c.py` needs a folder of that name",
    ),
    "a file in an upload": (
        script(inputs={f"file_{0:032x}/c.py": {"text": ""}, "x": {"file_id": f"file_{0:032x}"}}),
        "$.parameters",
        "needs a folder of that name",
    ),
    "a field like none": (script(zzz=1), "$.parameters.zzz", "there are: args, inputs, script"),
}


@pytest.mark.parametrize(("body", "path", "hint"), NEAR.values(), ids=NEAR)
def test_the_nearest_name_is_asked_for(body: dict[str, Any], path: str, hint: str) -> None:
    """A slip of the pen is met with the name that was meant."""
    assert hint in faults_of(body)[path]


SYNTAX = {
    "a byte order mark": (b'\xef\xbb\xbf{"task_type":"x"}', "byte order mark"),
    "half a character, high": (b'{"a":"cut \\ud83d"}', "a lone surrogate, `\\ud83d` (byte 10)"),
    "half a character, low": (b'{"a":"cut \\ude00"}', "a lone surrogate, `\\ude00` (byte 10)"),
    "two high halves": (b'{"a":"\\ud83d\\ud83d\\ude00"}', "a lone surrogate, `\\ud83d` (byte 6)"),
    "a line break": (b'{"a":"x = 1\ny"}', "a line break stands in a text as it is (byte 11); "),
    "what to write for a line break": (b'{"a":"x = 1\ny"}', "inside a JSON text write `\\n`"),
    "a tab": (b'{"a":"x\ty"}', "write `\\t`"),
    "a control character": (b'{"a":"x\x01y"}', "write `\\u0001`"),
    "single quotes": (b"{'a':1}", "double quotes"),
    "a comma too many": (b'{"a":[1,2,]}', "a comma stands before `]`"),
    "a comma too many in an object": (b'{"a":1,}', "a comma stands before `}`"),
    "Python's truth": (b'{"a":True}', "write `true`"),
    "Python's None": (b'{"a":None}', "write `null`"),
    "not a number": (b'{"a":NaN}', "`NaN` (byte 5) is no JSON"),
    "a comment": (b'{"a":1} // first', "no comment"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "words"), SYNTAX.values(), ids=SYNTAX)
def test_what_is_no_json_is_met_with_what_to_write(body: bytes, words: str) -> None:
    """The sentence says what stands there, where, and what to write instead."""
    assert words in faults_of(body)["$"]


def test_escaped_backslashes_are_no_surrogates() -> None:
    """``\\\\ud83d`` is a backslash and five letters."""
    checked = check(b'{"task_type":"custom_script","parameters":{"script":"a = \'\\\\ud83d\'"}}')
    assert "custom_script" == checked.task_type


NUMBERS = {
    "in an object": ('{"x":[1,1e999]}', "$.parameters.args.x[1]"),
    "in an array": ("[0,0,1e999]", "$.parameters.args[2]"),
    "alone": ("-1e999", "$.parameters.args"),
    "under an odd name": ('{"a b":{"c":1e400}}', '$.parameters.args["a b"].c'),
}


@pytest.mark.parametrize(("args", "path"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_that_nothing_holds_is_named_where_it_stands(args: str, path: str) -> None:
    """Within ``args``, which are any JSON, too."""
    body = '{"task_type":"custom_script","parameters":{"script":"x","args":' + args + "}}"
    assert [path] == list(faults_of(body.encode()))


def test_a_flood_of_faults_is_cut_short() -> None:
    """Twenty are named; the rest have the same cause."""
    body = {"task_type": "data_processing", "parameters": {"operation": "sum", "data": ["x"] * 1000}}
    assert MAX_FAULTS == len(faults_of(body))
