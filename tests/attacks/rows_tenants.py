"""XT, ZYG and NAME: what one run could leave for the next, and what scripts can be called."""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from pathlib import Path

from sandbox import ExitReason, Result
from tests.attacks.attack import ABSENT, ANY, DENIED, DONE, Attack, Control, Outside
from tests.attacks.field import Field
from tests.attacks.syscall_numbers import NUMBERS
from tests.support.synchronous import descendants, status_of, value_of

ROOT = Path(__file__).resolve().parents[2]

_CHANNELS = f"""
import fcntl
kept = os.open(args["shared"], os.O_RDONLY)
attempt("keyctl", call, {NUMBERS["keyctl"]}, 0, -4, 1, 0, 0)
attempt("request_key", call, {NUMBERS["request_key"]}, b"user", b"x", None, -4)
attempt("shmget", call, {NUMBERS["shmget"]}, 0x7E57, 4096, 0o1600)
attempt("semget", call, {NUMBERS["semget"]}, 0x7E57, 1, 0o1600)
attempt("msgget", call, {NUMBERS["msgget"]}, 0x7E57, 0o1600)
attempt("mq_open", call, {NUMBERS["mq_open"]}, b"test", 0o102, 0o600, None)
attempt("flock", fcntl.flock, kept, fcntl.LOCK_SH | fcntl.LOCK_NB)
attempt("lockf", fcntl.fcntl, kept, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
attempt("open file lock", fcntl.fcntl, kept, 36, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))  # F_OFD_GETLK
attempt("lease", fcntl.fcntl, kept, fcntl.F_SETLEASE, fcntl.F_UNLCK)
attempt("notify", fcntl.fcntl, kept, fcntl.F_NOTIFY, 0)
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).bind(chr(0) + args["name"]))
"""

_CHANNEL_VIOLATIONS = (
    "fcntl", "keyctl", "mq_open", "msgget", "request_key", "semget", "shmget", "socket",
)  # fmt: skip

_LEAVE_EVERYWHERE = """
import builtins, gc, signal, threading, logging, tempfile
seen = [name for name, is_left in {
    "builtin": hasattr(builtins, "left"), "module": "left" in sys.modules, "environment": "LEFT" in os.environ,
    "thread": threading.active_count() != 1, "attribute": hasattr(os, "left"), "path": "left" in sys.path,
    "signal": signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL, "umask": os.umask(0o077) != 0o077,
    "directory": os.getcwd() != args["cwd"], "file": os.path.exists("left"), "temp file": os.path.exists(args["temp"]),
    "logger": bool(logging.getLogger("left").handlers), "timer": signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0),
    "frozen": sys.getrecursionlimit() == 1234, "locale": os.environ.get("LC_ALL") == "left",
}.items() if is_left]
result["seen"] = "done: " + repr(seen)
builtins.left = os.left = sys.modules["left"] = 1
os.environ["LEFT"] = "1"
os.environ["LC_ALL"] = "left"
sys.path.append("left")
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 1000)
logging.getLogger("left").addHandler(logging.NullHandler())
sys.setrecursionlimit(1234)
os.umask(0)
open("left", "w").close()
open(args["temp"], "w").close()
os.chdir("/")
threading.Thread(target=time.sleep, args=(0.2,), daemon=True).start()
"""

_OWN_FILE = """
with open(args, "w") as file:
    file.write("mine")
print("written", flush=True)
time.sleep(0.5)
attempt("mine", read, args)
"""


def _other_finds_nothing(field: Field, pid: int) -> None:
    """A run beside it does not see its file, by any of the names that it may have."""
    del pid
    script = "import os\nresult = [os.path.exists(p) for p in args] + [os.listdir('.'), os.listdir('tmp')]"
    other = field.box.do(field.box._run(script, ["/work/mine", "mine", "/tmp/mine"], None, {}))
    assert [False, False, False] == value_of(other)[:3]
    assert "mine" not in str(value_of(other)[3:])


