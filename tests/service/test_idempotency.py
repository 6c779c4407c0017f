"""The same key and request: the same task. The same key and another request: 409."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.stack import task


def post(client: httpx.Client, body: dict[str, Any], key: str, wait_s: float = 0) -> httpx.Response:
    return client.post("/execute", json=body, headers={"Idempotency-Key": key}, params={"wait": wait_s})


def test_repeated_request_is_answered_with_its_task(client: httpx.Client) -> None:
    """The second is marked as a replay, waits like the first, and nothing runs twice."""
    key, body = f"key-{uuid4()}", task("result = 1", labels={"b": "1", "a": "2"})
    first = post(client, body, key)
    assert 202 == first.status_code
    assert "idempotent-replay" not in first.headers
    again = post(client, body | {"labels": {"a": "2", "b": "1"}}, key, wait_s=20)
    assert (200, "true") == (again.status_code, again.headers["idempotent-replay"])
    assert first.json()["task_id"] == again.json()["task_id"]
    assert ("succeeded", 1) == (again.json()["status"], again.json()["attempts"])
    assert first.headers["location"] == again.headers["location"]


@pytest.mark.parametrize(
    "other",
    [task("result = 2"), task("result = 1", priority="high"), task("result = 1", timeout_s=5), task("result = 1 ")],
)
def test_key_of_another_request_is_409(client: httpx.Client, other: dict[str, Any]) -> None:
    """Whatever differs: nothing is run under a key that stands for something else."""
    key = f"key-{uuid4()}"
    assert 202 == post(client, task("result = 1"), key).status_code
    answer = post(client, other, key)
    assert (409, "urn:unityai:problem:conflict") == (answer.status_code, answer.json()["type"])


def test_hundred_at_once_are_one_task(client: httpx.Client) -> None:
    """JOB-13: 100 concurrent requests under one key."""
    key, body = f"key-{uuid4()}", task("result = 1")
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: post(client, body, key), range(100)))
    assert {200, 202} >= {answer.status_code for answer in answers}
    assert 1 == len({answer.json()["task_id"] for answer in answers})
    assert 99 == sum(answer.headers.get("idempotent-replay") == "true" for answer in answers)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_key_of_another_form_is_400(client: httpx.Client, key: str) -> None:
    """A key is visible ASCII, up to 255 characters; it is named as what is wrong."""
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = client.post("/execute", json=task("result = 1"), headers=headers)
    assert (400, "Idempotency-Key") == (answer.status_code, answer.json()["errors"][0]["path"])


def test_two_keys_in_one_request_are_400(client: httpx.Client) -> None:
    """Two readers must not choose differently."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert 400 == client.post("/execute", json=task("result = 1"), headers=headers).status_code
