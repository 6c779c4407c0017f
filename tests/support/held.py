"""Scripts that go on until their test says so, whatever the time: the test waits for states, and then ends them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from uuid import uuid4

from tests.support.stack import until

_HEAD = """
import ctypes, signal, time
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
def under_way():
    ctypes.CDLL(None).prctl(15, b"{name}", 0, 0, 0)  # PR_SET_NAME, prctl(2)
def hold():
    while not told:
        time.sleep(0.01)
"""


class Held:
    """A script that has ``told``, which is empty until ``tell()``, ``hold()``, which returns then, and ``under_way()``.

    Its process is found by the name that it gives itself with ``under_way()``; the signal goes past the service.
    """

    def __init__(self, rest: str, *, named_at_once: bool = True) -> None:
        """
        Args:
            rest: the script's own lines.
            named_at_once: it is under way from its first line; else it calls ``under_way()`` itself.
        """
        self._name = f"h-{uuid4().hex[:12]}"
        self.script = _HEAD.format(name=self._name) + ("under_way()\n" if named_at_once else "") + rest

    def count(self) -> int:
        """How many processes of this script have called ``under_way()`` and still live."""
        return len(self._pids())

    def wait(self, count: int = 1) -> None:
        """Until so many are under way."""
        until(lambda: self.count() >= count, f"{count} of the script are under way")

    def kill(self) -> None:
        """Kill one that is under way, as the host's out-of-memory killer would."""
        self.wait()
        os.kill(self._pids()[0], signal.SIGKILL)

    def tell(self) -> None:
        """Let it end."""
        self.wait()
        for pid in self._pids():
            os.kill(pid, signal.SIGUSR1)

    def _pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name, _, rest = entry.read_text(errors="replace").partition("(")[2].rpartition(")")
                if name == self._name and rest.split()[0] != "Z":
                    found.append(int(entry.parent.name))
        return found
