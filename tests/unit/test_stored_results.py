"""The document in which a task's result is stored: what was written is read, by this version and by others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from engine.model.answers import task_answer
from engine.model.result import ArtifactFacts, NoRun, Script, TaskResult
from engine.model.status import Priority
from engine.model.task import StoredTask
from engine.store.results import LARGE_BYTES, decode_result, encode_result
from sandbox import Artifact, ExitReason, Result, RunError
from tests.support.results import run_result

OLDER = (Path(__file__).parent / "stored" / "results_0.1.0.jsonl").read_bytes().splitlines()
"""Written by version 0.1.0: of a run, of a task cancelled while queued, of a lost worker, of a script that had gone."""
CONTENT = b"bytes of an artifact"


def answer_of(result: TaskResult) -> dict[str, object]:
    """Build the API's answer of a task that ended so."""
    now = datetime.now(UTC)
    task = StoredTask(
        task_id=uuid4(),
        tenant="acme",
        task_type="custom_script",
        status=result.status,
        exit_reason=result.exit_reason,
        policy="custom_script",
        priority=Priority.NORMAL,
        labels={},
        attempts=1,
        created_at=now,
        started_at=now,
        finished_at=now,
        result=result,
    )
    return dict(json.loads(msgspec.json.encode(task_answer(task))))


@pytest.mark.parametrize("document", OLDER, ids=["run", "cancelled", "worker_lost", "script_unavailable"])
def test_document_of_version_0_1_0_is_answered_as_it_was_written(document: bytes) -> None:
    """Each field of the document stands in the task's answer with the same value."""
    written = json.loads(document)
    answer = answer_of(decode_result(document, policy="custom_script"))
    assert written == {name: answer[name] for name in written}


@pytest.mark.parametrize("document", OLDER[:1], ids=["run"])
def test_document_of_a_run_is_written_as_version_0_1_0_wrote_it(document: bytes) -> None:
    """An API of that version, which runs beside this one during an upgrade, reads what this one writes."""
    later = {"libraries_digest": ""}  # which that version passes over
    assert json.loads(document) | later == json.loads(encode_result(decode_result(document, policy="custom_script")))


def test_document_holds_the_sandboxs_answer_without_the_bytes_of_artifacts() -> None:
    """A stored result is read back unchanged; of an artifact the facts, for its bytes have a table of their own."""
    artifact = Artifact(name="a.txt", size_bytes=len(CONTENT), sha256="00", content=CONTENT)
    run = run_result(value=msgspec.Raw(b'{"exact": 1.10}'), artifacts=(artifact,))
    script = Script(name="s.py", sha256="11")
    stored = TaskResult.of_run(run, queue_s=0.125, script=script)
    document = encode_result(stored)
    found = decode_result(document, policy="custom_script")
    assert (artifact,) == stored.files
    assert CONTENT not in document
    assert isinstance(found.run, Result)
    assert (msgspec.structs.replace(run, artifacts=()), 0.125, script) == (found.run, found.queue_s, found.script)
    assert (ArtifactFacts(name="a.txt", size_bytes=len(CONTENT), sha256="00"),) == found.artifacts


def test_result_without_a_run_is_read_as_it_was_stored() -> None:
    """Whether a worker had come to it or not: how long it waited is known in the first case only."""
    error = RunError(type="ScriptError", message="gone", code="script_unavailable")
    no_run = NoRun(exit_reason=ExitReason.ERROR, message="no script", error=error)
    for stored in (TaskResult(run=no_run), TaskResult(run=no_run, queue_s=0.5)):
        assert stored == decode_result(encode_result(stored), policy="custom_script")


def test_field_of_a_newer_version_is_passed_over() -> None:
    """A field that another version adds hides no field that is known here."""
    document = OLDER[0][:-1] + b',"later":{"x":[1]}}'
    assert decode_result(OLDER[0], policy="p") == decode_result(document, policy="p")


def test_large_value_is_not_looked_through_to_read_its_document() -> None:
    """Its length stands before it. A version that does not know of that reads the document all the same."""
    text = json.dumps(['"}, ,"result":', "[[[["] * LARGE_BYTES).encode()
    stored = TaskResult.of_run(run_result(value=msgspec.Raw(text)), queue_s=0.5, script=None)
    document = encode_result(stored)
    assert stored == decode_result(document, policy="custom_script")
    assert stored == decode_result(document.replace(b'{"result_bytes":', b'{"unknown":', 1), policy="custom_script")
    no_json = document.replace(text, b"]" * len(text))
    found = decode_result(no_json, policy="custom_script")
    assert b"]" * len(text) == bytes(found.run.value)  # type: ignore[union-attr, arg-type]


def test_length_that_is_wrong_is_no_length() -> None:
    """A document that says another length than its value has is read as a whole."""
    document = OLDER[0]
    for length in (0, 1, len(document) // 2, len(document), 10**9):
        odd = b'{"result_bytes":%d,' % length + document[1:]
        assert decode_result(document, policy="p") == decode_result(odd, policy="p")
