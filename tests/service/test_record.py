"""What auditors and operators ask for: who ran what, under which grant, what was denied, the last hour, the tenants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.stack import task

FORKS = "import os\ntry:\n    os.fork()\nexcept OSError:\n    result = 'denied'\n# "
NOBODY = "00000000-0000-0000-0000-000000000000"


def run(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    return dict(client.post("/execute", json=body, params={"wait": 60}, headers=headers).json())


@pytest.fixture(scope="module")
def denied(client: httpx.Client) -> dict[str, Any]:
    """A task that tried to start a process; its source is nobody else's."""
    source = f"{FORKS}{uuid4()}"
    body = task(source, labels={"of": "record"}, priority="low", timeout_s=7)
    answer = run(client, body, **{"x-request-id": f"record-{uuid4()}"})
    assert "denied" == answer["result"], answer
    return {"body": body, "task": answer, "sha256": hashlib.sha256(source.encode()).hexdigest()}


def test_attempts_name_who_where_and_what_was_denied(client: httpx.Client, denied: dict[str, Any]) -> None:
    """The attempt that ended the task, under the very file of its policy, and the denial in words."""
    answer = client.get(f"/task/{denied['task']['task_id']}/attempts").json()
    submitted, [attempt] = answer["submitted"], answer["attempts"]
    assert (None, "127.0.0.1", "custom_script", denied["sha256"]) == tuple(
        submitted[name] for name in ("key_id", "client_address", "policy", "source_sha256")
    )
    assert submitted["request_id"].startswith("record-")
    assert (1, "finished", "ok", denied["task"]["policy_digest"]) == tuple(
        attempt[name] for name in ("attempt", "ended", "exit_reason", "policy_digest")
    )
    assert {one["syscall"]: one["count"] for one in denied["task"]["violations"]} == attempt["denied"]["calls"]
    assert any("limits.processes" in sentence for sentence in attempt["denied"]["words"])
    assert 404 == client.get(f"/task/{NOBODY}/attempts").status_code


def test_request_is_what_was_sent_and_can_be_sent_again(client: httpx.Client, denied: dict[str, Any]) -> None:
    """The parameters byte for byte: numbers that no other reader would keep are still there."""
    found = client.get(f"/task/{denied['task']['task_id']}/request").json()
    assert denied["body"] == {name: value for name, value in found.items() if name in denied["body"]}
    again = run(client, found)
    assert ("succeeded", {"of": "record"}, "low") == (again["status"], again["labels"], again["priority"])
    body = b'{"task_type":"data_processing","parameters":{"operation":"sum","data":[1.10,12345678901234567890123]}}'
    sent = client.post("/execute", content=body, headers={"content-type": "application/json"}).json()
    assert b"[1.10,12345678901234567890123]" in client.get(f"/task/{sent['task_id']}/request").content
    assert 404 == client.get(f"/task/{NOBODY}/request").status_code


def test_tasks_are_found_by_the_hash_of_their_script(client: httpx.Client, denied: dict[str, Any]) -> None:
    """By its beginning, with other filters, and a named script's once it has run."""
    own = denied["task"]["task_id"]

    def ids(**query: Any) -> set[str]:
        return {one["task_id"] for one in client.get("/tasks", params=query).json()["tasks"]}

    sha256 = denied["sha256"]
    assert own in ids(source_sha256=sha256)
    assert own in ids(source_sha256=sha256[:8].upper(), status="succeeded", label="of:record")
    assert set() == ids(source_sha256=sha256, status="failed")
    assert {own} == ids(source_sha256=sha256, task_id=own[:13])
    assert set() == ids(source_sha256=hashlib.sha256(b"of nobody").hexdigest(), task_id=own[:13])
    assert set() == ids(key_id="000000000000")
    named = {"script": "data_analysis.py", "args": {"data": [{"x": 1}, {"x": 2}], "operation": "statistics"}}
    answer = run(client, {"task_type": "custom_script", "parameters": named})
    assert answer["task_id"] in ids(source_sha256=answer["script"]["sha256"])
    for wrong in ("", "abc", "x" * 64):
        assert 400 == client.get("/tasks", params={"source_sha256": wrong}).status_code


def test_audit_says_who_ran_what_and_what_was_denied(client: httpx.Client, denied: dict[str, Any]) -> None:
    """One item answers it: key, request, hash of the source, digest of the policy, and the denial."""
    answer = client.get("/audit", params={"source_sha256": denied["sha256"], "denied": "true", "limit": 1}).json()
    [item] = answer["tasks"]
    assert (denied["sha256"], "default", denied["task"]["policy_digest"]) == tuple(
        item[name] for name in ("source_sha256", "tenant", "policy_digest")
    )
    assert any("limits.processes" in sentence for sentence in item["denied"]["words"])
    assert [] == client.get("/audit", params={"tenant": "nobody"}).json()["tasks"]
    assert [] == client.get("/audit", params={"policy": "nobody", "source_sha256": denied["sha256"]}).json()["tasks"]
    for wrong in ({"denied": "yes"}, {"tenant": "\x00"}, {"polcy": "x"}, {"cursor": "x"}, {"task_id": "0000"}):
        assert 400 == client.get("/audit", params=wrong).status_code


