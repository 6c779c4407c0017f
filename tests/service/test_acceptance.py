"""A request means the same over ``POST /execute``, in a batch and for ``python -m engine run``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.cli.once import not_applied, run_once
from engine.config.load import load_settings
from engine.model.errors import InvalidRequestError
from tests.support.stack import Stack, task

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "timeout_s beyond the operator's ceiling": ({"timeout_s": 4000}, "$.timeout_s", "MAX_TASK_TIMEOUT"),
    "timeout_s of nothing": ({"timeout_s": 0}, "$.timeout_s", "> 0"),
    "memory_mib beyond the operator's ceiling": ({"memory_mib": 300}, "$.memory_mib", "MAX_TASK_MEMORY_MIB"),
    "memory_mib of too little": ({"memory_mib": 63}, "$.memory_mib", ">= 64"),
    "memory_mib as text": ({"memory_mib": "64"}, "$.memory_mib", "got `str`"),
    "callback_url at another host": ({"callback_url": "https://evil.example/x"}, "$.callback_url", "N8N_WEBHOOK_URL"),
    "callback_url that is none": ({"callback_url": "n8n"}, "$.callback_url", "is no URL"),
    "label with a name of spaces": ({"labels": {"a b": "c"}}, '$.labels["a b"]', "letters, digits"),
    "label that is a number": ({"labels": {"a": 1}}, "$.labels.a", "got `int`"),
    "priority that there is not": ({"priority": "urgent"}, "$.priority", "urgent"),
    "policy that there is not": ({"policy": "none"}, "$.policy", "no such policy"),
    "task type without a policy here": (
        {"task_type": "data_processing", "parameters": {"operation": "sum", "data": [1]}},
        "$.task_type",
        "is not available here",
    ),
    "task type that there is not": ({"task_type": "none"}, "$.task_type", "no such task type"),
    "script that there is not": (
        {"parameters": {"script": "none.py"}},
        "$.parameters.script",
        "there is no script none.py",
    ),
    "file that nobody uploaded": (
        {"parameters": {"script": "x = 1", "inputs": {"a.txt": {"file_id": f"file_{0:032x}"}}}},
        "$.parameters",
        "was never uploaded",
    ),
    "field that there is not": ({"nice": 10}, "$.nice", "nice"),
}


@pytest.fixture(scope="module")
def with_callbacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service with callbacks and a ceiling of memory."""
    found = Stack(
        tmp_path_factory.mktemp("acceptance"),
        CALLBACK_SECRET="whsec_" + "A" * 32,
        N8N_WEBHOOK_URL="https://n8n.example.com/webhook",
        MAX_TASK_MEMORY_MIB="256",
    )
    yield found
    found.close()


def run(stack: Stack, body: dict[str, Any]) -> dict[str, Any]:
    """The output of ``python -m engine run``, with the settings of the service."""
    answer = asyncio.run(run_once(load_settings(stack.environ), json.dumps(body).encode()))
    return {name: getattr(answer, name) for name in answer.__struct_fields__}


@pytest.mark.parametrize(("changes", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_by_the_same_words(
    with_callbacks: Stack, changes: dict[str, Any], path: str, words: str
) -> None:
    """One acceptance stands behind all three ways in."""
    body = task("result = 1") | changes
    alone = with_callbacks.client.post("/execute", json=body)
    assert 400 == alone.status_code, alone.text
    [fault] = alone.json()["errors"]
    [item] = with_callbacks.client.post("/execute/batch", json=[body]).json()["tasks"]
    with pytest.raises(InvalidRequestError) as refusal:
        run(with_callbacks, body)
    assert path == fault["path"]
    assert words in fault["message"]
    of_batch = json.dumps(item["problem"]).replace("idempotency_key, ", "")  # a field that only items have
    assert alone.json() == json.loads(of_batch)
    assert f"{fault['path']}: {fault['message']}" == str(refusal.value)


def test_what_is_accepted_means_the_same(with_callbacks: Stack) -> None:
    """Each field has its effect, or is in the answer, whichever way the request came."""
    with_callbacks.worker()
    body = task(
        "result = 1", timeout_s=7, memory_mib=128, labels={"order": "4711"}, priority="low", policy="custom_script"
    )
    client = with_callbacks.client
    [item] = client.post("/execute/batch", json=[body]).json()["tasks"]
    alone = client.post("/execute", params={"wait": 60}, json=body).json()
    of_batch = client.get(f"/task/{item['task']['task_id']}", params={"wait": 60}).json()
    once = run(with_callbacks, body)
    for answer in (alone, of_batch):
        assert "succeeded" == answer["status"] == once["status"]
        for name in ("labels", "priority", "policy", "policy_digest", "attempts", "callback"):
            assert answer[name] == once[name], name
        for name, value in (("wall_s", 7.0), ("memory_mib", 128)):
            assert value == answer["limits"][name] == getattr(once["limits"], name)


def test_run_says_what_has_no_effect_without_a_service() -> None:
    """A callback_url or a priority is checked by ``run``, and then silently dropped by nobody."""
    body = task("result = 1", callback_url="https://n8n.example.com/webhook/1", priority="high", timeout_s=1)
    assert [
        "callback_url has no effect here: no callback is sent",
        "priority has no effect here: there is no queue",
    ] == not_applied(json.dumps(body).encode())
    assert [] == not_applied(json.dumps(task("result = 1", timeout_s=1)).encode())
