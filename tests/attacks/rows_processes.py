"""FD and PROC: descriptors and other processes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

from sandbox import ExitReason, Result
from sandbox.run import calls
from tests.attacks.attack import ABSENT, ANY, DENIED, DONE, READ_ONLY, Attack, Control, Outside
from tests.attacks.field import Field
from tests.attacks.syscall_numbers import NUMBERS, X86
from tests.support.synchronous import children_of, eventually, status_of, value_of

ROOT = Path(__file__).resolve().parents[2]

_OPEN_DESCRIPTORS = """
import fcntl, stat
def is_open(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True
found = [fd for fd in range(4096) if is_open(fd)]
"""

_READ_DESCRIPTORS = (
    _OPEN_DESCRIPTORS
    + """
for fd in found:
    if fd > 3:
        attempt(f"read {fd}", os.pread, fd, 4096, 0)
        attempt(f"reopen {fd}", lambda: os.read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK), 4096))
attempt("list", os.listdir, "/proc/self/fd")
attempt("open descriptors", lambda: found)
"""
)

_USE_SOCKETS = (
    _OPEN_DESCRIPTORS
    + """
sockets = [fd for fd in found if stat.S_ISSOCK(os.fstat(fd).st_mode)]
attempt("sockets", lambda: sockets)
for fd in range(4, 512):
    try:
        os.write(fd, struct.pack("=cQ", b"S", 1))
    except OSError as error:
        if fd not in found and error.errno != errno.EBADF:
            result[f"descriptor {fd}"] = errno.errorcode[error.errno]
"""
)

_LOOK_AROUND = """
import gc, inspect
notes = [repr(dict(os.environ)), repr(sys.argv), repr(sys.orig_argv), repr(sys.path), sys.executable, sys.prefix]
notes += [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
frame_ = sys._getframe()
while frame_ is not None:
    notes += [frame_.f_code.co_filename, repr(list(frame_.f_locals.values()))[:200000]]
    frame_ = frame_.f_back
notes += [repr(one.__dict__)[:20000] for one in gc.get_objects() if type(one).__name__ in ("Inheritance", "Plan")]
attempt("look", lambda: None)
result["notes"] = "done: " + "\\n".join(notes)
"""


def _shows_no_host_path(field: Field, result: Result) -> None:
    """Neither the repository nor the worker's folders nor its interpreter's home is named anywhere."""
    notes = value_of(result)["notes"]
    places = {str(ROOT), str(field.folder), str(field.template.code), os.path.realpath(sys.base_prefix)}
    named = {place: notes[max(notes.find(place) - 60, 0) :][:160] for place in places - {"/usr"} if place in notes}
    assert not named, named


def _names_the_secret(field: Field, outside: Outside) -> None:
    assert field.canary in json.dumps(outside.value)


_FORKS = f"""
import subprocess
def by_fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)
def refused():
    raise PermissionError(errno.EPERM, "os.system says only that it failed")
attempt("os.fork", by_fork)
attempt("posix_spawn", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {{}}), 0))
attempt("subprocess", lambda: subprocess.run(["/bin/true"], check=True))
# the one above is a posix_spawn from Python 3.13 on; this one goes by vfork in every version
attempt("subprocess by vfork", lambda: subprocess.run(["/bin/true"], check=True, start_new_session=True))
attempt("os.system", lambda: os.system("true") == 0 or refused())
def by_clone():
    pid = call({NUMBERS["clone"]}, 17, 0, 0, 0, 0)  # SIGCHLD
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)
attempt("clone", by_clone)
"""

_THREADS = """
import threading
stop = threading.Event()
started = []
try:
    for _ in range(args):
        thread = threading.Thread(target=stop.wait, daemon=True)
        thread.start()
        started.append(thread)
except RuntimeError as error:
    attempt("error", lambda: str(error))
attempt("started", lambda: len(started))
stop.set()
"""


def _started(value: dict[str, str]) -> int:
    return int(value["started"].partition(": ")[2])


def _assert_capped(field: Field, result: Result) -> None:
    started = _started(value_of(result))
    assert 1 <= started < result.limits.threads
    assert result.usage.processes_peak <= result.limits.threads


def _assert_not_capped(field: Field, outside: Outside) -> None:
    assert _started(outside.value) == 300


_EXECUTE = f"""
import mmap
def vector(*words):
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)
for path in args["paths"]:
    # in a thread's place: a success would replace the program, and nothing after it would run
    words = vector(path.encode(), b"-c", args["command"].encode())
    attempt(path + " execve", call, {NUMBERS["execve"]}, path.encode(), words, vector())
    attempt(path + " execveat", call, {NUMBERS["execveat"]}, -100, path.encode(), words, vector(), 0)
    attempt(path + " by the loader", call, {NUMBERS["execve"]}, b"/lib64/ld-linux-x86-64.so.2",
            vector(b"ld.so", path.encode(), b"-c", b"1"), vector())