def _nothing_is_locked(field: Field, pid: int) -> None:
    """The lock that was granted inside is none: another can have it."""
    del pid
    time.sleep(0.1)
    with (field.template.places["scripts"] / "data_analysis.py").open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _another_hears_nothing(field: Field, pid: int) -> None:
    """Whoever asks meanwhile for a lock on the same file is told that there is none."""
    del pid
    script = """
import fcntl, os, struct
kept = os.open(args, os.O_RDONLY)
result = [struct.unpack("hhqqi4x", fcntl.fcntl(kept, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))[0]
          for command in (fcntl.F_GETLK, 36)]
"""
    other = field.box.do(field.box._run(script, "/scripts/data_analysis.py", None, {}))
    assert [fcntl.F_UNLCK, fcntl.F_UNLCK] == value_of(other)


_RESET = """
import locale, resource, signal
attempt("umask", lambda: os.umask(0o022))
attempt("cwd", os.getcwd)
attempt("signals", lambda: sorted(
    number for number in range(1, 65)
    if number not in (9, 19, 32, 33) and signal.getsignal(number) not in (signal.SIG_DFL, None)))
attempt("mask", lambda: sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
attempt("timer", lambda: signal.getitimer(signal.ITIMER_REAL))
attempt("encoding", lambda: (sys.stdout.encoding, locale.getpreferredencoding(), os.environ["LANG"]))
attempt("session", lambda: (os.getpid(), os.getsid(0), os.getpgrp(), os.getppid()))
attempt("identity", lambda: (os.getuid(), os.geteuid(), os.getgid(), os.getegid()))
attempt("hostname", lambda: os.uname().nodename)
attempt("limits", lambda: {
    name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
    for name in ("CPU", "NPROC", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO")})
"""


def _is_reset(field: Field, result: Result) -> None:
    """Every child starts as the table says, whatever the worker or the zygote had."""
    limits = result.limits
    both = lambda value: (value, value)  # noqa: E731 a word for the table below
    wanted = {
        "umask": 0o077,
        "cwd": "/work",
        "signals": [2, 13, 25],  # the interpreter's own: SIGINT interrupts, SIGPIPE and SIGXFSZ are ignored
        "mask": [],
        "timer": (0.0, 0.0),
        "encoding": ("utf-8", "UTF-8", "C.UTF-8"),
        "session": (1, 1, 1, 0),
        "identity": (1000, 1000, 1000, 1000),
        "hostname": "sandbox",
        "limits": {
            "CPU": both(int(limits.cpu_s) + 1), "NPROC": both(limits.threads), "NOFILE": both(limits.open_files),
            "FSIZE": both(limits.workspace_mib << 20), "CORE": both(0), "MEMLOCK": both(0), "MSGQUEUE": both(0),
            "NICE": both(0), "RTPRIO": both(0),
        },
    }  # fmt: skip
    found = value_of(result)
    assert {name: f"done: {value!r}" for name, value in wanted.items()} == {
        name: value.replace("'utf-8', 'utf-8'", "'utf-8', 'UTF-8'") for name, value in found.items()
    }


def _zygotes_have_one_thread(field: Field, result: Result) -> None:
    """Both stages of the zygote, and each ready child."""
    for pid in field.box.zygote_pids():
        assert "1" == status_of(pid)["Threads"]


