"""Named scripts: what ran is what the answer says, and a name has one spelling."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.stack import Stack

VERSIONS = {f"result = {number!r}  # {'x' * 2000 * number}\n".encode(): number for number in range(4)}
MAIN = "def main(name='world'): return [name]"
ARGS = {"absent": ("", "world"), "null": (',"args":null', None), "a value": (',"args":"you"', "you")}
"""What stands in the request → what ``main(name="world")`` gets."""
SHA256 = {hashlib.sha256(source).hexdigest(): number for source, number in VERSIONS.items()}


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[Stack]:
    """A service whose only script is another one all the time."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "own.py").write_bytes(next(iter(VERSIONS)))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for source in VERSIONS:
                (tmp_path / "next").write_bytes(source)
                os.replace(tmp_path / "next", folder / "own.py")

    stack = Stack(tmp_path, SCRIPTS_DIR=str(folder))
    stack.worker()
    thread = threading.Thread(target=swap)
    thread.start()
    yield stack
    stop.set()
    thread.join()
    stack.close()


def test_script_that_is_swapped_runs_as_it_was_read(swapped: Stack) -> None:
    """NAME-05: the bytes that ran are those whose hash is in the answer, whoever changes the file meanwhile."""
    ids = [swapped.submit("own.py")["task_id"] for _ in range(40)]
    answers = [swapped.get(task_id, wait_s=30) for task_id in ids]
    assert {"succeeded"} == {answer["status"] for answer in answers}
    assert [SHA256[answer["script"]["sha256"]] for answer in answers] == [answer["result"] for answer in answers]
    assert len({answer["result"] for answer in answers}) > 1


@pytest.mark.parametrize("name", ["Data_analysis.py", "DATA_ANALYSIS.py", "data-analysis.py"])
def test_name_has_one_spelling(client: httpx.Client, name: str) -> None:
    """NAME-07: another case is another name, whatever a file system thinks; it is refused before anything is stored."""
    answer = client.post("/execute", json={"task_type": "custom_script", "parameters": {"script": name}})
    assert (400, "$.parameters.script") == (answer.status_code, answer.json()["errors"][0]["path"])


@pytest.mark.parametrize(
    "name", ["\uff44ata_analysis.py", "data_analysis.p\u0443", "data_analysis\u200b.py", "data_analysis.py\u0301"]
)
def test_name_that_only_looks_alike_names_no_file(client: httpx.Client, name: str) -> None:
    """NAME-07: it is no name to us, and so a text that is compiled inside the sandbox; no file is opened for it."""
    body = {"task_type": "custom_script", "parameters": {"script": name}}
    answer = client.post("/execute", json=body, params={"wait": 20}).json()
    assert ("error", None) == (answer["exit_reason"], answer["script"])


@pytest.mark.parametrize(("args", "expected"), ARGS.values(), ids=ARGS)
def test_absent_args_are_not_null(client: httpx.Client, args: str, expected: str | None) -> None:
    """Without ``args`` a default holds; ``null`` is a value."""
    body = f'{{"task_type":"custom_script","parameters":{{"script":"{MAIN}"{args}}}}}'
    answer = client.post("/execute", content=body, params={"wait": 30}, headers={"content-type": "application/json"})
    assert [expected] == answer.json()["result"]
