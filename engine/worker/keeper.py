"""The keeper: a process beside each worker that renews the worker's leases and sends its heartbeats.

A worker supervises all of its runs on one event loop. Whatever keeps that loop busy, be it a fault of ours or a
tenant's trick, would otherwise let every lease run out, and the neighbours of one run would pay with an attempt. A
thread would not do: C code that holds the interpreter's lock stops every thread. So a process does it, with a
PostgreSQL connection of its own.

The worker sends a ``Word`` about twice a second. The keeper goes on without one for ``WORKER_STALL_S``, and not while
the worker is stopped by a signal: a worker that will not come back loses its tasks. It ends when the worker does: the
kernel sees to that, whatever the keeper is doing then.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from engine.model.errors import EngineError, SchemaError, StoreUnavailableError
from engine.model.redact import redact
from engine.model.worker_state import BEAT_S
from engine.store.store import Store
from sandbox.isolation.privileges import die_with_parent

SPEAK_S = 0.5
"""Between two words of a worker."""
ALIVE_S = 1.0
"""Between two words of a keeper."""
UNSAID_S = 5.0
"""A task that was claimed so shortly before the worker's last word may be missing in it."""
OUTAGE_PAUSE_S = 1.0
FAILURE_CHARACTERS = 1000
LINE_BYTES = 1 << 22
"""More than the longest line: a word with a thousand attempts."""
UNREAD_BYTES = 1 << 16
"""Reports that a stalled worker has not read; a further one is dropped, for the next says the same."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first line to the keeper."""

    database_url: str
    worker_id: UUID
    lease_s: float
    stall_s: float
    """How long it goes on without a word, seconds."""


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself."""

    running: tuple[tuple[UUID, int], ...]
    """The attempts under way: task and number."""
    state: msgspec.Raw
    """A ``WorkerState``."""
    lag_s: float
    """How late the event loop was, seconds."""


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the keeper answers after each renewal."""

    fault: str = ""
    """Why PostgreSQL is unreachable; empty when it has answered."""
    failure: str = ""
    """What the keeper failed at by its own fault."""
    kept: tuple[UUID, ...] = ()
    cancel: tuple[UUID, ...] = ()
    """Tasks whose client asks for their end."""
    lost: tuple[tuple[UUID, int], ...] = ()
    """Attempts whose lease is another's now, or nobody's."""


class Keeper:
    """Keeps the leases of one worker."""

    def __init__(
        self, start: Start, store: Store, say: Callable[[Report], None], is_stopped: Callable[[], bool]
    ) -> None:
        """
        Args:
            start: whose leases, and for how long.
            store: has them.
            say: is given each report.
            is_stopped: whether a signal has stopped the worker's process.
        """
        self._start = start
        self._store = store
        self._say = say
        self._is_stopped = is_stopped
        self._word: Word | None = None
        self._heard_at_s = 0.0
        self._lag_s = 0.0
        """The longest since the last heartbeat."""

    def hear(self, word: Word) -> None:
        """The worker has spoken."""
        self._word, self._heard_at_s = word, _now_s()
        self._lag_s = max(self._lag_s, word.lag_s)

    async def keep(self) -> None:
        """Renew and send heartbeats, well before either would be doubted. Runs until cancelled."""
        while True:
            word = self._word
            silent_s = _now_s() - self._heard_at_s
            if word is not None:
                try:
                    await self._store.open()
                    if silent_s < self._start.stall_s and not self._is_stopped():
                        self._say(await self._renew(word, silent_s))
                        await self._beat(word, silent_s)
                    else:  # whoever looks at the alert that it has raised shall find it, until it goes on or is gone
                        await self._store.workers.note_stuck(self._start.worker_id)
                except StoreUnavailableError as error:
                    self._say(Report(fault=str(error)))
                    await asyncio.sleep(OUTAGE_PAUSE_S)
                    continue
                except SchemaError:
                    raise
                except Exception as error:  # whatever it is, the leases must not run out because of it
                    self._say(Report(failure=f"{type(error).__name__}: {redact(str(error))}"[:FAILURE_CHARACTERS]))
                    await asyncio.sleep(OUTAGE_PAUSE_S)
                    continue
            await asyncio.sleep(min(self._start.lease_s / 4, BEAT_S) if word else SPEAK_S / 10)

    async def _renew(self, word: Word, silent_s: float) -> Report:
        renewed = await self._store.claims.renew(
            self._start.worker_id,
            [task_id for task_id, _ in word.running],
            self._start.lease_s,
            unsaid_s=silent_s + UNSAID_S,
        )
        return Report(
            kept=tuple(renewed),
            cancel=tuple(task_id for task_id, cancel_asked in renewed.items() if cancel_asked),
            lost=tuple(attempt for attempt in word.running if attempt[0] not in renewed),
        )

    async def _beat(self, word: Word, silent_s: float) -> None:
        """A worker that does not speak reports, by its keeper, how late it is."""
        lag_s = max(self._lag_s, silent_s - SPEAK_S if silent_s > 2 * SPEAK_S else 0.0)
        self._lag_s = 0.0
        state: dict[str, Any] = msgspec.json.decode(word.state)
        text = msgspec.json.encode(state | {"lag_s": lag_s}).decode()
        await self._store.workers.beat(self._start.worker_id, text)


async def main() -> None:
    """Keep the leases of the worker whose words come in on stdin, until it closes that."""
    parent = os.getppid()
    die_with_parent()
    lines = asyncio.StreamReader(LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer)
    answers, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    start = msgspec.json.decode(await lines.readline(), type=Start)
    store = Store(start.database_url, connections=1)
    keeper = Keeper(start, store, lambda report: _write(answers, report), lambda: _is_stopped(parent))
    keeping = asyncio.create_task(keeper.keep())
    telling = asyncio.create_task(tell_that_it_lives(lambda report: _write(answers, report)))
    keeping.add_done_callback(lambda _: lines.feed_eof())  # a fault ends the process, and the worker starts another
    while line := await lines.readline():
        keeper.hear(msgspec.json.decode(line, type=Word))
    telling.cancel()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=not keeping.done())
    await store.close()


async def tell_that_it_lives(say: Callable[[Report], None]) -> None:
    """Say something, however long PostgreSQL takes for an answer or another engine for its migration, until cancelled.

    Then a keeper that says nothing is one that is stopped, or stuck, and no one that waits.
    """
    while True:
        say(Report())
        await asyncio.sleep(ALIVE_S)


def _write(answers: asyncio.WriteTransport, report: Report) -> None:
    """Pass a report on, if the worker reads them."""
    if answers.get_write_buffer_size() < UNREAD_BYTES:
        answers.write(msgspec.json.encode(report) + b"\n")


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger, or is another's child by now: proc_pid_stat(5)."""
    if os.getppid() != pid:
        return True
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(") ")[2][:1] in ("T", "t")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except EngineError as error:
        sys.exit(str(error))