def _has_no_capability(field: Field, pid: int) -> None:
    """The kernel's word for the running child: no set has a bit, no privilege can be gained."""
    status = status_of(pid)
    assert {"0" * 16} == {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert ("1", "2", "1") == (status["NoNewPrivs"], status["Seccomp"], status["NSpid"].split()[-1])
    outer = {"60999"} if os.geteuid() == 0 else {str(os.geteuid())}
    assert outer == set(status["Uid"].split())
    assert "" == status["Groups"] or outer == set(status["Groups"].split())


def _linked_script(field: Field) -> Path:
    """A link that leads out of the scripts' folder to the secret; only ever made in a copy of that folder."""
    path = field.template.places["scripts"] / "linked.py"
    if path.parent.parent != ROOT and not path.is_symlink():
        path.symlink_to(field.planted.file)
    return path


def _is_only_source(result: Result) -> None:
    """It was compiled as Python, nothing was opened."""
    assert result.error is not None
    assert result.error.type in ("SyntaxError", "NameError", "TypeError")


def _remove_ipc(outside: Outside) -> None:
    """System V objects outlive the process that made them."""
    libc = ctypes.CDLL(None)
    for name, remove in (
        ("shmget", lambda number: libc.shmctl(number, 0, None)),
        ("semget", lambda number: libc.semctl(number, 0, 0)),
        ("msgget", lambda number: libc.msgctl(number, 0, None)),
    ):
        outcome, _, number = outside.value[name].partition(": ")
        if outcome == "done":
            remove(int(number))


def _assert_equal(expected: object, actual: object) -> None:
    assert expected == actual


ROWS = (
    Attack(
        id="XT-01",
        title="leave something in the interpreter",
        severity="C",
        program=_LEAVE_EVERYWHERE,
        args=lambda _field: {"cwd": "/work", "temp": "/tmp/left"},
        runs=3,
        outcomes=DONE,
        check=lambda _field, result: _assert_equal("done: []", value_of(result)["seen"]),
        control=Control(
            runs=2,
            args=lambda field: {"cwd": str(field.folder), "temp": str(field.folder / "left")},
            outcomes=DONE,
            check=lambda _field, outside: _assert_equal(True, "'file', 'temp file'" in outside.value["seen"]),
        ),
    ),
    Attack(
        id="XT-02",
        title="covert channels",
        severity="H",
        program=_CHANNELS,
        args=lambda field: {"shared": "/scripts/data_analysis.py", "name": "channel-" + field.canary[-8:]},
        outcomes={  # what is granted is no lock, and a query sees real locks alone: see the next rows
            **dict.fromkeys(("flock", "lockf", "open file lock"), ("done",)),
            "*": DENIED,
        },
        violations=_CHANNEL_VIOLATIONS,
        control=Control(
            args=lambda field: {"shared": str(field.throw_away() / "file.py"), "name": "channel-" + field.canary[-8:]},
            outcomes={
                "flock": ("done",),
                "lockf": ("done",),
                "abstract": ("done",),
                "lease": ("done", "EAGAIN"),
                "shmget": ("done",),
                "*": ANY,
            },
            check=lambda _field, outside: _remove_ipc(outside),
        ),
    ),
    Attack(
        id="XT-02",
        title="locks on what all runs can read",
        severity="H",
        program="""
import fcntl
kept = os.open(args[0], os.O_RDONLY)
attempt("flock", fcntl.flock, kept, fcntl.LOCK_EX | fcntl.LOCK_NB)
attempt("lockf", fcntl.fcntl, kept, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
time.sleep(args[1])
""",
        args=lambda _field: ["/scripts/data_analysis.py", 0.3],
        meanwhile=_nothing_is_locked,
        outcomes={"*": ("done", "EPERM")},
        control=Control(args=lambda field: [str(field.throw_away() / "file.py"), 0], outcomes=DONE),
    ),
    Attack(
        id="XT-90",
        title="speak by a lock and listen by a query",
        severity="H",
        program="""
import fcntl
kept = os.open(args[0], os.O_RDWR if args[1] else os.O_RDONLY)
def ask(command):
    return struct.unpack("hhqqi4x", fcntl.fcntl(kept, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)))[0]
if args[1]:  # outside: one process takes the lock, another asks
    fcntl.lockf(kept, fcntl.LOCK_EX)
    if os.fork() == 0:
        os._exit(ask(fcntl.F_GETLK))
    attempt("seen by another", lambda: os.waitstatus_to_exitcode(os.wait()[1]) == fcntl.F_WRLCK or seen[99])
else:
    attempt("take", fcntl.fcntl, kept, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
    attempt("open file take", fcntl.fcntl, kept, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
    print("taken", flush=True)
    time.sleep(0.3)
""",
        args=lambda _field: ["/scripts/data_analysis.py", False],
        meanwhile=_another_hears_nothing,
        outcomes=DONE,
        control=Control(args=lambda field: [str(field.throw_away() / "file.py"), True], outcomes=DONE),
    ),
    Attack(
        id="XT-04",
        title="forge an order to the zygote",
        severity="C",
        program="""
import array
for fd in range(4, 256):
    try:
        os.write(fd, struct.pack("=?Q", True, 10**6))
        result[str(fd)] = "done: written"
    except OSError as error:
        if error.errno != errno.EBADF:
            result[str(fd)] = errno.errorcode[error.errno]
attempt("answer", lambda: None)
""",
        outcomes={"answer": ("done",)},
        check=lambda _field, _result: _assert_equal(True, len(descendants()) < 20),
        control=Control(
            inherit=True,
            outcomes={"*": ANY},
            check=lambda _field, outside: _assert_equal(True, len(outside.value) > 2),
        ),
    ),
    Attack(
        id="XT-07",
        title="read a file of a run beside it",
        severity="C",
        program=_OWN_FILE,
        args=lambda _field: "/work/mine",
        meanwhile=_other_finds_nothing,
        outcomes=DONE,
        control=Control(
            args=lambda field: str(field.folder / "mine"),
            outcomes=DONE,
            check=lambda field, _outside: Path(field.folder, "mine").unlink(),
        ),
    ),
    Attack(
        id="ZYG-07",
        title="more than one thread in the zygote",
        severity="H",
        program="attempt('threads', lambda: __import__('threading').active_count())",
        outcomes=DONE,
        check=_zygotes_have_one_thread,
        control=None,
        no_control="tests/sandbox/test_lock_down.py starts a zygote that has a thread, which is refused",
    ),
    Attack(
        id="ZYG-13",
        title="state inherited from worker and zygote",
        severity="M",
        program=_RESET,
        outcomes=DONE,
        check=_is_reset,
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="ZYG-14",
        title="capabilities that were left",
        severity="C",
        program="time.sleep(0.3)\nattempt('end', lambda: None)",
        meanwhile=_has_no_capability,
        outcomes=DONE,
        control=Control(
            user_namespace=True,
            program="attempt('CapEff', lambda: [line for line in open('/proc/self/status') if 'CapEff' in line])",
            check=lambda _field, outside: _assert_equal(False, "0" * 16 in outside.value["CapEff"]),
        ),
    ),
    *(
        Attack(
            id="NAME-01" if number < 4 else "NAME-02",
            title=f"a path for a script {number}",
            severity="C",
            program=path,
            bare=True,
            reasons=(ExitReason.ERROR,),
            check=lambda _field, result: _is_only_source(result),
            control=None,
            no_control="the sandbox takes text, never a name; refusing names is the service's part",
        )
        for number, path in enumerate(
            (
                "../../x.py",
                "..%2fx.py",
                "....//x.py",
                "%252e%252e/x.py",
                "/etc/passwd",
                "~/x.py",
                "C:\\x.py",
                "scripts/x.py",
            )
        )
    ),
    Attack(
        id="NAME-04",
        title="a symbolic link among the scripts",
        severity="C",
        program='attempt("read", read, args)\nattempt("import", __import__, os.path.basename(args)[:-3])',
        args=lambda field: f"/scripts/{_linked_script(field).name}",
        outcomes={"read": ABSENT, "import": ("ModuleNotFoundError",)},
        control=Control(args=lambda field: str(_linked_script(field)), outcomes={"read": ("done",), "*": ANY}),
    ),
    *(
        Attack(
            id="NAME-10",
            title=title,
            severity="M",
            program=program,
            bare=True,
            limits={"wall_s": 5.0},
            reasons=reasons,
            control=None,
            no_control="the interpreter outside takes it as badly; worker and zygote never compile it",
        )
        for title, program, reasons in (
            (
                "100000 nested parentheses",
                "(" * 100_000,
                (ExitReason.ERROR, ExitReason.MEMORY_LIMIT, ExitReason.SIGNALED),
            ),
            (
                "a deep expression",
                "x = " + "-" * 100_000 + "1",
                (ExitReason.ERROR, ExitReason.MEMORY_LIMIT, ExitReason.SIGNALED),
            ),
            ("a literal of a million characters", "result = len('" + "x" * 1_000_000 + "')", (ExitReason.OK,)),
            ("a wrong coding cookie", "# -*- coding: rot13 -*-\nresult = 1", (ExitReason.OK, ExitReason.ERROR)),
            ("NUL and control characters", "x = 1\x00\x1b", (ExitReason.ERROR,)),
        )
    ),
)
