"""A script file runs the same way by ``engine run`` and by ``engine tasks submit --script``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.command_line import engine

SCRIPT = """import helpers
def main(name, rows=0):
    print('hello', name)
    return [name, helpers.double(rows), open('inputs/data.csv').read()]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A script, its module, and a table."""
    (tmp_path / "hello.py").write_text(SCRIPT)
    (tmp_path / "helpers.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    return tmp_path


def test_a_script_answers_the_same_here_and_there(url: str, folder: Path) -> None:
    """With the same options, which reach the request."""
    script = str(folder / "hello.py")
    files = [f"--file={folder / name}" for name in ("helpers.py", "data.csv")]
    options = ["--args", '{"name": "Ada", "rows": 3}', *files, "--policy", "custom_script", "--timeout", "30"]
    here = engine("run", script, *options)
    assert 0 == here.returncode, here.stderr
    sent = engine("tasks", "submit", "--script", script, *options, "--label", "team=a=b", "--url", url)
    task_id = sent.stdout.decode().strip()
    assert 0 == engine("tasks", "follow", task_id, "--url", url).returncode
    shown = json.loads(engine("tasks", "show", task_id, "--url", url, "--json").stdout)
    answer = json.loads(here.stdout)
    assert ["Ada", 6, "a,b\n1,2\n"] == answer["result"] == shown["result"]
    assert (answer["logs"], 30.0) == (shown["logs"], shown["limits"]["wall_s"])
    assert {"team": "a=b"} == shown["labels"]


def test_follow_tells_by_its_exit_code_how_a_script_ended(url: str, folder: Path) -> None:
    """What the script prints is on stdout, as of ``python script.py``."""
    (folder / "fails.py").write_text("print('first')\n1 / 0\n")
    done = engine("tasks", "submit", "--script", str(folder / "fails.py"), "--follow", "--url", url)
    assert (1, "first") == (done.returncode, done.stdout.decode().splitlines()[1])


def test_a_source_that_reads_like_a_name_is_run(folder: Path) -> None:
    """``data_analysis.py`` as text of a script is an expression, and no named script of the operator."""
    (folder / "odd.py").write_text("data_analysis.py")
    answer = json.loads(engine("run", str(folder / "odd.py")).stdout)
    assert "name 'data_analysis' is not defined" in answer["error"]["message"]


def test_a_source_in_another_encoding_is_read_as_python_reads_it(folder: Path) -> None:
    """As PEP 263 declares it."""
    (folder / "old.py").write_bytes("# coding: latin-1\r\nresult = 'grün'\r\n".encode("latin-1"))
    assert "grün" == json.loads(engine("run", str(folder / "old.py")).stdout)["result"]


MISTAKES = {
    "a missing script": (["none.py"], "none.py: No such file or directory"),
    "a folder": (["folder.py"], "folder.py: Is a directory"),
    "bytes that are no text": (["bytes.py"], "bytes.py: is no Python source"),
    "arguments that are no JSON": (["hello.py", "--args", "{name: 1}"], "--args: is no JSON"),
    "a text without quotes": (["hello.py", "--args", "Ada"], "write a text as '\"text\"'"),
    "an unknown policy": (["hello.py", "--policy", "none"], "no such policy for custom_script; there are"),
    "a time that is none": (["hello.py", "--timeout", "-1"], "timeout_s"),
    "a missing file": (["hello.py", "--file", "none.csv"], "none.csv: No such file or directory"),
    "two files of one name": (["hello.py", "--file", "data.csv", "--file", "data.csv"], "is `inputs/data.csv` already"),
    "a hidden file": (["hello.py", "--file", ".hidden"], "begins with a dot"),
}


@pytest.mark.parametrize(("options", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(url: str, folder: Path, options: list[str], sentence: str) -> None:
    """The same by both commands; never a traceback."""
    (folder / "folder.py").mkdir()
    (folder / "bytes.py").write_bytes(b"x = '\xff'\n")
    (folder / ".hidden").write_text("")
    script, *more = [str(folder / word) if os.path.splitext(word)[1] or word[0] == "." else word for word in options]
    for command in (["run", script], ["tasks", "submit", "--url", url, "--script", script]):
        done = engine(*command, *more)
        assert (1, b"") == (done.returncode, done.stdout), done
        assert sentence in " ".join(done.stderr.decode().split())
        assert b"Traceback" not in done.stderr


def test_an_option_about_a_script_is_refused_beside_a_task(url: str) -> None:
    """It would have no effect; and a submit names one of the two."""
    task = b'{"task_type":"custom_script","parameters":{"script":"result = 1"}}'
    for command in (["run", "-"], ["tasks", "submit", "-", "--url", url]):
        done = engine(*command, "--args", "1", stdin=task)
        assert (1, True) == (done.returncode, b"--args: only for a script" in done.stderr)
    assert b"name either" in engine("tasks", "submit", "--url", url).stderr
