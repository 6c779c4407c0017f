"""The ``processes`` profile: a run may start processes; they are counted, measured and ended like the run itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import sandbox
from sandbox import ExitReason, Host, HostError, Policy, PolicyError, Template
from tests.support.synchronous import (
    BUSY,
    HOLD,
    Sandbox,
    as_before,
    descendants,
    eventually,
    inventory,
    name_of,
    value_of,
)

pytestmark = pytest.mark.privilege(
    "an ordinary worker finds and ends a tree by the rights of one user; the kernel counts threads by user"
)

MakeBox = Callable[..., Sandbox]
PROCESSES = 8
THREADS = 8


def grant_processes(policy: Policy, processes: int = PROCESSES, threads: int = THREADS) -> Policy:
    """The same grant, and processes."""
    limits = msgspec.structs.replace(policy.limits, processes=processes, threads=threads)
    syscalls = msgspec.structs.replace(policy.syscalls, profile="processes")
    return msgspec.structs.replace(policy, limits=limits, syscalls=syscalls)


@pytest.fixture(scope="module")
def shared_pool(light_policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool whose runs may start eight processes."""
    box = Sandbox(grant_processes(light_policy), host, template, ready=2)
    yield box
    box.close()


@pytest.fixture
def box(shared_pool: Sandbox) -> Iterator[Sandbox]:
    """That pool, full and at rest; what a test started is gone after it."""
    assert shared_pool.settle()
    before = inventory()
    yield shared_pool
    assert shared_pool.settle()
    assert {} == as_before(before)


def named(name: str) -> list[int]:
    """The processes below this one that gave themselves that name."""
    return [pid for pid in descendants() if name_of(pid) == name]


# -- what works


def test_subprocess_of_the_interpreter(box: Sandbox) -> None:
    """A new interpreter, its output and its exit code."""
    script = """
import subprocess, sys
ended = subprocess.run([sys.executable, "-I", "-c", "import sys; print(6 * 7); sys.exit(3)"], capture_output=True)
result = [ended.returncode, ended.stdout.decode(), ended.stderr.decode()]
"""
    assert [3, "42\n", ""] == value_of(box.run(script))


def test_multiprocessing_pool(box: Sandbox) -> None:
    """Four workers of the standard library divide the work."""
    script = """
import multiprocessing, time
def square(number):
    time.sleep(0.02)
    return number * number
context = multiprocessing.get_context("fork")
with context.Pool(4) as pool:
    result = pool.map(square, range(100), chunksize=5)
"""
    result = box.run(script)
    assert [number * number for number in range(100)] == value_of(result)
    assert result.usage.processes_peak >= 5


def test_fork_and_wait(box: Sandbox) -> None:
    """The plainest way: a fork, its exit code."""
    script = "import os\nif (pid := os.fork()) == 0:\n    os._exit(7)\nresult = os.waitstatus_to_exitcode(os.wait()[1])"
    assert 7 == value_of(box.run(script))


def test_threads_work_beside_processes(box: Sandbox) -> None:
    """One count for both."""
    script = """
import subprocess, sys, threading
seen = []
def start():
    seen.append(subprocess.run([sys.executable, "-I", "-S", "-c", "pass"]).returncode)
threads = [threading.Thread(target=start) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
result = seen
"""
    assert [0, 0, 0] == value_of(box.run(script))


def test_signals_between_own_processes(box: Sandbox) -> None:
    """A run may end what it has started."""
    script = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