"""

_DAEMON = """
import signal, threading
def ignore_everything():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
ignore_everything()
def fork_twice():
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.setsid()
    grandchild = os.fork()
    if grandchild == 0:
        for fd in range(3):
            os.close(fd)
        time.sleep(60)
    with open("daemon.pid", "w") as file:
        file.write(str(grandchild))
    os._exit(0)
attempt("daemon", fork_twice)
attempt("setsid", os.setsid)
threading.Thread(target=time.sleep, args=(60,), daemon=args is None).start()
attempt("pid", lambda: open("daemon.pid").read())
"""


def _has_killed_the_victim(field: Field, outside: Outside) -> None:
    """And the next attack has a new one."""
    assert eventually(lambda: field.victim.poll() is not None)
    assert field.new_victim() > 0


def _nothing_is_left(field: Field, result: Result) -> None:
    """Only the ready children are left below the zygote."""
    assert field.box.settle()
    _, inner = field.box.zygote_pids()
    assert eventually(lambda: len(children_of(inner)) == field.box.ready), children_of(inner)


_KILL = f"""
import signal
for pid in args["pids"]:
    attempt(f"kill {{pid}}", os.kill, pid, signal.SIGKILL)
    attempt(f"sigqueue {{pid}}", call, {NUMBERS["rt_sigqueueinfo"]}, pid, 10, buffer(128))
if args["more"]:
    attempt("group", os.killpg, 0, signal.SIGKILL)
    attempt("tgkill", call, {"234" if X86 else "131"}, args["pids"][0], args["pids"][0], 9)
    attempt("tkill", call, {NUMBERS["tkill"]}, args["pids"][0], 9)
    attempt("pidfd_open", os.pidfd_open, os.getpid())
    attempt("pidfd_send_signal", call, {NUMBERS["pidfd_send_signal"]}, 0, 9, None, 0)
"""

_PTRACE = f"""
for pid in args:
    attempt(f"attach {{pid}}", call, {NUMBERS["ptrace"]}, 16, pid, 0, 0)  # PTRACE_ATTACH
    attempt(f"seize {{pid}}", call, {NUMBERS["ptrace"]}, 0x4206, pid, 0, 0)  # PTRACE_SEIZE
    local, remote = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()
    target = buffer(8)
    local[:] = remote[:] = [ctypes.addressof(target), 8]
    attempt(f"readv {{pid}}", call, {NUMBERS["process_vm_readv"]}, pid, local, 1, remote, 1, 0)
    attempt(f"writev {{pid}}", call, {NUMBERS["process_vm_writev"]}, pid, local, 1, remote, 1, 0)
local, remote = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()
target = buffer(8)
local[:] = remote[:] = [ctypes.addressof(target), 8]
attempt("readv of itself", call, {NUMBERS["process_vm_readv"]}, os.getpid(), local, 1, remote, 1, 0)
attempt("be traced", call, {NUMBERS["ptrace"]}, 0, 0, 0, 0)  # PTRACE_TRACEME
"""

_PRCTL = f"""
for name, option, argument in (
    ("SET_DUMPABLE", 4, 1), ("SET_PTRACER", 0x59616D61, 1), ("SET_PDEATHSIG", 1, 0), ("SET_SECCOMP", 22, 99),
    ("SET_MM", 35, 1), ("SET_NO_NEW_PRIVS", 38, 0), ("SET_SECUREBITS", 28, 0), ("CAPBSET_READ", 23, 0),
    ("CAP_AMBIENT", 47, 2), ("SET_CHILD_SUBREAPER", 36, 1), ("SET_TIMERSLACK", 29, 1), ("SET_THP_DISABLE", 41, 1),
    ("SET_SPECULATION_CTRL", 53, 0), ("SET_SYSCALL_USER_DISPATCH", 59, 0), ("SET_MDWE", 65, 1), ("SCHED_CORE", 62, 0),
    ("SET_KEEPCAPS", 8, 1), ("SET_MEMORY_MERGE", 67, 1), ("MCE_KILL", 33, 1), ("SET_IO_FLUSHER", 57, 1),
):
    attempt(name, call, {NUMBERS["prctl"]}, option, argument, 0, 0, 0)
