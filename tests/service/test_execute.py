"""``POST /execute`` and ``GET /task``: what a client sends and gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest

from tests.support.held import Held
from tests.support.stack import Stack, frozen, task, until

STATISTICS: dict[str, Any] = {
    "task_type": "data_processing",
    "parameters": {
        "operation": "statistics",
        "data": [{"value": 10, "category": "A"}, {"value": 20, "category": "B"}, {"value": 15, "category": "A"}],
    },
}
CORRELATION: dict[str, Any] = {
    "task_type": "custom_script",
    "parameters": {
        "script": "data_analysis.py",
        "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"},
    },
}


def run(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/execute", params={"wait": 60}, json=body)
    assert 200 == response.status_code, response.text
    return dict(response.json())


@pytest.mark.parametrize("body", [STATISTICS, CORRELATION], ids=["data_processing", "custom_script"])
def test_examples_of_the_interface_succeed(client: httpx.Client, body: dict[str, Any]) -> None:
    """The examples that the interface promises run as they stand."""
    answer = run(client, body)
    assert ("succeeded", "ok", 1) == (answer["status"], answer["exit_reason"], answer["attempts"])


def test_result_is_what_the_script_says(client: httpx.Client) -> None:
    """The result is the script's own JSON, untouched."""
    value = {"text": "ü\u0000\u2028", "big": 9007199254740991, "nested": [1, 2.5, None, True]}
    script = task("result = args")
    script["parameters"]["args"] = value
    assert value == run(client, script)["result"]


def test_answer_names_everything_about_the_run(client: httpx.Client) -> None:
    """A final task has usage, isolation, policy with digest, limits and times."""
    answer = run(client, task("print('hello'); result = 1", labels={"tenant": "acme"}, priority="high", timeout_s=7))
    assert {"stdout": "hello\n", "stderr": "", "truncated": False} == answer["logs"]
    assert ({"tenant": "acme"}, "high") == (answer["labels"], answer["priority"])
    assert ("custom_script", "sha256:") == (answer["policy"], str(answer["policy_digest"])[:7])
    assert 7.0 == answer["limits"]["wall_s"]
    assert {"namespaces", "landlock", "seccomp", "rlimits"} <= set(answer["isolation"]["layers"])
    assert {"wall_s", "cpu_s", "memory_peak_mib", "queue_s"} <= set(answer["usage"])
    times = [datetime.fromisoformat(str(answer[name])) for name in ("created_at", "started_at", "finished_at")]
    assert sorted(times) == times


def test_named_script_is_answered_with_its_hash(client: httpx.Client) -> None:
    """A named script's name and the hash of the bytes that ran are in the answer."""
    script = run(client, CORRELATION)["script"]
    assert ("data_analysis.py", 64) == (script["name"], len(script["sha256"]))


def test_error_of_a_script_is_the_tasks_not_the_services(client: httpx.Client) -> None:
    """A script that raises makes a failed task, answered with 200, type, message and traceback."""
    answer = run(client, task("raise ValueError('no')"))
    error = answer["error"]
    assert ("failed", "error", "ValueError", "no") == (
        answer["status"],
        answer["exit_reason"],
        error["type"],
        error["message"],
    )
    assert "/work" not in str(error)
    assert "site-packages" not in str(error)


@pytest.mark.parametrize("args", [None, [1, 2], {"operation": "no such thing"}])
def test_script_args_are_not_the_services_business(client: httpx.Client, args: object) -> None:
    """``args`` is any JSON: what a named script makes of it is its own."""
    body = {"task_type": "custom_script", "parameters": {"script": "data_analysis.py", "args": args}}
    assert run(client, body)["exit_reason"] in ("ok", "error")


def test_without_wait_the_task_is_accepted(client: httpx.Client) -> None:
    """202, a Location, and a task that is queued; it ends by itself."""
    response = client.post("/execute", json=task("result = 1"))
    answer = response.json()
    assert (202, f"/task/{answer['task_id']}") == (response.status_code, response.headers["location"])
    assert ("queued", None, None, 0) == (
        answer["status"],
        answer["exit_reason"],
        answer["result"],
        answer["attempts"],
    )
    until(lambda: client.get(response.headers["location"]).json()["status"] == "succeeded", "the task succeeds")


def test_wait_that_is_too_short_is_answered_with_202(client: httpx.Client) -> None:
    """The answer comes when the wait is over, with the task as it stands; the task goes on."""
    held = Held("hold()\nresult = 2")
    response = client.post("/execute", params={"wait": "0.3"}, json=task(held.script))
    assert 202 == response.status_code
    assert response.elapsed.total_seconds() >= 0.3
    assert response.json()["status"] in ("queued", "running")
    held.wait()
    running = client.get(response.headers["location"], params={"wait": "0.3"})
    assert ("running", True) == (running.json()["status"], running.elapsed.total_seconds() >= 0.3)
    held.tell()
    later = client.get(response.headers["location"], params={"wait": 60}).json()
    assert ("succeeded", 2) == (later["status"], later["result"])


def test_wait_beyond_the_cap_is_not_an_error(client: httpx.Client) -> None:
    """More than 300 seconds counts as 300."""
    assert 200 == client.post("/execute", params={"wait": 100000}, json=task("result = 1")).status_code


def test_timeout_of_the_request_shortens_the_run(client: httpx.Client) -> None:
    """``timeout_s`` is kept by the sandbox and named as the reason."""
    answer = run(client, task("while True: pass", timeout_s=0.5))
    assert ("failed", "wall_limit") == (answer["status"], answer["exit_reason"])


def test_ids_are_random(client: httpx.Client) -> None:
    """Ids are UUIDs of version 4: 122 random bits each."""
    ids = {client.post("/execute", json=task("result = 1")).json()["task_id"] for _ in range(20)}
    assert (20, {4}) == (len(ids), {UUID(task_id).version for task_id in ids})


def test_tasks_at_the_same_time_each_get_their_own_answer(client: httpx.Client, url: str) -> None:
    """Twenty clients that wait at once each get the result of their own task."""
    import asyncio  # noqa: PLC0415  only here

    async def ask() -> list[object]:
        async with httpx.AsyncClient(base_url=url, timeout=90) as many:
            answers = await asyncio.gather(
                *(many.post("/execute", params={"wait": 60}, json=task(f"result = {n}")) for n in range(20))
            )
            return [answer.json()["result"] for answer in answers]

    assert list(range(20)) == asyncio.run(ask())


def test_big_body_arrives_whole(client: httpx.Client) -> None:
    """Megabytes of parameters."""
    data = [{"value": n, "category": "A"} for n in range(150_000)]
    answer = run(client, {"task_type": "data_processing", "parameters": {"operation": "count", "data": data}})
    assert "ok" == answer["exit_reason"]


def test_small_calls_go_on_while_a_big_body_is_checked(stack: Stack) -> None:
    """It is checked beside the event loop, in a process of its own: here that takes until we say so."""
    big = task("result = 1")
    big["parameters"]["args"] = "x" * (1 << 20)
    assert 202 == stack.client.post("/execute", json=big).status_code
    [checker] = [
        child for child in psutil.Process(stack.api.pid).children() if "engine.api.body.check" in child.cmdline()
    ]
    with ThreadPoolExecutor(1) as threads:
        with frozen(checker.pid):
            asked = threads.submit(stack.client.post, "/execute", json=big)
            assert [200] * 20 == [stack.client.get("/health/live").status_code for _ in range(20)]
            assert [202] * 3 == [stack.client.post("/execute", json=task("1")).status_code for _ in range(3)]
            assert not asked.done()
        assert 202 == asked.result().status_code
