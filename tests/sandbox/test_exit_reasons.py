"""Each way to end, one behaviour a test: the supervisor says only what it can prove."""

from __future__ import annotations

import os
import platform
import random
from signal import Signals
from typing import Any

import pytest

from sandbox import ExitReason, Result
from sandbox.pool.zygote_client import ZygoteClient
from tests.support.synchronous import Sandbox, value_of

pytestmark = pytest.mark.privilege(
    "an ordinary worker reads, holds and kills its runs by the rights of one user, not by root's"
)

FRAME = (
    "import os, struct, sys\ndef send(text, kind=b'R'):\n    os.write(3, kind + struct.pack('>Q', len(text)) + text)\n"
)


def reason(result: Result) -> tuple[str, int | None, str | None]:
    """The fields that tests compare most often."""
    return result.exit_reason.value, result.exit_code, result.signal


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("result = args", {"a": [1, 2.5, None, "ü"]}),
        ("def main(args):\n    return args", {"a": [1, 2.5, None, "ü"]}),
        ("print('only this')", None),
    ],
    ids=["assigned", "returned", "nothing"],
)
def test_ok(box: Sandbox, script: str, value: Any) -> None:
    """A script that ends gives its result, and exit code 0."""
    result = box.run(script, value)
    assert ("ok", 0, None) == reason(result)
    assert value == value_of(result)
    assert "done" == result.message


def test_error_has_type_message_and_a_traceback_of_the_sandbox(box: Sandbox) -> None:
    """An exception is described; the traceback shows the script's lines and no path of the host."""
    result = box.run("import json\ndef inner():\n    return json.loads('{')\ninner()")
    assert ("error", 1, None) == reason(result)
    assert result.error is not None
    assert "JSONDecodeError" == result.error.type
    assert "Expecting property name" in result.error.message
    traceback = result.error.traceback or ""
    assert "return json.loads('{')" in traceback
    places = [line.split('"')[1] for line in traceback.splitlines() if line.startswith("  File ")]
    assert places[:2] == ["script.py", "script.py"]
    assert all(place == "script.py" or place.startswith(("/python/", "/app/", "/scripts/")) for place in places)


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("import os; os._exit(7)", 7),
        ("raise SystemExit(3)", 3),
        ("import sys; sys.exit('words')", 1),
        ("exit(255)", 255),
    ],
)
def test_nonzero_exit(box: Sandbox, script: str, exit_code: int) -> None:
    """It left by itself, with another code than 0."""
    assert ("nonzero_exit", exit_code, None) == reason(box.run(script))


@pytest.mark.parametrize("script", ["import os; os._exit(0)", "import atexit, os; atexit.register(os._exit, 0)"])
def test_no_result(box: Sandbox, script: str) -> None:
    """It left with code 0 and gave nothing: never ``ok``."""
    assert ("no_result", 0, None) == reason(box.run(script))


@pytest.mark.parametrize(
    "script",
    [
        "x = []\nfor _ in range(70): x = [x]\nresult = x",
        FRAME + "send(b'[' * 65 + b']' * 65); os._exit(0)",
        FRAME + "send(b'1'); send(b'2'); os._exit(0)",
        FRAME + "os.write(3, b'R' + struct.pack('>Q', 100) + b'1'); os._exit(0)",
        FRAME + "os.write(3, b'garbage'); os._exit(0)",
        FRAME + "send(b'\"\\xff\"'); os._exit(0)",
        FRAME + "send(b'{}', b'E'); os._exit(1)",
    ],
    ids=["deep", "deep frame", "two frames", "short frame", "garbage", "bad UTF-8", "an error that is none"],
)
def test_invalid_result(box: Sandbox, script: str) -> None:
    """The response is not what it must be, and the message says how."""
    result = box.run(script)
    assert ExitReason.INVALID_RESULT == result.exit_reason
    assert result.value is None
    assert len(result.message) > 10


@pytest.mark.parametrize("kib", [64, 8192])
def test_result_too_large(box: Sandbox, kib: int) -> None:
    """Past result_kib it is refused, up to it it is taken."""
    fits = box.run("result = 'x' * args", (kib << 10) - 2, result_kib=kib)
    assert ("ok", (kib << 10)) == (fits.exit_reason.value, len(bytes(fits.value or b"")))
    # an error may take 256 KiB, so a small result limit is known to be passed only when all has been read
    result = box.run("result = 'x' * args", kib << 10, result_kib=kib)
    assert ExitReason.INVALID_RESULT == result.exit_reason
    assert "result_kib" in result.message


