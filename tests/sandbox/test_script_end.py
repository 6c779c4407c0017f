"""How a script ends: as the interpreter ends, within the limits, and before the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sandbox import Result
from tests.support.synchronous import Sandbox, value_of

MakeBox = Callable[..., Sandbox]


def texts(result: Result) -> dict[str, str]:
    """The artifacts as text."""
    return {one.name: one.content.decode() for one in result.artifacts}


LEFT_OPEN = {
    "a text file": "f = open('artifacts/a', 'w'); f.write('hello')",
    "a binary file": "f = open('artifacts/a', 'wb'); f.write(b'hello')",
    "a file without a name for it": "import io\nx = [io.open('artifacts/a', 'w')]; x[0].write('hello')",
    "a file of a function that raises": "def f():\n    h = open('artifacts/a', 'w'); h.write('hello'); 1 / 0\nf()",
    "a file that a module holds": "import os\nos.held = open('artifacts/a', 'w'); os.held.write('hello')",
    "a file in a cycle": "class A: pass\na = A(); a.me = a; a.file = open('artifacts/a', 'w'); a.file.write('hello')",
    "a file of a thread": (
        "import threading\ndef w():\n    global f\n    f = open('artifacts/a', 'w'); f.write('hello')\n"
        "threading.Thread(target=w).start()"
    ),
    "a file of a function at exit": (
        "import atexit\nf = open('artifacts/a', 'w')\natexit.register(f.write, 'hello')"
    ),
    "a wrapped descriptor": "import os\nf = os.fdopen(os.open('artifacts/a', 65), 'w'); f.write('hello')",
    "a file and sys.exit": "import sys\nf = open('artifacts/a', 'w'); f.write('hello'); sys.exit(3)",
}  # fmt: skip


@pytest.mark.parametrize("script", LEFT_OPEN.values(), ids=LEFT_OPEN)
def test_a_file_that_was_not_closed_is_whole(box: Sandbox, script: str) -> None:
    """Its last bytes are there, whoever holds it, and however the script ended."""
    assert {"a": "hello"} == texts(box.run(script))


def test_an_archive_that_was_not_closed_is_whole(box: Sandbox) -> None:
    """Its directory is written at the end."""
    import io  # noqa: PLC0415 next to its use
    import zipfile  # noqa: PLC0415 likewise

    result = box.run("import zipfile\nz = zipfile.ZipFile('artifacts/a.zip', 'w'); z.writestr('b', 'hello')")
    with zipfile.ZipFile(io.BytesIO(result.artifacts[0].content)) as found:
        assert b"hello" == found.read("b")


PRINTED_AT_THE_END = {
    "a thread": "import threading\nthreading.Timer(0.2, print, ['seen']).start()",
    "an executor": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(print, 'seen')",
    "a function at exit": "import atexit\natexit.register(print, 'seen')",
    "a finalizer": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'seen')",
    "a finalizer of a global": "class A:\n    def __del__(self): print('seen')\na = A()",
    "a finalizer in a cycle": "class A:\n    def __del__(self): print('seen')\na = A(); a.me = a",
    "a log that is held back": (
        "import logging, logging.handlers, sys\n"
        "held = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))\n"
        "logging.getLogger().addHandler(held)\nlogging.warning('seen')"
    ),
    "a stream of its own": "import io, sys\nout = io.TextIOWrapper(sys.stdout.buffer)\nout.write('seen\\n')",
    "a second stream for descriptor 1": "out = open(1, 'w', closefd=False)\nout.write('seen\\n')",
    "a stream instead of stdout": "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint('seen')",
    "after an exception": "import atexit\natexit.register(print, 'seen')\n1 / 0",
}


@pytest.mark.parametrize("script", PRINTED_AT_THE_END.values(), ids=PRINTED_AT_THE_END)
def test_what_is_printed_at_the_end_is_kept(box: Sandbox, script: str) -> None:
    """By whatever the interpreter would still run or flush."""
    assert "seen\n" == box.run(script).logs.stdout


def test_a_result_has_what_threads_put_into_it(box: Sandbox) -> None:
    """It is made when they have ended."""
    script = "import threading, time\nresult = []\nthreading.Timer(0.2, result.append, [1]).start()"
    assert [1] == value_of(box.run(script))


def test_a_daemon_is_not_waited_for(box: Sandbox) -> None:
    """As by the interpreter."""
    script = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nresult = 1"
    assert 1 == value_of(box.run(script))


HARMLESS = {
    "an exit function that raises": "import atexit\natexit.register(lambda: 1 / 0)",
    "an exit function that leaves": "import atexit, sys\natexit.register(sys.exit, 3)",
    "a finalizer that raises": "class A:\n    def __del__(self): 1 / 0\na = A()",
    "a thread that raises": "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
}


@pytest.mark.parametrize("script", HARMLESS.values(), ids=HARMLESS)
def test_a_failure_at_the_end_is_printed_and_no_more(box: Sandbox, script: str) -> None:
    """The result stands."""
    result = box.run(script + "\nresult = 1")
    assert 1 == value_of(result)
    assert "ZeroDivisionError" in result.logs.stderr or "SystemExit" in result.logs.stderr


def test_an_exit_function_may_leave_by_a_code_of_its_own(box: Sandbox) -> None:
    """``os._exit`` is the last word."""
    result = box.run("import atexit, os\natexit.register(os._exit, 3)\nresult = 1")
    assert ("nonzero_exit", 3) == (result.exit_reason.value, result.exit_code)


WAITS = {
    "a thread": (
        "import threading, time\nthreading.Thread(None, time.sleep, 'slow', (60,)).start()",
        "slow",
    ),
    "an exit function": ("import atexit, time\natexit.register(time.sleep, 60)", "atexit"),
}


@pytest.mark.parametrize(("script", "name"), WAITS.values(), ids=WAITS)
def test_an_end_that_takes_too_long_is_told(box: Sandbox, script: str, name: str) -> None:
    """The limit holds for the end too, and the message says that the script itself had come to its own."""
    result = box.run(script + "\nresult = 1", wall_s=1.0)
    assert ("wall_limit", None) == (result.exit_reason.value, result.value)
    assert "its result was there" in result.message
    assert name in result.message


def test_names_of_threads_are_shown_as_text(box: Sandbox) -> None:
    """They are the script's own words, and end in a message for people."""
    script = (
        "import threading, time\nfor n in range(9):\n"
        "    threading.Thread(None, time.sleep, '\\x1b[2J\\n' + 'x' * 999, (60,)).start()"
    )
    result = box.run(script, wall_s=1.0)
    assert "\\x1b[2J\\n" in result.message
    assert result.message.isprintable()
    assert len(result.message) < 500