child.send_signal(signal.SIGTERM)
result = child.wait()
"""
    assert -15 == value_of(box.run(script))


def test_output_of_every_process_is_kept(box: Sandbox) -> None:
    """The output of a run's own child process is the run's output, and counts."""
    script = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', \"print('x' * 10239)\"], check=True)"
    result = box.run(script)
    assert ("x" * 10239 + "\n", 10.0) == (result.logs.stdout, result.usage.output_kib)


# -- what does not


@pytest.mark.parametrize("path", ["/bin/sh", "/bin/true", "/usr/bin/env", "/usr/bin/python3"])
def test_no_other_program_can_be_executed(box: Sandbox, path: str) -> None:
    """There is none: the root holds the interpreter alone."""
    assert Path(path).exists()
    script = f"import os\ntry:\n    os.execv({path!r}, ['x'])\nexcept OSError as error:\n    result = error.errno"
    assert value_of(box.run(script)) in (2, 13)  # ENOENT, EACCES


def test_a_shell_cannot_be_had(box: Sandbox) -> None:
    """``os.system`` finds no /bin/sh."""
    assert 127 == value_of(box.run("import os\nresult = os.waitstatus_to_exitcode(os.system('echo hello'))"))


def test_a_program_of_its_own_cannot_be_executed(box: Sandbox) -> None:
    """Not from the workspace, not by the dynamic loader that would read it as data."""
    script = """
import os, shutil, subprocess, sys
shutil.copyfile(sys.executable, "own"); os.chmod("own", 0o700)
open("script", "w").write("#!" + sys.executable + "\\nprint(1)\\n"); os.chmod("script", 0o700)
seen = {}
for name in ("./own", "./script"):
    try:
        subprocess.run([name], check=False)
        seen[name] = "done"
    except OSError as error:
        seen[name] = error.errno
