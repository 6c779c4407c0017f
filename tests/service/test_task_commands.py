"""``engine tasks`` and ``engine top`` against a running service."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import engine_text as engine
from tests.support.held import Held
from tests.support.stack import FOREIGN, ROOT, free_port, task

SLOW = "print('first', flush=True)\nhold()\nreport_progress(0.5, 'half')\nprint('last')\nresult = 7"


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
    "command", [["tasks", "list"], ["tasks", "show", "none"], ["tasks", "follow", "none"], ["top", "--once"]]
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
        (["tasks", "show", "none"], "no task"),
        (["tasks", "follow", "none"], "no task"),
        (["tasks", "cancel", "none"], "no task"),
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


def screen(columns: int, *command: str) -> list[str]:
    """The lines that a command prints on a terminal of so many columns."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", *FOREIGN)}
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", *command],
        cwd=ROOT,
        env=environ | {"TERM": "xterm"},
        stdout=child,
        stderr=child,
    )
    os.close(child)
    printed = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as file:  # EIO: its other end was closed
        while part := file.read(4096):
            printed += part
    assert 0 == process.wait(60), printed
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode()).replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_nothing_is_cut_on_a_narrow_terminal(url: str, columns: int) -> None:
    """Ids whole and statuses whole; fewer columns instead, and no line longer than the terminal."""
    task_id = submitted(url, "result = 1", labels={"width": "labels-are-folded-" * 4, "of": f"w{columns}"})
    engine("tasks", "follow", task_id, "--url", url)
    lines = screen(columns, "tasks", "list", "--label", f"of:w{columns}", "--url", url)
    assert [1, 1] == [sum(word in line for line in lines) for word in (task_id, "succeeded")]
    assert (columns >= 80) is any("ended by" in line for line in lines)
    assert (columns >= 140) is any("accepted" in line and "labels" in line for line in lines)
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)


def test_the_beginning_of_an_id_names_its_task(url: str) -> None:
    """In every command about one task; one that several tasks have, or none, is a sentence."""
    task_id = submitted(url, "print('x')\nresult = {'of': 'prefix'}")
    followed = engine("tasks", "follow", task_id[:8], "--url", url)
    assert (0, "x\n") == (followed.returncode, followed.stdout)
    assert task_id == json.loads(engine("tasks", "show", task_id[:8], "--url", url, "--json").stdout)["task_id"]
    assert f"{task_id} succeeded\n" == engine("tasks", "cancel", task_id[:8].upper(), "--url", url).stdout
    missing = engine("tasks", "show", "ffff-ffff", "--url", url)
    assert 1 == missing.returncode
    assert "Traceback" not in missing.stderr


def test_following_ends_with_the_result_or_the_traceback(url: str) -> None:
    """On stderr, where all that the task itself has not printed goes."""
    followed = engine("tasks", "follow", submitted(url, "result = {'n': 42}"), "--url", url)
    assert '--- result\n{\n  "n": 42\n}\n' in followed.stderr
    failed = engine("tasks", "follow", submitted(url, "def f():\n    return 1 / 0\nf()"), "--url", url)
    assert 'File "script.py", line 2, in f' in failed.stderr
    assert ("", "") == (followed.stdout, failed.stdout)


def test_artifacts_are_listed_and_saved(url: str, tmp_path: Path) -> None:
    """Under their names, below the folder."""
    script = "import os\nos.mkdir('artifacts/sub')\nopen('artifacts/sub/a.txt', 'w').write('one')"
    task_id = submitted(url, script)
    engine("tasks", "follow", task_id, "--url", url)
    assert "3 bytes  sub/a.txt\n" == engine("tasks", "artifacts", task_id, "--url", url).stdout.lstrip()
    saved = engine("tasks", "artifacts", task_id[:8], "--save", str(tmp_path / "out"), "--url", url)
    assert f"{tmp_path}/out/sub/a.txt\n" == saved.stdout
    assert "one" == (tmp_path / "out" / "sub" / "a.txt").read_text()


def test_files_are_uploaded_listed_and_deleted(url: str, tmp_path: Path) -> None:
    """By their ids, which are whole at every width."""
    (tmp_path / "table.csv").write_text("x\n1\n")
    file_id = engine("files", "upload", str(tmp_path / "table.csv"), "--url", url).stdout.strip()
    assert any(file_id in line for line in screen(80, "files", "list", "--url", url))
    assert f"deleted {file_id}\n" == engine("files", "delete", file_id[5:15], "--url", url).stdout
    gone = engine("files", "delete", file_id, "--url", url)
    assert (1, True) == (gone.returncode, "no file with this id" in gone.stderr)
    missing = engine("files", "upload", str(tmp_path / "nothing"), "--url", url)
    assert (1, f"error: {tmp_path}/nothing: No such file or directory\n") == (missing.returncode, missing.stderr)


def test_callbacks_are_listed(url: str) -> None:
    """Those of one state; a state that there is not, and a task without a callback, are sentences."""
    assert "no callback is dead\n" == engine("callbacks", "list", "--url", url).stdout
    assert "must be one of" in engine("callbacks", "list", "--state", "lost", "--url", url).stderr
    assert "no final task" in engine("callbacks", "send", submitted(url, "result = 1"), "--url", url).stderr


@pytest.mark.parametrize("wrong", ["localhost:8001", "http://", "ftp://x"])
def test_what_is_no_url_is_a_sentence(wrong: str) -> None:
    """Which says what one looks like."""
    done = engine("tasks", "list", "--url", wrong)
    assert 1 == done.returncode
    assert "is no URL of a service: give one such as http://localhost:8001" in done.stderr
    assert "Traceback" not in done.stderr


def test_loadtest_sends_so_many_and_says_what_came_back(url: str) -> None:
    """A closed load of six, all of which end well; each is a task like any other."""
    done = engine("loadtest", url, "--tasks", "6", "--clients", "3", "--json")
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert (6, {"ok": 6}, 0) == (found["sent"], found["ended"], found["not_sent"])
    assert 6 == sum(count for _, count in found["histogram"])


def test_loadtest_whose_tasks_all_fail_says_so(url: str) -> None:
    """An open load; the exit code is 1."""
    failing = json.dumps(task("1 / 0"))
    done = engine("loadtest", url, "--task", "-", "--rate", "50", "--tasks", "3", stdin=failing)
    assert (1, True) == (done.returncode, "3 requests in" in done.stdout and "error 3" in done.stdout)
    assert "error: no task ended well\n" == done.stderr
