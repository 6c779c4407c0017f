"""A call that the supervisor has taken is held: nothing of the process runs before it is answered, or killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.isolation import privileges, seccomp
from sandbox.isolation.prepared import at_once
from sandbox.run.watch import Watch
from tests.support.synchronous import Sandbox, eventually

HELD = "getppid"
STORM = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
libc.signal(signal.SIGALRM, libc.abs)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
print("printed")
result = args
"""
"""The handler is abs(3): one of Python's waits for the interpreter, which is not asked any more, and a callback of
ctypes takes the interpreter's lock, which the interrupted code may hold.
"""


def filter_that_holds_one_call() -> bytes:
    """A filter that allows everything, and reports one harmless call."""
    import pyseccomp  # noqa: PLC0415 loads the C library

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.add_rule(pyseccomp.NOTIFY, HELD)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def caller(wakes: int) -> Iterator[tuple[int, int]]:
    """A process that makes the call, and writes to ``wakes`` whenever a signal is handled: its pid, the listener."""
    ours, theirs = socket.socketpair()
    program = filter_that_holds_one_call()
    if (pid := os.fork()) == 0:
        try:
            os.set_blocking(wakes, False)
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.set_wakeup_fd(wakes)
            at_once(privileges.forbid_new_privileges)
            socket.send_fds(theirs, [b"."], [at_once(seccomp.install, program).value])
            os.getppid()
        finally:
            os._exit(0)
    theirs.close()
    _, [listener], _, _ = socket.recv_fds(ours, 1, 1)
    try:
        yield pid, listener
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(listener)
        ours.close()


def field(pid: int, name: str) -> str:
    """A line of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


def test_no_signal_but_a_kill_ends_a_hold() -> None:
    """KERN: a signal that the process handles stays pending while its call is held, and no handler runs.

    The kernel says so itself: the process waits as only a kill can end it (D), and the signal is pending.
    """
    assert seccomp.holds_until_death()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with caller(writer) as (pid, listener):
        assert eventually(lambda: bool(seccomp.has_call(listener)))
        call = seccomp.take_call(listener)
        assert call is not None
        os.kill(pid, signal.SIGUSR1)
        assert eventually(lambda: field(pid, "State").startswith("D"))  # only a kill can end its wait
        assert int(field(pid, "ShdPnd"), 16) & 1 << (signal.SIGUSR1 - 1)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        assert seccomp.let_through(listener, call)
        assert eventually(lambda: field(pid, "State").startswith("Z"))  # it goes on and ends
    assert bytes([signal.SIGUSR1]) == os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_a_run_that_is_full_of_signals_ends_as_any_other(shared_box: Sandbox) -> None:
    """Timers fire ten thousand times a second into the end of the run: its result, prints and exit code are whole."""
    for number in range(20):
        result = shared_box.run(STORM, number)
        found = (result.exit_reason.value, bytes(result.value or b""), result.exit_code, result.logs.stdout)
        assert ("ok", str(number).encode(), 0, "printed\n") == found


def test_a_run_that_is_over_holds_no_memory_while_its_result_waits(
    shared_box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a result waits to be checked, its process has ended meanwhile: nothing waits for its end."""
    ended: list[bool] = []
    harvest = Watch._harvest

    async def harvest_late(self: Watch, *arguments: Any) -> Any:
        ended.append(await asyncio.to_thread(eventually, self._child.has_ended))
        return await harvest(self, *arguments)

    monkeypatch.setattr(Watch, "_harvest", harvest_late)
    assert ("ok", [True]) == (shared_box.run("result = 1").exit_reason.value, ended)
