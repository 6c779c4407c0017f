"""Receipts: whoever has the public key can check how a task ended and under what, and a changed one does not hold."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.config.keys import NewKey, add_key, make_key
from engine.config.load import load_settings
from engine.config.settings import SettingsError
from engine.model.principal import Scope
from tests.support.command_line import engine_text
from tests.support.stack import Stack, ask, task, until

SCRIPT = "print('out'); open('artifacts/a.txt', 'w').write('of a'); result = {'ü': [1.5, None, 'x'], 'n': 1}"


def make_secret() -> str:
    return f"uarec_{base64.b64encode(os.urandom(32)).decode()}"


class Receipted:
    """A service that signs receipts, with keys of two tenants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "keys.toml"
        self.a, self.b = make_key("a", tuple(Scope)), make_key("b", tuple(Scope))
        for key in (self.a, self.b):
            add_key(file, key)
        self.secret, self.old = make_secret(), make_secret()
        self.stack = Stack(
            folder, headers=bearer(self.a), API_KEYS_FILE=str(file), RECEIPT_KEY=f"{self.secret},{self.old}"
        )
        self.stack.worker()
        self.file_id = self.ask("POST", "/files", content=b"of a").json()["file_id"]
        self.body = task(SCRIPT)
        self.body["parameters"]["inputs"] = {"in.txt": {"file_id": self.file_id}}
        self.text = json.dumps(self.body).encode()
        made = self.ask("POST", "/execute?wait=60", content=self.text, headers={"Content-Type": "application/json"})
        self.task_text = made.content
        self.task: dict[str, Any] = made.json()
        assert self.task["exit_reason"] == "ok", self.task
        self.path = folder / "receipt.json"
        self.path.write_bytes(self.ask("GET", f"/task/{self.task['task_id']}/receipt").content)
        self.public = folder / "public.json"
        self.public.write_bytes(httpx.get(f"{self.stack.client.base_url}/.well-known/unityai-receipt-keys").content)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.stack.client.request(method, path, **more)

    @property
    def signed(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_bytes()))


def bearer(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


@pytest.fixture(scope="module")
def receipted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receipted]:
    found = Receipted(tmp_path_factory.mktemp("receipts"))
    yield found
    found.stack.close()


