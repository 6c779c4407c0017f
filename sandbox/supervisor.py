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
import errno
import fcntl
import math
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from sandbox import response
from sandbox.child import INPUT, NARROWING, PROGRESS
from sandbox.errors import SandboxError
from sandbox.harvest import Harvest, harvest, is_empty
from sandbox.isolation import seccomp
from sandbox.isolation.syscalls import LEAVING
from sandbox.policy import Limits
from sandbox.result import Artifact, ExitReason, Logs, Progress, RefusedArtifact, RunError, Usage, Violation
from sandbox.workspace import Workspace

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

ExitFacts = tuple[int, float]
"""Wait status (wait4(2)) and processor seconds of a child that has ended."""


class Measure(NamedTuple):
    """What a run takes at one moment."""

    memory_bytes: int
    """Anonymous and shared memory."""
    threads: int
    """Over all processes."""
    cpu_s: float
    """Since the start of the process, over all threads."""
    kill_pending: bool = False
    """Whether its first thread is about to die by SIGKILL, as when another thread ends the process."""


class Child:
    """The worker's side of one ready child: its descriptors and its death."""

    def __init__(
        self,
        pidfd: int,
        pipes: tuple[int, int, int, int],
        workspace: Workspace,
        listener: int,
        proxy: int | None = None,
        *,
        rehearsed: bool = False,
    ) -> None:
        """
        Args:
            pidfd: refers to its process, pidfd_open(2).
            pipes: write end of stdin, read ends of stdout, stderr, response.
            workspace: its private directory.
            listener: where its denied calls are heard of, seccomp_unotify(2).
            proxy: the socket on which its egress proxy is to accept, where its policy grants one.
            rehearsed: whether it has touched the memory that a request will touch.

        Raises:
            OSError: it is dead already.
        """
        self.pidfd = pidfd
        self.rehearsed = rehearsed
        self.stdin, self.stdout, self.stderr, self.response = pipes
        self.workspace, self.listener, self.proxy = workspace, listener, proxy
        self.death: asyncio.Future[ExitFacts] = asyncio.get_running_loop().create_future()
        self._open = {pidfd, *pipes, listener} | ({proxy} if proxy is not None else set())
        self._freed = False
        self.pid = _pid_of(pidfd)
        self._status = os.open(f"/proc/{self.pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        self._open.add(self._status)
        self.at_rest = self.measure() or Measure(0, 1, 0.0)

    def measure(self) -> Measure | None:
        """What the child itself takes now, ``None`` when it is gone: proc_pid_status(5)."""
        try:
            status = os.pread(self._status, 4096, 0)
            cpu_s = self.cpu_s()
        except OSError:
            return None
        found = _MEMORY_AND_THREADS.search(status)
        if found is None:
            return None
        pending = int(found[4], 16) | int(found[5], 16)
        kill_pending = bool(pending & 1 << (signal.SIGKILL - 1))
        return Measure(int(found[1]) + int(found[2]) << 10, int(found[3]), cpu_s, kill_pending)

    def cpu_s(self) -> float:
        """Processor seconds so far, all threads, living and dead: clock_getcpuclockid(3)."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def kill(self) -> None:
        """SIGKILL pid 1 of the child's namespace: the kernel kills the rest, pid_namespaces(7)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def holds(self, fd: int) -> bool:
        """Whether one of its descriptors is still open."""
        return fd in self._open

    def shut(self, fd: int) -> None:
        """Close one of its descriptors, once."""
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def close(self) -> None:
        """Close all that is still open, and free the workspace. Only when it is dead."""
        for fd in list(self._open):
            self.shut(fd)
        if not self._freed:
            self._freed = True
            self.workspace.close()


_MEMORY_AND_THREADS = re.compile(
    rb"^RssAnon:\s+(\d+) kB\n.*?^RssShmem:\s+(\d+) kB\n.*?^Threads:\s+(\d+)\n"
    rb".*?^SigPnd:\s+(\w+)\n.*?^ShdPnd:\s+(\w+)",
    re.MULTILINE | re.DOTALL,
)


def _pid_of(pidfd: int) -> int:
    """The process id in our own pid namespace, see pidfd_open(2) on fdinfo."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        return next(int(line[4:]) for line in info if line.startswith("Pid:"))


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
        exit_code = os.waitstatus_to_exitcode(status)
        full = self._child.workspace.is_full()
        reason, message = decide(exit_code, self._ended_by, answer, cpu_s, self._limits, workspace_full=full)
        workspace_bytes, workspace_files = self._child.workspace.usage()
        return Outcome(
            exit_reason=reason,
            message=message,
            value=answer.value if answer and reason is ExitReason.OK else None,
            error=answer.error if answer and reason in _WITH_ERROR else None,
            exit_code=exit_code if exit_code >= 0 else None,
            signal=signal.Signals(-exit_code).name if exit_code < 0 else None,
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


def measure_tree(pid: int) -> Measure | None:
    """What a process and all its descendants take now, each page that they share counted once: proc_pid_smaps(5).

    A zombie has no memory left, but the processor time that it used counts until somebody waits for it.
    """
    memory_kib = threads = cpu_ticks = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            stat = Path(f"/proc/{one}/stat").read_bytes().rpartition(b")")[2].split()
            for thread in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{thread}/children").read_bytes().split())
        except OSError as error:
            _blame_ourselves(error)
            if one == pid:
                return None
            continue
        threads += int(stat[20 - 3])
        cpu_ticks += sum(int(ticks) for ticks in stat[14 - 3 : 18 - 3])
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_bytes()
        except OSError as error:
            _blame_ourselves(error)
            continue
        memory_kib += sum(int(size) for size in _SHARED_OUT.findall(rollup))
    return Measure(memory_kib << 10, threads, cpu_ticks / os.sysconf("SC_CLK_TCK"))


def _blame_ourselves(error: OSError) -> None:
    """Raise what says that we are short of descriptors or memory, and not that a process has gone."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


_SHARED_OUT = re.compile(rb"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a ``Result`` that watching one child yields."""

    exit_reason: ExitReason
    message: str
    value: msgspec.Raw | None
    error: RunError | None
    exit_code: int | None
    signal: str | None
    usage: Usage
    logs: Logs
    violations: tuple[Violation, ...]
    artifacts: tuple[Artifact, ...]
    artifacts_refused: tuple[RefusedArtifact, ...]


_REFUSED_BY_KERNEL = {
    "memory_limit": ExitReason.MEMORY_LIMIT,
    "workspace_limit": ExitReason.WORKSPACE_LIMIT,
    "process_limit": ExitReason.PROCESS_LIMIT,
}
"""``code`` of an error that a handler gives when what it met is the kernel's refusal → the limit behind it."""
_WITH_ERROR = (ExitReason.ERROR, ExitReason.INVALID_RESULT, *_REFUSED_BY_KERNEL.values())


def decide(
    exit_code: int,
    ended_by: ExitReason | None,
    answer: response.Response | None,
    cpu_s: float,
    limits: Limits,
    *,
    workspace_full: bool = False,
) -> tuple[ExitReason, str]:
    """Why a run ended, and a sentence for people.

    Args:
        exit_code: as ``os.waitstatus_to_exitcode`` gives it, negative for a signal.
        ended_by: the reason for which we killed it, if we did.
        answer: what it wrote.
        cpu_s: what it used.
        limits: what was in force.
        workspace_full: whether its workspace has no byte or no inode left.
    """
    if exit_code < 0:
        return _decide_killed(-exit_code, ended_by, cpu_s, limits)
    if ended_by is ExitReason.OUTPUT_LIMIT:  # it left by itself in the moment in which we killed it
        return ended_by, _limit_message(ended_by, limits)
    if answer is None:
        return _decide_silent(exit_code)
    return _decide_answered(exit_code, answer, limits, workspace_full=workspace_full)


def _decide_answered(
    exit_code: int, answer: response.Response, limits: Limits, *, workspace_full: bool
) -> tuple[ExitReason, str]:
    if answer.kind == "invalid":
        return ExitReason.INVALID_RESULT, answer.fault or "the result cannot be given as JSON"
    if answer.kind == "error" and answer.error is not None and exit_code == 1:
        limit = _REFUSED_BY_KERNEL.get(answer.error.code or "")
        if limit is not None and (limit is not ExitReason.WORKSPACE_LIMIT or workspace_full):
            return limit, _limit_message(limit, limits)
        return ExitReason.ERROR, f"{answer.error.type}: {answer.error.message}"[:500]
    if exit_code != 0:
        return ExitReason.NONZERO_EXIT, f"it left with exit code {exit_code}"
    if answer.kind == "error":
        return ExitReason.INVALID_RESULT, "it reported an error and then left with exit code 0"
    return ExitReason.OK, "done"


def _decide_silent(exit_code: int) -> tuple[ExitReason, str]:
    if exit_code == 0:
        return ExitReason.NO_RESULT, "it left with exit code 0 without giving a result"
    return ExitReason.NONZERO_EXIT, f"it left with exit code {exit_code} without giving a result"


def _decide_killed(number: int, ended_by: ExitReason | None, cpu_s: float, limits: Limits) -> tuple[ExitReason, str]:
    if number == signal.SIGKILL and ended_by is not None:
        return ended_by, _limit_message(ended_by, limits)
    # RLIMIT_CPU counts whole seconds and rounds down what was used: getrlimit(2)
    if number in (signal.SIGKILL, signal.SIGXCPU) and cpu_s >= limits.cpu_s - 0.1:
        return ExitReason.CPU_LIMIT, _limit_message(ExitReason.CPU_LIMIT, limits)
    name = signal.Signals(number).name
    hint = {
        signal.SIGSEGV: " (a crash in native code, a stack overflow, or an abort)",
        signal.SIGSYS: " (a system call in another architecture's convention)",
        signal.SIGKILL: " (not by us: most likely the host ran out of memory)",
    }.get(signal.Signals(number), "")
    return ExitReason.SIGNALED, f"ended by {name}{hint}"


def _limit_message(reason: ExitReason, limits: Limits) -> str:
    return {
        ExitReason.WALL_LIMIT: f"ran longer than {limits.wall_s:g} s (wall_s) and was killed",
        ExitReason.CPU_LIMIT: f"used more than {limits.cpu_s:g} s of processor time (cpu_s) and was killed",
        ExitReason.MEMORY_LIMIT: f"wanted more than {limits.memory_mib} MiB of memory (memory_mib)",
        ExitReason.OUTPUT_LIMIT: f"printed more than {limits.output_kib} KiB (output_kib) and was killed",
        ExitReason.WORKSPACE_LIMIT: f"filled its workspace: {limits.workspace_mib} MiB (workspace_mib) or "
        f"{limits.workspace_files} files (workspace_files)",
        ExitReason.PROCESS_LIMIT: f"wanted more than {limits.threads} threads (threads) and {limits.processes} further "
        "processes (processes)",
        ExitReason.INVALID_RESULT: f"the result is larger than {limits.result_kib} KiB (result_kib)",
        ExitReason.CANCELLED: "cancelled on request",
    }[reason]


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
