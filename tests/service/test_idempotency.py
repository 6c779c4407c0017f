"""The same key and request: the same task. The same key and another request: 409."""

from __future__ import annotations

import json
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


SAME = {
    "names in another order": ('{"a":1,"b":[1,2]}', '{"b":[1,2],"a":1}'),
    "blanks": ('{"a":1}', '{ "a" :\n1 }'),
    "escapes": ('"é"', '"\\u00e9"'),
    "the spelling of a number": ("100.0", "1e2"),
    "names within names": ('[{"x":{"p":1,"q":2}}]', '[{"x":{"q":2,"p":1}}]'),
}
OTHER = {
    "an array in another order": ("[1,2]", "[2,1]"),
    "another number": ("1", "2"),
    "a whole number and a fraction": ("1", "1.0"),
    "a number and a text": ("1", '"1"'),
    "a name more": ('{"a":1}', '{"a":1,"b":null}'),
    "nothing and null": ("{}", "null"),
}


def _twice(client: httpx.Client, first: str, second: str) -> tuple[httpx.Response, httpx.Response]:
    headers = {"Idempotency-Key": str(uuid4()), "Content-Type": "application/json"}
    body = '{"task_type":"custom_script","parameters":{"script":"result=1","args":%s}}'
    return client.post("/execute", content=(body % first).encode(), headers=headers), client.post(
        "/execute", content=(body % second).encode(), headers=headers
    )


@pytest.mark.parametrize(("first", "second"), SAME.values(), ids=SAME)
def test_json_of_the_same_meaning_is_the_same_request(client: httpx.Client, first: str, second: str) -> None:
    """An object's names have no order, and JSON has many spellings: RFC 8259."""
    made, repeated = _twice(client, first, second)
    assert made.json()["task_id"] == repeated.json()["task_id"]
    assert "true" == repeated.headers["Idempotent-Replay"]


@pytest.mark.parametrize(("first", "second"), OTHER.values(), ids=OTHER)
def test_json_of_another_meaning_is_another_request(client: httpx.Client, first: str, second: str) -> None:
    """A request under the same key that could give another result is refused."""
    made, refused = _twice(client, first, second)
    assert (202, 409) == (made.status_code, refused.status_code)


def test_large_requests_are_compared_by_their_meaning_too(client: httpx.Client) -> None:
    """Those that the checking process reads."""
    rows = [{"a": number, "b": "x" * 50} for number in range(4000)]
    turned = [{"b": row["b"], "a": row["a"]} for row in rows]
    made, repeated = _twice(client, json.dumps(rows), json.dumps(turned))
    assert made.json()["task_id"] == repeated.json()["task_id"]


def test_two_keys_are_told_that_they_are_two(client: httpx.Client) -> None:
    """The sentence names what is wrong, not the rule for one key."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
    refused = client.post(
        "/execute", content=b'{"task_type":"custom_script","parameters":{"script":"x"}}', headers=headers
    )
    assert 400 == refused.status_code
    assert "must be given once" in refused.json()["detail"]