time.sleep(args)
"""


def _is_locked(field: Field, pid: int) -> None:
    """The host kernel's view of the running child."""
    status = status_of(pid)
    assert ("1", "2") == (status["NoNewPrivs"], status["Seccomp"])
    assert int(status["Seccomp_filters"]) >= 1
    assert {"0000000000000000"} == {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


_PRIORITY = f"""
attempt("nice", os.nice, 1)
attempt("setpriority", os.setpriority, os.PRIO_PROCESS, 0, 5)
attempt("affinity", os.sched_setaffinity, 0, os.sched_getaffinity(0))
attempt("scheduler", os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0))
attempt("fifo", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(99))
attempt("ioprio", call, {NUMBERS["ioprio_set"]}, 1, 0, (3 << 13))
"""

_FLIGHT = """
pair = socket.socketpair()
sent = 0
import array
for _ in range(8):
    try:
        pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
        sent += 250
    except OSError as error:
        result["send"] = errno.errorcode[error.errno]
        break
attempt("sent", lambda: sent)
print("in flight", flush=True)
time.sleep(args)
"""


def _neighbours_are_served(field: Field, pid: int) -> None:
    """Others' children still start: more of them than the pool has ready."""
    del pid
    for _ in range(field.box.ready + 3):
        result = field.box.do(field.box._run("result = 1", None, None, {}))
        assert ExitReason.OK == result.exit_reason


def _has_waited(result: Result, calls_: int) -> None:
    """Each call past the first thousand waited, so that it is the script that has to and not the supervisor."""
    assert result.usage.wall_s >= calls_ * calls._PAUSE_S


def _assert_equal(expected: object, actual: object) -> None:
    assert expected == actual


def _assert_differs(other: object, actual: object) -> None:
    assert other != actual


def _assert_some_done(outside: Outside, least: int) -> None:
    assert least <= sum(outcome.startswith("done") for outcome in outside.value.values()), outside.value


def _daemon_outlived_its_group(field: Field) -> None:
    """It had left the session that was killed, and lives on until it is killed by its own number."""
    notes = sorted(field.folder.glob("control-*/daemon.pid"))
    pid = int(notes[-1].read_text(encoding="ascii"))
    assert re.fullmatch(r"[SRD].*", status_of(pid)["State"])
    os.kill(pid, signal.SIGKILL)


ROWS = (
    Attack(
        id="FD-01",
        title="enumerate descriptors and read them",
        severity="C",
        program=_READ_DESCRIPTORS,
        outcomes={"list": ("ENOENT",), "open descriptors": ("done",)},
        check=lambda _field, result: _assert_equal("done: [0, 1, 2, 3]", value_of(result)["open descriptors"]),
        control=Control(inherit=True, outcomes={"list": ("done",), "*": ANY}, check=_names_the_secret),
    ),
    Attack(
        id="FD-02",
        title="working directory left outside",
        severity="C",
        program="""
attempt("getcwd", os.getcwd)
attempt("readlink", os.readlink, "/proc/self/cwd")
attempt("parent", lambda: os.stat("..").st_ino == os.stat("/").st_ino)
""",
        outcomes={"readlink": ("ENOENT",), "*": ("done",)},
        check=lambda _field, result: _assert_equal("done: '/work'", value_of(result)["getcwd"]),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="FD-04",
        title="look into the parent through proc",
        severity="C",
        program="""
for pid in (os.getppid(), *args["pids"]):
    for name in ("maps", "root", "cwd", "environ", "mem", "fd"):
        path = f"/proc/{pid}/{name}"
        attempt(path, os.listdir if name in ("root", "cwd", "fd") else lambda path: open(path, "rb").read(64), path)
""",
        args=lambda field: {"pids": [1, 2, os.getpid(), *field.box.zygote_pids()]},
        outcomes={"*": ("ENOENT",)},
        control=Control(
            args=lambda _field: {"pids": []},
            outcomes={"*": ("done", "EIO", "EACCES")},
            check=lambda _field, outside: _assert_some_done(outside, 4),
        ),
    ),
    Attack(
        id="FD-05",
        title="use inherited sockets of the worker",
        severity="C",
        program=_USE_SOCKETS,
        outcomes={"sockets": ("done",)},
        check=lambda _field, result: _assert_equal("done: []", value_of(result)["sockets"]),
        control=Control(
            inherit=True,
            outcomes={"sockets": ("done",)},
            check=lambda _field, outside: _assert_differs("done: []", outside.value["sockets"]),
        ),
    ),
    Attack(
        id="FD-07",
        title="receive descriptors",
        severity="H",
        program=f"""
for fd in range(4):
    attempt(f"recvmsg {{fd}}", call, {NUMBERS["recvmsg"]}, fd, buffer(56), 0)
pair = socket.socketpair()
attempt("between own sockets", lambda: (
    socket.send_fds(pair[0], [b"x"], [0]), socket.recv_fds(pair[1], 1, 1))[1][1])
""",
        outcomes={"between own sockets": ("EPERM",), "*": ("EPERM", "ENOTSOCK")},
        violations=("recvmsg",),
        control=Control(outcomes={"between own sockets": ("done",), "*": ("ENOTSOCK", "EBADF", "ENOTCONN")}),
    ),
    Attack(
        id="FD-07",
        title="descriptors in flight starve the neighbours",
        severity="H",
        program=_FLIGHT,
        args=lambda _field: 2,
        meanwhile=_neighbours_are_served,
        control=Control(
            args=lambda _field: 0,
            outcomes={"*": ("done", "ETOOMANYREFS")},
            check=lambda _field, outside: _assert_differs("done: 0", outside.value["sent"]),
        ),
    ),
    Attack(
        id="FD-08",
        title="overwrite the interpreter",
        severity="C",
        program="""
for path in ("/proc/self/exe", "/python/bin/python3", sys.executable):
    if not args or path == args:
        attempt(path, os.open, path, os.O_WRONLY)
        attempt(path + " append", os.open, path, os.O_WRONLY | os.O_APPEND)
if args:
    attempt("other", os.open, args, os.O_WRONLY)
""",
        outcomes={"*": (*READ_ONLY, "ETXTBSY")},
        control=Control(args=lambda field: str(field.throw_away() / "file.py"), outcomes=DONE),
    ),
    Attack(
        id="FD-10",
        title="look through environment, frames and modules",
        severity="H",
        program=_LOOK_AROUND,
        outcomes=DONE,
        check=_shows_no_host_path,
        control=Control(inherit=True, outcomes=DONE, check=_names_the_secret),
    ),
    Attack(
        id="PROC-01",
        title="fork in every way",
        severity="H",
        program=_FORKS,
        outcomes={"*": DENIED},
        violations=("clone", "vfork") if X86 else ("clone",),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="PROC-02",
        title="thread bomb",
        severity="H",
        program=_THREADS,
        args=lambda _field: 10_000,
        outcomes=DONE,
        check=_assert_capped,
        control=Control(args=lambda _field: 300, outcomes=DONE, check=_assert_not_capped),
    ),
    Attack(
        id="PROC-04",
        title="execute a program",
        severity="H",
        program=_EXECUTE,
        args=lambda _field: {"paths": ["/bin/sh", "/python/bin/python3", "/work/script"], "command": "1"},
        outcomes={"*": (*DENIED, "ENOENT")},
        violations=("execve", "execveat"),
        control=Control(
            args=lambda _field: {"paths": ["/bin/sh"], "command": "exit 42"},
            exit_code=42,
        ),
    ),
    Attack(
        id="PROC-05",
        title="a daemon that ignores signals",
        severity="H",
        program=_DAEMON,
        outcomes={"daemon": DENIED, "setsid": DENIED, "pid": ("ENOENT",)},
        check=_nothing_is_left,
        control=Control(
            args=lambda _field: "waits",
            still_running=True,  # for its other thread sleeps
            seconds=1.0,
            check=lambda field, _outside: _daemon_outlived_its_group(field),
        ),
    ),
    Attack(
        id="PROC-07",
        title="signal everyone else",
        severity="C",
        program=_KILL,
        args=lambda field: {
            "pids": [field.new_victim(), os.getpid(), *field.box.zygote_pids(), -1, 0, 2],
            "more": True,
        },
        outcomes={"*": DENIED},
        violations=("kill", "tgkill", "tkill", "rt_sigqueueinfo"),
        control=Control(
            args=lambda field: {"pids": [field.new_victim()], "more": False},
            outcomes={"*": ("done", "EPERM", "EINVAL")},
            check=_has_killed_the_victim,
        ),
    ),
    Attack(
        id="PROC-90",
        title="signal itself",
        severity="-",
        program="""
import signal, threading
seen = []
signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
attempt("kill", os.kill, os.getpid(), signal.SIGUSR1)
attempt("raise", signal.raise_signal, signal.SIGUSR1)
attempt("thread", signal.pthread_kill, threading.get_ident(), signal.SIGUSR1)
attempt("is it there", os.kill, os.getpid(), 0)
attempt("ignored", lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), os.kill(os.getpid(), signal.SIGTERM)))
attempt("blocked", lambda: (signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    os.kill(os.getpid(), signal.SIGUSR2), signal.sigwait([signal.SIGUSR2])))
attempt("harmless", os.kill, os.getpid(), signal.SIGWINCH)
attempt("seen", lambda: seen == [signal.SIGUSR1] * 3 or seen[99])
""",
        outcomes=DONE,
        control=Control(outcomes=DONE),
    ),
    *(
        Attack(
            id="PROC-91",
            title=f"end itself by {name}",
            severity="M",
            program=f"import signal\n{act}\ntime.sleep(args)",
            args=lambda _field: 0,
            reasons=(ExitReason.SIGNALED,),
            check=lambda _field, result, name=name: _assert_equal(name, result.signal),  # type: ignore[misc]
            control=Control(exit_code=-signal.Signals[name]),
        )
        for name, act in {
            "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
            "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
            "SIGABRT": "os.abort()",
            "SIGUSR1": "signal.raise_signal(signal.SIGUSR1)",
            "SIGSEGV": "signal.raise_signal(signal.SIGSEGV)",
        }.items()
    ),
    Attack(
        id="PROC-92",
        title="keep the supervisor busy with signals",
        severity="M",
        program="""
for _ in range(args):
    os.kill(os.getpid(), 0)
result["end"] = "done"
""",
        args=lambda _field: 1050,
        outcomes=DONE,
        check=lambda _field, result: _has_waited(result, 50),
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="PROC-08",
        title="trace and read other processes",
        severity="C",
        program=_PTRACE,
        args=lambda field: [1, field.new_victim(), *field.box.zygote_pids()],
        outcomes={"*": DENIED},
        violations=("process_vm_readv", "process_vm_writev", "ptrace"),
        control=Control(args=lambda _field: [], outcomes=DONE),
    ),
    Attack(
        id="PROC-10",
        title="gain a privilege",
        severity="C",
        program=f"""
attempt("setuid", os.setuid, 0)
attempt("setgid", os.setgid, 0)
attempt("setgroups", os.setgroups, [0])
header, all_of_them = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
attempt("capset", call, {NUMBERS["capset"]}, header, all_of_them)
for path in ("/usr/bin/su", "/usr/bin/sudo", "/usr/bin/mount", "/usr/bin/passwd"):
    attempt(path, os.execv, path, [path])
time.sleep(args)
""",
        args=lambda _field: 0.3,
        outcomes={"*": (*DENIED, *ABSENT)},
        violations=("capset", "setgroups", "setuid"),
        meanwhile=_is_locked,
        control=None,
        no_control="a privilege is gained by running a set-user-id program, which no test should do to its host",
    ),
    Attack(
        id="PROC-11",
        title="weaken itself by prctl",
        severity="H",
        program=_PRCTL,
        args=lambda _field: 0.3,
        outcomes={"*": DENIED},
        violations=("prctl",),
        meanwhile=_is_locked,
        control=Control(
            args=lambda _field: 0,
            outcomes={
                "SET_DUMPABLE": ("done",),
                "SET_PDEATHSIG": ("done",),
                "SET_CHILD_SUBREAPER": ("done",),
                "*": ANY,
            },
        ),
    ),
    Attack(
        id="PROC-13",
        title="change priority and processor",
        severity="M",
        program=_PRIORITY,
        outcomes={"*": DENIED},
        violations=("ioprio_set", "sched_setaffinity", "sched_setscheduler", "setpriority"),
        control=Control(outcomes={"fifo": ("done", "EPERM"), "*": ("done",)}),
    ),
    Attack(
        id="PROC-16",
        title="exit 0 without a result",
        severity="H",
        program="os._exit(0)",
        reasons=(ExitReason.NO_RESULT,),
        control=Control(check=lambda _field, outside: _assert_equal((0, None), (outside.exit_code, outside.value))),
    ),
)
