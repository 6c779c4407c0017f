"""Holds the unit tests to their rule: they start nothing."""

from __future__ import annotations

import sys

STARTS = {
    "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system",  # a process
    "socket.bind", "socket.connect",  # a server, or somebody who asks one
}  # fmt: skip


class StartedSomethingError(BaseException):
    """A unit test started a process or a server. No ``Exception``, so that no ``except`` of the code under test keeps
    it from the reader."""


class Guard:
    """Refuses what would start something, while a unit test runs.

    Python tells audit hooks of it before it happens (PEP 578); a hook cannot be taken away again, only be switched off.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.refused: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: tuple[object, ...]) -> None:
        if self.is_on and event in STARTS:
            self.refused.append(event)
            raise StartedSomethingError(f"{event} in a unit test; what starts something belongs into tests/service")
