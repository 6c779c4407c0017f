"""The queue: arq on Redis. Every fact about arq lives in this file.

Redis may lose all that it holds without a task being lost: PostgreSQL has the truth, and an entry of the queue is only
a task's id. Hence the few places where this leaves arq's own way (0.28), each for a reason:

- arq pickles by default, so anybody who can write to Redis runs code in its worker. Entries here are JSON of one fixed
  shape; anything else is a ``QueueEntryError`` and is dropped.
- arq polls twice a second. Here a worker with a free slot blocks in BZPOPMIN on arq's own sorted set: it wakes at
  once, costs nothing while it waits, and never takes a task that it has no slot for.
- arq guards a job with a key that outlives a killed worker by the longest timeout. Here taking an entry removes it;
  the lease in PostgreSQL guards the task, and the sweeper queues again what was lost.
- arq's loop ends on a Redis error. Here it waits and tries again.
- arq's scores are times. Here they are places, given out so that no tenant's flood delays another tenant and no low
  priority starves (``put.lua``). The lowest is still the next.
- arq keeps results, counts retries and looks for aborts around every job, in two transactions of eleven commands. All
  of that is PostgreSQL's here, so one GETDEL of the entry is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, cast
from uuid import UUID

import msgspec
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import SerializationError, deserialize_job_raw, serialize_job
from arq.typing import WorkerCoroutine
from arq.worker import Worker as ArqWorker
from arq.worker import func as arq_function
from msgspec import Meta
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from engine.model.errors import EngineError, QueueUnavailableError
from engine.model.redact import redact
from engine.model.status import Priority
from engine.model.task import QueueItem
from engine.model.unreachable import ServerUnreachableError, ignore_unreachable, named_if_unreachable
from engine.queue.channels import hear
from engine.queue.memory import MemoryBudget, MemoryShare
from engine.telemetry.logs import get_logger

Channel = Literal["finished", "cancel"]
FUNCTION = "run_task"
PUT = Path(__file__).resolve().parent / "put.lua"
TAKE = Path(__file__).resolve().parent / "take.lua"
PUT_PAGE = 250
LOOK_AT, MOST_PASSES, PASSES_TTL_MS = 64, 16, 3_600_000
"""While memory is short: how many tasks a worker looks at, and how many may pass the first one of the queue by."""
SHORT_PAUSE_S = 0.05
"""While memory is short and nothing fits: how long until a worker looks for new tasks."""
COSTS = MappingProxyType({Priority.HIGH: 0.5, Priority.NORMAL: 1.0, Priority.LOW: 4.0})
"""How far a task moves its flow's clock: of one tenant's tasks, eight high ones are taken while one low one is. The
same as ``flow_step`` in PostgreSQL, which orders the held tasks."""
ENTRY_BYTES = 1024
ENTRY_TTL_S = 7 * 86400
CONNECT_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 1.0
ANSWER_S = 1.0
"""For the turn, a connection (redis-py makes one after another, greeting included) and the answer together."""
CONNECTIONS = 16
POP_TIMEOUT_S = 5.0
POP_GRACE_S = 10.0
OUTAGE_PAUSE_S = 1.0
BACKOFF_S = (0.05, 2.0)
LEAST_VERSION = (6, 2)
"""It has GETDEL and ZMSCORE."""


class QueueEntryError(EngineError):
    """The value that Redis holds under a task's id is not an entry that we wrote."""


class QueueEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The only shape that an entry may have. The names of its fields are arq's."""

    f: Literal["run_task"]
    a: tuple[Annotated[str, Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]]
    k: Annotated[dict[Literal["memory_mib"], Annotated[int, Meta(ge=1, le=1 << 20)]], Meta(max_length=1)]
    t: int | None
    et: int


def encode_entry(entry: dict[str, Any]) -> bytes:
    """arq's serializer: JSON instead of pickle."""
    return msgspec.json.encode(entry, enc_hook=repr)


def decode_entry(data: bytes) -> dict[str, Any]:
    """arq's deserializer: JSON of one shape instead of pickle.

    Raises:
        QueueEntryError: anything else.
    """
    if len(data) > ENTRY_BYTES:
        raise QueueEntryError(f"it has {len(data)} bytes, more than any entry of ours")
    try:
        return msgspec.structs.asdict(msgspec.json.decode(data, type=QueueEntry))
    except (ValueError, RecursionError) as error:
        raise QueueEntryError(f"it has another shape than our entries: {error}") from error


