"""Hundreds of runs of two tenants in turn: neither finds anything of the other, and nothing is left on the host."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Callable

import pytest

from sandbox import ExitReason, Template
from tests.support.synchronous import Sandbox, as_before, inventory, value_of

pytestmark = pytest.mark.privilege("two tenants' runs are one user, the worker's own")

TURNS = 150  # `make soak` does ten thousand
AT_ONCE = 4

LOOK_AND_LEAVE = """
import builtins, ctypes, gc, json, mmap, os, resource, signal, socket, sys, tempfile, threading, time
me, mark = args["me"], args["mark"]
other = {"a": "b", "b": "a"}[me]
found = []

def note(what, seen):
    if seen:
        found.append(f"{what}: {seen}")

def try_to(act):
    try:
        return act()
    except OSError:
        return None

# what the other may have left behind
note("files", sorted(set(os.listdir("/work")) - {"artifacts", "tmp", "script.py"}))  # its own source
note("files in artifacts", os.listdir("/work/artifacts"))
note("files in tmp", os.listdir("/tmp"))
note("files in /dev/shm", os.listdir("/dev/shm"))
note("environment", [name for name in os.environ if name.startswith("LEFT")])
note("modules", [name for name in sys.modules if name.startswith("left")])
note("attributes of modules", [one.__name__ for one in (json, os, sys, builtins) if hasattr(one, "left")])
note("builtins", [name for name in vars(builtins) if name.startswith("left")])
note("path", [entry for entry in sys.path if "left" in entry])
note("hooks", [name for name in ("left_hook",) if hasattr(sys, name)])
note("limits", resource.getrlimit(resource.RLIMIT_NOFILE) != (128, 128))
note("folder", os.getcwd() != "/work")
note("recursion", sys.getrecursionlimit() != args["recursion"])
note("umask", os.umask(0o077) != 0o077)
note("signals", {signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)} != {signal.SIG_DFL})
note("blocked signals", list(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
note("timer", signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0))
note("threads", threading.active_count() != 1)
note("trace", sys.gettrace() or sys.getprofile())
note("descriptors", [fd for fd in range(4, 128) if try_to(lambda: os.fstat(fd))])
note("host name", os.uname().nodename != "sandbox")
note("name of the process", "left" in open("/proc/self/comm").read() if os.path.exists("/proc/self/comm") else "")
note("pid", os.getpid() != 1)
note("temporary folder", tempfile.tempdir)
note("garbage", gc.garbage)
libc = ctypes.CDLL(None, use_errno=True)
state = ctypes.create_string_buffer(512)
note("shared memory", [number for number in range(3) if libc.syscall(31, number, 2, state) >= 0])
note("message queues", [number for number in range(3) if libc.syscall(71, number, 2, state) >= 0])
note("shared memory by key", libc.syscall(29, 0x1EF7, 4096, 0) >= 0)
name = ctypes.create_string_buffer(16)
libc.prctl(16, name, 0, 0, 0)
note("thread name", b"left" in name.value)
def reach(name):
    with socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0] as one:
        return one.sendto(b"x", name)
note("abstract sockets", [name for name in ("\\0left-by-a", "\\0left-by-b") if try_to(lambda: reach(name))])

# what I leave behind
for folder in ("/work", "/tmp", "/work/artifacts"):
    open(f"{folder}/left-by-{me}", "w").write(mark)
os.environ["LEFT_BY"] = mark
sys.modules["left_by_" + me] = sys
for one_module in (json, os, sys, builtins):
    one_module.left = mark
