"""Checks bodies without stopping the event loop: quick ones at once, others in processes of their own.

Each body has an allowance of processor time, after which the kernel ends the process that checks it: such a body is
refused, however busy the host is. One tenant's bodies never have all of the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from itertools import islice
from typing import cast
from weakref import WeakValueDictionary

import msgspec

from engine.api.body.check import CPU_SIGNAL, HEAD, LENGTH, Reply, check, check_batch
from engine.config.settings import PROJECT_DIR
from engine.model.cancel import end_tasks
from engine.model.errors import EngineError, InvalidRequestError
from engine.model.request import SubmitRequest
from engine.model.turns import taking_turns
from engine.model.unreachable import is_gone
from handlers.parameters.faults import Fault

INLINE_BYTES = 128 * 1024
"""About two milliseconds of work, without ``_SLOW_NUMBER``."""
_SLOW_NUMBER = re.compile(rb"[eE][+-]?[0-9]{3}")
"""An exponent of three digits. msgspec 0.22 takes 13 us to read ``1e308``, a hundred times as long as for others."""
_SLOW_NUMBERS = 100
"""About one millisecond of work."""
_FEW_OBJECTS = 20
"""In a batch. To name the faults of one task takes up to two milliseconds, however short it is."""
READ_BYTES = 1 << 20
PROCESSES = 2
CPU_S = 5.0
"""Processor time that one body may take. 64 MiB of ordinary JSON take one second."""
NO_BODY = b"{}"
"""Is refused for what it lacks, which takes no time."""
WAIT_S = 60.0
"""How long a body may wait for its turn and its answer, all in all."""


class CheckerEndedError(EngineError):
    """The checking process ended before it answered, or could not be started: the host, or we, have too little left."""

    status = 503
    retry_after_s = 2.0

    def __init__(self, what: str = "ended before it answered") -> None:
        super().__init__(f"The process that checks large bodies {what}. Nothing was accepted: try again.")


class CheckerBusyError(EngineError):
    """A body was not checked in time because the host, or its tenant, has too much to check."""

    status = 503
    retry_after_s = 10.0

    def __init__(self, wait_s: float) -> None:
        super().__init__(
            f"This large body could not be checked within {wait_s:g} s: the service, or your tenant, has too many of "
            "them. Nothing was accepted: try again after Retry-After seconds."
        )


def is_quick(body: bytes) -> bool:
    """Whether a body is checked so quickly that nobody is kept waiting: a short one, with few slow numbers."""
    if len(body) > INLINE_BYTES:
        return False
    return next(islice(_SLOW_NUMBER.finditer(body), _SLOW_NUMBERS, None), None) is None


class Process:
    """One checking process. It is started for its first body, or before, and kept."""

    def __init__(self, cpu_s: float, memory_mib: int) -> None:
        """
        Args:
            cpu_s: processor time for one body, seconds.
            memory_mib: memory that it may take.
        """
        self._cpu_s = cpu_s
        self._memory_mib = memory_mib
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; ``None`` while there is none."""
        return self._process.pid if self._process else None

    async def ask(self, head: bytes, body: bytes) -> Reply:
        """Have a body checked.

        Raises:
            InvalidRequestError: it took more than its processor time.
            CheckerEndedError: the process was killed, or could not be started.
        """
        try:
            return await self._exchange(head, body)
        except CheckerEndedError:
            process = self._process
            if process is not None:
                await _forget(process)
            if process is not None and await process.wait() == -CPU_SIGNAL:
                said = f"takes more than {self._cpu_s:g} s of processor time to be checked; send less JSON, or a file"
                raise InvalidRequestError(Fault(path="$", message=said)) from None
            raise
        except BaseException:
            await self.end()  # it may be in the middle of an answer that nobody reads any more
            raise

    async def end(self) -> None:
        """Kill it."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
        if process is not None:
            await _forget(process)

    async def _exchange(self, head: bytes, body: bytes) -> Reply:
        process = await self._started()
        requests, answers = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
        try:
            requests.write(head)
            requests.write(body)
            await requests.drain()
            length = await answers.readexactly(LENGTH.size)
            text = await answers.readexactly(LENGTH.unpack(length)[0])
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CheckerEndedError from error
        except RuntimeError as error:  # the pipe is closed, see ``unreachable``
            if not is_gone(error):
                raise
            raise CheckerEndedError from error
        return msgspec.json.decode(text, type=Reply)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = None
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "engine.api.body.check", str(self._cpu_s), str(self._memory_mib),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=READ_BYTES, cwd=PROJECT_DIR,
                    env={"PATH": os.defpath}, start_new_session=True,
                )  # fmt: skip
            except OSError as error:  # no descriptor, no memory, no process is left
                raise CheckerEndedError("could not be started") from error
        return self._process


async def _forget(process: asyncio.subprocess.Process) -> None:
    """Close the pipe to a process that has ended, and take note of what could not be written to it."""
    requests = cast(asyncio.StreamWriter, process.stdin)
    requests.close()
    with contextlib.suppress(OSError):
        await requests.wait_closed()


class Checker:
    """Owns the checking processes."""

    def __init__(
        self, memory_mib: int, *, processes: int = PROCESSES, cpu_s: float = CPU_S, wait_s: float = WAIT_S
    ) -> None:
        """
        Args:
            memory_mib: memory that each process may take.
            processes: how many bodies are checked at the same time, at least two; a tenant has one fewer.
            cpu_s: processor time for one body, seconds.
            wait_s: how long a body may wait for its turn and its answer, seconds.
        """
        self._wait_s = wait_s
        self._of_a_tenant = processes - 1
        self._all = [Process(cpu_s, memory_mib) for _ in range(processes)]
        self._idle = list(self._all)
        self._places = asyncio.Semaphore(processes)
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of those that have been started."""
        return tuple(process.pid for process in self._all if process.pid is not None)

    async def check(self, body: bytes, *, has_key: bool = False, tenant: str = "") -> SubmitRequest:
        """Check a body; the request's parameters stay a part of it.

        Args:
            body: of ``POST /execute``.
            has_key: whether an idempotency key stands for it.
            tenant: whose it is.
        Raises:
            InvalidRequestError: what is wrong with it, and where.
            CheckerEndedError: it could not be checked.
            CheckerBusyError: it could not be checked in time.
        """
        if is_quick(body):
            return check(body, has_key=has_key)
        (found,) = await self._check_apart(body, tenant, is_batch=False, has_key=has_key)
        if isinstance(found, InvalidRequestError):
            raise found
        return found

    async def check_batch(self, body: bytes, *, tenant: str = "") -> list[SubmitRequest | InvalidRequestError]:
        """Check a body that is an array of tasks, each for itself.

        Raises:
            InvalidRequestError: what is wrong with the body as a whole.
            CheckerEndedError: it could not be checked.
            CheckerBusyError: it could not be checked in time.
        """
        if is_quick(body) and body.count(b"{") <= _FEW_OBJECTS:
            return check_batch(body)
        return await self._check_apart(body, tenant, is_batch=True)

    async def _check_apart(
        self, body: bytes, tenant: str, *, is_batch: bool, has_key: bool = False
    ) -> list[SubmitRequest | InvalidRequestError]:
        try:
            async with asyncio.timeout(self._wait_s), self._process_for(tenant) as process:
                reply = await process.ask(HEAD.pack(is_batch, has_key, len(body)), body)
        except TimeoutError:
            raise CheckerBusyError(self._wait_s) from None
        if reply.faults:
            raise InvalidRequestError(*reply.faults)
        return [packed.unpack(body) async for packed in taking_turns(reply.requests)]

    @contextlib.asynccontextmanager
    async def _process_for(self, tenant: str) -> AsyncIterator[Process]:
        """A process, as soon as this tenant may have one and one is idle; the one used last comes first."""
        own = self._tenants.setdefault(tenant, asyncio.Semaphore(self._of_a_tenant))
        async with own, self._places:
            process = self._idle.pop()
            try:
                yield process
            finally:
                self._idle.append(process)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Starts one process now, for its imports take longer than most large bodies; ends all at the end."""
        warming = asyncio.create_task(self.warm_up())
        try:
            yield
        finally:
            await end_tasks(warming)
            await self.close()

    async def warm_up(self) -> None:
        """Start the process that the next large body takes. Where that fails, the body starts it and hears why."""
        with contextlib.suppress(EngineError):
            async with self._process_for("") as process:
                await process.ask(HEAD.pack(False, False, len(NO_BODY)), NO_BODY)

    async def close(self) -> None:
        """End the checking processes."""
        for process in self._all:
            await process.end()
