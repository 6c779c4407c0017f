"""``engine tasks`` and ``engine top`` against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.held import Held
from tests.support.stack import FOREIGN, ROOT, free_port, task

SLOW = "print('first', flush=True)\nhold()\nreport_progress(0.5, 'half')\nprint('last')\nresult = 7"


def engine(*command: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return subprocess.run(
        [sys.executable, "-m", "engine", *command],
        cwd=ROOT,
        env=inherited | environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def following(task_id: str, url: str) -> subprocess.Popen[str]:
    """``tasks follow``, which goes on."""
    command = [sys.executable, "-m", "engine", "tasks", "follow", task_id, "--url", url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def submitted(url: str, script: str, **more: Any) -> str:
    done = engine("tasks", "submit", "-", "--url", url, stdin=json.dumps(task(script, **more)))
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_submit_follow_and_show_tell_of_one_task(url: str) -> None:
    """The task's output comes on stdout as it is, all else on stderr; exit code 0 for a task that succeeds."""
    held = Held(SLOW)
    task_id = submitted(url, held.script)
    with following(task_id, url) as process:
        assert process.stdout
        assert process.stderr
        assert "first\n" == process.stdout.readline()
        held.tell()
        out, err = process.stdout.read(), process.stderr.read()
        assert (0, "last\n") == (process.wait(60), out)
    for word in ("50% half", "succeeded: ok"):
        assert word in err
    shown = engine("tasks", "show", task_id, "--url", url).stdout
    for word in ("succeeded", "wall_s", "--- stdout", "--- result\n7"):
        assert word in shown
    assert task_id == json.loads(engine("tasks", "show", task_id, "--url", url, "--json").stdout)["task_id"]


def test_follow_of_a_failing_task_is_exit_code_1(url: str) -> None:
    """And so is submit --follow."""
    body = json.dumps(task("import sys\nsys.stderr.write('oh\\n')\nraise ValueError('no')"))
    done = engine("tasks", "submit", "-", "--follow", "--url", url, stdin=body)
    assert 1 == done.returncode
    assert "oh\n" in done.stderr
    assert "failed: error" in done.stderr


def test_list_shows_tasks_and_goes_through_pages(url: str) -> None:
    """As a table, and as JSON."""
    ids = [submitted(url, "result = 1", labels={"from": "list"}) for _ in range(3)]
    found = json.loads(engine("tasks", "list", "--label", "from:list", "--url", url, "--json").stdout)
    assert set(ids) == {item["task_id"] for item in found}
    table = engine("tasks", "list", "--label", "from:list", "--limit", "2", "--url", url).stdout
    assert 2 == sum(task_id in table for task_id in ids)
    assert "no tasks\n" == engine("tasks", "list", "--label", "from:nobody", "--url", url).stdout


def test_cancel_ends_a_task(url: str) -> None:
    """And says how it stands."""
    task_id = submitted(url, "import time; time.sleep(100)")
    assert f"{task_id} cancelled\n" == engine("tasks", "cancel", task_id, "--url", url).stdout


def test_top_prints_one_picture(url: str) -> None:
    """Queue, workers and tasks, for a pipe, too."""
    submitted(url, "result = 1")
    done = engine("top", "--once", "--url", url)
    assert 0 == done.returncode, done.stderr
    for word in ("ok", "waiting", "workers", "newest", "custom_script"):
        assert word in done.stdout
    assert {"health", "running", "recent"} == json.loads(engine("top", "--json", "--url", url).stdout).keys()


@pytest.mark.parametrize(
    "command", [["tasks", "list"], ["tasks", "show", "x"], ["tasks", "follow", "x"], ["top", "--once"]]
)
def test_service_that_is_away_is_a_sentence(command: list[str]) -> None:
    """Which URL did not answer, and no traceback."""
    done = engine(*command, "--url", f"http://127.0.0.1:{free_port()}")
    assert 1 == done.returncode
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_refusals_are_sentences(url: str) -> None:
    """The problem's own words; a path in the request is named."""
    for command, words in (
        (["tasks", "show", "x"], "no task"),
        (["tasks", "follow", "x"], "no task"),
        (["tasks", "cancel", "x"], "no task"),
        (["tasks", "list", "--status", "done"], "must be one of"),
    ):
        done = engine(*command, "--url", url)
        assert 1 == done.returncode
        assert words in done.stderr
    done = engine("tasks", "submit", "-", "--url", url, stdin="{}")
    assert "task_type" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_and_option_has_its_help() -> None:
    """No command without a sentence, no option without one; completion can be installed."""
    import typer  # noqa: PLC0415

    from engine.__main__ import app  # noqa: PLC0415

    silent = []

    def visit(command: Any, path: str) -> None:
        if not command.help:
            silent.append(path)
        silent.extend(
            f"{path} {parameter.name}"
            for parameter in command.params
            if not getattr(parameter, "help", None) and parameter.name != "help"
        )
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, f"{path} {name}")

    root = typer.main.get_command(app)
    visit(root, "engine")
    assert [] == silent
    assert {"install_completion", "show_completion"} <= {parameter.name for parameter in root.params}
