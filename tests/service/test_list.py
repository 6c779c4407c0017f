"""GET /tasks: filters, pages that neither repeat nor leave out, and nothing but what was asked for."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.stack import task


@pytest.fixture(scope="module")
def mark(client: httpx.Client) -> str:
    """A label of twelve tasks: ten that succeed, one that fails, one of another type."""
    name = f"mark-{uuid4()}"
    tasks = [task(f"result = {number}", labels={"mark": name, "n": str(number)}) for number in range(10)]
    tasks.append(task("raise ValueError", labels={"mark": name}, priority="high"))
    tasks.append(
        {"task_type": "data_processing", "parameters": {"operation": "sum", "data": [1]}, "labels": {"mark": name}}
    )
    for item in client.post("/execute/batch", json=tasks).json()["tasks"]:
        client.get(f"/task/{item['task']['task_id']}", params={"wait": 30})
    return name


def found(client: httpx.Client, mark: str, **more: Any) -> list[dict[str, Any]]:
    answer = client.get("/tasks", params={"label": f"mark:{mark}", **more})
    assert 200 == answer.status_code, answer.text
    return list(answer.json()["tasks"])


def test_list_shows_tasks_without_their_answers(client: httpx.Client, mark: str) -> None:
    """The newest first, light."""
    tasks = found(client, mark)
    assert 12 == len(tasks)
    times = [item["created_at"] for item in tasks]
    assert sorted(times, reverse=True) == times
    assert {
        "task_id", "task_type", "status", "exit_reason", "policy", "priority", "labels", "attempts", "created_at",
        "started_at", "finished_at",
    } == tasks[0].keys()  # fmt: skip


def test_filters_leave_out_what_they_say(client: httpx.Client, mark: str) -> None:
    """Each by itself and together; a label is exact."""
    assert 11 == len(found(client, mark, status="succeeded"))
    assert 12 == len(found(client, mark, status=["succeeded", "failed"]))
    assert ["error"] == [item["exit_reason"] for item in found(client, mark, exit_reason="error")]
    assert ["data_processing"] == [item["task_type"] for item in found(client, mark, task_type="data_processing")]
    assert ["7"] == [item["labels"]["n"] for item in found(client, mark, label=[f"mark:{mark}", "n:7"])]
    assert [] == found(client, mark, label=f"mark:{mark[:-1]}")
    assert [] == found(client, mark, status="queued")


def test_the_beginning_of_an_id_finds_its_task(client: httpx.Client, mark: str) -> None:
    """With any number of its characters, in either case; what is no beginning of one is refused."""
    task_id = found(client, mark)[0]["task_id"]
    for length in (4, 8, 9, 17, 36):
        listed = found(client, mark, task_id=task_id[:length].upper())
        assert task_id in [item["task_id"] for item in listed]
        assert all(item["task_id"].startswith(task_id[:length]) for item in listed)
    for wrong in ("", "x", task_id[:3], "6b69-", task_id + "0", "6b690294 "):
        assert 400 == client.get("/tasks", params={"task_id": wrong}).status_code, wrong


def test_times_bound_the_list(client: httpx.Client, mark: str) -> None:
    """From a time on, inclusive; before a time, exclusive; with an offset."""
    middle = found(client, mark)[5]["created_at"]
    later = found(client, mark, created_after=middle)
    earlier = found(client, mark, created_before=middle)
    assert 12 == len(later) + len(earlier)
    assert all(datetime.fromisoformat(item["created_at"]) >= datetime.fromisoformat(middle) for item in later)


def test_pages_neither_repeat_nor_leave_out(client: httpx.Client, mark: str) -> None:
    """Although tasks of one batch were made at the same moment."""
    ids, cursor = [], None
    while True:
        params: dict[str, Any] = {"label": f"mark:{mark}", "limit": 5} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/tasks", params=params).json()
        ids += [item["task_id"] for item in answer["tasks"]]
        if (cursor := answer["next_cursor"]) is None:
            break
        client.post("/execute", json=task("result = 1", labels={"mark": "another"}))
    assert [item["task_id"] for item in found(client, mark)] == ids


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("task_type", "custom"),
        ("exit_reason", "bad"),
        ("label", "without-colon"),
        ("label", ":value"),
        ("created_after", "yesterday"),
        ("created_after", "9999-12-31T23:59:59-23:59"),
        ("created_before", "0001-01-01T00:00:00+23:59"),
        ("created_before", "2026-01-01T00:00:00"),
        ("limit", "0"),
        ("limit", "501"),
        ("limit", "ten"),
        ("limit", "5000000000"),
        ("cursor", "x"),
        ("cursor", "é"),
        ("cursor", base64.urlsafe_b64encode(b"2026-01-01T00:00:00+00:00 1").decode()),
        ("tenant", "other"),
    ],
)
def test_parameter_that_cannot_be_is_named(client: httpx.Client, name: str, value: str) -> None:
    """400 with the parameter's name, whether it is unknown or its value is."""
    answer = client.get("/tasks", params={name: value})
    assert (400, name) == (answer.status_code, answer.json()["errors"][0]["path"])


def test_parameter_given_twice_is_refused(client: httpx.Client) -> None:
    """Where two values mean nothing."""
    assert 400 == client.get("/tasks", params={"limit": ["1", "2"]}).status_code
