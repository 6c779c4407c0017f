"""The ``unprivileged`` profile, where user namespaces are really refused, against processes and files of one user.

Everything runs in ``ordinary_worker.py``: as an ordinary user, whoever runs the tests. Attacks are made under the
host's own Landlock and under older ones, and once more outside, where each must succeed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.isolation import landlock
from tests.support.remote_worker import Remote, worker

ABIS = [None, 6, 4, 2, 1]


@pytest.fixture
def without_namespaces() -> Iterator[Remote]:
    """unshare answers EPERM."""
    with worker(refused="namespaces") as remote:
        yield remote


@pytest.fixture
def without_mounts() -> Iterator[Remote]:
    """Namespaces come, capabilities do not."""
    with worker(refused="mounts") as remote:
        yield remote


@pytest.fixture
def capable() -> Iterator[Remote]:
    """Nothing is refused."""
    with worker() as remote:
        yield remote


@pytest.fixture(scope="module")
def shared_box() -> Iterator[Remote]:
    """A pool on a host without namespaces, with the host's own Landlock."""
    with worker(refused="namespaces", isolation="auto") as remote:
        assert "started" == remote.start()
        yield remote


@pytest.fixture
def box(shared_box: Remote) -> Iterator[Remote]:
    """That pool; what a test's runs left on disk is gone after it."""
    yield shared_box
    assert 0 == shared_box.left()


@pytest.fixture(scope="module", params=ABIS, ids=lambda abi: f"ABI-{abi or 'own'}")
def old(request: pytest.FixtureRequest) -> Iterator[tuple[Remote, int]]:
    """A pool under a capped Landlock, and the ABI in force."""
    with worker(refused="namespaces", isolation="auto", landlock_abi_max=request.param) as remote:
        assert "started" == remote.start()
        yield remote, min(request.param or 99, landlock.abi_version())


# -- what the host is found to be


@pytest.mark.parametrize("refused", [None, "namespaces", "mounts"])
def test_the_worker_is_an_ordinary_user(refused: str | None) -> None:
    """Not root, without a capability; else nothing below would prove anything."""
    with worker(refused=refused) as remote:
        who = remote.who()
        assert (True, "0" * 16) == (who["uid"] != 0, who["capabilities"])
        assert ("2" if refused else "0") == who["seccomp"]


