"""POST /execute/batch: one answer each, and what is wrong with one says nothing of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.stack import Stack, ask, task


def batch(client: httpx.Client, tasks: Any) -> httpx.Response:
    return client.post("/execute/batch", json=tasks)


def ended(client: httpx.Client, task_id: str) -> dict[str, Any]:
    return dict(client.get(f"/task/{task_id}", params={"wait": 30}).json())


def test_each_task_has_its_answer_in_order(client: httpx.Client) -> None:
    """Good ones run, each with its own parameters; a bad one has its problem, with a path within itself."""
    bad = [{"task_type": "custom_script"}, task("x", timeout_s=1e9), {"task_type": "none", "parameters": {}}, 7]
    tasks = [task(f"result = {number}", labels={"n": str(number)}) for number in range(20)]
    answer = batch(client, [*tasks[:10], *bad, *tasks[10:]])
    assert 200 == answer.status_code
    items = answer.json()["tasks"]
    assert [202] * 10 + [400] * 4 + [202] * 10 == [item["status"] for item in items]
    paths = [item["problem"]["errors"][0]["path"] for item in items[10:14]]
    assert ["$.parameters", "$.timeout_s", "$.task_type", "$"] == paths
    accepted = [item["task"] for item in items if item["status"] == 202]
    assert [str(number) for number in range(20)] == [item["labels"]["n"] for item in accepted]
    assert list(range(20)) == [ended(client, item["task_id"])["result"] for item in accepted]


def test_thousand_tasks_are_accepted_and_one_more_is_not(tmp_path: Path) -> None:
    """The most that a batch may have, whose text is beyond what is checked at once. One of them is let run."""
    stack = Stack(tmp_path)
    try:
        tasks = [task(f"result = {number}  # {'x' * 200}", priority="low") for number in range(1000)]
        items = batch(stack.client, tasks).json()["tasks"]
        assert {202} == {item["status"] for item in items}
        ids = [item["task"]["task_id"] for item in items]
        assert 1000 == len(set(ids))
        answer = batch(stack.client, [*tasks, tasks[0]])
        assert (400, "$") == (answer.status_code, answer.json()["errors"][0]["path"])
        dsn = stack.environ["DATABASE_URL"]
        assert 1000 == ask(dsn, "SELECT count(*) FROM tasks WHERE status = 'queued'")[0][0]
        ask(dsn, f"DELETE FROM tasks WHERE task_id <> '{ids[777]}'")
        stack.worker()
        assert 777 == ended(stack.client, ids[777])["result"]
    finally:
        stack.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"[", b"null", b'{"tasks": []}', b"\xff", b"[" * 10_000])
def test_body_that_is_no_batch_is_400(client: httpx.Client, body: bytes) -> None:
    """The whole is refused when it is no array of tasks."""
    answer = client.post("/execute/batch", content=body, headers={"content-type": "application/json"})
    assert (400, "$") == (answer.status_code, answer.json()["errors"][0]["path"])


def test_name_given_twice_in_a_task_is_400_for_that_task(client: httpx.Client) -> None:
    """As for a single one: two readers must not understand one task differently."""
    twice = b'{"task_type":"custom_script","parameters":{"script":"result = 1"},"timeout_s":1,"timeout_s":2}'
    body = b"[" + twice + b',{"task_type":"custom_script","parameters":{"script":"result = 1"}}]'
    answer = client.post("/execute/batch", content=body, headers={"content-type": "application/json"})
    assert [400, 202] == [item["status"] for item in answer.json()["tasks"]]


def test_keys_of_a_batch_are_those_of_single_tasks(client: httpx.Client) -> None:
    """Same key and request: the same task, in one batch, in two, or alone. Another request: 409 for that one."""
    key, body = f"key-{uuid4()}", task("result = 1")
    keyed, other = body | {"idempotency_key": key}, task("result = 2", idempotency_key=key)
    items = batch(client, [keyed, keyed, other]).json()["tasks"]
    first, second, third = (item["status"] for item in items)
    assert (202, 409) == (first, third)
    assert second in (200, 202)  # the first may have ended meanwhile
    again = batch(client, [keyed]).json()["tasks"][0]
    alone = client.post("/execute", json=body, headers={"Idempotency-Key": key})
    assert "true" == alone.headers["idempotent-replay"]
    ids = {items[0]["task"]["task_id"], items[1]["task"]["task_id"], again["task"]["task_id"], alone.json()["task_id"]}
    assert 1 == len(ids)


def test_unknown_file_is_400_for_the_task_that_names_it(client: httpx.Client) -> None:
    """Files are looked for once for all, and missed by each for itself."""
    known = client.post("/files", content=b"text").json()["file_id"]
    tasks = [
        {"task_type": "document_processing",
         "parameters": {"document_type": "txt", "operation": "extract_text", "content": {"file_id": file_id}}}
        for file_id in (known, f"file_{'0' * 32}")
    ]  # fmt: skip
    items = batch(client, tasks).json()["tasks"]
    assert [202, 400] == [item["status"] for item in items]
    assert "succeeded" == ended(client, items[0]["task"]["task_id"])["status"]


def test_batch_of_megabytes_is_accepted(client: httpx.Client) -> None:
    """A slow statement on a healthy database does not make it unreachable."""
    tasks = [
        {"task_type": "custom_script", "parameters": {"script": "result = len(args)", "args": "x" * (1 << 20)}}
        for _ in range(30)
    ]
    items = batch(client, tasks).json()["tasks"]
    assert [202] * 30 == [item["status"] for item in items]
    assert 1 << 20 == ended(client, items[-1]["task"]["task_id"])["result"]
