"""Files that come with a request: in the workspace before the handler starts, within its limits."""

from __future__ import annotations

import hashlib
import os

import pytest

from sandbox import ExitReason
from tests.support.synchronous import Sandbox, value_of

pytestmark = pytest.mark.privilege("they are made by the worker and read by its runs: one user, or two")

MIB = 1 << 20
DIGEST = """
import hashlib, os
names = sorted(os.listdir("inputs"))
result = {name: hashlib.sha256(open("inputs/" + name, "rb").read()).hexdigest() for name in names}
"""


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, 20 * MIB])
def test_input_files_arrive_whole(box: Sandbox, size: int) -> None:
    """Whatever their size, beside a request that is not part of them."""
    inputs = {"first": os.urandom(size), "second.bin": b"", "third": os.urandom(999)}
    expected = {name: hashlib.sha256(content).hexdigest() for name, content in inputs.items()}
    assert expected == value_of(box.run(DIGEST, inputs=inputs))


def test_a_large_request_arrives_whole_behind_input_files(box: Sandbox) -> None:
    """The two share one pipe."""
    args = "x" * MIB
    assert len(args) + 3 == value_of(
        box.run("result = len(args) + len(open('inputs/a').read())", args, inputs={"a": b"abc"})
    )


def test_without_input_files_there_is_no_folder_for_them(box: Sandbox) -> None:
    """A workspace starts with tmp and artifacts only."""
    assert ["artifacts", "tmp"] == value_of(box.run("import os\nresult = sorted(os.listdir())"))


def test_input_files_that_do_not_fit_end_with_workspace_limit(box: Sandbox) -> None:
    """Before the handler runs."""
    result = box.run("print('ran')", inputs={"big": bytes((box.policy.limits.workspace_mib + 1) * MIB)})
    assert ExitReason.WORKSPACE_LIMIT is result.exit_reason
    assert result.error is not None
    assert "input files" in result.error.message
    assert "" == result.logs.stdout


def test_input_files_count_as_workspace(box: Sandbox) -> None:
    """In bytes and in files: the folder and the file."""
    result = box.run("result = 1", inputs={"a": bytes(3 * MIB)})
    assert 3.0 == result.usage.workspace_mib
    assert 2 == result.usage.workspace_files


def test_input_files_take_no_memory_beside_the_workspace(box: Sandbox) -> None:
    """48 MiB come in under a limit that had no room for two copies of them."""
    result = box.run("result = 1", inputs={"a": bytes(48 * MIB)}, memory_mib=192)
    assert ExitReason.OK is result.exit_reason
    assert result.usage.memory_peak_mib < 192


@pytest.mark.parametrize("name", ["", ".", "..", "../tmp/x", "a/b", "a\0b"])
def test_a_name_that_is_no_files_name_is_refused(box: Sandbox, name: str) -> None:
    """Names come from us; still none is joined into a path unseen."""
    with pytest.raises(ValueError, match="not the name of a file"):
        box.run("result = 1", inputs={name: b""})
    assert box.settle()