class Queue:
    """Puts tasks into the queue, and announces between processes that one has ended or is to end."""

    def __init__(self, url: str, name: str) -> None:
        """
        Args:
            url: Redis' URL; nothing is connected yet.
            name: prefix of our keys.
        """
        self._url = url
        self._name = name
        self._channels: dict[Channel, str] = {"finished": f"{name}:finished", "cancel": f"{name}:cancel"}
        self._redis = _client(url, COMMAND_TIMEOUT_S, connections=CONNECTIONS)
        self._put = self._redis.register_script(PUT.read_text(encoding="utf-8"))
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._unreachable_until_s = 0.0
        """Until then nothing is sent to Redis, on the clock of ``time.monotonic``."""
        self._outage = ""
        """Why it was unreachable the last time."""
        self._is_new_enough = False
        self.listening = False
        """Whether ``listen`` hears of every task that ends."""

    async def put(self, tasks: Iterable[QueueItem]) -> None:
        """Put tasks into the queue, each behind its tenant's others of its priority, and fairly between tenants.

        A task that had its turn goes to the front; one that is in the queue already keeps its place. ``put.lua`` says
        how the places are given out.

        Raises:
            QueueUnavailableError: Redis is unreachable. For a second nothing more is sent to it, and calls fail at
                once.
        """
        now_ms = int(time.time() * 1000)
        for page in _pages(tasks, PUT_PAGE):
            keys = [self._name, f"{self._name}:clocks"]
            arguments: list[str | bytes | int | float] = [ENTRY_TTL_S * 1000]
            for task in page:
                task_id = str(task.task_id)
                hint = {"memory_mib": task.memory_mib} if task.memory_mib else {}
                entry = serialize_job(FUNCTION, (task_id,), hint, None, now_ms, serializer=encode_entry)
                keys.append(job_key_prefix + task_id)
                cost = 0.0 if task.had_turn else COSTS[task.priority]
                arguments += [task_id, f"{task.priority} {task.tenant}", cost, entry or b""]
            async with self._reachable():
                await self._put(keys=keys, args=arguments)

    async def position(self, task_id: UUID) -> int | None:
        """How many tasks come before this one; ``None`` when it is not in the queue or Redis is unreachable."""
        with contextlib.suppress(QueueUnavailableError):
            async with self._reachable():
                rank: int | None = await self._redis.zrank(self._name, str(task_id))
                return rank
        return None

    async def missing(self, tasks: list[QueueItem]) -> list[QueueItem]:
        """Which of these tasks are not in the queue.

        Raises:
            QueueUnavailableError: Redis is unreachable.
        """
        async with self._reachable():
            scores = await self._redis.zmscore(self._name, [str(task.task_id) for task in tasks])
        return [task for task, score in zip(tasks, scores, strict=True) if score is None]

    async def announce(self, task_id: UUID) -> None:
        """Wake every client that waits for this task; a process that does not hear it looks again within a second."""
        with contextlib.suppress(QueueUnavailableError):
            async with self._reachable():
                await self._redis.publish(self._channels["finished"], str(task_id))

    async def ask_to_cancel(self, task_id: UUID) -> None:
        """Ask the workers to end this task; one that does not hear it learns of it when it renews its leases."""
        with contextlib.suppress(QueueUnavailableError):
            async with self._reachable():
                await self._redis.publish(self._channels["cancel"], str(task_id))

    async def drop(self, task_id: UUID) -> None:
        """Take a task out of the queue; one that stays there does no harm, for it cannot be claimed any more."""
        with contextlib.suppress(QueueUnavailableError):
            async with self._reachable(), self._redis.pipeline(transaction=False) as pipe:
                pipe.zrem(self._name, str(task_id))
                pipe.delete(job_key_prefix + str(task_id))
                await pipe.execute()

    async def ping(self) -> None:
        """Check that Redis answers, and is no older than we can use.

        Raises:
            QueueUnavailableError: it does not, or it is.
        """
        async with self._reachable():
            await self._redis.ping()
            if not self._is_new_enough:
                with contextlib.suppress(NoPermissionError):  # INFO may be denied: then what is needed shows itself
                    require_version((await self._redis.info("server"))["redis_version"])
                self._is_new_enough = True

    async def listen(self, channel: Channel, heard: Callable[[str], None], reconnected: Callable[[], None]) -> None:
        """Call ``heard`` with the id of each task that ends, or is to end. Runs until cancelled; reconnects by itself.

        Args:
            channel: ``finished`` or ``cancel``.
            heard: is given the text that was announced, which may be any text.
            reconnected: called each time that listening begins, because some announcements may have been missed.
        """

        async def note(listening: bool) -> None:
            self.listening = listening
            if listening:
                reconnected()

        await hear(lambda: _client(self._url, None, connections=1), self._channels[channel], heard, note)

    async def close(self) -> None:
        """Close every connection."""
        await _close(self._redis)

    @contextlib.asynccontextmanager
    async def _reachable(self) -> AsyncIterator[None]:
        self._refuse_during_outage()
        try:
            # As many turns as connections: whoever has a turn gets a connection at once, and the time runs for the
            # wait as well. Without turns redis-py would raise when its pool is empty.
            with named_if_unreachable():
                async with asyncio.timeout(ANSWER_S), self._turns:
                    self._refuse_during_outage()  # another call may have found the outage while this one waited
                    yield
        except ServerUnreachableError as error:
            self._unreachable_until_s = time.monotonic() + OUTAGE_PAUSE_S
            self._outage = f"Redis is unreachable: {redact(str(error))}"
            raise QueueUnavailableError(self._outage) from error

    def _refuse_during_outage(self) -> None:
        if time.monotonic() < self._unreachable_until_s:
            raise QueueUnavailableError(f"{self._outage} (a moment ago)")


