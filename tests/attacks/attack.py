"""An attack: a program, its required outcome inside, and the proof that it would have worked outside."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import ExitReason, Result

if TYPE_CHECKING:
    from tests.attacks.field import Field

Args = Callable[["Field"], Any]
Outcomes = Mapping[str, tuple[str, ...]]
"""Attempt's name → what may become of it: ``done``, an errno's name or an exception's. ``*`` stands for the others."""

CheckInside = Callable[["Field", Result], None]
CheckOutside = Callable[["Field", "Outside"], None]

DENIED = ("EPERM",)
ABSENT = ("ENOENT", "EACCES")
READ_ONLY = ("EROFS", "EACCES", "EPERM", "ENOENT")
DONE: Outcomes = {"*": ("done",)}
ANY = ("any",)
"""Whatever becomes of it, it is not what this row is about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Control:
    """The same program outside the sandbox, where it must succeed; else its failure inside would prove nothing."""

    outcomes: Outcomes = dataclasses.field(default_factory=dict)
    program: str = ""
    """Instead of the attack's own."""
    args: Args | None = None
    """Where it may aim outside; as inside unless given. Bounded: few MiB, few processes, the loopback, temp files."""
    seconds: float = 100.0
    """Then it is killed."""
    still_running: bool = False
    """Success is that nothing had stopped it when ``seconds`` were over."""
    exit_code: int | None = None
    """Success is this way to end, negative for a signal."""
    user_namespace: bool = False
    """Needs a privilege: gives it one in a user and mount namespace of its own, as root or not."""
    inherit: bool = False
    """Lets it inherit this process's descriptors, as a careless worker would."""
    runs: int = 1
    """The outcomes are those of the last."""
    check: CheckOutside | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """One row of the table."""

    id: str
    title: str
    severity: str
    """C escape or disclosure, H harm to host or neighbour or a false result, M misleading, L hygiene, - none."""
    program: str
    control: Control | None
    """``None`` only where ``no_control`` says why."""
    no_control: str = ""
    args: Args = lambda _field: None
    bare: bool = False
    """The program is given as it is, without the prelude."""
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    runs: int = 1
    """How often, one after the other; what is expected is expected of the last."""
    reasons: tuple[ExitReason, ...] = (ExitReason.OK,)
    outcomes: Outcomes = dataclasses.field(default_factory=dict)
    violations: tuple[str, ...] = ()
    """Calls that must have been named."""
    meanwhile: Callable[[Field, int], None] | None = None
    """A condition that holds while it runs, given its pid. The program begins with ``BUSY``."""
    check: CheckInside | None = None
    """A further condition after it."""

    @property
    def name(self) -> str:
        """Id and title as one word, the test's id."""
        return f"{self.id}-{self.title.replace(' ', '-')}"


@dataclasses.dataclass(frozen=True)
class Outside:
    """How a program ended outside the sandbox."""

    exit_code: int | None
    """``None``: it still ran when its time was over, and was killed."""
    value: Any
    printed: bytes
    frame: bytes
    """The bytes that it wrote to descriptor 3, which is the response pipe inside."""


PRELUDE = '''\
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
result = {}
def attempt(name, act, *arguments):
    """Note what becomes of an act: done with what it returned, an errno's name, an exception's name."""
    try:
        value = act(*arguments)
    except socket.gaierror:
        result[name] = "gaierror"
    except OSError as error:
        result[name] = errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        result[name] = type(error).__name__
    else:
        result[name] = "done: " + repr(value)[:2000]
        return value
def call(number, *arguments):
    """One system call by its number."""
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    libc.syscall.restype = ctypes.c_long
    answer = libc.syscall(ctypes.c_long(number), *arguments)
    if answer == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
def read(path):
    with open(path, "rb") as file:
        return file.read(4096)
def buffer(size=4096):
    return ctypes.create_string_buffer(size)
def frame(payload, kind=b"R"):
    return kind + struct.pack(">Q", len(payload)) + payload
'''
"""Stands before every program, inside and outside."""

_OUTSIDE = """
import fcntl, json, os, sys
given = json.loads(sys.stdin.read())
answer = open(fcntl.fcntl(os.open(given["answer"], os.O_WRONLY | os.O_CREAT), fcntl.F_DUPFD, 900), "w")
frame = os.open(given["frame"], os.O_RDWR | os.O_CREAT | os.O_APPEND)
if not given["inherit"]:
    os.dup2(frame, 3)
if given["user_namespace"]:
    import ctypes
    uid, gid = os.geteuid(), os.getegid()
    assert ctypes.CDLL(None).unshare(0x10000000 | 0x00020000) == 0  # CLONE_NEWUSER | CLONE_NEWNS
    for path, text in (("setgroups", "deny"), ("gid_map", f"0 {gid} 1"), ("uid_map", f"0 {uid} 1")):
        with open(f"/proc/self/{path}", "w") as file:
            file.write(text)
namespace = {"__name__": "__main__", "args": given["args"]}
exec(compile(given["program"], "script.py", "exec"), namespace)
json.dump(namespace.get("result"), answer, default=repr)
answer.close()
"""


def outside(program: str, args: Any, control: Control, folder: Path) -> Outside:
    """Run a program in a plain interpreter that starts in ``folder``; in time it is killed with its whole session."""
    with tempfile.TemporaryDirectory() as notes:
        answer, frame = Path(notes, "answer"), Path(notes, "frame")
        given = {
            "program": program, "args": args, "answer": str(answer), "frame": str(frame),
            "user_namespace": control.user_namespace, "inherit": control.inherit,
        }  # fmt: skip
        environment = {"HOME": str(folder), "PATH": os.environ["PATH"], "TMPDIR": str(folder), "LANG": "C.UTF-8"}
        if control.inherit:
            environment |= os.environ
        process = subprocess.Popen(
            [sys.executable, "-c", _OUTSIDE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=environment,
            start_new_session=True, close_fds=not control.inherit,
        )  # fmt: skip
        exit_code: int | None = None
        try:
            printed, complaint = process.communicate(json.dumps(given).encode(), timeout=control.seconds)
            exit_code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, complaint = process.communicate()
        text = answer.read_text(encoding="utf-8") if answer.exists() else ""
        if exit_code == 1 and not text and b"Traceback" in complaint and control.exit_code is None:
            raise AssertionError(complaint.decode(errors="replace"))
        wrote = frame.read_bytes() if frame.exists() else b""
        return Outside(
            exit_code, json.loads(text, parse_int=_short_integer) if text else None, printed + complaint, wrote
        )


def _short_integer(digits: str) -> int | str:
    """Python refuses to read longer ones."""
    return int(digits) if len(digits) < 4000 else digits


def compare(expected: Outcomes, seen: Any) -> None:
    """Every attempt ended in one of the expected ways, and there was at least one."""
    if not expected:
        return
    assert seen, "the program made no attempt"
    odd = {}
    for name, outcome in seen.items():
        allowed = expected.get(name, expected.get("*", ()))
        if allowed != ANY and outcome.partition(":")[0] not in allowed:
            odd[name] = outcome
    assert not odd, f"{odd}, expected {dict(expected)}"
    assert set() == set(expected) - {"*"} - set(seen), "attempts that were not made"
