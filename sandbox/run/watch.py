"""Watches one child from its request to its death, and alone decides why the run ended.

Theory of operation: everything that happens is an event of the worker's loop: a pipe that can be read, a denied call on
the seccomp listener, a tick of the watchdog, the deadline, a request to cancel, the zygote's word that the child is
dead. The first limit that is met is written down and the child, pid 1 of its namespace, is killed; with it dies all
that it started. Only when none of its threads can run again are the facts put together: what we did, what the kernel
says, what it wrote.

Two ways lead to that point, and the first to arrive is taken. The zygote reaps the child and sends wait4's word. Or the
child itself asks to leave: its exit_group waits at the listener, exit code in hand, is measured one last time and let
through, and then the listener hangs up: the kernel says so when the last thread that the filter binds has entered its
exit (since Linux 6.11; before, only after it was reaped). What remains is the kernel taking the address space apart,
which for a child with pandas loaded takes several times longer than a short run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from sandbox.errors import SandboxError
from sandbox.inside.child import INPUT, NARROWING, PROGRESS
from sandbox.isolation import seccomp
from sandbox.isolation.syscalls import LEAVING
from sandbox.policy.policy import Limits
from sandbox.result import ExitReason, Logs, Progress, Usage, Violation
from sandbox.run import response
from sandbox.run.child_handle import (
    Child,
    ExitFacts,
    Measure,
    measure_tree,
)
from sandbox.run.decide import _WITH_ERROR, Outcome, decide, exit_code_of, signal_name
from sandbox.run.harvest import Harvest, harvest, is_empty

_MIB = 1 << 20
_CHUNK_BYTES = 1 << 16
_BIG_PIPE_BYTES = 1 << 20
_FREE_VIOLATIONS = 1000
"""Denied calls that are answered at once; each further one waits for ``_DENIAL_PAUSE_S``."""
_DENIAL_PAUSE_S = 0.01
_LARGE_RESPONSE_BYTES = 1 << 17
_MAX_VIOLATION_NAMES = 64
_FASTEST_GROWTH_BYTES_S = 2 << 30
"""Memory that a run can touch in a second here; sets how long the watchdog may look away."""
_TICK_S = (0.005, 0.05)
_REPORTS_PAUSE_S = 0.1
"""How long a child waits that reports its progress faster than it may."""

Stream = Literal["stdout", "stderr"]
OnOutput = Callable[[Stream, bytes], None]
"""Is given what a run prints, as far as it is kept, as it comes: bytes that nobody has looked at. Must not raise."""
OnProgress = Callable[[Progress], None]
"""Is given what a run says of its progress. Must not raise."""


class Watch:
    """One run of one child."""

    def __init__(
        self,
        child: Child,
        limits: Limits,
        *,
        whole_tree: bool,
        on_output: OnOutput | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """``whole_tree``: the run may start processes, so measure all that descend from the child."""
        self._whole_tree = whole_tree
        self._measure: Callable[[], Measure | None] = partial(measure_tree, child.pid) if whole_tree else child.measure
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._limits = limits
        self._ended_by: ExitReason | None = None
        self._prints: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._on_output = on_output
        self._response = bytearray()
        self._progress = response.ProgressReader(on_progress or _ignore)
        self._progress_dropped = False
        self._output_bytes = 0
        self._violations: Counter[str] = Counter()
        self._exit_code: int | None = None
        self._memory_peak_bytes = child.at_rest.memory_bytes
        self._threads_peak = child.at_rest.threads
        self._end_known: asyncio.Future[ExitFacts] = self._loop.create_future()
        self._started_s = self._cpu_before_s = self._cpu_peak_s = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self, request: bytes, cancel: asyncio.Event | None) -> Outcome:
        """Send the request, watch until the child is dead, say what happened."""
        self._started_s = time.monotonic()
        with contextlib.suppress(OSError):  # dead before its time: its end will be heard of
            self._cpu_before_s = self._child.cpu_s()
        self._listen_to_everything()
        self._send(memoryview(request))
        self._keep_the_deadline()
        self._timers["watch"] = self._loop.call_later(_TICK_S[0], self._guarded, self._watch)
        stop_waiting = self._obey(cancel)
        self._child.death.add_done_callback(self._learn_of_death)
        try:
            facts = await self._end_known
        finally:
            self._child.death.remove_done_callback(self._learn_of_death)
            stop_waiting()
            self._stop_listening()
        wall_s = time.monotonic() - self._started_s
        self._drain_the_rest()
        answer = await self._parse_response()
        return self._conclude(facts, wall_s, answer, await self._harvest())

    async def _parse_response(self) -> response.Response | None:
        """Off the loop when it is large: checking it takes up to a tenth of a second a MiB."""
        result_bytes = self._limits.result_kib << 10
        if len(self._response) < _LARGE_RESPONSE_BYTES:
            return response.parse(bytes(self._response), result_bytes=result_bytes)
        return await asyncio.to_thread(response.parse, bytes(self._response), result_bytes=result_bytes)

    async def _harvest(self) -> Harvest:
        if is_empty(self._child.workspace.fd):
            return (), ()
        max_bytes = self._limits.artifacts_mib * _MIB
        return await asyncio.to_thread(harvest, self._child.workspace.fd, max_bytes=max_bytes)

    # -- what is sent

    def _send(self, rest: memoryview) -> None:
        if len(rest) > _CHUNK_BYTES:
            _enlarge(self._child.stdin)
        self._write(rest)

    def _write(self, rest: memoryview) -> None:
        try:
            while rest:
                rest = rest[os.write(self._child.stdin, rest) :]
        except BlockingIOError:
            self._loop.add_writer(self._child.stdin, self._guarded, self._write, rest)
            return
        except BrokenPipeError:
            pass  # it died or closed its stdin: its end says why
        self._loop.remove_writer(self._child.stdin)
        self._child.shut(self._child.stdin)

    # -- what is heard

    def _listen_to_everything(self) -> None:
        child = self._child
        self._loop.add_reader(child.stdout, self._guarded, self._read_prints, child.stdout, "stdout")
        self._loop.add_reader(child.stderr, self._guarded, self._read_prints, child.stderr, "stderr")
        self._listen_for_response()
        self._listen_for_calls()

    def _stop_listening(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        child = self._child
        for fd in (child.stdout, child.stderr, child.response, child.listener):
            self._loop.remove_reader(fd)
        if child.holds(child.stdin):  # else its number may be somebody else's by now
            self._loop.remove_writer(child.stdin)

    def _read_prints(self, fd: int, stream: Stream) -> bool:
        part = _read(fd)
        if not part:
            if part is not None:
                self._loop.remove_reader(fd)
            return False
        self._output_bytes += len(part)
        allowed = (self._limits.output_kib << 10) - self._kept_bytes
        kept = part[: max(allowed, 0)]
        self._prints[stream] += kept
        if kept and self._on_output is not None:
            self._on_output(stream, kept)
        if len(part) > allowed:
            self._end(ExitReason.OUTPUT_LIMIT)
        return True

    @property
    def _kept_bytes(self) -> int:
        return sum(map(len, self._prints.values()))

    def _listen_for_response(self) -> None:
        self._loop.add_reader(self._child.response, self._guarded, self._hear_response)

    def _hear_response(self) -> None:
        self._read_response()
        if self._progress_dropped:
            # each costs us more than the child: from now on it waits, not we
            self._loop.remove_reader(self._child.response)
            self._timers["progress"] = self._loop.call_later(_REPORTS_PAUSE_S, self._listen_for_response)

    def _read_response(self) -> bool:
        part = _read(self._child.response)
        self._progress_dropped = False
        if not part:
            if part is not None:
                self._loop.remove_reader(self._child.response)
            return False
        if not self._response and len(part) == _CHUNK_BYTES and part[:1] != PROGRESS:
            _enlarge(self._child.response)
        self._response += part
        self._progress_dropped = self._progress.take(self._response, time.monotonic())
        if len(self._response) > self._response_bytes_max:
            self._end(ExitReason.INVALID_RESULT)
        return True

    @property
    def _response_bytes_max(self) -> int:
        return max(self._limits.result_kib << 10, response.MAX_ERROR_BYTES) + response.HEADER_BYTES

    def _hear_call(self) -> None:
        """A call waits for our answer, or the last thread that could make one is gone."""
        listener = self._child.listener
        waiting = seccomp.has_call(listener)
        if waiting is None:
            self._loop.remove_reader(listener)
            self._learn_of_last_thread()
        call = seccomp.take_call(listener) if waiting else None
        if call is None:
            return
        if seccomp.syscall_name(call.number) == LEAVING:
            self._let_leave(call)
        else:
            self._deny(call)

    def _let_leave(self, call: seccomp.Call) -> None:
        """Let a process end itself; note its exit code if nothing can come in between any more.

        With one thread, no kill pending, and the caller still waiting when it is answered, it is certain what follows.
        Beside another thread the call may lose against that one's exit or crash: then only wait4 knows.
        """
        measured = self._note_measure()
        waited = seccomp.let_through(self._child.listener, call)
        alone = measured is not None and measured.threads == 1 and not measured.kill_pending
        if waited and alone and call.pid == self._child.pid:
            self._exit_code = call.argument & 0xFF

    def _deny(self, call: seccomp.Call) -> None:
        name = seccomp.deny(self._child.listener, call)
        if name in self._violations or len(self._violations) < _MAX_VIOLATION_NAMES:
            self._violations[name] += 1
        if self._violations.total() > _FREE_VIOLATIONS:
            # each costs us a wake-up and the script nothing: from now on it waits, not we
            self._loop.remove_reader(self._child.listener)
            self._timers["deny"] = self._loop.call_later(_DENIAL_PAUSE_S, self._listen_for_calls)

    def _listen_for_calls(self) -> None:
        self._loop.add_reader(self._child.listener, self._guarded, self._hear_call)

    def _drain_the_rest(self) -> None:
        """All writers are dead: what the pipes still hold is all there will ever be."""
        while self._read_prints(self._child.stdout, "stdout"):
            pass
        while self._read_prints(self._child.stderr, "stderr"):
            pass
        while len(self._response) <= self._response_bytes_max and self._read_response():
            pass

    # -- that it has ended

    def _learn_of_death(self, death: asyncio.Future[ExitFacts]) -> None:
        if self._end_known.done():
            return
        if (error := death.exception()) is not None:
            self._end_known.set_exception(error)
        else:
            self._end_known.set_result(death.result())

    def _learn_of_last_thread(self) -> None:
        if self._whole_tree or self._exit_code is None or self._end_known.done():
            return
        with contextlib.suppress(OSError):
            self._end_known.set_result((self._exit_code << 8, self._child.cpu_s()))

    # -- what ends it

    def _guarded(self, act: Callable[..., object], *arguments: object) -> None:
        """Do one thing of the watch. Should we fail at it, e.g. for want of memory, the run ends as our failure.

        Otherwise it would go on unwatched, and be blamed for what we did not hear or see.
        """
        try:
            act(*arguments)
        except Exception as error:
            self._stop_listening()
            self._child.kill()
            if not self._end_known.done():
                self._end_known.set_exception(SandboxError("watch", f"{type(error).__name__}: {error}"))

    def _end(self, reason: ExitReason) -> None:
        """Kill it. The first reason stands."""
        if self._ended_by is None:
            self._ended_by = reason
        self._child.kill()

    def _keep_the_deadline(self) -> None:
        self._timers["deadline"] = self._loop.call_later(self._limits.wall_s, self._end, ExitReason.WALL_LIMIT)

    def _obey(self, cancel: asyncio.Event | None) -> Callable[[], None]:
        if cancel is None:
            return lambda: None

        async def wait() -> None:
            await cancel.wait()
            self._end(ExitReason.CANCELLED)

        task = self._loop.create_task(wait())

        def stop_waiting() -> None:
            task.cancel()

        return stop_waiting

    def _watch(self) -> None:
        """Compare what the run takes with its limits, then look away for as long as the rest could not be filled.

        The kernel enforces the same limits per process, more coarsely (whole seconds of processor time), or only for
        private memory; this sees the sum.
        """
        measured = self._note_measure()
        if measured is None:
            return  # dead: its end will be heard of
        if (reason := self._limit_met_without_kernel(measured)) is not None:
            self._end(reason)
            return
        left_bytes = self._limits.memory_mib * _MIB - measured.memory_bytes
        left_s = self._limits.cpu_s - (measured.cpu_s - self._cpu_before_s)
        if left_bytes < 0 or left_s < 0:
            self._end(ExitReason.MEMORY_LIMIT if left_bytes < 0 else ExitReason.CPU_LIMIT)
            return
        pause_s = min(max(left_bytes / _FASTEST_GROWTH_BYTES_S / 4, _TICK_S[0]), _TICK_S[1])
        self._timers["watch"] = self._loop.call_later(pause_s, self._guarded, self._watch)

    def _limit_met_without_kernel(self, measured: Measure) -> ExitReason | None:
        """Limits that the kernel itself refuses to pass where there are namespaces, and we must end where not."""
        if measured.threads > self._limits.threads + self._limits.processes:
            return ExitReason.PROCESS_LIMIT
        size, files = self._child.workspace.usage()
        if size > self._limits.workspace_mib * _MIB or files > self._limits.workspace_files:
            return ExitReason.WORKSPACE_LIMIT
        return None

    def _note_measure(self) -> Measure | None:
        measured = self._measure()
        if measured is None:
            return None
        in_memory_bytes = self._child.workspace.in_memory_bytes()
        measured = measured._replace(memory_bytes=measured.memory_bytes + in_memory_bytes)
        self._memory_peak_bytes = max(self._memory_peak_bytes, measured.memory_bytes)
        self._threads_peak = max(self._threads_peak, measured.threads)
        self._cpu_peak_s = max(self._cpu_peak_s, measured.cpu_s)
        return measured

    # -- what is said of it

    def _conclude(
        self, facts: ExitFacts, wall_s: float, answer: response.Response | None, harvested: Harvest
    ) -> Outcome:
        status, cpu_s = facts[0], max(facts[1], self._cpu_peak_s)
        exit_code = exit_code_of(status)
        full = self._child.workspace.is_full()
        reason, message = decide(exit_code, self._ended_by, answer, cpu_s, self._limits, workspace_full=full)
        workspace_bytes, workspace_files = self._child.workspace.usage()
        return Outcome(
            exit_reason=reason,
            message=message,
            value=answer.value if answer and reason is ExitReason.OK else None,
            error=answer.error if answer and reason in _WITH_ERROR else None,
            exit_code=exit_code if exit_code >= 0 else None,
            signal=signal_name(-exit_code) if exit_code < 0 else None,
            usage=Usage(
                wall_s=round(wall_s, 6),
                cpu_s=round(max(cpu_s - self._cpu_before_s, 0.0), 6),
                memory_peak_mib=round(self._memory_peak_bytes / _MIB, 3),
                output_kib=round(self._output_bytes / 1024, 3),
                workspace_mib=round(workspace_bytes / _MIB, 3),
                workspace_files=workspace_files,
                processes_peak=self._threads_peak,
            ),
            logs=Logs(
                stdout=self._prints["stdout"].decode(errors="backslashreplace"),
                stderr=self._prints["stderr"].decode(errors="backslashreplace"),
                truncated=self._output_bytes > self._kept_bytes,
            ),
            violations=tuple(Violation(syscall=name, count=count) for name, count in sorted(self._violations.items())),
            artifacts=harvested[0],
            artifacts_refused=harvested[1],
        )


def _ignore(_: Progress) -> None:
    """Nobody asks how far it has come."""


def _read(fd: int) -> bytes | None:
    """Up to one chunk; ``b""`` at the end, ``None`` when there is nothing now."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _enlarge(fd: int) -> None:
    """Fewer wake-ups for much data. Refused when the user's pipe quota is used up, pipe(7); then it is just slower."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _BIG_PIPE_BYTES)


def message(request: bytes, policy: Limits, limits: Limits, inputs: Mapping[str, bytes]) -> bytes:
    """What a child reads on stdin: by how much its policy's limits are lowered, its input files, the request.

    Raises:
        ValueError: the name of an input is not that of a file.
    """
    less_bytes = max(policy.memory_mib - limits.memory_mib, 0) * _MIB
    cpu_s = math.ceil(limits.cpu_s) if limits.cpu_s < policy.cpu_s else 0
    parts = [NARROWING.pack(less_bytes, cpu_s, len(inputs))]
    for name, content in inputs.items():
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file")
        encoded = name.encode()
        parts += [INPUT.pack(len(encoded), len(content)), encoded, content]
    return b"".join([*parts, request])
