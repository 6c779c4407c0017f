"""Answers the system calls that a child's filter holds for us: denies and counts them, or lets a process leave."""

from __future__ import annotations

import signal
from collections import Counter

from sandbox.isolation import seccomp
from sandbox.isolation.libc import ABORT_MARK
from sandbox.isolation.syscalls import LEAVING
from sandbox.result import Violation
from sandbox.run.child_handle import ChildHandle
from sandbox.run.ending import Ending
from sandbox.run.events import Events
from sandbox.run.watchdog import Watchdog

_FREE_VIOLATIONS = 1000
"""Denied calls that are answered at once; each further one waits for ``_DENIAL_PAUSE_S``."""
_DENIAL_PAUSE_S = 0.01
_MAX_VIOLATION_NAMES = 64


class CallListener:
    """Serves the seccomp listener of one child.

    Attributes:
        aborted: whether the run has called abort(3), or says so.
    """

    def __init__(self, child: ChildHandle, events: Events, ending: Ending, watchdog: Watchdog) -> None:
        self._pid = child.pid
        self._fd = child.listener
        self._events = events
        self._ending = ending
        self._watchdog = watchdog
        self._exit_code: int | None = None
        """With which the child leaves, once that is certain, see ``_let_leave``."""
        self._denied: Counter[str] = Counter()
        self.aborted = False

    def listen(self) -> None:
        """Answer whatever comes."""
        self._events.on_readable(self._fd, self._answer)

    def violations(self) -> tuple[Violation, ...]:
        """The denied calls, by name."""
        return tuple(Violation(syscall=name, count=count) for name, count in sorted(self._denied.items()))

    def _answer(self) -> None:
        """A call waits for its answer, or the last thread that could make one is gone."""
        waiting = seccomp.has_call(self._fd)
        if waiting is None:
            self._events.ignore_readable(self._fd)
            self._ending.note_last_thread(self._exit_code)
        call = seccomp.take_call(self._fd) if waiting else None
        if call is None:
            return
        if seccomp.syscall_name(call.number) == LEAVING:
            self._let_leave(call)
        else:
            self._deny(call)

    def _let_leave(self, call: seccomp.HeldCall) -> None:
        """Let a process end itself, and note its exit code where that is certain.

        Invariant: ``_exit_code`` is set only if this call is the last thing that the child does. So it must be held in
        the call with one thread and no kill pending when it is measured, and still be held when it is answered: a
        thread that is held starts no other, and there is no other. With several threads the call may lose against
        another one's exit or crash; then only wait4(2) knows.
        """
        measured = self._watchdog.look()
        was_held = seccomp.let_through(self._fd, call)
        alone = measured is not None and measured.threads == 1 and not measured.kill_pending
        if was_held and alone and call.pid == self._pid:
            self._exit_code = call.argument & 0xFF

    def _deny(self, call: seccomp.HeldCall) -> None:
        name = seccomp.deny(self._fd, call)
        if name == ABORT_MARK and call.argument == signal.SIGABRT and not self.aborted:
            self.aborted = True
            return
        if name in self._denied or len(self._denied) < _MAX_VIOLATION_NAMES:
            self._denied[name] += 1
        if self._denied.total() > _FREE_VIOLATIONS:
            # each costs us a wake-up and the script nothing: from now on it waits, not we
            self._events.ignore_readable(self._fd)
            self._events.after("deny", _DENIAL_PAUSE_S, self.listen)