def held(path: Path, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What ``audit receipt`` says of a file, in a process that knows no service."""
    return engine_text("audit", "receipt", str(path), *more, **environ)


def holds_by_hand(signed: dict[str, Any], x: str) -> bool:
    """The same by cryptography and json alone, as a client in any language would."""
    said = json.dumps(signed["receipt"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "="))
    try:
        key.verify(base64.b64decode(signed["signature"]), said)
    except InvalidSignature:
        return False
    return True


def test_receipt_holds_by_cryptography_alone(receipted: Receipted) -> None:
    """RCP-01: by the published key, found by its id, and by the secret's own public half."""
    keys = {key["kid"]: key["x"] for key in json.loads(receipted.public.read_bytes())["keys"]}
    secret = base64.b64decode(receipted.secret.removeprefix("uarec_"))
    own = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    x = keys[receipted.signed["kid"]]
    assert base64.urlsafe_b64decode(x + "=") == own
    assert len(keys) == 2
    assert holds_by_hand(receipted.signed, x)


def test_receipt_says_what_the_answer_says(receipted: Receipted) -> None:
    """RCP-02: each digest is worked out here, from what was sent and what was answered."""
    said, answer = receipted.signed["receipt"], receipted.task
    raw = msgspec.json.decode(receipted.task_text, type=dict[str, msgspec.Raw])
    sent = msgspec.json.decode(receipted.text, type=dict[str, msgspec.Raw])
    assert {
        "source_sha256": sha256(SCRIPT.encode()),
        "parameters_sha256": sha256(bytes(sent["parameters"])),
        "result_sha256": sha256(bytes(raw["result"])),
        "stdout_sha256": sha256(b"out\n"),
        "stderr_sha256": sha256(b""),
        "files": [{"file_id": receipted.file_id, "sha256": sha256(b"of a")}],
        "artifacts": [{"name": "a.txt", "size_bytes": 4, "sha256": sha256(b"of a")}],
        "key_id": receipted.a.key_id,
        "tenant": "a",
    }.items() <= said.items()
    same = ("task_id", "task_type", "policy", "policy_digest", "libraries_digest", "isolation", "status", "exit_reason",
            "exit_code", "attempts", "created_at", "started_at", "finished_at")  # fmt: skip
    assert {name: answer[name] for name in same} == {name: said[name] for name in same}
    assert {name: float(value) for name, value in answer["usage"].items() if name != "egress"} == {
        name: float(value) for name, value in said["usage"].items() if name != "egress"
    }
    assert {name: float(value) for name, value in answer["limits"].items()} == {
        name: float(value) for name, value in said["limits"].items()
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_command_says_that_it_holds(receipted: Receipted) -> None:
    """RCP-03: with the published keys, with one key as text, and with the service's own secret."""
    x = json.loads(receipted.public.read_bytes())["keys"][0]["x"]
    for more, environ in (
        (["--public-key", str(receipted.public)], {}),
        (["--public-key", x], {}),
        ([], {"RECEIPT_KEY": receipted.secret}),
    ):
        done = held(receipted.path, *more, **environ)
        assert (0, "") == (done.returncode, done.stderr)
        assert done.stdout.startswith(f"the receipt holds: task {receipted.task['task_id']} of a ended ok at ")


def changed(signed: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The receipt with each of its fields another one, missing, and with one more."""
    for name, value in signed.items():
        if name != "receipt":
            yield name, signed | {name: other(value)}
            yield f"no {name}", {field: value for field, value in signed.items() if field != name}
    for name, value in signed["receipt"].items():
        yield f"receipt.{name}", signed | {"receipt": signed["receipt"] | {name: other(value)}}
        rest = {field: value for field, value in signed["receipt"].items() if field != name}
        yield f"no receipt.{name}", signed | {"receipt": rest}
    yield "one more", signed | {"note": "x"}
    yield "one more in the receipt", signed | {"receipt": signed["receipt"] | {"note": "x"}}


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        return value[:-1] + ("B" if value[-1:] != "B" else "C")
    if isinstance(value, dict):
        return {name: other(part) for name, part in value.items()} or {"x": 1}
    if isinstance(value, list):
        return [*value, "x"]
    return value + 1 if isinstance(value, int) else "x"


def test_each_changed_field_is_refused(receipted: Receipted) -> None:
    """RCP-04: changed, taken out or put in: of the receipt and of what stands beside it."""
    from engine.telemetry.receipts import ReceiptError, read_public_keys, verify_receipt  # noqa: PLC0415

    keys = read_public_keys(receipted.public.read_text())
    assert verify_receipt(receipted.path.read_bytes(), keys) == receipted.signed["receipt"]
    count = 0
    for name, forged in changed(receipted.signed):
        count += 1
        with pytest.raises(ReceiptError) as refused:
            verify_receipt(json.dumps(forged).encode(), keys)
        assert str(refused.value), name
    assert count > 60


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b'"tenant":"a"', b'"tenant":"b"', "a field of it was changed"),
        (b'"tenant":"a"', b'"tenant":"b","tenant":"a"', "a field is in it twice"),
        (b'"attempts":1', b'"attempts":1.0', "a field of it was changed"),
        (b"Ed25519", b"none", "its algorithm is 'none'"),
        (b'{"receipt"', b'[{"receipt"', "it is no receipt"),
    ],
)
def test_command_says_what_is_wrong(
    receipted: Receipted, tmp_path: Path, old: bytes, new: bytes, sentence: str
) -> None:
    """RCP-05: one sentence and exit code 1."""
    text = receipted.path.read_bytes()
    assert old in text
    (path := tmp_path / "forged.json").write_bytes(text.replace(old, new, 1))
    done = held(path, "--public-key", str(receipted.public))
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr


def test_another_key_is_refused(receipted: Receipted) -> None:
    """RCP-06: also under the name of the right one."""
    other_key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(other_key).rstrip(b"=").decode()
    done = held(receipted.path, "--public-key", x)
    assert done.returncode == 1
    assert "and the public key given is" in done.stderr
    named = json.loads(receipted.public.read_bytes())
    named["keys"] = [named["keys"][0] | {"x": x}]
    (path := receipted.folder / "another.json").write_text(json.dumps(named))
    assert held(receipted.path, "--public-key", str(path)).returncode == 1
    done = held(receipted.path)
    assert done.returncode == 1
    assert "RECEIPT_KEY is not set" in done.stderr
    assert "is neither" in held(receipted.path, "--public-key", "nonsense").stderr


def test_key_that_signed_before_is_still_published(receipted: Receipted) -> None:
    """RCP-07: the second key of RECEIPT_KEY checks what it signed as the first."""
    from engine.telemetry.receipts import ReceiptSigner, read_public_keys, verify_receipt  # noqa: PLC0415

    old = ReceiptSigner((receipted.old,))
    published = read_public_keys(receipted.public.read_text())
    assert old.public.keys[0].kid == published.keys[1].kid
    x = published.keys[1].x
    assert holds_by_hand({"receipt": {}, "signature": _signature(receipted.old)}, x)
    with pytest.raises(Exception, match="signed it, and the public key given is"):
        verify_receipt(receipted.path.read_bytes(), old.public)


def _signature(secret: str) -> str:
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix("uarec_")))
    return base64.b64encode(key.sign(b"{}")).decode()


def test_no_receipt_before_the_end(receipted: Receipted) -> None:
    """RCP-08: 409 while it runs; a cancelled one then has a receipt, with no result in it."""
    made = receipted.ask("POST", "/execute", json=task("import time; time.sleep(60)")).json()["task_id"]
    answer = receipted.ask("GET", f"/task/{made}/receipt")
    assert (409, "The task has not ended: there is a receipt once it has.") == (
        answer.status_code, answer.json()["detail"],
    )  # fmt: skip
    assert receipted.ask("DELETE", f"/task/{made}?wait=60").json()["status"] == "cancelled"
    signed = receipted.ask("GET", f"/task/{made}/receipt").json()
    assert ("cancelled", None) == (signed["receipt"]["exit_reason"], signed["receipt"]["result_sha256"])
    (path := receipted.folder / "cancelled.json").write_text(json.dumps(signed))
    assert held(path, "--public-key", str(receipted.public)).returncode == 0


def test_receipt_of_another_tenant_is_not_there(receipted: Receipted) -> None:
    """RCP-09: 404, as for a task that nobody has."""
    path = f"/task/{receipted.task['task_id']}/receipt"
    answers = [
        receipted.ask("GET", path, headers=bearer(receipted.b)),
        receipted.ask("GET", f"/task/{uuid4()}/receipt"),
    ]
    assert [404, 404] == [answer.status_code for answer in answers]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


def test_file_that_is_gone_has_no_digest(receipted: Receipted) -> None:
    """RCP-10: the receipt says null for it, and holds."""
    file_id = receipted.ask("POST", "/files", content=b"short-lived").json()["file_id"]
    body = task("result = 1")
    body["parameters"]["inputs"] = {"in.txt": {"file_id": file_id}}
    made = receipted.ask("POST", "/execute?wait=60", json=body).json()["task_id"]
    ask(receipted.stack.environ["DATABASE_URL"], f"DELETE FROM files WHERE file_id = '{file_id}'")
    signed = receipted.ask("GET", f"/task/{made}/receipt").json()
    assert [{"file_id": file_id, "sha256": None}] == signed["receipt"]["files"]
    assert holds_by_hand(signed, json.loads(receipted.public.read_bytes())["keys"][0]["x"])


def test_without_a_key_there_are_no_receipts(stack: Stack) -> None:
    """RCP-11: both calls answer 404 and name the setting; `check` says so too."""
    stack.worker()
    made = stack.client.post("/execute?wait=60", json=task("result = 1")).json()["task_id"]
    for path in (f"/task/{made}/receipt", "/.well-known/unityai-receipt-keys"):
        until(lambda: stack.client.get(path).status_code == 404, "it answers")  # noqa: B023  called at once
        assert "RECEIPT_KEY is not set" in stack.client.get(path).json()["detail"]
    assert "no receipts: RECEIPT_KEY is not set" in engine_text("check").stdout
    assert "no receipts" not in engine_text("check", RECEIPT_KEY=make_secret()).stdout


def test_command_makes_a_key() -> None:
    """RCP-12: `keys receipt-key` prints a RECEIPT_KEY, another each time, and on stderr what checks its receipts."""
    first, second = (engine_text("keys", "receipt-key") for _ in range(2))
    assert first.stdout != second.stdout
    (secret,) = load_settings({"RECEIPT_KEY": first.stdout.strip()}).receipt_keys
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret.removeprefix("uarec_")))
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    assert first.stderr == f"public key: {x}\n"


@pytest.mark.parametrize("text", ["hunter2", "uarec_", "uarec_QUJD", f"whsec_{'A' * 43}="])
def test_what_is_no_key_is_refused_unseen(text: str) -> None:
    """RCP-13: at the start, with the fix, and without the value."""
    with pytest.raises(SettingsError) as refused:
        load_settings({"RECEIPT_KEY": text})
    (fault,) = refused.value.faults
    assert fault.startswith("RECEIPT_KEY (value not shown): must be uarec_")
    assert "keys receipt-key" in fault
