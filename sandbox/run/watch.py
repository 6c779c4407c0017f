"""Watches one child from its request to its death, and alone decides why the run ended.

Theory of operation: everything that happens is an event of the worker's loop: a pipe that can be read, a denied call on
the seccomp listener, a tick of the watchdog, the deadline, a request to cancel, the zygote's word that the child is
dead. The first limit that is met is written down and the child, pid 1 of its namespace, is killed; with it dies all
that it started. Only when none of its threads can run again are the facts put together: what we did, what the kernel
says, what it wrote.

Several ways lead to that point, and the first to arrive is taken. The child itself asks to leave: its exit_group
waits at the listener, exit code in hand, and is measured one last time. Where nothing but death ends that hold, the run
is over there and then, and the child is killed. Elsewhere, or beside other threads, the call is let through, and the
listener hangs up when the last thread that the filter binds has entered its exit (since Linux 6.11; before, only after
it was reaped). Or the zygote reaps the child and sends wait4's word. What then remains is the kernel taking the address
space apart, which for a child with pandas loaded takes several times longer than a short run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from sandbox.errors import SandboxError
from sandbox.policy.policy import Limits
from sandbox.result import ExitReason, OnOutput, OnProgress, RunFacts, Usage
from sandbox.run import remarks, response
from sandbox.run.calls import CallListener
from sandbox.run.child_handle import ChildHandle, ExitFacts
from sandbox.run.decide import KILLED_BY_ANOTHER, WITH_ERROR, decide, signal_name, was_killed_by_another
from sandbox.run.ending import Ending
from sandbox.run.events import Events
from sandbox.run.harvest import FEW, Harvest, find_strays, harvest, is_empty, is_little
from sandbox.run.pipes import PrintPipes, RequestPipe, ResponsePipe
from sandbox.run.watchdog import Watchdog
from sandbox.run.workspace import WorkspaceFacts

_MIB = 1 << 20


class Watch:
    """Watches one run of one child, from its request to its death."""

    def __init__(
        self,
        child: ChildHandle,
        limits: Limits,
        *,
        whole_tree: bool,
        holds_until_death: bool,
        checker: Executor,
        on_output: OnOutput | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """
        Args:
            child: ready, without a request so far.
            limits: those in force.
            whole_tree: the run may start processes, so all that descend from the child count.
            holds_until_death: as ``seccomp.holds_until_death`` says.
            checker: where a large response is checked.
            on_output, on_progress: as of ``Pool.run``.
        """
        self._child = child
        self._limits = limits
        # no part refers back to the watch: without such a cycle the buffers are freed with it, and not some time later
        # by the garbage collector
        self._ending = ending = Ending(child, whole_tree=whole_tree)
        self._events = events = Events(ending.fail)
        self._request = RequestPipe(child, events)
        self._prints = PrintPipes(child, limits, events, ending, on_output)
        self._response = ResponsePipe(child, limits, events, ending, on_progress, checker=checker)
        self._watchdog = Watchdog(child, limits, events, ending, whole_tree=whole_tree)
        self._calls = CallListener(
            child, events, ending, self._watchdog, whole_tree=whole_tree, holds_until_death=holds_until_death
        )

    async def run(self, message: bytes, cancel: asyncio.Event | None) -> RunFacts:
        """Send a message as ``build_message`` makes it, watch until the run is over, say what happened.

        Raises:
            SandboxError: our own failure: the watch, or the zygote.
        """
        stop_obeying = self._obey(cancel)
        self._child.death.add_done_callback(self._ending.note_death)
        try:
            self._begin(message)
            facts = await self._ending.known
        finally:
            self._child.death.remove_done_callback(self._ending.note_death)
            stop_obeying()
            self._events.stop()
        # Invariant from here on: no thread of the run can run again. So the pipes get nothing more, no file changes
        # under the harvest, and what is decided stays true.
        wall_s = self._watchdog.wall_s()
        self._prints.drain()
        self._response.drain()
        try:
            answer = await self._response.parse()
            found, strays = await self._harvest()
            return self._conclude(facts, wall_s, answer, found, strays)
        except SandboxError:
            raise
        except (OSError, MemoryError) as error:  # we are short of descriptors or memory
            raise SandboxError("conclude", f"{type(error).__name__}: {error}") from error
        except Exception as error:
            # the run chose all that we read here: what we cannot read is its fault, and costs it an attempt
            return self._unreadable(facts, wall_s, error)

    def _begin(self, message: bytes) -> None:
        """Listen before the first byte is sent: a child that is quick must not be missed."""
        self._watchdog.begin()
        self._prints.listen()
        self._response.listen()
        self._calls.listen()
        self._request.send(message)
        self._events.after("deadline", self._limits.wall_s, self._meet_deadline)
        self._watchdog.keep_watch()

    def _meet_deadline(self) -> None:
        """End the run, unless this process was away meanwhile: then read first what has come, and give it that time."""
        if (left_s := self._watchdog.left_s()) > 0:
            self._events.after("deadline", left_s, self._meet_deadline)
        else:
            self._ending.end(ExitReason.WALL_LIMIT)

    async def _harvest(self) -> tuple[Harvest, tuple[str, ...]]:
        """The artifacts, and the folders that were taken for theirs."""
        workspace, max_bytes = self._child.workspace, self._limits.artifacts_mib * _MIB
        files = workspace.usage()[1]
        if files == 0 and is_empty(workspace.fd):
            return Harvest((), ()), ()

        def look() -> tuple[Harvest, tuple[str, ...]]:
            return harvest(workspace.fd, max_bytes=max_bytes), find_strays(workspace.fd)

        # a table or a small picture: to change to a thread and back takes longer, and the caller waits for it
        is_quick = files <= FEW and workspace.in_memory_bytes() > 0 and is_little(workspace.fd)
        return look() if is_quick else await asyncio.to_thread(look)

    def _obey(self, cancel: asyncio.Event | None) -> Callable[[], object]:
        """End the run when ``cancel`` is set. Returns what to call when that is no longer wanted."""
        if cancel is None:
            return lambda: None

        async def wait() -> None:
            await cancel.wait()
            self._ending.end(ExitReason.CANCELLED)

        return asyncio.get_running_loop().create_task(wait()).cancel

    def _conclude(
        self,
        facts: ExitFacts,
        wall_s: float,
        answer: response.Response | None,
        found: Harvest,
        strays: tuple[str, ...],
    ) -> RunFacts:
        exit_code = self._ending.exit_code(facts.status)
        workspace = self._child.last_facts.at_end()
        cpu_total_s = self._watchdog.cpu_total_s(facts.cpu_s)
        ended_by = self._watchdog.look_back() if self._ending.reason is None else self._ending.reason
        by_itself = self._ending.own_signal is not None
        if was_killed_by_another(exit_code, ended_by, cpu_total_s, self._limits, by_itself=by_itself):
            raise SandboxError("killed", KILLED_BY_ANOTHER)
        reason, message = decide(
            exit_code,
            ended_by,
            answer,
            cpu_total_s,
            self._limits,
            workspace_full=workspace.is_full,
            by_itself=by_itself,
        )
        return RunFacts(
            exit_reason=reason,
            message=message + self._remarks(reason, answer, strays),
            value=answer.value if answer and reason is ExitReason.OK else None,
            error=answer.error if answer and reason in WITH_ERROR else None,
            exit_code=exit_code if exit_code >= 0 else None,
            signal=signal_name(-exit_code) if exit_code < 0 else None,
            usage=self._usage(facts, wall_s, workspace),
            logs=self._prints.logs(),
            violations=self._calls.violations(),
            artifacts=found.artifacts,
            artifacts_refused=found.refused,
        )

    def _unreadable(self, facts: ExitFacts, wall_s: float, error: Exception) -> RunFacts:
        """The end of a run that left something which breaks our own code: a last resort that no known run reaches."""
        exit_code = self._ending.exit_code(facts.status)
        return RunFacts(
            exit_reason=ExitReason.INVALID_RESULT,
            message=f"what it left cannot be read ({type(error).__name__})",
            exit_code=exit_code if exit_code >= 0 else None,
            signal=signal_name(-exit_code) if exit_code < 0 else None,
            usage=Usage(wall_s=round(wall_s, 6), cpu_s=round(self._watchdog.cpu_s(facts.cpu_s), 6)),
            logs=self._prints.logs(),
        )

    def _remarks(self, reason: ExitReason, answer: response.Response | None, strays: tuple[str, ...]) -> str:
        """What else there is to say of the end, after the reason."""
        if reason is self._ending.reason:
            return remarks.of_a_kill(self._response.waits_for, self._ending.left_open)
        if reason is ExitReason.NONZERO_EXIT and answer is None:
            return remarks.of_last_words(self._prints.logs().stderr)
        return remarks.of_strays(strays)

    def _usage(self, facts: ExitFacts, wall_s: float, workspace: WorkspaceFacts) -> Usage:
        return Usage(
            wall_s=round(wall_s, 6),
            cpu_s=round(self._watchdog.cpu_s(facts.cpu_s) + self._response.check_cpu_s, 6),
            memory_peak_mib=round(self._watchdog.memory_peak_bytes / _MIB, 3),
            output_kib=round(self._prints.printed_kib, 3),
            workspace_mib=round(workspace.size_bytes / _MIB, 3),
            workspace_files=workspace.files,
            processes_peak=self._watchdog.threads_peak,
        )
