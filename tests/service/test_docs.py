"""Health, the OpenAPI document and the page made of it."""

from __future__ import annotations

import re
from typing import Any

import httpx

from handlers.parameters.registry import PARAMETERS


def test_health_names_dependencies_workers_and_layers(client: httpx.Client) -> None:
    """Health says how each dependency is, who works, and behind which layers."""
    response = client.get("/health")
    health = response.json()
    assert (200, "ok") == (response.status_code, health["status"])
    assert ("ok", "ok") == (health["database"]["status"], health["redis"]["status"])
    assert {"namespaces", "landlock", "seccomp", "rlimits"} <= set(health["workers"][0]["isolation"]["layers"])
    assert {"queued", "running", "oldest_wait_s", "free_slots"} == set(health["queue"])
    assert 200 == client.get("/health/live").status_code
    assert 200 == client.get("/health/ready").status_code


def test_openapi_describes_each_task_type(client: httpx.Client) -> None:
    """The request is a ``oneOf`` with a discriminator, each option with its own parameters and an example."""
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    request = schemas["ExecuteRequest"]
    assert "3.1.0" == document["openapi"]
    assert set(PARAMETERS) == set(request["discriminator"]["mapping"])
    assert len(request["oneOf"]) == len(request["discriminator"]["mapping"])
    for task_type, ref in request["discriminator"]["mapping"].items():
        option = schemas[ref.rpartition("/")[2]]
        assert task_type == option["properties"]["task_type"]["const"]
        assert {"task_type", "parameters"} == set(option["required"])
    body = document["paths"]["/execute"]["post"]["requestBody"]["content"]["application/json"]
    assert set(PARAMETERS) == set(body["examples"])


def test_openapi_describes_each_operation_over_data(reader: httpx.Client) -> None:
    """A ``oneOf`` with a discriminator: each operation has its own fields only, and an example that succeeds."""
    schemas = reader.get("/openapi.json").json()["components"]["schemas"]
    union = schemas["DataProcessing"]
    mapping = union["discriminator"]["mapping"]
    assert "operation" == union["discriminator"]["propertyName"]
    assert list(mapping.values()) == [option["$ref"] for option in union["oneOf"]]
    assert {"operation", "data", "method"} == set(schemas["DataCorrelation"]["properties"])
    tasks = []
    for operation, ref in mapping.items():
        (example,) = schemas[ref.rpartition("/")[2]]["examples"]
        assert operation == example["operation"]
        tasks.append({"task_type": "data_processing", "parameters": example})
    items = reader.post("/execute/batch", json=tasks).json()["tasks"]
    for item, task in zip(items, tasks, strict=True):
        answer = reader.get(f"/task/{item['task']['task_id']}", params={"wait": 60}).json()
        assert "ok" == answer["exit_reason"], (task, answer)


def test_examples_of_openapi_run(reader: httpx.Client) -> None:
    """Each example of the document succeeds when it is sent, in production and with a key.

    The page of web_scraping lies on the Internet: where no way leads there, the answer says so by its code.
    """
    document = reader.get("/openapi.json").json()
    body = document["paths"]["/execute"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        answer = reader.post("/execute", params={"wait": 60}, json=example["value"]).json()
        if example["value"]["task_type"] == "web_scraping" and answer["exit_reason"] == "error":
            assert answer["error"]["code"] in ("connection_failed", "dns_failed", "timeout"), answer
        else:
            assert "ok" == answer["exit_reason"], answer


def test_openapi_refers_to_nothing_that_is_missing(client: httpx.Client) -> None:
    """Each ``$ref`` of the document has its target, and each call an operation id of its own."""
    document = client.get("/openapi.json").json()
    refs = {ref.rpartition("/")[2] for ref in _values(document, "$ref")}
    operations = _values(document, "operationId")
    assert set() == refs - set(document["components"]["schemas"])
    assert len(operations) == len(set(operations))


def test_answers_have_the_fields_of_openapi(client: httpx.Client) -> None:
    """The documented fields are those that are sent."""
    document = client.get("/openapi.json").json()
    body = {"task_type": "custom_script", "parameters": {"script": "result = 1"}}
    answer = client.post("/execute", params={"wait": 60}, json=body).json()
    assert set(document["components"]["schemas"]["CustomScriptTask"]["properties"]) == set(answer)


def test_docs_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    """The page works offline: no script, no image, no address outside this service."""
    page = client.get("/docs")
    assert "text/html; charset=utf-8" == page.headers["content-type"]
    assert [] == re.findall(
        r"(?:src|href|action)=\S?(?:https?:)?//|<script|<img|<link|<iframe|@import|url\(", page.text
    )
    assert "script-src" not in page.headers["content-security-policy"]
    for word in ("POST", "/execute", "/task/{task_id}", "CustomScript", "DataProcessing", "python -m engine keys new"):
        assert word in page.text


def test_docs_page_leads_to_each_call_and_marks_code(client: httpx.Client) -> None:
    """Every link within the page has its place, each call one in the list of contents; no backtick is left."""
    page = client.get("/docs").text
    document = client.get("/openapi.json").json()
    targets, places = set(re.findall(r'href="#([^"]+)"', page)), set(re.findall(r'id="([^"]+)"', page))
    assert targets <= places
    assert set(_values(document, "operationId")) <= targets
    without_examples = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert "`" not in without_examples


def _values(part: Any, name: str) -> list[str]:
    """Every value of a name anywhere in a document."""
    if isinstance(part, dict):
        own = [part[name]] if isinstance(part.get(name), str) else []
        return own + [found for value in part.values() for found in _values(value, name)]
    if isinstance(part, list):
        return [found for value in part for found in _values(value, name)]
    return []