RunTask = Callable[[UUID, MemoryShare], Awaitable[None]]


class Taken(NamedTuple):
    """An entry that was taken out of the queue, and the memory that was taken for its task."""

    name: bytes
    score: int
    share: MemoryShare


class QueueWorker(ArqWorker):
    """arq's worker with our own loop: it takes an entry when it has a slot for it, and survives an outage of Redis."""

    def __init__(self, url: str, name: str, run_task: RunTask, *, slots: int, memory: MemoryBudget) -> None:
        """
        Args:
            url: Redis' URL.
            name: prefix of our keys.
            run_task: runs one task, and gives back the memory that it takes more than it needs. It handles every way in
                which a task can end, and so raises nothing.
            slots: tasks that run at the same time.
            memory: what they may have together.
        """
        self._memory = memory
        self._run_task = run_task
        self._free = asyncio.Semaphore(slots)
        self._running: set[asyncio.Task[None]] = set()
        self._log = get_logger()
        redis = _client(url, POP_TIMEOUT_S + POP_GRACE_S, connections=2 * slots + 2)
        self._take_what_fits = redis.register_script(TAKE.read_text(encoding="utf-8"))
        super().__init__(
            functions=[arq_function(cast(WorkerCoroutine, self._run), name=FUNCTION)],
            queue_name=name,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=slots,
            job_timeout=10 * 86400,  # the sandbox keeps the deadline, not arq
            keep_result=0,
            retry_jobs=False,
            log_results=False,
            job_serializer=encode_entry,
            job_deserializer=decode_entry,
        )

    async def main(self) -> None:
        """Take tasks and run them, until cancelled."""
        pause = BACKOFF_S[0]
        while True:
            await self._free.acquire()
            taken: Taken | None = None
            try:
                with named_if_unreachable():
                    taken = await self._take()
                pause = BACKOFF_S[0]
            except ServerUnreachableError as error:
                self._log.warning("Redis is unreachable", reason=str(error), retry_s=pause)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  so that not all come back at once
                pause = min(pause * 2, BACKOFF_S[1])
            finally:
                if taken is None:
                    self._free.release()
            if taken is not None:
                self._start(taken)

    async def wait_until_idle(self) -> None:
        """Wait until no task runs here."""
        while self._running:
            await asyncio.wait(self._running)

    async def disconnect(self) -> None:
        """Close every connection."""
        await _close(self.pool)

    async def run_job(self, job_id: str, score: int, share: MemoryShare | None = None) -> None:
        """Fetch an entry and run what it names, with the memory that was taken for it.

        Raises:
            QueueEntryError: the entry is missing or invalid; the sweeper queues the task again if it still waits.
        """
        # BZPOPMIN has given the id to this process alone, in ``_take``; the entry is read second. In between this
        # process may die, and the entry may expire or be lost. Each leaves a task that waits and is not in the queue,
        # which the sweeper finds.
        async with asyncio.timeout(ANSWER_S):
            data = await self.pool.getdel(job_key_prefix + job_id)
        if data is None:
            raise QueueEntryError("the task has no entry")
        try:
            name, arguments, _, _, _ = deserialize_job_raw(data, deserializer=self.job_deserializer)
        except SerializationError as error:
            raise QueueEntryError(str(error.__cause__)) from error
        if arguments != (job_id,):
            raise QueueEntryError("the entry names another task")
        function = self.functions[name]
        await function.coroutine({**self.ctx, "job_id": job_id, "score": score, "share": share}, *arguments)

    async def _take(self) -> Taken | None:
        """The next task, as soon as there is one; ``None`` when there is none, or none that fits into the memory.

        As long as enough is free for any task, its size does not matter here: most is taken for it, and what is too
        much is given back when the task is known.
        """
        memory = self._memory
        if memory.free_mib < memory.largest_mib:
            return await self._take_fitting()
        self._note_short(False)
        popped = await self.pool.bzpopmin(self.queue_name, timeout=POP_TIMEOUT_S)
        if not popped:
            return None
        # Meanwhile only a share that grew may have taken some. Then this one takes nothing yet, and waits to grow.
        share = memory.take(memory.largest_mib) or memory.take(0)
        return Taken(popped[1], int(popped[2]), cast(MemoryShare, share))

    async def _take_fitting(self) -> Taken | None:
        """The first task for which there is memory; after a pause ``None`` when there is none."""
        memory = self._memory
        limits = [memory.free_mib, memory.whole_mib, memory.largest_mib]
        found = await self._take_what_fits(
            keys=[self.queue_name], args=[job_key_prefix, *limits, LOOK_AT, MOST_PASSES, PASSES_TTL_MS]
        )
        self._note_short(found == 1)
        if isinstance(found, list):
            name, score, mib = found
            share = memory.take(mib if mib <= memory.whole_mib else 0)  # only this loop takes: so much is still free
            return Taken(name, int(float(score)), cast(MemoryShare, share))
        await memory.change(SHORT_PAUSE_S)
        return None

    def _note_short(self, is_short: bool) -> None:
        if is_short and not self._memory.is_short:
            self._log.info("tasks wait for memory", free_mib=self._memory.free_mib, whole_mib=self._memory.whole_mib)
        self._memory.is_short = is_short

    def _start(self, taken: Taken) -> None:
        task = asyncio.create_task(self._run_entry(taken))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()):
            self._log.error("queue entry failed", exc_info=error)

    async def _run_entry(self, taken: Taken) -> None:
        name = taken.name
        try:
            with named_if_unreachable():
                await self.run_job(_job_id(name), taken.score, taken.share)
        except QueueEntryError as error:
            self._log.error("queue entry dropped", entry=repr(name[:80]), reason=str(error))
        except ServerUnreachableError as error:
            # before the task ran: the sweeper queues it again
            self._log.warning("Redis is unreachable", reason=str(error), entry=repr(name[:80]))
        finally:
            taken.share.release()

    async def _run(self, context: dict[Any, Any], task_id: str) -> None:
        await self._run_task(UUID(task_id), context["share"])


