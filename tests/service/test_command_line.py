"""The commands that need no server, and the demo that starts all of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.config.load import variables
from engine.config.settings import Group
from tests.support.command_line import fresh_engine as engine
from tests.support.stack import ROOT, free_port, open_folder


def test_run_prints_how_a_task_ended() -> None:
    """``run -`` takes the body of ``POST /execute`` on stdin and needs no server."""
    done = engine("run", "-", stdin=b'{"task_type":"custom_script","parameters":{"script":"result = 1 + 1"}}')
    answer = json.loads(done.stdout)
    assert (0, "ok", 2) == (done.returncode, answer["exit_reason"], answer["result"])


@pytest.mark.parametrize(("args", "expected"), [("", "world"), (',"args":null', None)], ids=["absent", "null"])
def test_run_tells_absent_args_from_null(args: str, expected: str | None) -> None:
    """As through HTTP: without ``args`` a default holds, and ``null`` is a value."""
    script = "def main(name='world'): return [name]"
    body = f'{{"task_type":"custom_script","parameters":{{"script":"{script}"{args}}}}}'
    assert [expected] == json.loads(engine("run", "-", stdin=body.encode()).stdout)["result"]


def test_run_of_a_failing_task_is_exit_code_1(tmp_path: Path) -> None:
    """``run FILE`` says by its exit code whether the task was ok."""
    path = tmp_path / "task.json"
    path.write_text('{"task_type":"custom_script","parameters":{"script":"1/0"}}')
    done = engine("run", str(path))
    assert (1, "ZeroDivisionError") == (done.returncode, json.loads(done.stdout)["error"]["type"])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{}", b"error: $.task_type: it is required\nerror: $.parameters: it is required\n"),
        (
            b'{"task_type":"custom_script","parameters":{"script":"none.py"}}',
            b"script: there is no script none.py; available",
        ),
    ],
)
def test_run_of_nonsense_is_a_sentence(body: bytes, sentence: bytes) -> None:
    """A command that cannot run prints a sentence on stderr, not a traceback."""
    done = engine("run", "-", stdin=body)
    assert (1, b"") == (done.returncode, done.stdout)
    assert sentence in done.stderr
    assert b"Traceback" not in done.stderr


def test_check_lists_layers_and_policies() -> None:
    """``check --json`` says what the host offers and whether the policies are met."""
    done = engine("check", "--json")
    found = json.loads(done.stdout)
    assert 0 == done.returncode
    assert {"profile": "full", "works": True, "detail": "done"} in found["trials"]
    layers = {"namespaces", "landlock", "seccomp", "rlimits", "cgroup"}
    assert layers == {layer["name"] for layer in found["host"]["layers"]}
    delivered = {path.stem for path in (ROOT / "policies").glob("*.toml")}
    assert dict.fromkeys(delivered, True) == {policy["policy"]: policy["met"] for policy in found["policies"]}


LOWERED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_check_tries_a_whole_run_in_each_profile() -> None:
    """A host that has every layer can still not run anything: then it is not met, and the reason is in the row."""
    command = [sys.executable, "-c", LOWERED, sys.executable, "-m", "engine", "check", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=250, check=False)
    found = json.loads(done.stdout)
    assert all(layer["available"] for layer in found["host"]["layers"] if layer["name"] != "cgroup")
    assert ["full", "unprivileged"] == [trial["profile"] for trial in found["trials"]]
    full = found["trials"][0]
    assert (1, False) == (done.returncode, full["works"])
    assert "RLIMIT_DATA: the policy needs" in full["detail"]


def test_check_says_that_models_are_missing(tmp_path: Path) -> None:
    """The command that says whether a worker would start says this, too."""
    done = engine("check", MODELS_DIR=str(tmp_path))
    assert 1 == done.returncode
    assert "Fix: `make models`" in " ".join(done.stderr.decode().split())


def test_settings_prints_each_variable() -> None:
    """``settings --markdown`` is what engine/config/README.md has: each group's variables, a line for each."""
    lines = engine("settings", "--markdown").stdout.decode().splitlines()
    expected = [variable.env for group in Group for variable in variables() if variable.group is group]
    assert expected == [line.split("`")[1] for line in lines if line.startswith("| `")]


def test_bad_settings_are_named_at_once() -> None:
    """Production without its URLs, and a bad number: all of it in one go, nothing started, no secret shown."""
    done = engine(
        "api", ENVIRONMENT="production", MAX_CONCURRENT_TASKS="many", DATABASE_URL="mysql://user:hunter2@host"
    )
    words = done.stderr.decode()
    assert 1 == done.returncode
    for name in (
        "DATABASE_URL",
        "REDIS_URL",
        "N8N_WEBHOOK_URL",
        "FASTAPI_URL",
        "CALLBACK_SECRET",
        "MAX_CONCURRENT_TASKS",
    ):
        assert f"error: {name}" in words
    assert "hunter2" not in words
    assert "Traceback" not in words


def test_port_that_is_taken_is_a_sentence() -> None:
    """``up`` on a port that somebody has says so and leaves nothing behind."""
    import socket  # noqa: PLC0415  only here

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        done = engine("up", "--port", str(taken.getsockname()[1]))
    assert 1 == done.returncode
    assert b"cannot listen on 127.0.0.1" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.parametrize("missing", ["DATABASE_URL", "REDIS_URL"])
def test_part_without_its_servers_says_so(command: str, missing: str) -> None:
    """A part that cannot run says which variable is missing, in a sentence."""
    urls: dict[str, Any] = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h", missing: ""}
    done = engine(command, **urls)
    assert (1, b"") == (done.returncode, done.stdout)
    assert f"error: {missing} is not set".encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_demo_shows_the_examples_and_leaves_nothing_running() -> None:
    """``demo`` starts everything, runs the examples, stops everything and exits 0."""
    with open_folder() as folder:
        done = engine("demo", TMPDIR=str(folder))
        left = [process for process in psutil.process_iter() if _is_of(process, str(folder))]
    out = done.stdout.decode()
    assert 0 == done.returncode, done.stderr.decode()
    for word in ("data_analysis.py", '"exit_reason": "ok"', "wall_limit", '"isolation"', '"usage"', "nothing is left"):
        assert word in out
    assert [] == left


def test_make_demo_installs_and_runs_that_command() -> None:
    """The first of the README's two commands ends with it, after all that it needs."""
    asked = ["make", "--dry-run", "--no-print-directory", "demo"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    *before, last = done.stdout.splitlines()
    assert ".venv/bin/python -m engine demo" == last
    assert ".venv/bin/python -m engine models" in before


def _is_of(process: psutil.Process, folder: str) -> bool:
    """Whether a process was started by the command whose temporary folder this is."""
    with contextlib.suppress(psutil.Error):
        return folder in " ".join(process.cmdline()) or folder in process.environ().get("TMPDIR", "")
    return False