def test_endless_response_is_cut(box: Sandbox) -> None:
    """A response without end is not collected."""
    result = box.run("import os\nwhile True: os.write(3, bytes(65536))", result_kib=64)
    assert ExitReason.INVALID_RESULT == result.exit_reason


def test_wall_limit(box: Sandbox) -> None:
    """It ran too long and was killed; the message names the limit."""
    result = box.run("import time; time.sleep(60)", wall_s=0.5)
    assert ("wall_limit", None, "SIGKILL") == reason(result)
    assert "0.5 s (wall_s)" in result.message
    assert result.usage.wall_s >= 0.5


@pytest.mark.parametrize("threads", [1, 3])
def test_cpu_limit(box: Sandbox, threads: int) -> None:
    """Processor time over all threads, not wall time."""
    script = """
import hashlib, threading
def burn():
    while True:
        hashlib.sha256(bytes(1 << 20)).digest()
for _ in range(args - 1):
    threading.Thread(target=burn).start()
burn()
"""
    result = box.run(script, threads, cpu_s=1.0)
    assert ("cpu_limit", None, "SIGKILL") == reason(result)
    assert 1.0 <= result.usage.cpu_s < 2.0


@pytest.mark.parametrize(
    "script",
    [
        "x = bytes(8 << 30)",
        "x = []\nwhile True: x.append(b'x' * 65536 + str(len(x)).encode())",
        "import numpy; x = numpy.ones(1 << 30)",
        "import mmap, time\nx = mmap.mmap(-1, 400 << 20)\nfor i in range(0, 400 << 20, 4096): x[i] = 1\ntime.sleep(9)",
    ],
    ids=["8 GiB", "slow growth", "numpy", "shared anonymous"],
)
def test_memory_limit(box: Sandbox, script: str) -> None:
    """Refused or killed, the reason is one, and the peak is hardly past the limit."""
    result = box.run(script, memory_mib=256)
    assert ExitReason.MEMORY_LIMIT == result.exit_reason
    assert "256 MiB" in result.message
    assert result.usage.memory_peak_mib <= 256 * 1.1


def test_refusal_that_is_survived_changes_nothing(box: Sandbox) -> None:
    """A script that handles its MemoryError is well."""
    script = "try:\n    x = bytes(8 << 30)\nexcept MemoryError:\n    result = 'survived'"
    assert "survived" == value_of(box.run(script))


@pytest.mark.parametrize(
    "script",
    [
        "import os\nwhile True: os.write(1, bytes(4096))",
        "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
        "import os\nwhile True: os.write(1, b'a' * 500), os.write(2, b'b' * 500)",
    ],
    ids=["stdout", "stderr", "both in turn"],
)
def test_output_limit(box: Sandbox, script: str) -> None:
    """It printed too much: what fits is kept, and marked as cut."""
    result = box.run(script, output_kib=64)
    assert ("output_limit", None, "SIGKILL") == reason(result)
    assert 64 << 10 == len(result.logs.stdout) + len(result.logs.stderr)
    assert result.logs.truncated


def test_output_up_to_the_limit_is_whole(box: Sandbox) -> None:
    """Exactly as much as is allowed is no offence."""
    result = box.run("import os\nos.write(1, b'x' * (64 << 10))\nresult = 1", output_kib=64)
    assert ("ok", 64 << 10, False) == (result.exit_reason.value, len(result.logs.stdout), result.logs.truncated)


@pytest.mark.parametrize(
    ("script", "signal"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os, threading, time; threading.Thread(target=os.abort).start(); time.sleep(60)", "SIGABRT"),
        ("import faulthandler, os; faulthandler.enable(); os.abort()", "SIGABRT"),
        ("import faulthandler; faulthandler._sigfpe()", "SIGFPE"),
    ],
)
def test_signaled(box: Sandbox, script: str, signal: str) -> None:
    """A crash in native code has its signal's name; so has an abort, which pid 1 sends to itself in vain: abort(3)."""
    result = box.run(script)
    assert (ExitReason.SIGNALED, signal, ()) == (result.exit_reason, result.signal, result.violations)


