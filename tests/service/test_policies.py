"""``GET /policies``, a request that asks for less, and the audit log, through HTTP."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import pytest

from tests.support.stack import ROOT, Stack, task


def test_policies_are_listed_with_their_digests(client: httpx.Client) -> None:
    """Of the very bytes of the files."""
    listed = client.get("/policies").json()["policies"]
    digests = {
        path.stem: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "policies").glob("*.toml")
    }
    assert digests == {policy["name"]: policy["digest"] for policy in listed}


def test_a_policy_is_shown_whole_with_what_is_in_force(client: httpx.Client) -> None:
    """The same page as on the command line."""
    shown = client.get("/policies/custom_script").json()
    page = (ROOT / "tests/unit/golden/policy_show/custom_script.txt").read_text()
    assert (page, 512, 60.0) == (
        shown["text"],
        shown["policy"]["limits"]["memory_mib"],
        shown["effective_limits"]["wall_s"],
    )


@pytest.mark.parametrize("name", ["no_such", "..%2fcustom_script", "custom_script.toml"])
def test_a_policy_that_is_not_there_is_a_404(client: httpx.Client, name: str) -> None:
    """Names are looked up, never joined into a path."""
    assert 404 == client.get(f"/policies/{name}").status_code


def test_a_request_asks_for_less_memory_and_never_for_more(client: httpx.Client) -> None:
    """The answer has the policy that was in force."""
    for asked, in_force in ((128, 128), (4096, 512)):
        answer = client.post("/execute", params={"wait": 60}, json=task("result = 1", memory_mib=asked)).json()
        assert in_force == answer["limits"]["memory_mib"]
    answer = client.post("/execute", params={"wait": 60}, json=task("bytearray(200 << 20)", memory_mib=128)).json()
    assert "memory_limit" == answer["exit_reason"]


@pytest.mark.parametrize("asked", [0, -1, 63, 1.5, "128", 1 << 21])
def test_a_memory_that_cannot_be_is_refused(client: httpx.Client, asked: object) -> None:
    """With its path."""
    refused = client.post("/execute", json=task("result = 1", memory_mib=asked))
    assert (400, "$.memory_mib") == (refused.status_code, refused.json()["errors"][0]["path"])


def test_memory_beyond_the_operators_ceiling_is_refused_as_time_is(tmp_path: Path) -> None:
    """With the name of the variable that says so."""
    stack = Stack(tmp_path, MAX_TASK_MEMORY_MIB="256", MAX_TASK_TIMEOUT="30")
    try:
        for asked, variable in (({"memory_mib": 257}, "MAX_TASK_MEMORY_MIB"), ({"timeout_s": 31}, "MAX_TASK_TIMEOUT")):
            refused = stack.client.post("/execute", json=task("result = 1", **asked))
            assert (400, True) == (refused.status_code, variable in refused.json()["detail"])
        assert 256 == stack.client.get("/policies/custom_script").json()["effective_limits"]["memory_mib"]
    finally:
        stack.close()


def test_each_attempt_is_in_the_audit_log(stack: Stack, tmp_path: Path) -> None:
    """Once, after its worker's start: under which grant it ran and what it was denied; no input, no output."""
    path = tmp_path / "audit.log"
    worker = stack.worker(AUDIT_LOG=str(path), MAX_TASK_MEMORY_MIB="256")
    script = (
        "import socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass\nprint('canary-out')\nresult = 'canary-in'"
    )
    answer = stack.get(stack.submit(script)["task_id"], wait_s=60)
    assert "ok" == answer["exit_reason"], answer
    worker.stop()
    lines = path.read_text(encoding="ascii").splitlines()
    assert ["worker started", "attempt ended"] == [json.loads(line)["event"] for line in lines]
    line = lines[1]
    entry = json.loads(line)
    assert (answer["task_id"], 1, "ok", answer["policy_digest"]) == tuple(
        entry[name] for name in ("task_id", "attempt", "exit_reason", "policy_digest")
    )
    assert [{"syscall": "socket", "count": 1}] == entry["violations"]
    assert ("full", 256, []) == (entry["isolation"], entry["limits"]["memory_mib"], entry["egress"])
    assert "canary" not in line
