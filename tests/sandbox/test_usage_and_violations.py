"""Usage tells the truth; each denied call has its name and its count."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sandbox import ExitReason, Violation
from sandbox.run import calls
from sandbox.run.watchdog import Watchdog
from tests.support.synchronous import BUSY, HOLD, Sandbox, eventually, name_of, value_of

pytestmark = pytest.mark.privilege(
    "an ordinary worker reads /proc of its runs by the rights of one user, not by root's"
)


def test_cpu_is_what_was_burned(box: Sandbox) -> None:
    """Half a second of work is about half a second; sleep is none."""
    burned = box.run("import time\nwhile time.process_time() < args: pass\nresult = 1", 0.5)
    assert 0.4 <= burned.usage.cpu_s <= 1.0
    slept = box.run("import time; time.sleep(0.3)")
    assert slept.usage.cpu_s < 0.2
    assert slept.usage.wall_s >= 0.3


def test_cpu_counts_all_threads(box: Sandbox) -> None:
    """The processor time of several threads is added up, though the main thread only waits."""
    script = """
import hashlib, threading, time
def burn():
    ends = time.thread_time() + 0.3
    while time.thread_time() < ends:
        hashlib.sha256(bytes(1 << 20)).digest()
threads = [threading.Thread(target=burn) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    result = box.run(script)
    assert 0.8 <= result.usage.cpu_s <= 1.6
    assert 4 == result.usage.processes_peak


def niceness_of(pid: int) -> set[int]:
    """Of each thread of a process: proc_pid_stat(5), field 19."""
    stats = [path.read_text(encoding="utf-8").rpartition(")")[2] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(stat.split()[19 - 3]) for stat in stats}


COMPUTES = """
import threading, time
threading.Thread(target=hold).start()
while time.process_time() < 0.5: pass
threading.Event().wait()
"""


def test_run_that_computes_for_long_gives_way(box: Sandbox) -> None:
    """NEI-02: with every thread, as soon as the watchdog sees it; its session, too, where sessions count and we may."""

    def gives_way(pid: int) -> bool:
        session = Path(f"/proc/{pid}/autogroup")
        is_last = not session.exists() or os.geteuid() != 0 or session.read_text("ascii").strip().endswith("nice 5")
        return is_last and niceness_of(pid) == {5}

    seen, _ = box.while_running(HOLD + COMPUTES, lambda pid: eventually(lambda: gives_way(pid)), then="cancel")
    assert seen


def test_run_that_waits_keeps_its_place(box: Sandbox) -> None:
    """However long it takes: it takes no processor from anybody."""
    script = BUSY + "import time\ntime.sleep(0.5)\nctypes.CDLL(None).prctl(15, b'slept', 0, 0, 0)\ntime.sleep(60)"

    def act(pid: int) -> set[int]:
        assert eventually(lambda: name_of(pid) == "slept")
        return niceness_of(pid)

    seen, _ = box.while_running(script, act, then="cancel")
    assert {0} == seen


def test_run_that_sleeps_is_hardly_measured(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand runs that wait for something take little of their worker: most of its looks read a clock, no more."""
    calls_of: Counter[str] = Counter()
    for name in ("_look_and_compare", "look"):
        counted = getattr(Watchdog, name)

        def count(self: Watchdog, name: str = name, counted: Any = counted) -> Any:
            calls_of[name] += 1
            return counted(self)

        monkeypatch.setattr(Watchdog, name, count)
    assert ExitReason.OK is box.run("import time\ntime.sleep(2)\nresult = 1").exit_reason
    assert calls_of["_look_and_compare"] > 8
    assert calls_of["look"] < calls_of["_look_and_compare"] / 2


def test_run_that_wakes_is_measured_again(box: Sandbox) -> None:
    """It sleeps for many looks and then takes more than it may: memory and workspace, whose sum only a look finds."""
    script = "import time\ntime.sleep(1)\nkept = b'x' * (args << 20)\nopen('big', 'wb').write(kept)\nwhile True: pass"
    rest_mib = round(box.run("result = 1").usage.memory_peak_mib)
    result = box.run(script, 30, memory_mib=rest_mib + 45)
    assert (ExitReason.MEMORY_LIMIT, "SIGKILL", None) == (result.exit_reason, result.signal, result.error)


def test_memory_peak_is_what_was_held(box: Sandbox) -> None:
    """A hundred MiB more than an empty run."""
    empty = box.run("import time; time.sleep(0.2)").usage.memory_peak_mib
    held = box.run("import time\nx = bytearray(b'x' * (100 << 20))\ntime.sleep(0.3)").usage.memory_peak_mib
    assert 0 < empty < 120
    assert 90 <= held - empty <= 220


def test_memory_that_is_let_go_at_once_was_held(box: Sandbox) -> None:
    """The kernel's own mark has a peak that lies between two looks of the watchdog."""
    empty = box.run("result = 1").usage.memory_peak_mib
    held = box.run("for _ in range(3):\n    x = b'x' * (100 << 20)\n    del x\nresult = 1").usage.memory_peak_mib
    assert 95 <= held - empty <= 105


def test_a_quick_run_has_a_memory_peak(box: Sandbox) -> None:
    """However short it was, it had memory."""
    for script in ("result = 1", "1 / 0", "import os; os._exit(0)"):
        assert box.run(script).usage.memory_peak_mib > 1, script


def test_output_and_workspace_are_counted(box: Sandbox) -> None:
    """In the units that they say."""
    script = "import os\nprint('x' * 10239)\nfor i in range(5): open(f'f{i}', 'wb').write(bytes(1 << 20))"
    usage = box.run(script).usage
    assert (10.0, 5) == (usage.output_kib, usage.workspace_files)
    assert 5.0 <= usage.workspace_mib < 5.5


def test_isolation_and_limits_are_in_the_result(box: Sandbox) -> None:
    """The answer names the limits in force, not those requested."""
    result = box.run("result = 1", wall_s=3.0, memory_mib=128)
    assert (3.0, 128, box.policy.limits.cpu_s) == (result.limits.wall_s, result.limits.memory_mib, result.limits.cpu_s)
    assert ("full", "warm") == (result.isolation.profile, result.isolation.start)
    assert {"namespaces", "landlock", "seccomp", "rlimits"} <= set(result.isolation.layers)
    assert (box.policy.name, box.policy.digest) == (result.policy, result.policy_digest)


def test_narrowing_never_widens(box: Sandbox) -> None:
    """A caller may ask for less, never for more."""
    limits = box.policy.limits
    assert limits == limits.narrowed(timeout_s=1e6, memory_mib=1 << 19)
    assert (1.0, 64) == (limits.narrowed(timeout_s=1.0).wall_s, limits.narrowed(memory_mib=64).memory_mib)


@pytest.mark.parametrize(("mib", "reason"), [(192, ExitReason.MEMORY_LIMIT), (512, ExitReason.OK)])
def test_narrowed_memory_holds(box: Sandbox, mib: int, reason: ExitReason) -> None:
    """The same script, ended by the lower limit, lives with the policy's."""
    assert reason == box.run("x = bytearray(b'x' * (200 << 20))", memory_mib=mib).exit_reason


def test_each_denied_call_has_its_name_and_count(box: Sandbox) -> None:
    """Names as in the manual, counts as tried, sorted by name; what is allowed is not there."""
    script = """
import os, socket
def often(number, act, *arguments):
    for _ in range(number):
        try:
            act(*arguments)
        except OSError:
            pass
often(3, socket.socket)
often(2, os.fork)
often(5, os.kill, 2, 0)
open("fine", "w").close()
"""
    expected = (
        Violation(syscall="clone", count=2),
        Violation(syscall="kill", count=5),
        Violation(syscall="socket", count=3),
    )
    assert expected == box.run(script).violations


def test_denials_are_survived_and_change_no_reason(box: Sandbox) -> None:
    """A denied call is an errno to the script, nothing more."""
    script = "import os\ntry:\n    os.fork()\nexcept PermissionError as error:\n    result = error.errno"
    result = box.run(script)
    assert (1, ExitReason.OK) == (value_of(result), result.exit_reason)


FLOOD = (
    BUSY
    + "import os\nfor _ in range(args):\n    try:\n        os.kill(2, 0)\n    except OSError as error:\n"
    + "        result = error.errno"
)


def test_a_thousand_denials_are_answered_at_once(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them waits: here one that did would wait until the run's time is over."""
    monkeypatch.setattr(calls, "_PAUSE_S", 600.0)
    result = box.run(FLOOD, 1000)
    assert (ExitReason.OK, (Violation(syscall="kill", count=1000),)) == (result.exit_reason, result.violations)


def test_each_further_denial_waits(box: Sandbox) -> None:
    """So that it is the script that has to, not the worker."""
    result = box.run(FLOOD, 1050)
    assert (ExitReason.OK, (Violation(syscall="kill", count=1050),)) == (result.exit_reason, result.violations)
    assert result.usage.wall_s >= 50 * calls._PAUSE_S


def test_names_of_denied_calls_are_few(box: Sandbox) -> None:
    """A script cannot fill its result with numbers of calls that do not exist."""
    script = "import ctypes\nfor number in range(5000, 5900): ctypes.CDLL(None).syscall(number)\nresult = 1"
    result = box.run(script)
    assert ExitReason.OK == result.exit_reason
    assert 1 <= len(result.violations) <= 100


def test_a_flood_of_denials_holds_up_nobody(box: Sandbox) -> None:
    """Beside it another run is served; the flood, which would take hours, goes on until it is cancelled."""
    beside, flood = box.while_running(
        FLOOD, lambda _pid: value_of(box.run("result = 'served'")), 1_000_000, then="cancel"
    )
    assert ("served", ExitReason.CANCELLED) == (beside, flood.exit_reason)
    assert flood.violations[0].count >= 1


NAMELESS = "import tempfile, threading, time\nf = tempfile.TemporaryFile()\n"
A_THREAD = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
FORTY_MIB = "f.write(bytes(40 << 20)); f.flush()\n"
UNTIL_FULL = "while True:\n    f.write(bytes(1 << 20)); f.flush()\n"
HELD_AT_THE_END = {
    "it is killed": (A_THREAD + "time.sleep(60)", "wall_limit", {"wall_s": 2.0}),
    "it kills itself": ("import os; os.abort()", "signaled", {}),
}


@pytest.mark.parametrize(("rest", "reason", "limits"), HELD_AT_THE_END.values(), ids=HELD_AT_THE_END)
def test_files_without_a_name_count_until_the_end(box: Sandbox, rest: str, reason: str, limits: Any) -> None:
    """The kernel frees them with the last descriptor, which may be closed before anybody knows of the end."""
    result = box.run(NAMELESS + FORTY_MIB + rest, **limits)
    assert (reason, 40) == (result.exit_reason.value, int(result.usage.workspace_mib))


def test_file_without_a_name_counts_where_the_run_ends_by_itself(box: Sandbox) -> None:
    """A bare descriptor, which nobody closes before the kernel does."""
    script = "import os\nfd = os.open('.', os.O_TMPFILE | os.O_RDWR)\nos.write(fd, bytes(40 << 20))\nresult = 1"
    result = box.run(script)
    assert ("ok", 40) == (result.exit_reason.value, int(result.usage.workspace_mib))


@pytest.mark.parametrize("thread", ["", A_THREAD], ids=["alone", "beside a thread"])
def test_workspace_that_a_file_without_a_name_fills_is_the_limit(box: Sandbox, thread: str) -> None:
    """Not an error of the script, though the file is gone when the script has ended."""
    result = box.run(NAMELESS + thread + UNTIL_FULL)
    assert ("workspace_limit", 64.0) == (result.exit_reason.value, result.usage.workspace_mib)