def test_pages_of_the_record_leave_none_out(client: httpx.Client, denied: dict[str, Any]) -> None:
    """Each task once, whatever the size of a page, as one long page has them."""
    for number in range(3):
        run(client, task(f"result = {number}", labels={"pages": denied["sha256"][:8]}))
    query: dict[str, Any] = {"label": f"pages:{denied['sha256'][:8]}"}
    whole = [one["task"]["task_id"] for one in client.get("/audit", params=query).json()["tasks"]]
    assert whole == list(_pages(client, query | {"limit": 2}))
    assert 3 == len(set(whole))


def _pages(client: httpx.Client, query: dict[str, Any]) -> Iterator[str]:
    cursor: dict[str, Any] = {}
    while True:
        answer = client.get("/audit", params=query | cursor).json()
        yield from (one["task"]["task_id"] for one in answer["tasks"])
        if answer["next_cursor"] is None:
            return
        cursor = {"cursor": answer["next_cursor"]}


def test_policy_says_who_may_use_it_and_what_it_denied(client: httpx.Client, denied: dict[str, Any]) -> None:
    """Where there are no keys, anyone; the attempt that was just denied is among the first."""
    found = client.get("/policies/custom_script/use").json()
    assert found["keys"] is None
    assert denied["task"]["task_id"] in {one["task_id"] for one in found["denials"]}
    assert 404 == client.get("/policies/nobody/use").status_code


def test_difference_of_two_policies_says_what_is_looser(client: httpx.Client) -> None:
    """One way looser, the other way tighter; nothing differs from itself."""

    def hosts(one: str, other: str) -> set[str]:
        changes = client.get(f"/policies/{one}/diff", params={"to": other}).json()["changes"]
        return {change["direction"] for change in changes if change["key"] == "network.allow"}

    assert ({"looser"}, {"tighter"}) == (
        hosts("custom_script", "custom_script_network"), hosts("custom_script_network", "custom_script"),
    )  # fmt: skip
    assert set() == hosts("custom_script", "custom_script")
    assert (400, 404) == (
        client.get("/policies/custom_script/diff").status_code,
        client.get("/policies/custom_script/diff", params={"to": "nobody"}).status_code,
    )


def test_policy_is_compared_with_its_older_files(client: httpx.Client, denied: dict[str, Any]) -> None:
    """The file that a task ran under is kept: here the same as now's. One that was never in force is not found."""

    def since(digest: str) -> httpx.Response:
        return client.get("/policies/custom_script/diff", params={"since": digest})

    assert {"changes": []} == since(denied["task"]["policy_digest"]).json()
    assert 404 == since("sha256:0").status_code
    assert 404 == since("\0").status_code
    both = {"since": "sha256:0", "to": "custom_script"}
    assert 400 == client.get("/policies/custom_script/diff", params=both).status_code


def test_policies_stand_against_the_lock(client: httpx.Client) -> None:
    """Those that are delivered are signed off."""
    assert {"signed off"} == {one["lock"] for one in client.get("/policies").json()["policies"]}


def test_last_hour_counts_what_ended(client: httpx.Client, denied: dict[str, Any]) -> None:
    """Sixty minutes; the task that ended just now is in one of them, with its times."""
    found = client.get("/history").json()
    assert (60, True) == (len(found["minutes"]), found["is_whole"])
    busy = [minute for minute in found["minutes"] if minute["ended"]]
    assert busy
    assert all(0 <= minute["waited_p50_s"] <= minute["took_p50_s"] <= minute["took_p95_s"] for minute in busy)
    assert all(minute["took_p95_s"] is None for minute in found["minutes"] if not minute["ended"])


def test_tenants_say_what_waits_and_what_is_stored(client: httpx.Client, denied: dict[str, Any]) -> None:
    """The same bytes as ``GET /files`` names."""
    [tenant] = [one for one in client.get("/tenants").json()["tenants"] if one["tenant"] == "default"]
    assert ("default", 10_240) == (tenant["tenant"], tenant["stored_mib"])
    assert tenant["stored_bytes"] > 0


def test_audit_log_that_is_elsewhere_is_said_to_be(client: httpx.Client) -> None:
    """Without AUDIT_LOG its lines are among the other log lines."""
    answer = client.get("/audit/log")
    assert (200, False, []) == (answer.status_code, answer.json()["is_kept"], answer.json()["lines"])
    assert 400 == client.get("/audit/log", params={"cursor": "-1"}).status_code