def layers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name → layer."""
    return {layer["name"]: layer for layer in found["layers"]}


def test_full_is_missed_where_unshare_is_refused(without_namespaces: Remote) -> None:
    """The step that was refused is named, and how to fix it."""
    found = without_namespaces.probe(isolation="full")
    assert ("full", ["namespaces"]) == (found["profile"], found["missing"])
    assert "refused at unshare" in layers(found)["namespaces"]["detail"]
    assert "`unshare`" in layers(found)["namespaces"]["fix"]


def test_full_does_not_start_where_unshare_is_refused(without_namespaces: Remote) -> None:
    """Production never falls back by itself: one sentence says policy, layer, reason and fix."""
    kind, message = without_namespaces.start(isolation="full")
    assert "HostError" == kind
    assert message.startswith("policy custom_script requires namespaces, and this host lacks it: refused at unshare")
    assert message.endswith("start it with a profile that allows them.")


def test_full_is_missed_where_capabilities_are_kept_back(without_mounts: Remote) -> None:
    """A namespace that came without them is found out at the mount."""
    found = without_mounts.probe(isolation="full")
    assert ["namespaces"] == found["missing"]
    assert "refused at mount" in layers(found)["namespaces"]["detail"]
    kind, message = without_mounts.start(isolation="full")
    assert ("HostError", True) == (kind, "requires namespaces" in message)


@pytest.mark.parametrize("refused", ["namespaces", "mounts"])
def test_auto_takes_the_other_profile_and_works(refused: str) -> None:
    """The strongest that this host gives runs tasks, and says in the result what it was."""
    with worker(refused=refused, isolation="auto") as remote:
        found = remote.probe()
        assert ("unprivileged", []) == (found["profile"], found["missing"])
        assert "started" == remote.start()
        result = remote.run(script="result = 6 * 7")
        assert (42, "unprivileged") == (result["value"], result["isolation"]["profile"])
        assert {"landlock", "seccomp", "rlimits"} == set(result["isolation"]["layers"])


def test_auto_takes_full_where_it_can(capable: Remote) -> None:
    """The same worker, nothing refused."""
    found = capable.probe(isolation="auto")
    assert ("full", []) == (found["profile"], found["missing"])
    assert "started" == capable.start(isolation="auto")
    assert "full" == capable.run(script="result = 1")["isolation"]["profile"]


def test_unprivileged_can_be_chosen_where_full_could_be_had(capable: Remote) -> None:
    """It then says so, and names no layer that it does not use."""
    assert "started" == capable.start(isolation="unprivileged")
    isolation = capable.run(script="result = 1")["isolation"]
    assert ("unprivileged", False) == (isolation["profile"], "namespaces" in isolation["layers"])


@pytest.mark.parametrize("mode", ["warm", "cold"])
def test_both_starts_work_without_namespaces(capable: Remote, mode: str) -> None:
    """A cold child watches the process that has forked it, although a new interpreter asks for it."""
    assert "started" == capable.start(isolation="unprivileged", mode=mode, ready=1)
    for number in range(3):
        ended = capable.run(script="result = args", args=number)
        assert (number, mode) == (ended["value"], ended["isolation"]["start"])


def test_below_the_floor_it_refuses(without_namespaces: Remote) -> None:
    """Without any Landlock neither profile starts, and the sentence says which kernel has it."""
    found = without_namespaces.probe(isolation="unprivileged", landlock_abi_max=0)
    assert ["landlock"] == found["missing"]
    kind, message = without_namespaces.start(isolation="unprivileged", landlock_abi_max=0)
    assert ("HostError", True) == (kind, "requires landlock" in message)
    assert "Linux 5.14" in message


def test_the_capped_abi_is_in_the_result(old: tuple[Remote, int]) -> None:
    """The answer names the layers in force, not those that the kernel could offer."""
    remote, abi = old
    isolation = remote.run(script="result = 1")["isolation"]
    assert ("unprivileged", f"ABI {abi}") == (isolation["profile"], isolation["layers"]["landlock"])


# -- attacks upon what belongs to the same user

PRELUDE = """
import ctypes, errno, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
result = {}
def attempt(name, act, *arguments):
    try:
        value = act(*arguments)
    except OSError as error:
        result[name] = errno.errorcode.get(error.errno, str(error.errno))
    else:
        result[name] = "done"
        return value
def call(number, *arguments):
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    libc.syscall.restype = ctypes.c_long
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    if answer == -1:
        raise OSError(ctypes.get_errno(), "")
    return answer
def opened(path, flags):
    os.close(os.open(path, flags, 0o600))
def place(name):
    where = args["sockets"][name]
    return tuple(where) if isinstance(where, list) else where
"""

ATTACKS: dict[str, tuple[str, list[str]]] = {
    "read a secret": (
        """
attempt("read", lambda: open(args["secret"]).read())
attempt("list", os.listdir, args["folder"])
attempt("path only, then read", lambda: os.read(os.open(args["secret"], os.O_PATH), 10)) if "inside" in args else None
attempt("environment of another", lambda: open(f"/proc/{args['pid']}/environ", "rb").read())
attempt("memory map of another", lambda: open(f"/proc/{args['pid']}/maps", "rb").read())
attempt("own environment by /proc", lambda: open("/proc/self/environ", "rb").read())
""",
        [],
    ),
    "truncate by name": ("attempt('truncate', os.truncate, args['truncated'], 0)", ["truncated written"]),
    "truncate by opening": (
        """
attempt("read-only", opened, args["opened"], os.O_RDONLY | os.O_TRUNC)
attempt("read-only, by openat", lambda: os.close(os.open("opened", os.O_RDONLY | os.O_TRUNC,
    dir_fd=os.open(args["folder"], os.O_PATH))))
""",
        ["opened written"],
    ),
    "truncate what may be read": (
        """
attempt("truncate", os.truncate, args["readable"], 0)
attempt("open", opened, args["readable"], os.O_RDONLY | os.O_TRUNC)
attempt("open with more flags", opened, args["readable"], os.O_RDONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK)
attempt("create", opened, args["readable"], os.O_RDONLY | os.O_CREAT | os.O_TRUNC)
attempt("old open", lambda: os.close(call(2, args["readable"].encode(), os.O_RDONLY | os.O_TRUNC, 0)))
attempt("creat", lambda: os.close(call(85, args["readable"].encode(), 0o600)))
""",
        ["readable written"],
    ),
    "write elsewhere": (
        """
