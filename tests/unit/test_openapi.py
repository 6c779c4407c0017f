"""The OpenAPI document as data: every answer is typed and has an example, and the examples are what the types say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from engine.api.docs.answers import read_examples
from engine.api.docs.examples import EXAMPLES
from engine.api.docs.results import RESULTS
from handlers.parameters.registry import PARAMETERS, structs, tag_field
from tests.support.openapi import document, result_checks, validator

JSON = ("application/json", "application/problem+json")


def answers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each answer that is JSON: its name, and what the document says of it."""
    for methods in document()["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                for media_type, content in response.get("content", {}).items():
                    if media_type in JSON and operation["operationId"] != "getOpenAPI":
                        yield f"{operation['operationId']} {status}", content


ANSWERS = dict(answers())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_has_examples_that_its_schema_takes(name: str) -> None:
    """Without a field that the schema does not name, and without one lacking."""
    content = ANSWERS[name]
    check = validator(content["schema"], closed=True)
    examples = content["examples"]
    assert examples
    for example in examples.values():
        check.validate(example["value"])


def test_every_written_example_is_shown() -> None:
    """None is of a call or a status that there is not."""
    statuses = {name.split()[1] for name in ANSWERS}
    known = {*ANSWERS, *(f"problem {status}" for status in statuses)}
    assert set() == read_examples().keys() - known


def test_every_result_has_its_type() -> None:
    """One for each operation and model type; only a script may answer with anything."""
    assert set(PARAMETERS) - {"custom_script"} == set(RESULTS)
    schemas = document()["components"]["schemas"]
    operations = {str(kind.__struct_config__.tag) for kind in structs("data_processing")}
    assert "operation" == tag_field("data_processing")
    assert operations == set(schemas["DataProcessingResult"]["discriminator"]["mapping"])
    for result, parameters, field in (
        ("DocumentProcessingResult", "DocumentProcessing", "operation"),
        ("ImageProcessingResult", "ImageProcessing", "operation"),
        ("MlInferenceResult", "MlInference", "model_type"),
    ):
        named = set(schemas[parameters]["properties"][field]["enum"])
        assert named == set(schemas[result]["discriminator"]["mapping"])


def test_the_types_of_tasks_are_told_apart() -> None:
    """By ``task_type``; the result of one is not taken for that of another."""
    schemas = document()["components"]["schemas"]
    assert set(EXAMPLES) == set(schemas["Task"]["discriminator"]["mapping"])
    tasks = read_examples()["execute 200"]
    check = validator({"$ref": "#/components/schemas/Task"}, closed=True)
    assert set(EXAMPLES) == set(tasks)
    with pytest.raises(jsonschema_rs.ValidationError):
        check.validate(tasks["data_processing"] | {"result": tasks["image_processing"]["result"]})


def test_an_answer_always_has_its_fields() -> None:
    """A client need not ask whether one is there: what is not known is null."""
    for task_type in PARAMETERS:
        name = "".join(word.capitalize() for word in task_type.split("_"))
        schema = document()["components"]["schemas"][f"{name}Task"]
        assert set(schema["properties"]) == set(schema["required"])


def test_bytes_are_typed() -> None:
    """Those that go in, raw or in a form, and those that come out."""
    bytes_ = {"type": "string", "format": "binary"}
    upload = document()["paths"]["/files"]["post"]["requestBody"]["content"]
    assert bytes_ == upload["application/octet-stream"]["schema"]
    assert bytes_ == upload["multipart/form-data"]["schema"]["properties"]["file"]
    artifact = document()["paths"]["/task/{task_id}/artifacts/{name}"]["get"]["responses"]["200"]["content"]
    assert bytes_ == artifact["application/octet-stream"]["schema"]


def test_a_result_with_another_field_is_refused_by_the_check() -> None:
    """By which the answers of the handlers' tests are held: it would see a field that nobody has described."""
    check = result_checks()["data_processing"]
    check({"operation": "sum", "rows": 3, "sum": 6})
    for wrong in ({"rows": 3, "sum": 6}, {"operation": "sum", "rows": 3, "sum": 6, "more": 1}, {"operation": "mean"}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check(wrong)


def test_patterns_are_those_of_json_schema() -> None:
    """Its expressions have no ``\\A`` and ``\\Z``: a generated client would take a label for wrong, or not start."""
    labels = validator({"$ref": "#/components/schemas/Labels"})
    assert labels.is_valid({"a/b": "Zürich"})
    for wrong in ({"a b": ""}, {"": ""}, {"a\n": ""}, {"a": "\n"}):
        assert not labels.is_valid(wrong)
