"""Speaks to the keeper, which renews the leases of this worker and sends its heartbeats, and hears what it found."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any, cast
from uuid import UUID

import msgspec

from engine.config.settings import PROJECT_DIR, Settings
from engine.model.cancel import end_tasks
from engine.model.errors import StoreUnavailableError
from engine.model.worker_state import WorkerState
from engine.store.store import Store
from engine.telemetry.logs import get_logger
from engine.telemetry.metrics import WorkerMetrics
from engine.worker.keeper import LINE_BYTES, OUTAGE_PAUSE_S, SPEAK_S, Report, Start, Word
from engine.worker.running import DatabaseOutage, RunningAttempts

LOOK_S = 1.0
"""Between two looks at what the worker reports of itself."""
RESTART_PAUSE_S = 0.5
SILENT_S, AWAY_S = 8.0, 1.0
"""A keeper that says nothing for half a lease, and for at least so long, is stuck; unless this process woke so late."""


class Leases:
    """The leases of one worker, and the process that keeps them."""

    def __init__(
        self,
        worker_id: UUID,
        settings: Settings,
        store: Store,
        running: RunningAttempts,
        outage: DatabaseOutage,
        *,
        metrics: WorkerMetrics,
        state: Callable[[], Coroutine[Any, Any, WorkerState]],
    ) -> None:
        """
        Args:
            worker_id: whose leases.
            settings: say how long a lease lasts, and where PostgreSQL is.
            store: is opened before the keeper starts.
            running: the attempts that hold the leases.
            outage: is told when PostgreSQL is unreachable.
            metrics: are told how late the event loop was.
            state: what the worker reports of itself.
        """
        self._start = Start(
            database_url=settings.servers[0],
            worker_id=worker_id,
            lease_s=settings.lease_s,
            stall_s=settings.worker_stall_s,
        )
        self._silent_s = max(settings.lease_s / 2, SILENT_S)
        self._store = store
        self._running = running
        self._outage = outage
        self._metrics = metrics
        self._look = state
        self._process: asyncio.subprocess.Process | None = None
        self._log = get_logger(worker_id=str(worker_id))

    async def keep(self) -> None:
        """Have the leases renewed and heartbeats sent. Runs until cancelled; a keeper that ends is started again."""
        while True:
            await self._keep_by_one()
            self._log.error("the process that keeps the leases ended", restart_s=RESTART_PAUSE_S)
            await asyncio.sleep(RESTART_PAUSE_S)

    async def close(self) -> None:
        """Let the keeper end: it renews nothing any more, and sends no heartbeat."""
        process, self._process = self._process, None
        if process is not None:
            cast(asyncio.StreamWriter, process.stdin).close()
            await process.wait()

    async def open_store(self) -> None:
        """Open the store, as soon as PostgreSQL answers.

        Raises:
            SchemaError: its schema is newer than this engine, or was changed by hand.
        """
        while not self._store.opened.is_set():
            try:
                await self._store.open()
            except StoreUnavailableError as error:
                self._note_outage(str(error))
                await asyncio.sleep(OUTAGE_PAUSE_S)
        self._log.info("PostgreSQL is open", **self._store.facts)

    async def _keep_by_one(self) -> None:
        """Speak to one keeper until it ends."""
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine.worker.keeper",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES, cwd=PROJECT_DIR,
            start_new_session=True,
        )  # fmt: skip
        words = cast(asyncio.StreamWriter, process.stdin)
        words.write(_line(self._start))
        speaking = asyncio.create_task(self._speak(words))
        try:
            while line := await self._next_line(process):
                await self._hear(msgspec.json.decode(line, type=Report))
        finally:
            await end_tasks(speaking)
            words.close()  # the keeper ends, should it still be there

    async def _next_line(self, process: asyncio.subprocess.Process) -> bytes:
        """The next report of a keeper; empty when it has ended, or was killed because it said nothing for too long.

        It says something every second, whatever PostgreSQL does (``keeper.tell_that_it_lives``). One that says nothing
        is stuck, and the leases would run out. Time in which this process was away itself does not count.
        """
        loop = asyncio.get_running_loop()
        reading = asyncio.create_task(cast(asyncio.StreamReader, process.stdout).readline())
        try:
            while not reading.done():
                due_s = loop.time() + self._silent_s
                await asyncio.wait({reading}, timeout=self._silent_s)
                if not reading.done() and loop.time() - due_s < AWAY_S:
                    self._log.error("the process that keeps the leases says nothing, and is killed")
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
            return await reading
        finally:
            await end_tasks(reading)

    async def _speak(self, words: asyncio.StreamWriter) -> None:
        """Say which attempts are under way, until cancelled."""
        state = msgspec.Raw(msgspec.json.encode(await self._look()))
        looking = asyncio.create_task(self._look())
        looked_at_s, lag_s = asyncio.get_running_loop().time(), 0.0
        try:
            while True:
                if looking.done() and asyncio.get_running_loop().time() - looked_at_s >= LOOK_S:
                    state = msgspec.Raw(msgspec.json.encode(looking.result()))
                    looking, looked_at_s = asyncio.create_task(self._look()), asyncio.get_running_loop().time()
                attempts = tuple((attempt.claim.task_id, attempt.claim.attempt) for attempt in self._running)
                if words.is_closing():  # it has ended, as below; uvloop would raise a RuntimeError
                    return
                words.write(_line(Word(running=attempts, state=state, lag_s=lag_s)))
                with contextlib.suppress(ConnectionError):  # it has ended: whoever reads its reports sees that
                    await words.drain()
                lag_s = await _sleep_and_measure(SPEAK_S)
                self._metrics.lagged(lag_s)
        finally:
            looking.cancel()

    async def _hear(self, report: Report) -> tuple[UUID, ...]:
        """Act on what the keeper found; the tasks whose leases it has renewed."""
        if report.fault:
            self._note_outage(report.fault)
        if report.failure:
            self._log.error("the process that keeps the leases failed", reason=report.failure)
            self._metrics.loop_failed("leases")
        for task_id in report.cancel:
            self._running.cancel(task_id)
        for task_id, number in report.lost:
            attempt = self._running.get(task_id)
            # One that has ended has lost its lease by storing its result.
            if attempt and attempt.claim.attempt == number and not attempt.ended:
                self._log.warning("lease lost", task_id=str(task_id), attempt=number)
                attempt.stop.set()
        return report.kept

    def _note_outage(self, reason: str) -> None:
        self._log.warning("PostgreSQL is unreachable", reason=reason)
        self._outage.note()

    def hear_cancel(self, task_id: str) -> None:
        """A client asks for a task's end. Every worker hears that, and at most one runs the task.

        Args:
            task_id: as it came over Redis, which may be any text.
        """
        with contextlib.suppress(ValueError):
            self._running.cancel(UUID(task_id))


def _line(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message) + b"\n"


async def _sleep_and_measure(seconds: float) -> float:
    """Sleep, and return how many seconds late the event loop was at the end of it."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + seconds
    await asyncio.sleep(seconds)
    return max(0.0, loop.time() - due_s)