attempt("write", opened, args["removed"], os.O_WRONLY)
attempt("append", opened, args["removed"], os.O_WRONLY | os.O_APPEND)
attempt("read and write", opened, args["removed"], os.O_RDWR)
attempt("create", opened, args["folder"] + "/created", os.O_WRONLY | os.O_CREAT)
attempt("folder", os.mkdir, args["folder"] + "/folder")
attempt("link", os.symlink, "/", args["folder"] + "/link")
attempt("in the code", opened, os.path.dirname(args["readable"]) + "/../left.py", os.O_WRONLY | os.O_CREAT) \
    if "inside" in args else None
""",
        ["created made", "folder made", "link made"],
    ),
    "move in and out": (
        """
open("own", "w").close()
attempt("out", os.rename, "own", args["folder"] + "/moved")
attempt("in", os.rename, args["removed"], "taken")
attempt("hard link", os.link, args["secret"], args["folder"] + "/linked")
""",
        ["secret written", "removed removed", "linked made", "moved made"],
    ),
    "remove": ("attempt('remove', os.unlink, args['removed'])", ["removed removed"]),
    "change modes and times": (
        """
attempt("chmod", os.chmod, args["moded"], 0o777)
attempt("fchmodat", call, 268, -100, args["moded"].encode(), 0o777)
attempt("utime", os.utime, args["moded"], (1, 1))
attempt("chmod of what may be read", os.chmod, args["readable"], 0o777)
attempt("by descriptor", lambda: os.fchmod(os.open(args["readable"], os.O_RDONLY), 0o777))
attempt("utime by descriptor", lambda: os.utime(os.open(args["readable"], os.O_RDONLY), (1, 1)))
""",
        ["moded mode", "moded written", "readable mode", "readable written"],
    ),
    "signal another": (
        """