setattr(builtins, "left_by_" + me, mark)
sys.path.insert(0, "/left-by-" + me)
sys.left_hook = mark
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.makedirs("/work/elsewhere", exist_ok=True); os.chdir("/work/elsewhere")
sys.setrecursionlimit(500)
os.umask(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
sys.setprofile(lambda *_: None)
sys.kept = [open("/dev/null") for _ in range(5)] + [mmap.mmap(-1, 4096)]
tempfile.tempdir = "/work/elsewhere"
gc.garbage.append(mark)
libc.syscall(29, 0x1EF7, 4096, 0o1600); libc.syscall(68, 0x1EF7, 0o1600); libc.syscall(64, 0x1EF7, 1, 0o1600)
libc.prctl(15, b"left-by-me", 0, 0, 0)
pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
try_to(lambda: pair[0].bind("\\0left-by-" + me))
signal.setitimer(signal.ITIMER_REAL, 3600)
print(mark)
result = found
"""


def test_hundreds_of_alternations_without_residue(make_box: Callable[..., Sandbox], template: Template) -> None:
    """Each run looks for what the other tenant's left, and finds nothing; each answer holds its own mark alone."""
    box = make_box(ready=AT_ONCE, rotate_after=10**6)
    uid = template.uid if os.geteuid() == 0 else os.geteuid()
    recursion = value_of(box.run("import sys\nresult = sys.getrecursionlimit()"))
    warm_up(box)
    before = inventory()
    ipc = system_v_objects(uid)
    for _ in range(2 * TURNS // AT_ONCE):
        marks = [secrets.token_hex(8) for _ in range(AT_ONCE)]
        given = [{"me": "ab"[n % 2], "mark": mark, "recursion": recursion} for n, mark in enumerate(marks)]
        results = box.run_many([(LOOK_AND_LEAVE, args) for args in given])
        assert [(ExitReason.OK, [])] * AT_ONCE == [(result.exit_reason, value_of(result)) for result in results]
        assert [mark + "\n" for mark in marks] == [result.logs.stdout for result in results]
        assert [[mark.encode()] for mark in marks] == [[one.content for one in result.artifacts] for result in results]
    assert box.settle()
    assert {} == as_before(before)
    assert ipc == system_v_objects(uid)
    assert 0 == box.pool.stats().zygote_restarts


def warm_up(box: Sandbox) -> None:
    """Threads and caches of our own side exist from here on."""
    box.run_many([("open('artifacts/a', 'w')", None)] * 20)
    assert box.settle()


def system_v_objects(uid: int) -> dict[str, int]:
    """How many there are on this host that a user made, sysvipc(7): what others make meanwhile is none of ours."""
    found = {}
    for kind in ("shm", "msg", "sem"):
        path = f"/proc/sysvipc/{kind}"
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                names, *rows = (line.split() for line in file)
            found[kind] = sum(row[names.index("cuid")] == str(uid) for row in rows)
    return found


def test_an_object_that_is_left_would_be_counted() -> None:
    """The control: a segment of shared memory of our own, shmget(2) and shmctl(2)."""
    before = system_v_objects(os.geteuid())
    segment = ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o1600)  # IPC_PRIVATE, IPC_CREAT
    assert segment >= 0, os.strerror(ctypes.get_errno())
    try:
        assert before | {"shm": before["shm"] + 1} == system_v_objects(os.geteuid())
    finally:
        ctypes.CDLL(None).shmctl(segment, 0, None)  # IPC_RMID


def test_what_is_left_would_be_seen(make_box: Callable[..., Sandbox]) -> None:
    """The control: two such programs in one run find each other's traces."""
    box = make_box()
    recursion = value_of(box.run("import sys\nresult = sys.getrecursionlimit()"))
    program = f"""
import sys
source = {LOOK_AND_LEAVE!r}
seen = []
for me in "ab":
    names = {{"args": {{"me": me, "mark": "x", "recursion": {recursion}}}}}
    sys.setprofile(None)
    exec(source, names)
    seen.append(sorted(one.partition(":")[0] for one in names["result"]))
result = seen
"""
    first, second = value_of(box.run(program))
    assert [] == first
    expected = {
        "files", "files in artifacts", "files in tmp", "files in /dev/shm", "environment", "modules", "path",
        "attributes of modules", "builtins", "hooks", "limits", "folder", "recursion", "umask", "signals",
        "blocked signals", "timer", "threads", "descriptors", "temporary folder", "garbage", "thread name",
    }  # fmt: skip
    assert expected <= set(second)
