"""How one run ends: what ended it, and when that is certain."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from sandbox.errors import SandboxError
from sandbox.result import ExitReason
from sandbox.run.child_handle import ChildHandle, ExitFacts
from sandbox.run.decide import exit_code_of


class Ending:
    """Kills the child where a limit is met, and knows the end as soon as it is certain.

    Attributes:
        reason: why we killed it; ``None`` when we did not. The first reason stands.
        left_open: the files that it had open for writing when we killed it, by their paths in the workspace.
        own_signal: by which signal, that it sent to itself, the run ended; ``None`` when by none.
        known: done when no thread of the run can run again; or failed, where that is our own failure.
    """

    def __init__(self, child: ChildHandle, *, whole_tree: bool) -> None:
        """``whole_tree``: the run may start processes, which may outlive the child's last thread for a moment."""
        self.reason: ExitReason | None = None
        self.left_open: tuple[str, ...] = ()
        self.own_signal: int | None = None
        self.known: asyncio.Future[ExitFacts] = asyncio.get_running_loop().create_future()
        self._child = child
        self._whole_tree = whole_tree

    def end(self, reason: ExitReason) -> None:
        """Kill the run."""
        if self.reason is None:
            self.reason = reason
            self._child.last_facts.take()
            self.left_open = self._child.files_open_for_writing()
        self._child.kill()

    def end_by_own_signal(self, number: int) -> None:
        """Do what a signal that the run sent to itself does to any process but pid 1: end it."""
        if self.reason is None and self.own_signal is None:
            self.own_signal = number
            self._child.last_facts.take()
        self._child.kill()

    def note_own_kill(self) -> None:
        """The run kills itself, and is no pid 1, so that the kernel will do it."""
        if self.reason is None and self.own_signal is None:
            self.own_signal = signal.SIGKILL

    def exit_code(self, status: int) -> int:
        """Exit code of the run by its wait status, negative for the signal that ended it."""
        exit_code = exit_code_of(status)
        return -self.own_signal if self.own_signal is not None and exit_code == -signal.SIGKILL else exit_code

    def fail(self, error: Exception) -> None:
        """Kill the run because we failed at watching it."""
        self._child.kill()
        if not self.known.done():
            self.known.set_exception(SandboxError("watch", f"{type(error).__name__}: {error}"))

    def note_death(self, death: asyncio.Future[ExitFacts]) -> None:
        """The zygote has reaped the child, or is lost itself."""
        if self.known.done():
            return
        if (error := death.exception()) is not None:
            self.known.set_exception(error)
        else:
            self.known.set_result(death.result())

    def note_last_thread(self, exit_code: int | None) -> None:
        """No thread of the child is left that could still act.

        Args:
            exit_code: with which it left, where that is certain; otherwise only its reaper knows.
        """
        if self._whole_tree or exit_code is None or self.known.done():
            return
        with contextlib.suppress(OSError):  # reaped meanwhile: the zygote's word comes instead
            self.known.set_result(ExitFacts(exit_code << 8, self._child.cpu_s()))