def loaded(path):
    loader = next(filter(os.path.exists, ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")))
    return subprocess.run([loader, path, "-c", "print('ran')"], stdout=subprocess.PIPE).stdout.decode()
seen["loader"] = [loaded("/work/own"), loaded(sys.executable)]
result = seen
"""
    assert {"./own": 13, "./script": 13, "loader": ["", "ran\n"]} == value_of(box.run(script))


def test_no_namespace_can_be_entered(box: Sandbox) -> None:
    """unshare, setns and clone with any namespace flag are refused, in the run and in its children."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attempts():
    seen = []
    for flag in (0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        if flag != 0x80:
            seen.append(libc.unshare(flag) == -1 and ctypes.get_errno())
        answer = libc.syscall(56, flag | 17, 0, 0, 0, 0)
        if answer == 0:
            os._exit(0)
        seen.append(answer == -1 and ctypes.get_errno())
    seen.append(libc.setns(0, 0) == -1 and ctypes.get_errno())
    return seen
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, repr(set(attempts())).encode())
    os._exit(0)
os.wait()
result = [sorted(set(attempts())), os.read(read, 1000).decode()]
"""
    result = box.run(script)
    assert [[1], "{1}"] == value_of(result)
    assert {"unshare", "clone", "setns"} <= {violation.syscall for violation in result.violations}


def test_denials_of_every_process_are_named(box: Sandbox) -> None:
    """The filter and its listener are inherited: a new interpreter's denied calls are counted with the rest."""
    script = """
import subprocess, sys
program = "import socket\\nfor _ in range(2):\\n    try: socket.socket()\\n    except OSError: pass"
for _ in range(3):
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
"""
    counts = {violation.syscall: violation.count for violation in box.run(script).violations}
    assert 6 == counts["socket"]


def test_processes_of_other_runs_cannot_be_signalled(box: Sandbox) -> None:
    """kill(-1) and every pid reach the run's own namespace only: the neighbour lives on and answers."""
    script = """
import os, signal
reached = 0
for pid in range(2, 300):
    try:
        os.kill(pid, signal.SIGKILL)
        reached += 1
    except ProcessLookupError:
        pass
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass
result = reached
"""
    neighbour = BUSY + "import time\ntime.sleep(1)\nresult = 'alive'"
    reached, result = box.while_running(neighbour, lambda _pid: value_of(box.run(script)))
    assert (0, "alive") == (reached, value_of(result))


def test_a_run_without_the_profile_cannot_fork(make_box: MakeBox) -> None:
    """The positive control: it is the profile that lets it."""
    script = "import os\ntry:\n    os.fork()\nexcept OSError as error:\n    result = error.errno"
    assert 1 == value_of(make_box().run(script))


# -- limits

BOMB = """
import errno, os, time
os.setsid() if os.getpid() != 1 else None
refusals, born = [], 0
while len(refusals) < 50:
    try:
        if os.fork() == 0:
            import ctypes
            ctypes.CDLL(None).prctl(15, b"bomb", 0, 0, 0)
            while True:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.01)
        born += 1
    except OSError as error:
        refusals.append(errno.errorcode[error.errno])
result = [born, sorted(set(refusals))]
"""


def test_a_fork_bomb_is_bounded_by_the_kernel(box: Sandbox) -> None:
    """EAGAIN at the count, a count that is never passed, and nothing alive after the end."""
    result = box.run(BOMB)
    born, refusals = value_of(result)
    assert ["EAGAIN"] == refusals
    assert 1 <= born <= PROCESSES + THREADS - 1
    assert PROCESSES + THREADS >= result.usage.processes_peak > 1
    assert eventually(lambda: [] == named("bomb"))


def test_a_fork_bomb_does_not_reach_the_neighbour(box: Sandbox) -> None:
    """The count is a run's own: meanwhile another starts its processes."""
    neighbour = "import subprocess, sys\nresult = subprocess.run([sys.executable, '-I', '-S', '-c', 'pass']).returncode"
    seen, bomb = box.while_running(HOLD + BOMB + "hold()", lambda _pid: value_of(box.run(neighbour)), then="release")
    assert (0, ["EAGAIN"]) == (seen, value_of(bomb)[1])


def test_a_fork_bomb_that_goes_on_is_ended(box: Sandbox) -> None:
    """It burns its processor time or its wall time, and is dead then."""
    script = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    result = box.run(script, wall_s=2.0)
    assert result.exit_reason in (ExitReason.WALL_LIMIT, ExitReason.CPU_LIMIT, ExitReason.MEMORY_LIMIT)
    assert box.settle()


DAEMON = """
import ctypes, os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    ctypes.CDLL(None).prctl(15, b"daemon", 0, 0, 0)
    {pipes}
    open("born", "w").close()
    while True:
        time.sleep(60)
os.wait()
while not os.path.exists("born"):
    time.sleep(0.01)
result = "left"
"""
CLOSE = "[os.close(fd) for fd in range(4)]"


@pytest.mark.parametrize("pipes", ["pass", CLOSE], ids=["holding the pipes", "with closed descriptors"])
def test_a_daemon_is_dead_with_the_run(box: Sandbox, pipes: str) -> None:
    """Forked twice, in a session of its own, deaf to every signal: it delays no answer and does not outlive it."""
    result = box.run(DAEMON.format(pipes=pipes))
    assert "left" == value_of(result)  # and no wall_limit: the daemon sleeps for ever, and its end was not waited for
    assert eventually(lambda: [] == named("daemon"))


def test_a_stopped_child_does_not_outlive_the_run(box: Sandbox) -> None:
    """SIGSTOP holds nothing up."""
    script = """
import ctypes, os, signal, time
pid = os.fork()
if pid == 0:
    ctypes.CDLL(None).prctl(15, b"stopped", 0, 0, 0)
    open("born", "w").close()
    time.sleep(60)
while not os.path.exists("born"):
    time.sleep(0.01)
os.kill(pid, signal.SIGSTOP)
result = os.waitpid(pid, os.WUNTRACED)[1] & 0x7F
"""
    assert 0x7F == value_of(box.run(script))
    assert eventually(lambda: [] == named("stopped"))


@pytest.mark.parametrize("reason", [ExitReason.WALL_LIMIT, ExitReason.CANCELLED])
def test_a_killed_tree_is_wholly_dead(box: Sandbox, reason: ExitReason) -> None:
    """The end of a run ends every process that it has started."""
    script = """
import ctypes, os, time
for _ in range(5):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b"leaf", 0, 0, 0)
        break
else:
    ctypes.CDLL(None).prctl(15, b"busy", 0, 0, 0)
time.sleep(60)
"""
    if reason is ExitReason.CANCELLED:
        born, result = box.while_running(
            script, lambda _pid: eventually(lambda: 5 == len(named("leaf"))), then="cancel"
        )
        assert born
    else:
        result = box.run(script, wall_s=1.0)
    assert reason == result.exit_reason
    assert eventually(lambda: [] == named("leaf"))


MEMORY = """
import ctypes, os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(b"x" * (args << 20))
        time.sleep(30)
        os._exit(0)
time.sleep(30)
result = "survived"
"""


def test_memory_is_that_of_the_tree(box: Sandbox) -> None:
    """Four times 200 MiB, none of which is too much alone, is more than 512."""
    result = box.run(MEMORY, 200)
    assert ExitReason.MEMORY_LIMIT == result.exit_reason
    assert result.usage.memory_peak_mib > 400


def test_memory_within_the_limit_is_given(box: Sandbox) -> None:
    """Four times 80 MiB fit, and the peak is their sum."""
    script = """
import os, time
told, tell = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(80 << 20)
        held[::4096] = b"x" * len(held[::4096])
        os.write(tell, b"x")
        time.sleep(30)
for _ in range(4):
    os.read(told, 1)
time.sleep(0.5)
result = "survived"
"""
    result = box.run(script)
    assert "survived" == value_of(result)
    assert 320 <= result.usage.memory_peak_mib <= 512


def test_shared_memory_is_counted_once(box: Sandbox) -> None:
    """Memory that four processes share counts once, and it does count."""
    script = """
import mmap, os, time
told, tell = os.pipe()
shared = mmap.mmap(-1, 150 << 20)
shared.write(b"x" * (150 << 20))
for _ in range(4):
    if os.fork() == 0:
        for at in range(0, 150 << 20, 4096):
            shared[at]
        os.write(tell, b"x")
        time.sleep(30)
for _ in range(4):
    os.read(told, 1)
time.sleep(0.5)
result = "survived"
"""
    result = box.run(script)
    assert "survived" == value_of(result)
    assert 150 <= result.usage.memory_peak_mib <= 350


BURN = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
while True:
    time.sleep(1)
"""


def test_processor_time_is_that_of_the_tree(box: Sandbox) -> None:
    """Three that burn half a second each have burned more than one, though the run itself only sleeps."""
    result = box.run(BURN, cpu_s=1.0, wall_s=30.0)
    assert ExitReason.CPU_LIMIT == result.exit_reason
    assert 0.9 <= result.usage.cpu_s <= 4.0


def test_processor_time_of_the_dead_counts(box: Sandbox) -> None:
    """One short-lived process after the other does not add up to nothing."""
    script = """
import os, time
while True:
    if os.fork() == 0:
        ends = time.process_time() + 0.2
        while time.process_time() < ends:
            pass
        os._exit(0)
    os.wait()
"""
    result = box.run(script, cpu_s=1.0, wall_s=30.0)
    assert ExitReason.CPU_LIMIT == result.exit_reason


def test_processor_time_of_orphans_counts(box: Sandbox) -> None:
    """Nor does it when each is disowned before it burns: pid 1 of the namespace inherits them."""
    script = """
import os, time
while True:
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            ends = time.process_time() + 0.2
            while time.process_time() < ends:
                pass
        os._exit(0)
    os.waitpid(pid, 0)
    os.wait()  # the orphan, which is ours by now
"""
    result = box.run(script, cpu_s=1.0, wall_s=30.0)
    assert ExitReason.CPU_LIMIT == result.exit_reason


def test_processor_time_of_zombies_counts(box: Sandbox) -> None:
    """Nor does it when nobody waits for the dead: a zombie has burned what it burned."""
    script = """
import os, time
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.5:
            pass
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
"""
    result = box.run(script, cpu_s=1.0, wall_s=60.0)
    assert ExitReason.CPU_LIMIT == result.exit_reason


def test_usage_tells_how_many_there_were(box: Sandbox) -> None:
    """Three children and the run itself are four, with one thread each."""
    script = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
time.sleep(1)
"""
    assert 4 == box.run(script).usage.processes_peak


def test_output_of_the_tree_is_bounded(box: Sandbox) -> None:
    """Two that print together reach the limit together."""
    script = "import os\nos.fork()\nwhile True: print('x' * 4096)"
    result = box.run(script)
    assert (ExitReason.OUTPUT_LIMIT, True) == (result.exit_reason, result.logs.truncated)
    assert len(result.logs.stdout) + len(result.logs.stderr) <= 1024 << 10


def test_two_answers_are_no_answer(box: Sandbox) -> None:
    """A forked copy of the run that answers as well spoils its own result, nobody else's."""
    result = box.run("import os\nresult = 'x' if os.fork() else 'y'")
    assert result.exit_reason in (ExitReason.INVALID_RESULT, ExitReason.OK)
    assert box.settle()
    assert 1 == value_of(box.run("result = 1"))


def test_the_workspace_is_shared_by_the_tree(box: Sandbox) -> None:
    """Its quota too: two that write half too much each meet its end."""
    script = """
import errno, os
def fill(name):
    with open(name, "wb", buffering=0) as file:
        for _ in range(48):
            file.write(bytes(1 << 20))
pid = os.fork()
try:
    fill(str(pid))
    seen = 0
except OSError as error:
    seen = error.errno
if pid == 0:
    os._exit(seen)
result = sorted([seen, os.waitstatus_to_exitcode(os.wait()[1])])[-1]
"""
    result = box.run(script)
    assert 28 == value_of(result)  # ENOSPC
    assert 63 <= result.usage.workspace_mib <= 64


def test_ten_runs_with_processes_at_once(box: Sandbox) -> None:
    """Each is counted for itself."""
    script = (
        "import os\npids = [os.fork() or os._exit(args) for _ in range(4)]\nresult = [os.wait()[1] >> 8 for _ in pids]"
    )
    results = box.run_many([(script, number) for number in range(10)])
    assert [[number] * 4 for number in range(10)] == [value_of(result) for result in results]


def test_the_end_is_not_delayed_by_a_daemon_that_waits(box: Sandbox) -> None:
    """A subprocess that nobody waits for, and a daemon thread that does: the answer comes when the script is done."""
    script = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
threading.Thread(target=child.wait, daemon=True).start()
result = "done"
"""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(value_of(box.run(script))))
    thread.start()
    thread.join(30)
    assert ["done"] == found


# -- policies that contradict themselves

GOOD = (Path(__file__).resolve().parents[2] / "policies/custom_script.toml").read_text(encoding="utf-8")
PROFILE = ('profile = "threads"', 'profile = "processes"')
CONTRADICTIONS = {
    "processes without the profile": [("processes = 0 ", "processes = 8 ")],
    "the profile without processes": [PROFILE],
    "a profile that is not there": [('profile = "threads"', 'profile = "everything"')],
    "fewer than none": [("processes = 0 ", "processes = -1 "), PROFILE],
    "more than can be": [("processes = 0 ", "processes = 1025 "), PROFILE],
    "half a process": [("processes = 0 ", "processes = 0.5 "), PROFILE],
    "a call that undoes it": [("processes = 0 ", "processes = 8 "), PROFILE, ("allow = []", 'allow = ["unshare"]')],
}


@pytest.mark.parametrize("changes", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused(tmp_path: Path, changes: list[tuple[str, str]]) -> None:
    """With the file and the key."""
    text = GOOD
    for old, new in changes:
        head, found, rest = text.rpartition(old)
        assert found
        text = head + new + rest
    path = tmp_path / "custom_script.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        sandbox.load_policy(path)
    assert str(path) in caught.value.message
    assert any(key in caught.value.message for key in ("processes", "profile", "unshare"))


def test_both_together_are_accepted(tmp_path: Path) -> None:
    """The control: the profile with its count is a policy."""
    text = GOOD.replace("processes = 0 ", "processes = 8 ").replace('profile = "threads"', 'profile = "processes"')
    path = tmp_path / "custom_script.toml"
    path.write_text(text, encoding="utf-8")
    policy = sandbox.load_policy(path)
    assert (8, "processes") == (policy.limits.processes, policy.syscalls.profile)


def test_without_namespaces_no_processes(light_policy: Policy, host: Host, template: Template) -> None:
    """The ``unprivileged`` profile could neither count nor end them, so it refuses at the start and says why."""
    poor = msgspec.structs.replace(host, profile="unprivileged")
    before = inventory()
    with pytest.raises(HostError, match="allows processes, which only namespaces can count and end"):
        Sandbox(grant_processes(light_policy), poor, template)
    assert {} == as_before(before)
