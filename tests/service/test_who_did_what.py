"""The audit log alone says who did what: which key ran a source, who was refused, which keys came and went."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.config.keys import NewKey, add_key, make_key, remove_key
from engine.model.principal import Scope
from engine.telemetry.audit import verify
from tests.support.stack import ROOT, Stack, task, until

KEYS = 5
TASKS = 1000
BATCH = 100


class Audited:
    """A service with keys that all write to one audit log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.log"
        self.file = folder / "keys.toml"
        self.admin = self.key("ops")
        self.stack = Stack(folder, headers=bearer(self.admin), API_KEYS_FILE=str(self.file), AUDIT_LOG=str(self.path))
        self.stack.worker()

    def key(self, tenant: str, *scopes: Scope) -> NewKey:
        made = make_key(tenant, scopes or tuple(Scope))
        add_key(self.file, made)
        return made

    def wait_for_keys(self, change: str, key_id: str) -> None:
        """Wait until the API has read the file again; asks with a key that holds, for refusals are counted."""

        def is_read() -> bool:
            assert 200 == self.stack.client.get("/tasks").status_code
            return any(key_id in entry[change] for entry in self.events("keys changed"))

        until(is_read, f"the key is {change}")

    def events(self, name: str) -> list[dict[str, Any]]:
        whole, _, _begun = self.path.read_text(encoding="ascii").rpartition("\n")  # the last line may be half written
        entries = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in entries if entry["event"] == name]

    def post(self, path: str, key: NewKey | None, **more: Any) -> httpx.Response:
        headers = {"Authorization": ""} | (bearer(key) if key else {}) | more.pop("headers", {})
        return self.stack.client.post(path, headers=headers, **more)


def bearer(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    found = Audited(tmp_path_factory.mktemp("audited"))
    yield found
    found.stack.close()


@pytest.mark.slow("1,000 tasks")
@pytest.mark.timeout(400)
def test_audit_log_alone_names_the_key_that_ran_a_source(audited: Audited) -> None:
    """AUD-02: a thousand tasks of five keys, two of them of one tenant; each source has its key and its request."""
    keys = [audited.key(f"tenant-{min(number, 3)}") for number in range(KEYS)]
    sources = {f"result = {number}": keys[number % KEYS] for number in range(TASKS)}
    audited.wait_for_keys("made", keys[-1].key_id)
    requests: dict[str, str] = {}
    for key in keys:
        own = [source for source, whose in sources.items() if whose is key]
        for start in range(0, len(own), BATCH):
            body, request_id = [task(source) for source in own[start : start + BATCH]], f"batch-{key.key_id}-{start}"
            answer = audited.post("/execute/batch", key, json=body, headers={"X-Request-ID": request_id})
            assert {202} == {one["status"] for one in answer.json()["tasks"]}
            requests |= dict.fromkeys(own[start : start + BATCH], request_id)
    until(lambda: len(audited.events("attempt ended")) >= TASKS, "all have ended", timeout_s=300)
    ran = {entry["source_sha256"]: entry for entry in audited.events("attempt ended")}
    for source, key in sources.items():
        entry = ran[hashlib.sha256(source.encode()).hexdigest()]
        assert (key.key_id, key.key.tenant, requests[source], "127.0.0.1") == (
            entry["key_id"], entry["tenant"], entry["request_id"], entry["client"],
        )  # fmt: skip
    assert () == verify([audited.path]).faults


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("expired or false", 401), ("reads only", 403)], ids=["none", "false", "scope"]
)
def test_refusal_is_named(audited: Audited, key: str | None, status: int) -> None:
    """AUD-03: with the key where there is one, the request's id, and where it came from."""
    given = None
    if key is not None:
        given = audited.key("reader", Scope.READ)
        if status == 401:
            given = given._replace(text=given.text[:-4] + "AAAA")
        else:
            audited.wait_for_keys("made", given.key_id)
    request_id = f"refused-{status}-{bool(key)}"
    assert status == audited.post("/execute", given, json=task("1"), headers={"X-Request-ID": request_id}).status_code
    [entry] = [entry for entry in audited.events("request refused") if entry["request_id"] == request_id]
    key_id = given.key_id if given and status == 403 else None
    assert (status, key_id, "POST", "/execute", "127.0.0.1") == tuple(
        entry[name] for name in ("status", "key_id", "method", "call", "client")
    )


def test_keys_that_come_and_go_are_named(audited: Audited) -> None:
    """AUD-04: by the service that takes them up, and by the command that changed them."""
    made = audited.key("passing")
    audited.wait_for_keys("made", made.key_id)
    assert 202 == audited.post("/execute", made, json=task("1")).status_code
    remove_key(audited.file, made.key_id)
    audited.wait_for_keys("revoked", made.key_id)
    assert 401 == audited.post("/execute", made, json=task("1")).status_code
    environ = audited.stack.environ | {"PATH": "/usr/bin"}
    for command in (["new", "--tenant", "cli"], ["revoke", audited.key("x").key_id]):
        done = subprocess.run([sys.executable, "-m", "engine", "keys", *command], cwd=ROOT, env=environ, check=False)
        assert 0 == done.returncode
    [entry] = audited.events("key made")
    assert ("cli", ["submit", "read", "cancel"]) == (entry["tenant"], entry["scopes"])
    assert "sha256" not in entry
    assert 1 == len(audited.events("key revoked"))


def test_start_names_the_policies_in_force(audited: Audited) -> None:
    """AUD-05: API and worker name the digest of each policy; the API names the keys that it knows."""
    [api], [worker] = audited.events("API started"), audited.events("worker started")
    assert list(api["policies"]) == list(worker["policies"]) == ["custom_script"]
    assert api["policies"] == worker["policies"]
    assert audited.admin.key_id in api["key_ids"]


def test_command_says_whether_the_log_is_whole(audited: Audited, tmp_path: Path) -> None:
    """AUD-06: ``audit verify`` ends with 0 or 1, and its anchor is taken by the next call."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "engine", "audit", "verify", *arguments],
            cwd=ROOT, env={"PATH": "/usr/bin"}, check=False, capture_output=True, text=True,
        )  # fmt: skip

    copy = tmp_path / "audit.log"
    copy.write_bytes(audited.path.read_bytes())
    head = audited.path.with_name("audit.log.head").read_bytes()
    copy.with_name("audit.log.head").write_bytes(head)
    whole = command(str(copy))
    assert 0 == whole.returncode, whole.stderr
    anchor = whole.stdout.split()[-1]
    assert 0 == command(str(copy), "--anchor", anchor).returncode
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:-1]))
    spoiled = command(str(copy))
    assert 1 == spoiled.returncode
    assert "lines are missing" in spoiled.stderr