attempt("stop", os.kill, args["pid"], signal.SIGSTOP)
attempt("is it there", os.kill, args["pid"], 0)
attempt("pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(args["pid"]), signal.SIGSTOP))
""",
        ["process"],
    ),
    "signal a thread of another": (
        """
attempt("tgkill", call, 234, args["pid"], args["pid"], signal.SIGSTOP)
attempt("tkill", call, 200, args["pid"], signal.SIGSTOP)
""",
        ["process"],
    ),
    "queue a signal to another": (
        """
info = (ctypes.c_int * 32)(signal.SIGSTOP, 0, -1, 0, os.getpid(), os.getuid())
attempt("rt_sigqueueinfo", call, 129, args["pid"], signal.SIGSTOP, info)
attempt("rt_tgsigqueueinfo", call, 297, args["pid"], args["pid"], signal.SIGSTOP, info)
""",
        ["process"],
    ),
    "trace another": (
        """
attempt("attach", call, 101, 16, args["pid"], 0, 0)
buffer = ctypes.create_string_buffer(64)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
local, remote = Vector(ctypes.addressof(buffer), 24), Vector(args["address"], 24)
attempt("read its memory", call, 310, args["pid"], ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
attempt("open its memory", opened, f"/proc/{args['pid']}/mem", os.O_RDONLY)
attempt("take a descriptor", lambda: call(438, call(434, args["pid"], 0), 0, 0))
""",
        ["process"],
    ),
    "connect to Unix sockets": (
        """
def connect(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.connect(place(name))
attempt("by path", connect, "stream")
attempt("abstract", connect, "stream abstract")
""",
        ["stream abstract heard", "stream heard"],
    ),
    "send datagrams to Unix sockets": (
        """
def send(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", place(name))
attempt("by path", send, "datagram")
attempt("abstract", send, "datagram abstract")
""",
        ["datagram abstract heard", "datagram heard"],
    ),
    "send by a socket pair to a path": (
        """
def send():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"x", place("datagram"))
attempt("sendto", send)
""",
        ["datagram heard"],
    ),
    "send by a socket pair to an abstract name": (
        """
def send():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"x", place("datagram abstract"))
attempt("sendto", send)
""",
        ["datagram abstract heard"],
    ),
    "connect a socket pair elsewhere": (
        """
def send():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect(place("datagram"))
    one.send(b"x")
def send_message():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.sendmsg([b"x"], [], 0, place("datagram"))
attempt("connect, send", send)
attempt("sendmsg", send_message)
""",
        ["datagram heard"],
    ),
    "connect by the network": (
        """
def connect():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.connect(place("stream ip"))
def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", place("datagram ip"))
attempt("TCP", connect)
attempt("UDP", send)
""",
        ["datagram ip heard", "stream ip heard"],
    ),
    "System V objects": (
        """
attempt("shared memory", lambda: call(31, call(29, 0, 4096, 0o1600), 0, 0))
attempt("semaphores", lambda: call(66, call(64, 0, 1, 0o1600), 0, 0, 0))
attempt("messages", lambda: call(71, call(68, 0, 0o1600), 0, 0))
""",
        [],
    ),
    "limits and priority of another": (
        """
old = (ctypes.c_ulong * 2)()
attempt("its limits", call, 302, args["pid"], 7, None, old)
attempt("its priority", os.setpriority, os.PRIO_PROCESS, args["pid"], 19)
attempt("its processors", os.sched_setaffinity, args["pid"], os.sched_getaffinity(0))
attempt("its scheduler", os.sched_setscheduler, args["pid"], os.SCHED_IDLE, os.sched_param(0))
""",
        [],
    ),
}  # fmt: skip
"""Name → what the same user can do outside, and the harm that it does there."""

REFUSED = {"EACCES", "EPERM", "EXDEV", "ENOENT", "ENOSYS", "EBADF", "ESRCH", "EROFS", "ENOTCONN", "ECONNREFUSED"}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_inside_does_no_harm(old: tuple[Remote, int], name: str) -> None:
    """Under any Landlock: every attempt is refused, nothing has changed, and the next run is served."""
    remote, _ = old
    script, _ = ATTACKS[name]
    seen = remote.attack(script=PRELUDE + "args['inside'] = True\n" + script)
    assert ("ok", []) == (seen["result"]["exit_reason"], seen["harm"]), seen["result"]
    outcomes = seen["result"]["value"]
    assert outcomes
    assert {} == {attempt: outcome for attempt, outcome in outcomes.items() if outcome not in REFUSED}
    assert 1 == remote.run(script="result = 1")["value"]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_outside_succeeds(shared_box: Remote, name: str) -> None:
    """The same user, the same script, no sandbox: every attempt succeeds and does the harm that it is made for."""
    script, harm = ATTACKS[name]
    seen = shared_box.attack(script=PRELUDE + script, outside=True)
    assert dict.fromkeys(seen["result"]["value"], "done") == seen["result"]["value"]
    assert sorted(harm) == sorted(seen["harm"])


def test_attempts_are_named_where_the_filter_denies_them(old: tuple[Remote, int]) -> None:
    """Seccomp closes what an older Landlock leaves open, and names the violation."""
    remote, abi = old
    script = PRELUDE + ATTACKS["truncate by name"][0] + "\n" + ATTACKS["signal a thread of another"][0]
    named = {violation["syscall"] for violation in remote.attack(script=script)["result"]["violations"]}
    assert (abi < 3, True) == ("truncate" in named, "tgkill" in named)  # signals to others are, always


def test_files_of_its_own_can_be_truncated(old: tuple[Remote, int]) -> None:
    """The control of the control: what is closed for others' files works in the workspace."""
    remote, _ = old
    script = (
        "open('f', 'w').write('12345678')\nwith open('f', 'r+') as file: file.truncate(3)\nresult = open('f').read()\n"
        "open('f', 'w').write('x'); open('f', 'w+').close(); open('g', 'x').close()"
    )
    assert "123" == remote.run(script=script)["value"]


def test_a_second_run_sees_nothing_of_the_first(box: Remote) -> None:
    """Neither its folder, while both live, nor anything in it afterwards."""
    first = box.run(script="import os\nopen('left', 'w').write('secret')\nresult = os.getcwd()")
    script = """
import os
def fails(act):
    try:
        act()
        return "done"
    except OSError as error:
        return type(error).__name__
base = os.path.dirname(os.getcwd())
result = [os.getcwd() != args, fails(lambda: os.listdir(base)), fails(lambda: open(args + "/left").read())]
"""
    seen = box.run(script=script, args=first["value"])["value"]
    assert [True, "PermissionError"] == seen[:2]
    assert seen[2] in ("FileNotFoundError", "PermissionError")


# -- limits


def test_bytes_of_the_workspace(box: Remote) -> None:
    """Many files, none too large alone: ended within a moment of passing the sum."""
    script = """
import time
for number in range(200):
    open(str(number), "wb").write(bytes(1 << 20))
    time.sleep(0.01)
time.sleep(20)
"""
    result = box.run(script=script, workspace_mib=32)
    assert "workspace_limit" == result["exit_reason"]
    assert 32 <= result["usage"]["workspace_mib"] < 100


def test_one_file_is_bounded_by_the_kernel(box: Remote) -> None:
    """RLIMIT_FSIZE: EFBIG, which the script may survive."""
    script = "try:\n    open('f', 'wb').write(bytes(65 << 20))\nexcept OSError as error:\n    result = error.errno"
    result = box.run(script=script)
    assert result["exit_reason"] in ("ok", "workspace_limit")
    assert result["value"] in (27, None)  # EFBIG


def test_a_sparse_file_is_no_way_round(box: Remote) -> None:
    """It takes no room, and is as long as the kernel lets a file be."""
    script = """
import os
try:
    os.ftruncate(os.open("f", os.O_RDWR | os.O_CREAT), 1 << 40)
except OSError as error:
    result = error.errno
"""
    assert 27 == box.run(script=script)["value"]


def test_files_of_the_workspace(box: Remote) -> None:
    """Too many, though each is empty."""
    script = "import time\nfor number in range(6000): open(str(number), 'w').close()\ntime.sleep(20)"
    result = box.run(script=script)
    assert "workspace_limit" == result["exit_reason"]


def test_a_full_workspace_at_the_end_is_seen(box: Remote) -> None:
    """A run that is over before the watchdog has looked still tells what it used."""
    script = "for number in range(300): open(f'artifacts/{number}', 'w').write('x')\nresult = 1"
    result = box.run(script=script)
    assert (1, 300) == (result["value"], result["usage"]["workspace_files"])


def test_artifacts_of_a_short_run_are_taken(box: Remote) -> None:
    """However soon after the last look at the workspace they were made."""
    for pause_s in (0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2):
        script = "import time\ntime.sleep(args)\nopen('artifacts/a', 'w').write('x')"
        result = box.run(script=script, args=pause_s)
        assert ["a"] == [artifact["name"] for artifact in result["artifacts"]], pause_s


def test_threads_over_the_limit(box: Remote) -> None:
    """Counted by the watchdog and ended; as many as are allowed work."""
    script = """
import threading, time
threads = [threading.Thread(target=time.sleep, args=(2,), daemon=True) for _ in range(args)]
[thread.start() for thread in threads]
time.sleep(1)
result = len(threads)
"""
    assert "process_limit" == box.run(script=script, args=40)["exit_reason"]
    assert 20 == box.run(script=script, args=20)["value"]


@pytest.mark.parametrize(
    ("script", "limits", "reason"),
    [
        ("while True: pass", {"wall_s": 0.5}, "wall_limit"),
        ("while True: pass", {"cpu_s": 0.5}, "cpu_limit"),
        ("x = bytearray(b'x' * (600 << 20))", {}, "memory_limit"),
        ("while True: print('x' * 4096)", {}, "output_limit"),
        ("1 / 0", {}, "error"),
        ("import ctypes; ctypes.string_at(0)", {}, "signaled"),
        ("import os; os.abort()", {}, "signaled"),
        ("import os; os.kill(os.getpid(), 9)", {}, "signaled"),
        ("import signal, threading; signal.pthread_kill(threading.get_ident(), 9)", {}, "signaled"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_runs_end_for_the_same_reasons(box: Remote, script: str, limits: dict[str, Any], reason: str) -> None:
    """As with namespaces."""
    assert reason == box.run(script=script, **limits)["exit_reason"]


def test_a_process_cannot_be_started(box: Remote) -> None:
    """Nothing else would end it."""
    script = "import os\ntry:\n    os.fork()\nexcept OSError as error:\n    result = error.errno"
    result = box.run(script=script)
    assert (1, [{"syscall": "clone", "count": 1}]) == (result["value"], result["violations"])


# -- what is left

LEAVINGS = {
    "nothing": "pass",
    "plain files": "import os\nos.makedirs('a/b/c')\nfor number in range(500): open(f'a/b/c/{number}', 'w').write('x')",
    "a tree of a thousand levels": "import os\nfor _ in range(1000):\n    os.mkdir('d'); os.chdir('d')",
    "thirty levels": "import os\nfor _ in range(30):\n    os.mkdir('d'); os.chdir('d')\nopen('f', 'w')",
    "folders without modes": (
        "import os\nfor mode in (0, 0o100, 0o200, 0o400, 0o300, 0o500):\n    os.mkdir(f'artifacts/{mode}', mode)\n"
        "    os.close(os.open(f'artifacts/f{mode}', os.O_CREAT, mode))\nos.makedirs('x/y')\n"
        "os.close(os.open('x/y/z', os.O_CREAT, 0))\nos.umask(0o777)\nos.mkdir('n'); open('m', 'w')"
    ),
    "hostile names": (
        "import os\nfor name in (b'a\\nb', b'\\xff', b'x' * 255, b'-rf', b'..x', b' ', b'*'):\n"
        "    open(name, 'w').close(); os.mkdir(name + b'd' if len(name) < 255 else b'y' * 255)"
    ),
    "links": "import os\nos.symlink('/', 'root'); os.symlink('nowhere', 'none'); os.symlink('/etc', 'artifacts/etc')",
    "no folders of its own": "import os\nos.rmdir('tmp'); os.rmdir('artifacts')",
    "a file in use": "import os\nos.open('f', os.O_RDWR | os.O_CREAT); os._exit(0)",
}


@pytest.mark.parametrize("script", LEAVINGS.values(), ids=LEAVINGS)
def test_a_workspace_is_removed(box: Remote, script: str) -> None:
    """However deep, however named, whatever modes: nothing is left on disk."""
    result = box.run(script=script, wall_s=20)
    assert result["exit_reason"] in ("ok", "workspace_limit", "no_result"), result
    assert 0 == box.left()


def test_what_a_link_pointed_to_is_not_removed(box: Remote) -> None:
    """The end of the workspace follows nothing."""
    script = (
        PRELUDE + "os.symlink(args['folder'], 'folder'); os.symlink(args['secret'], 'artifacts/secret'); result = 1"
    )
    seen = box.attack(script=script)
    assert (1, []) == (seen["result"]["value"], seen["harm"])
    assert "precious" not in json.dumps(seen)


def test_a_killed_run_leaves_no_workspace(box: Remote) -> None:
    """Ended in the middle of writing."""
    script = "import os\nn = 0\nwhile True:\n    os.makedirs(f'd{n}/e'); open(f'd{n}/e/f', 'w').write('x'); n += 1"
    result = box.run(script=script, wall_s=0.3)
    assert result["exit_reason"] in ("wall_limit", "workspace_limit")
    assert 0 == box.left()


def test_a_killed_zygote_takes_its_children() -> None:
    """Each dies by PDEATHSIG, the run is our failure, the pool heals, and no workspace of the dead is left."""
    with worker(refused="namespaces", isolation="auto") as remote:
        assert "started" == remote.start(ready=3)
        script = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'busy', 0, 0, 0)\ntime.sleep(30)"
        seen = remote.kill_zygote_while_running(script=script)
        assert (["SandboxError"], True) == (seen["ended"], seen["gone"])
        assert seen["children"] >= 3
        assert 1 == remote.run(script="result = 1")["value"]
        assert 0 == remote.left()
        assert {"folders": [], "processes": 0} == remote.close()


def test_a_child_cannot_free_itself_of_the_parents_death(box: Remote) -> None:
    """prctl(PR_SET_PDEATHSIG, 0) is denied, and so is its own session's or group's change."""
    script = PRELUDE + "attempt('prctl', call, 157, 1, 0, 0, 0, 0)\nattempt('setsid', os.setsid)"
    assert {"prctl": "EPERM", "setsid": "EPERM"} == box.run(script=script)["value"]


@pytest.mark.parametrize("ready", [0, 1, 4])
def test_close_leaves_nothing_on_disk(ready: int) -> None:
    """At whatever moment: right after the start, right after a run, in the middle of the refill."""
    with worker(refused="namespaces", isolation="auto") as remote:
        for runs in (0, 1, 3, 7):
            assert "started" == remote.start(ready=ready)
            for _ in range(runs):
                assert 1 == remote.run(script="result = 1")["value"]
            assert {"folders": [], "processes": 0} == remote.close()


def test_a_hundred_runs_leave_nothing_on_disk(box: Remote) -> None:
    """One after the other, each with files."""
    script = "import os\nos.makedirs('a/b'); open('a/b/c', 'w').write('x'); open('artifacts/d', 'w').write('y')"
    for _ in range(100):
        assert "ok" == box.run(script=script)["exit_reason"]
    assert 0 == box.left()


def test_the_tests_leave_nothing_either() -> None:
    """A worker's home is gone with it."""
    with worker() as remote:
        home = Path(remote.who()["home"])
        assert home.is_dir()
    assert not home.exists()