@pytest.mark.parametrize("ending", ["time.sleep(60)", "while True: pass"])
def test_files_that_were_open_when_time_ran_out_are_told(box: Sandbox, ending: str) -> None:
    """They may lack their end; what was closed, or read, is not among them."""
    script = (
        "import os, time\nopen('artifacts/whole', 'w').close()\nread = open('artifacts/whole')\n"
        f"f = open('artifacts/part', 'w')\nf.write('x')\ngone = open('gone', 'w')\nos.remove('gone')\n{ending}"
    )
    result = box.run(script, wall_s=1.0)
    assert result.message.endswith("; still open for writing, so perhaps not whole: artifacts/part")


def test_half_a_line_of_a_killed_run_is_kept(box: Sandbox) -> None:
    """On both streams, by every way to print."""
    script = (
        "import os, sys, time\nprint('a', end='')\nsys.stdout.write('b')\nsys.stdout.buffer.write(b'c')\n"
        "os.write(1, b'd')\nprint('e', end='', file=sys.stderr)\nsys.__stdout__.write('f')\ntime.sleep(60)"
    )
    result = box.run(script, wall_s=1.0)
    assert ("wall_limit", "abcdf", "e") == (result.exit_reason.value, result.logs.stdout, result.logs.stderr)


def test_last_words_are_in_the_message(box: Sandbox) -> None:
    """``sys.exit`` with words, and the complaint of argparse."""
    assert box.run("import sys\nsys.exit('no such thing')").message.endswith("no such thing")
    script = "import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args()"
    assert box.run(script).message.endswith("the following arguments are required: x")


