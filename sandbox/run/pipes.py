"""The pipes between the supervisor and one child: the request in, prints and response out.

None of them ever blocks, and all are drained from the first moment: a child that waits for us to read would look as if
it had run into a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import time
from collections.abc import Mapping
from concurrent.futures import Executor

from sandbox.inside.child import INPUT, NARROWING, PROGRESS
from sandbox.policy.policy import Limits
from sandbox.result import ExitReason, Logs, OnOutput, OnProgress, Progress, Stream
from sandbox.run import response
from sandbox.run.child_handle import ChildHandle
from sandbox.run.ending import Ending
from sandbox.run.events import Events

_MIB = 1 << 20
_CHUNK_BYTES = 1 << 16
_BIG_PIPE_BYTES = 1 << 20
_LARGE_RESPONSE_BYTES = 1 << 17
_REPORTS_PAUSE_S = 0.1
"""How long a child waits that reports its progress faster than it may."""


def build_message(request: bytes, policy: Limits, limits: Limits, inputs: Mapping[str, bytes]) -> bytes:
    """The bytes that a child reads on stdin: by how much its policy's limits are lowered, its input files, the request.

    Args:
        request: to be handed to the handler as it is.
        policy: the limits that were set when the child was locked down.
        limits: those in force for this request, at most the policy's.
        inputs: file name → content.
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


class RequestPipe:
    """Sends a child its message, then closes its stdin."""

    def __init__(self, child: ChildHandle, events: Events) -> None:
        self._child = child
        self._events = events

    def send(self, message: bytes) -> None:
        """Send as much as the pipe takes now, and the rest as the child reads."""
        if len(message) > _CHUNK_BYTES:
            _enlarge(self._child.stdin)
        self._write(memoryview(message))

    def _write(self, rest: memoryview) -> None:
        try:
            while rest:
                rest = rest[os.write(self._child.stdin, rest) :]
        except BlockingIOError:
            self._events.on_writable(self._child.stdin, self._write, rest)
            return
        except BrokenPipeError:
            pass  # the child has died or closed its stdin: how it ends says why
        self._events.ignore_writable(self._child.stdin)
        self._child.close_descriptor(self._child.stdin)


class PrintPipes:
    """Reads stdout and stderr, and keeps what the policy allows of both together."""

    def __init__(
        self, child: ChildHandle, limits: Limits, events: Events, ending: Ending, on_output: OnOutput | None
    ) -> None:
        self._fds: dict[Stream, int] = {"stdout": child.stdout, "stderr": child.stderr}
        self._left_bytes = limits.output_kib << 10
        self._events = events
        self._ending = ending
        self._on_output = on_output
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._printed_bytes = 0
        self._truncated = False

    def listen(self) -> None:
        """Read whatever comes."""
        for stream, fd in self._fds.items():
            self._events.on_readable(fd, self._read, stream)

    def drain(self) -> None:
        """Read what the pipes still hold. No writer may be able to run: then that is all there will ever be."""
        for stream in self._fds:
            while self._read(stream):
                pass

    @property
    def printed_kib(self) -> float:
        """The number of bytes printed, kept or not."""
        return self._printed_bytes / 1024

    def logs(self) -> Logs:
        """The output that was kept, as text."""
        return Logs(
            stdout=self._kept["stdout"].decode(errors="backslashreplace"),
            stderr=self._kept["stderr"].decode(errors="backslashreplace"),
            truncated=self._truncated,
        )

    def _read(self, stream: Stream) -> bool:
        """Whether something was there."""
        fd = self._fds[stream]
        part = read_chunk(fd)
        if not part:
            if part is not None:
                self._events.ignore_readable(fd)
            return False
        self._printed_bytes += len(part)
        kept = part[: self._left_bytes]
        self._left_bytes -= len(kept)
        self._kept[stream] += kept
        if kept and self._on_output is not None:
            self._on_output(stream, kept)
        if len(kept) < len(part):
            self._truncated = True
            self._ending.end(ExitReason.OUTPUT_LIMIT)
        return True


class ResponsePipe:
    """Reads reports of progress and the response. The bytes are untrusted; ``response`` says what they may be.

    Attributes:
        check_cpu_s: processor seconds that it took to check the response. The run chose its size and shape, and pays.
    """

    def __init__(
        self,
        child: ChildHandle,
        limits: Limits,
        events: Events,
        ending: Ending,
        on_progress: OnProgress | None,
        *,
        checker: Executor,
    ) -> None:
        self._fd = child.response
        self._result_bytes = limits.result_kib << 10
        self._most_bytes = max(self._result_bytes, response.MAX_ERROR_BYTES) + response.HEADER_BYTES
        self._events = events
        self._ending = ending
        self._progress = response.ProgressReader(on_progress or _ignore)
        self._checker = checker
        self._written = bytearray()
        self._reports_dropped = False
        self.check_cpu_s = 0.0

    def listen(self) -> None:
        """Read whatever comes."""
        self._events.on_readable(self._fd, self._read_at_its_pace)

    def drain(self) -> None:
        """Read what the pipe still holds, at most what a response may have. No writer may be able to run."""
        while len(self._written) <= self._most_bytes and self._read():
            pass

    @property
    def waits_for(self) -> tuple[str, ...]:
        """What the end of the run still waited for, in its own words; empty if it has not said so."""
        return self._progress.waits_for

    async def parse(self) -> response.Response | None:
        """The response. A large one is checked in the checker's thread: that takes up to 0.05 s a MiB."""
        if len(self._written) < _LARGE_RESPONSE_BYTES:
            return self._parse()
        return await asyncio.get_running_loop().run_in_executor(self._checker, self._parse)

    def _parse(self) -> response.Response | None:
        began_s = time.thread_time()
        try:
            return response.parse(bytes(self._written), result_bytes=self._result_bytes)
        finally:
            self.check_cpu_s = time.thread_time() - began_s

    def _read_at_its_pace(self) -> None:
        self._read()
        if self._reports_dropped:
            # each costs us more than the child: from now on it waits, not we
            self._events.ignore_readable(self._fd)
            self._events.after("progress", _REPORTS_PAUSE_S, self.listen)

    def _read(self) -> bool:
        """Whether something was there."""
        part = read_chunk(self._fd)
        self._reports_dropped = False
        if not part:
            if part is not None:
                self._events.ignore_readable(self._fd)
            return False
        if not self._written and len(part) == _CHUNK_BYTES and part[:1] != PROGRESS:
            _enlarge(self._fd)
        self._written += part
        self._reports_dropped = self._progress.take(self._written, time.monotonic())
        if len(self._written) > self._most_bytes:
            self._ending.end(ExitReason.INVALID_RESULT)
        return True


def read_chunk(fd: int) -> bytes | None:
    """Up to one chunk of a pipe; ``b""`` at its end, ``None`` when there is nothing now."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _ignore(_: Progress) -> None:
    """Drop a report that nobody asks for."""


def _enlarge(fd: int) -> None:
    """Fewer wake-ups for much data. Refused when the user's pipe quota is used up, pipe(7); then it is just slower."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _BIG_PIPE_BYTES)
