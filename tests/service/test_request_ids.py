"""Request ids: the client's own when it is well-formed, on each line of the log and in the answer."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from tests.support.stack import Stack, task, until

MADE = re.compile(r"[0-9a-f]{32}")


def test_own_id_is_kept_and_answered(client: httpx.Client) -> None:
    """A well-formed id comes back, with errors too."""
    for path in ("/health/live", "/nothing", "/task/x"):
        response = client.get(path, headers={"X-Request-ID": "client-chosen.01_a"})
        assert ["client-chosen.01_a"] == response.headers.get_list("x-request-id")


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"short",
        b"a" * 65,
        b"a" * 100_0,
        b"has a space in it",
        b'quote"-in-it-1',
        b"angle<script>-1",
        b"-starts-with-a-dash",
        b"..-dots-in-front",
        b"\xc3\xa9l\xc3\xa8ve-number-one",
        b"\xd9\xa1\xd9\xa2\xd9\xa3\xd9\xa4\xd9\xa5\xd9\xa6\xd9\xa7\xd9\xa8",
        b"tab\tin-the-middle",
        b"%0d%0aSet-Cookie:x=1",
    ],
)
def test_malformed_id_is_replaced(client: httpx.Client, given: bytes) -> None:
    """An id that could forge a log line is dropped: the answer has one of ours."""
    response = client.get("/health/live", headers={b"X-Request-ID": given})
    [answered] = response.headers.get_list("x-request-id")
    assert MADE.fullmatch(answered)


def test_id_that_is_given_twice_is_replaced(client: httpx.Client) -> None:
    """Two proxies could each mean another one."""
    response = client.get("/health/live", headers=[("X-Request-ID", "first-one-01"), ("X-Request-ID", "second-one-2")])
    assert MADE.fullmatch(response.headers["x-request-id"])


def test_ids_of_ours_differ(client: httpx.Client) -> None:
    """Each request without an id has one of its own, refused ones too."""
    answers = [client.get("/health/live"), client.get("/nothing"), client.patch("/health/live")]
    assert 3 == len({response.headers["x-request-id"] for response in answers})


def test_log_ties_request_and_task_together(stack: Stack) -> None:
    """One line for the request with both ids; whatever a client writes, each line is one JSON object."""
    evil = '\n{"level":"error","event":"forged"}\r\u2028'
    stack.client.get(f"/task/{'%0a' * 3}", headers={"User-Agent": "x"})
    headers = {"X-Request-ID": "request-with-a-task"}
    body = task("result = 1", labels={"a": "b"})
    task_id = stack.client.post("/execute", json=body, headers=headers).json()["task_id"]
    last = {"X-Request-ID": "request-at-the-end"}
    stack.client.post("/execute", json={"task_type": evil, "parameters": {evil: evil}}, headers=last)
    until(lambda: "request-at-the-end" in stack.api.log.read_text(), "the line of the last request")
    lines = [json.loads(line) for line in stack.api.log.read_text().splitlines()]
    [request] = [line for line in lines if line.get("request_id") == "request-with-a-task"]
    assert (task_id, "POST", 202) == (request["task_id"], request["method"], request["status"])
    assert [] == [line for line in lines if line["event"] == "forged" or line.get("level") == "error"]
    plain = [line for line in lines if "chain" not in line]  # the others are the audit's, which has no levels
    assert all({"timestamp", "level", "event"} <= line.keys() for line in plain)


def test_worker_says_which_task_each_line_is_about(stack: Stack) -> None:
    """Each log line of an attempt has the task's id; nothing that the run prints is in the log."""
    worker = stack.worker()
    script = 'print("printed-by-the-run")\nraise ValueError("said-by-the-run")'
    task_id = stack.client.post("/execute", params={"wait": 30}, json=task(script)).json()["task_id"]
    text = worker.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    ended = [line for line in lines if line["event"] == "attempt ended" and line.get("logger") != "audit"]
    assert [(task_id, 1, "error")] == [(line["task_id"], line["attempt"], line["exit_reason"]) for line in ended]
    assert "printed-by-the-run" not in text
    assert "said-by-the-run" not in text
