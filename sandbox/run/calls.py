"""Answers the calls that a filter holds for us: denies them, counts memory, lets a run signal itself or leave."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from sandbox.isolation import seccomp
from sandbox.isolation.syscalls import LEAVING, SIGNALS
from sandbox.result import Violation
from sandbox.run.child_handle import ChildHandle, is_fatal
from sandbox.run.ending import Ending
from sandbox.run.events import Events
from sandbox.run.watchdog import Watchdog

_FREE_CALLS = 1000
"""Held calls that are answered at once; each further one waits for ``_PAUSE_S``."""
_PAUSE_S = 0.01
_INIT = 1
_LOW_32 = 0xFFFFFFFF
_MAX_VIOLATION_NAMES = 64


class CallListener:
    """Serves the seccomp listener of one child."""

    def __init__(
        self,
        child: ChildHandle,
        events: Events,
        ending: Ending,
        watchdog: Watchdog,
        *,
        whole_tree: bool,
        holds_until_death: bool,
    ) -> None:
        """
        Args:
            child: whose listener it is.
            events, ending, watchdog: of the same run.
            whole_tree: the run may start processes, and signal them.
            holds_until_death: as ``seccomp.holds_until_death`` says.
        """
        self._pid, self._own_pid = child.pid, child.own_pid
        self._whole_tree = whole_tree
        self._holds_until_death = holds_until_death
        self._fd, self._kill = child.listener, child.kill
        self._events = events
        self._ending = ending
        self._watchdog = watchdog
        self._exit_code: int | None = None
        """With which the child leaves, once that is certain, see ``_let_leave``."""
        self._denied: Counter[str] = Counter()
        self._answered = 0

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
        name = seccomp.syscall_name(call.number)
        if name == LEAVING:
            self._let_leave(call)
        elif name in SIGNALS and (self._whole_tree or call.arguments[0] & _LOW_32 == self._own_pid):
            self._let_signal(call, call.arguments[SIGNALS[name]] & _LOW_32)
        elif (wanted_bytes := seccomp.shared_memory_asked_for(call)) is not None:
            self._count_shared_memory(call, wanted_bytes)
        else:
            self._deny(call)

    def _let_leave(self, call: seccomp.HeldCall) -> None:
        """Let a process end itself, and note its exit code where that is certain.

        Invariant: an exit code is noted only if this call is the last thing that the child does. So it must be held in
        the call with one thread and no kill pending when it is measured, and still be held afterwards: a thread that is
        held starts no other, and there is no other. With several threads the call may lose against another one's exit
        or crash; then only wait4(2) knows. One that has lost is held no longer, even where the kill that ended its hold
        is pending no more.

        Where nothing but death ends the hold, the run is over at this moment. The call is never answered: the child is
        killed instead, so that it holds its memory no longer and keeps no freezer waiting, and nobody waits until the
        kernel has taken it apart. Elsewhere a signal may end the hold before the answer, so the end of the last thread
        is waited for.
        """
        measured, exit_code = self._watchdog.look(), call.arguments[0] & 0xFF
        is_alone = measured is not None and measured.threads == 1 and not measured.kill_pending
        is_last = is_alone and call.pid == self._pid
        may_conclude = is_last and self._holds_until_death and not self._whole_tree
        if may_conclude and seccomp.is_held(self._fd, call):
            self._events.ignore_readable(self._fd)
            self._ending.note_last_thread(exit_code)
            # After the result is put together, which takes about as long as what the kernel does to end a process and
            # would meet it on the same processors; or as soon as that waits for anything.
            asyncio.get_running_loop().call_soon(self._kill)
        elif seccomp.let_through(self._fd, call) and is_last:
            self._exit_code = exit_code

    def _let_signal(self, call: seccomp.HeldCall, number: int) -> None:
        """Let a run signal itself. To pid 1 the kernel delivers only what it handles: what would end it, we end.

        Whom it signals stands in a register, so it is nobody else whatever the run does meanwhile.
        """
        if call.arguments[0] & _LOW_32 == self._own_pid == _INIT and is_fatal(call.pid, number):
            self._ending.end_by_own_signal(number)
            return
        if number == signal.SIGKILL and self._own_pid != _INIT:
            self._ending.note_own_kill()
        if number == 0:
            self._watchdog.look()  # see ``handlers.failures``: what fills the workspace may be gone at the end
        seccomp.let_through(self._fd, call)
        self._slow_down()

    def _count_shared_memory(self, call: seccomp.HeldCall, wanted_bytes: int) -> None:
        """Let a shared anonymous mapping through, or refuse it as the kernel would where memory is short.

        What is decided on is in registers, and counts whole until the run ends: such memory stays when its mapping is
        gone, and no measure of the process shows how much.
        """
        if self._watchdog.take_shared_memory(wanted_bytes):
            seccomp.let_through(self._fd, call)
        else:
            seccomp.refuse_memory(self._fd, call)
        self._slow_down()

    def _deny(self, call: seccomp.HeldCall) -> None:
        name = seccomp.deny(self._fd, call)
        if name in self._denied or len(self._denied) < _MAX_VIOLATION_NAMES:
            self._denied[name] += 1
        self._slow_down()

    def _slow_down(self) -> None:
        """Each call costs us a wake-up and the script nothing: after many of them it waits, not we."""
        self._answered += 1
        if self._answered > _FREE_CALLS:
            self._events.ignore_readable(self._fd)
            self._events.after("deny", _PAUSE_S, self.listen)
