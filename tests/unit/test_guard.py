"""The rule of this folder: its tests start no interpreter, no server and no sandbox."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.support.guard import Guard, StartedSomethingError


def on_a_socket(call: str, address: tuple[str, int]) -> None:
    with socket.socket() as sock:
        getattr(sock, call)(address)


@pytest.mark.parametrize(
    ("event", "start"),
    [
        ("subprocess.Popen", lambda: subprocess.run(["/bin/true"], check=False)),
        ("os.fork", os.fork),
        ("os.posix_spawn", lambda: os.posix_spawn("/bin/true", ["true"], {})),
        ("os.system", lambda: os.system("true")),
        ("socket.bind", lambda: on_a_socket("bind", ("127.0.0.1", 0))),
        ("socket.connect", lambda: on_a_socket("connect", ("127.0.0.1", 9))),
    ],
)
def test_a_unit_test_that_starts_something_is_stopped(guard: Guard, event: str, start: Callable[[], object]) -> None:
    """Before anything is started; and it is noted, so that a test that swallows the error fails all the same."""
    with pytest.raises(StartedSomethingError, match="in a unit test"):
        start()
    assert [event] == guard.refused
    guard.refused.clear()
