"""Scripts, queue entries and requests: the small parts that untrusted text passes through."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from engine.config.load import load_settings
from engine.config.scripts import NamedScript, ScriptError, list_scripts, read_script
from engine.config.settings import PROJECT_DIR
from engine.model.request import SubmitRequest
from engine.model.result import Script
from engine.model.task import Claim
from engine.policies.policies import allowed_attempts
from engine.queue.queue import QueueEntryError, decode_entry, encode_entry
from engine.worker.request import build_request
from sandbox import load_policies

TASK_ID = "3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scripts folder with all that may lie in one."""
    (tmp_path / "good.py").write_text("result = 1\n")
    (tmp_path / "README.md").write_text("no script")
    (tmp_path / "latin.py").write_bytes(b"# \xff\n")
    (tmp_path / "long.py").write_bytes(b"#" * (1 << 20) + b"\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.py")
    return tmp_path


def test_only_regular_files_with_plain_names_are_scripts(folder: Path) -> None:
    """Links, folders, pipes and other files are not listed."""
    assert ["good.py", "latin.py", "long.py"] == list_scripts(folder)


def test_script_is_read_once_with_the_hash_of_its_bytes(folder: Path) -> None:
    """The hash is of what is handed to the sandbox."""
    found = read_script(folder, "good.py")
    assert ("result = 1\n", "good.py", 64) == (found.source, found.script.name, len(found.script.sha256))


@pytest.mark.parametrize("name", ["link.py", "pipe.py", "folder.py", "latin.py", "long.py", "none.py", "../good.py"])
def test_script_that_is_not_one_is_refused(folder: Path, name: str) -> None:
    """A link is not followed, a pipe is not waited for, a path is not a name."""
    with pytest.raises(ScriptError):
        read_script(folder, name)


def test_missing_folder_has_no_scripts(tmp_path: Path) -> None:
    """No folder, no scripts, no error."""
    assert [] == list_scripts(tmp_path / "none")


def test_entry_survives_the_queue() -> None:
    """An entry comes out of the queue as it went in."""
    entry: dict[str, object] = {"f": "run_task", "a": (TASK_ID,), "k": {}, "t": None, "et": 1}
    assert entry == decode_entry(encode_entry(entry))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"f": "run_task", "a": (TASK_ID,), "k": {}, "t": None, "et": 1}),
        b"",
        b"null",
        b"[" * 100_000,
        b'{"f":"os.system","a":["' + TASK_ID.encode() + b'"],"k":{},"t":null,"et":1}',
        b'{"f":"run_task","a":["id"],"k":{},"t":null,"et":1}',
        b'{"f":"run_task","a":["' + TASK_ID.encode() + b'","x"],"k":{},"t":null,"et":1}',
        b'{"f":"run_task","a":["' + TASK_ID.encode() + b'"],"k":{"x":null},"t":null,"et":1}',
        b'{"f":"run_task","a":["' + TASK_ID.encode() + b'"],"k":{},"t":null,"et":1,"more":1}',
        b'{"f":"run_task","a":["' + TASK_ID.encode() + b'\\n"],"k":{},"t":null,"et":1}',
        b" " * 10_000,
    ],
)
def test_entry_of_another_shape_is_refused(data: bytes) -> None:
    """A pickle, another function, another argument, too much: a typed error, nothing run."""
    with pytest.raises(QueueEntryError):
        decode_entry(data)


def test_request_holds_the_clients_own_text() -> None:
    """The parameters stand in the request byte for byte; a script's source is added beside them."""
    parameters = b'{"script": "good.py",  "args": 1.10}'
    request = SubmitRequest(task_type="custom_script", parameters=msgspec.Raw(parameters), script_name="good.py")
    claim = Claim(
        task_id=UUID(TASK_ID),
        worker_id=UUID(TASK_ID),
        attempt=1,
        tenant="acme",
        policy="custom_script",
        request=request,
        queue_s=0.0,
        age_s=0.0,
    )
    script = NamedScript(source='print("\x00")\n', script=Script(name="good.py", sha256="0"))
    text = build_request(claim, script)
    assert parameters in text
    decoded = json.loads(text)
    assert ("custom_script", 'print("\x00")\n', "good.py") == (
        decoded["task_type"],
        decoded["source"],
        decoded["source_name"],
    )
    assert {"task_type", "parameters"} == set(msgspec.json.decode(build_request(claim, None)))


@pytest.mark.parametrize(("ceiling", "allowed"), [("", 3), ("2", 2), ("7", 3)])
def test_an_operator_can_only_lower_the_attempts_of_a_policy(ceiling: str, allowed: int) -> None:
    """MAX_ATTEMPTS is a ceiling; unset, the policy's own number counts."""
    policy = load_policies(PROJECT_DIR / "policies")["custom_script"]
    assert allowed == allowed_attempts(policy, load_settings({"MAX_ATTEMPTS": ceiling}))
