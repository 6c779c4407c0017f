"""However a run ends and whatever it leaves, its result says so: it never looks like a failure of ours, which is free.

A failure of ours (``SandboxError``) costs a task no attempt of its policy. A run that could bring one about would be
tried again and again, and keep the slots. Every case runs in both profiles.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox import ExitReason
from tests.support.remote_worker import worker
from tests.support.synchronous import Sandbox

Run = Callable[..., tuple[str, str | None]]
"""Runs a script; gives its exit reason and the name of the signal that ended it. Raises if the failure is ours."""


@pytest.fixture(scope="module", params=["full", "unprivileged"])
def run(request: pytest.FixtureRequest, shared_box: Sandbox) -> Iterator[Run]:
    """A pool of either profile."""
    if request.param == "full":

        def run_here(script: str, args: Any = None, **limits: Any) -> tuple[str, str | None]:
            result = shared_box.run(script, args, **limits)
            return result.exit_reason.value, result.signal

        yield run_here
        return
    with worker(isolation="unprivileged") as remote:
        assert "started" == remote.start()

        def run_there(script: str, args: Any = None, **limits: Any) -> tuple[str, str | None]:
            result = remote.run(script=script, args=args, **limits)
            return result["exit_reason"], result["signal"]

        yield run_there


def frame(kind: bytes, payload: bytes) -> bytes:
    """As ``sandbox.inside.child`` writes it."""
    return kind + struct.pack(">Q", len(payload)) + payload


def test_every_signal_to_itself_is_an_end_of_its_own(run: Run) -> None:
    """Raised in the run by itself, from the first to the last real-time one."""
    script = "import ctypes\nctypes.CDLL(None)['raise'](args)\nresult = 1"
    for number in range(1, 65):
        reason, signal = run(script, number, wall_s=0.5)
        if number == 2:  # SIGINT is a KeyboardInterrupt, as in any interpreter
            assert ("error", None) == (reason, signal)
            continue
        assert reason in ("ok", "signaled", "wall_limit", "cpu_limit"), number
        assert (signal is not None) == (reason != "ok")


def test_every_exit_code_is_an_end_of_its_own(run: Run) -> None:
    """With a whole result before it, too."""
    script = "import os\nos.write(3, args[0].encode())\nos._exit(args[1])"
    result = frame(b"R", b"1").decode()
    for code in (0, 1, 2, 70, 127, 128, 137, 139, 254, 255):
        assert "ok" == run(script, [result, code])[0] if code == 0 else "nonzero_exit" == run(script, [result, code])[0]
        assert run(script, ["", code])[0] == ("no_result" if code == 0 else "nonzero_exit")


ERRORS = {
    "nothing": b"",
    "one letter": b"E",
    "an unknown sort": frame(b"Z", b"1"),
    "a longer length": b"R" + b"\xff" * 8,
    "a text that ends too soon": b"R" + struct.pack(">Q", 100) + b"1",
    "a number of 5000 digits": frame(b"R", b"1" * 5000),
    "an infinity": frame(b"R", b"1e999"),
    "half a surrogate pair": frame(b"R", rb'"\ud800"'),
    "a deep result": frame(b"R", b"[" * 100_000),
    "a long type": frame(b"E", json.dumps({"type": "a" * 100_000 + "=", "message": "m"}).encode()),
    "an odd code": frame(b"E", json.dumps({"type": "T", "message": "m", "code": "\x00\x1b"}).encode()),
    "a code that names a limit": frame(b"E", b'{"type":"T","message":"m","code":"memory_limit"}'),
    "an empty error": frame(b"E", b"{}"),
    "an error that is deep": frame(b"E", b'{"type":"T","message":' + b"[" * 100_000),
    "an invalid result without a word": frame(b"I", b'{"type":"","message":""}'),
    "a report and no more": frame(b"P", b'{"fraction":0.5}'),
    "a report of infinity": frame(b"P", b'{"fraction":1e999}'),
    "a report of a surrogate": frame(b"P", rb'{"message":"\ud800"}'),
    "a report of 5000 digits": frame(b"P", b'{"fraction":' + b"1" * 2000 + b"}"),
    "a report that is cut": frame(b"P", b'{"fraction":0.5}')[:-3],
    "a report that is too long": frame(b"P", b" " * 3000),
    "a deep report": frame(b"P", b"[" * 2000),
}


@pytest.mark.parametrize("left", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("code", [0, 1])
def test_every_frame_is_an_end_of_its_own(run: Run, left: bytes, code: int) -> None:
    """Result, error, report of progress: what is invalid makes the run's answer invalid."""
    script = "import os\nos.write(3, args[0].encode('latin-1'))\nos._exit(args[1])"
    reason, _ = run(script, [left.decode("latin-1"), code])
    assert reason in {one.value for one in ExitReason} - {"ok"}