def _pages(tasks: Iterable[QueueItem], size: int) -> Iterator[list[QueueItem]]:
    left = iter(tasks)
    while page := list(itertools.islice(left, size)):
        yield page


class _Connections(ConnectionPool):
    """Hands out connections without asking the event loop first whether something can be read from them.

    redis-py asks before every command, to find connections that the server has closed. That takes as long as a command.
    Here a command that meets such a connection is sent again on a new one. Each of ours may be sent twice: what a lost
    answer has taken out of the queue, the sweeper puts back.
    """

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        if connection._writer is not None and connection._writer.transport.is_closing():  # noqa: SLF001
            await connection.disconnect(nowait=True)  # uvloop would refuse to write on it
        await connection.connect()  # type: ignore[no-untyped-call]


def _job_id(name: bytes) -> str:
    try:
        job_id = str(UUID(name.decode("ascii")))
    except ValueError:
        job_id = ""
    if job_id.encode() != name:
        raise QueueEntryError("its name is not a task's id")
    return job_id


def _client(url: str, timeout_s: float | None, *, connections: int) -> ArqRedis:
    pool = _Connections.from_url(
        url,
        max_connections=connections,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    )
    return ArqRedis(pool, job_serializer=encode_entry, job_deserializer=decode_entry)


def require_version(version: str) -> None:
    """Check what a server says of its version; Valkey says that of the Redis that it is like.

    Raises:
        QueueUnavailableError: it is too old.
    """
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])
    if numbers < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise QueueUnavailableError(f"Redis {version} is too old: this service needs {least} or later, or Valkey")


async def _close(client: ArqRedis) -> None:
    with ignore_unreachable():
        await client.aclose()
        await client.connection_pool.disconnect()