def test_a_second_folder_of_artifacts_is_mentioned(box: Sandbox) -> None:
    """Nothing of it is kept, and the message says so and where it lies."""
    script = "import os\nos.makedirs('d/artifacts')\nos.chdir('d')\nopen('artifacts/a', 'w').close()\nresult = 1"
    result = box.run(script)
    assert (1, ()) == (value_of(result), result.artifacts)
    assert result.message.endswith(": d/artifacts")


def test_an_empty_second_folder_is_not_mentioned(box: Sandbox) -> None:
    """Nothing is lost with it."""
    assert "done" == box.run("import os\nos.makedirs('d/artifacts')\nresult = 1").message


LONG = 200_000


@pytest.mark.parametrize("size", [10, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "read",
    ["open(0).read()", "open('/dev/stdin').read()", "os.read(0, 1 << 20).decode()", "sys.stdin.read()"],
)
def test_stdin_is_read_by_whatever_way(box: Sandbox, read: str, size: int) -> None:
    """The request, whole; and what lay there takes no room when the run is over."""
    script = f"import json, os, sys\nresult = [json.loads({read})['parameters']['args'], None][0]"
    result = box.run(script, "x" * size)
    assert "x" * size == value_of(result)
    assert (0, 0.0) == (result.usage.workspace_files, result.usage.workspace_mib)


STREAMS: dict[str, tuple[str, Any]] = {
    "reconfigure": ("sys.stdout.reconfigure(encoding='utf-8', line_buffering=True)\nresult = 1", 1),
    "descriptors": ("result = [sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno()]", [0, 1, 2]),
    "select": ("import select\nresult = select.select([sys.stdin], [sys.stdout], [], 0)[0] == [sys.stdin]", True),
    "layers": ("result = [type(sys.stdout.buffer.raw).__name__, sys.stdin.buffer.raw.name]", ["FileIO", "<stdin>"]),
    "devices to write to": ("open('/dev/stdout', 'w').write('')\nresult = os.path.exists('artifacts')", True),
    "a redirect by descriptor": (
        "k = os.dup(1); os.dup2(os.open('log', 66), 1)\nprint('hello')\nos.dup2(k, 1); result = open('log').read()",
        "hello\n",
    ),
    "a redirect of the name": (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as o: print('x')\nresult = o.getvalue()",
        "x\n",
    ),
    "a closed stdout": ("sys.stdout.close()\nresult = 1", 1),
    "its own file": ("result = open(__file__).read()[:10]", "import os,"),
    "its own folder": ("result = os.path.dirname(__file__) == sys.path[0] == os.getcwd()", True),
    "a module beside it": ("open('beside.py', 'w').write('x = 5')\nimport beside\nresult = beside.x", 5),
    "the source of a class": ("import inspect\nclass A: pass\nresult = inspect.getsource(A)", "class A: pass\n"),
    "an interrupt": (
        "import _thread, time\ntry: _thread.interrupt_main(); time.sleep(9)\nexcept KeyboardInterrupt: result = 1",
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), STREAMS.values(), ids=STREAMS)
def test_the_interpreter_is_as_a_script_expects_it(box: Sandbox, script: str, expected: Any) -> None:
    """Standard streams, its own file, its folder."""
    assert expected == value_of(box.run("import os, sys\n" + script))


def test_a_file_of_its_own_is_there_only_for_who_asks(box: Sandbox) -> None:
    """So that a workspace is empty for all others, and usage exact."""
    script = "import os\nresult = sorted(os.listdir())"
    assert ["artifacts", "tmp"] == value_of(box.run(script))
    assert ["artifacts", "script.py", "tmp"] == value_of(box.run(script + "  # as __file__ says"))


@pytest.mark.parametrize("args", [None, "absent"])
def test_null_is_another_thing_than_no_args(box: Sandbox, args: str | None) -> None:
    """Null reaches ``main``; without args its default holds."""
    parameters = {"script": "def main(name='world'):\n    return name"} | ({} if args else {"args": None})
    raw = json.dumps({"task_type": "custom_script", "parameters": parameters}).encode()
    result = box.do(box.pool.run(raw, limits=msgspec.structs.replace(box.policy.limits)))
    assert ("world" if args else None) == value_of(result)