@pytest.mark.parametrize("after_s", [0.0, 0.3])
def test_cancelled(box: Sandbox, after_s: float) -> None:
    """Asked to stop, at once or under way, it is ended; the minute that it would sleep is not waited for."""
    result = box.run("import time; time.sleep(60)", cancel_after_s=after_s)
    assert ("cancelled", None, "SIGKILL") == reason(result)


def test_the_first_reason_stands(box: Sandbox) -> None:
    """A result that was there before the limit does not make it ``ok``."""
    result = box.run(FRAME + "send(b'1')\nimport time; time.sleep(60)", wall_s=0.3)
    assert ("wall_limit", None) == (result.exit_reason.value, result.value)


def test_exit_code_is_right_five_hundred_times(make_box: Any) -> None:
    """The end is known before the zygote reaps: the code told then is always the true one."""
    box = make_box(ready=4)
    chance = random.Random(1)
    kinds = {
        "leave": lambda code: (
            f"import os; os._exit({code})",
            ("no_result" if code == 0 else "nonzero_exit", code, None),
        ),
        "exit": lambda code: (f"raise SystemExit({code})", ("ok" if code == 0 else "nonzero_exit", code, None)),
        "result": lambda code: (f"result = {code}", ("ok", 0, None)),
        "raise": lambda code: (f"raise ValueError({code})", ("error", 1, None)),
        "thread": lambda code: (
            f"import os, threading\nthreading.Thread(target=os._exit, args=({code},)).start()\nwhile True: pass",
            ("no_result" if code == 0 else "nonzero_exit", code, None),
        ),
    }
    cases = [kinds[chance.choice(list(kinds))](chance.choice([0, 1, 2, 9, 127, 137, 255])) for _ in range(500)]
    for start in range(0, 500, 10):
        part = cases[start : start + 10]
        results = box.run_many([(script, None) for script, _ in part])
        assert [expected for _, expected in part] == [reason(result) for result in results]


RACES = {
    "two threads leave": """
threading.Thread(target=lambda: (wait(), libc.syscall(EXIT_GROUP, 3))).start()
libc.syscall(EXIT_GROUP, 0)
""",
    "killed while it leaves": """
libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.signal(14, 0x10)  # SIGALRM jumps to where nothing is
threading.Thread(target=lambda: (wait(), libc.syscall(TGKILL, os.getpid(), os.getpid(), 14))).start()
libc.syscall(EXIT_GROUP, 0)
""",
}


@pytest.mark.parametrize("race", RACES)
def test_the_reason_is_what_the_kernel_says(make_box: Any, monkeypatch: pytest.MonkeyPatch, race: str) -> None:
    """However its threads race to end it, what is told is what wait4 tells afterwards: no crash is hidden.

    A process that left with one thread is held in its last call until we kill it, and then wait4 tells that.
    """
    truth: dict[int, int] = {}
    settle_death = ZygoteClient._settle_death

    def note(self: ZygoteClient, number: int, facts: Any) -> None:
        truth[number] = os.waitstatus_to_exitcode(facts[0])
        settle_death(self, number, facts)

    monkeypatch.setattr(ZygoteClient, "_settle_death", note)
    x86 = platform.machine() == "x86_64"
    numbers = f"EXIT_GROUP, TGKILL = {(231, 234) if x86 else (94, 131)}\n"
    script = FRAME + numbers + """
import ctypes, threading, time
libc = ctypes.CDLL(None)
def wait():
    ends = time.perf_counter() + args / 1e6
    while time.perf_counter() < ends:
        pass
send(b"1")
""" + RACES[race]  # fmt: skip
    box = make_box(ready=0)
    wrong = []
    for number in range(1, 151):
        result = box.run(script, number * 2)
        assert box.settle()
        told = result.exit_code if result.signal is None else -Signals[result.signal]
        killed_after_its_end = result.signal is None and truth[number] == -Signals.SIGKILL
        if told != truth[number] and not killed_after_its_end:
            wrong.append((result.exit_reason.value, told, truth[number]))
    assert [] == wrong
