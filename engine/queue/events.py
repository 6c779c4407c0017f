"""Live events: what a task prints and how far it says it has come, on their way from a worker to who follows the task.

They are news and nothing more. Status, result and the whole logs are PostgreSQL's; what is lost here is a few lines
that somebody would have seen earlier. Hence nothing is written of a task that nobody follows, and no run ever waits:

- An API says on the channel ``…:followed`` which task somebody follows, and says it again every few seconds. A worker
  that does not hear this of a task only keeps what it says, for who may come yet, and forgets it with the attempt.
  One that has just begun to listen asks for it on the channel ``…:live``.
- Of a followed task a worker adds what is new to the stream ``…:events:{task_id}``, at most twenty times a second, and
  says so on the channel ``…:live``. Each event has the id ``attempt-number``, numbered without a hole from 1: who reads
  knows where to go on, and sees what is missing. Redis refuses an id that is not the greatest, so a worker that lost
  its lease adds nothing to what a later attempt has begun.
- Who reads takes a few events at a time, when there is room for them: nothing piles up in an API.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from engine.model.task import Claim
from engine.queue.channels import AWAY, close, hear
from engine.telemetry.logs import get_logger
from sandbox import Progress

CONNECT_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 1.0
CONNECTIONS = 8
AWAY_PAUSE_S = 1.0
BATCH_S = 0.05
"""Between two writes of one attempt."""
WRITTEN_AT_ONCE = 64
READ_AT_ONCE = 16
KEPT_EVENTS = 1000
"""Of one attempt in a worker, and of one task in Redis; older ones go first."""
KEPT_S = 600
"""How long Redis keeps them after the last."""
TEXT_CHARACTERS = 8192
"""Of one event; longer prints are several."""
EVENT_BYTES = 1 << 17
"""More than any event of ours takes as JSON; what is longer is cut off, and then is none."""
PIECES = 500
"""Of what is printed, before what is printed next joins one of them."""
FOLLOWED_S = 15.0
"""How long a worker takes a task for followed after it was said."""
MOST_FOLLOWED = 10_000
WHO_FOLLOWS = "?"
"""What a worker says that has just begun to listen."""
LAST_NUMBER = 999_999_999
"""Beyond every event of an attempt."""
END_S = 0.5
"""How long the end of an attempt waits for its last events to be written; only where somebody follows it."""

_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENT_ID = re.compile(r"(\d{1,9})-(\d{1,9})")

Stream = Literal["stdout", "stderr"]


class Log(msgspec.Struct, frozen=True):
    """Text that a task printed. It goes on where the event of the same stream before it ended, even within a line."""

    stream: Stream
    text: Annotated[str, Meta(max_length=TEXT_CHARACTERS)]


Event = Log | Progress
KINDS: Mapping[bytes, type[Event]] = MappingProxyType({b"log": Log, b"progress": Progress})
"""Name of the only field of an entry → what its JSON is."""


class EventId(NamedTuple):
    """Where an event stands. Number 0 of an attempt is before its first."""

    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"


class Arrived(NamedTuple):
    """An event as it was read; ``None`` for an entry that is none of ours."""

    event_id: EventId
    event: Event | None


def parse_event_id(text: str) -> EventId | None:
    """The id, when the text is one."""
    found = _EVENT_ID.fullmatch(text)
    return EventId(int(found[1]), int(found[2])) if found else None


class Wire:
    """The names in Redis, and the connections to it."""

    def __init__(self, url: str, queue_name: str) -> None:
        """Nothing is connected yet."""
        self._url = url
        self.followed, self.live = f"{queue_name}:followed", f"{queue_name}:live"
        self._stream = f"{queue_name}:events:"
        self.redis = _client(url, CONNECTIONS, COMMAND_TIMEOUT_S)

    def stream(self, task_id: str) -> str:
        """The stream of a task."""
        return self._stream + task_id

    async def hear(
        self, channel: str, heard: Callable[[str], None], listening: Callable[[bool], Awaitable[None]]
    ) -> None:
        """See ``engine.queue.channels.hear``."""
        await hear(lambda: _client(self._url, 1, None), channel, heard, listening)

    async def close(self) -> None:
        """Close every connection but those that listen."""
        await close(self.redis)


# -- the worker's side


class _Piece:
    """What was printed on one stream, as it came."""

    def __init__(self, stream: Stream, chunk: bytes) -> None:
        self.stream, self.bytes = stream, bytearray(chunk)


class _Kept(NamedTuple):
    number: int
    kind: str
    data: bytes


class AttemptEvents:
    """What one attempt says; written to Redis while somebody follows its task."""

    def __init__(self, wire: Wire, task_id: str, attempt: int, is_followed: Callable[[], bool]) -> None:
        self._wire = wire
        self._task_id, self._attempt = task_id, attempt
        self._is_followed = is_followed
        self._pending: list[_Piece | Progress] = []
        self._newest: dict[Stream, _Piece] = {}
        self._kept: deque[_Kept] = deque(maxlen=KEPT_EVENTS)
        self._number = 0
        self._written: int | None = None
        """Number of the last event that Redis has, ``None`` when that is to be asked."""
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {}
        self._news, self._ended = asyncio.Event(), asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def on_output(self, stream: Stream, chunk: bytes) -> None:
        """It printed something."""
        piece = self._newest.get(stream)
        last = self._pending[-1] if self._pending else None
        if piece is not None and (piece is last or len(self._pending) >= PIECES):
            piece.bytes += chunk
        else:
            self._newest[stream] = piece = _Piece(stream, chunk)
            self._pending.append(piece)
        self._news.set()

    def on_progress(self, progress: Progress) -> None:
        """It says how far it has come."""
        self._pending.append(progress)
        self._news.set()

    def follow(self) -> None:
        """Somebody has come who follows the task: write what there is and will be, if Redis does not have it."""
        self._written = None
        self._news.set()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_while_followed())

    async def end(self) -> None:
        """The run is over: nothing more will come. Waits a moment for what is left to be written."""
        if self._writing is None:
            return
        self._ended.set()
        self._news.set()
        await asyncio.wait([self._writing], timeout=END_S)

    def close(self) -> None:
        """Write nothing more."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write_while_followed(self) -> None:
        with contextlib.suppress(*AWAY):  # that it runs: its status has changed
            await self._wire.redis.publish(self._wire.live, self._task_id)
        while self._is_followed():
            await self._news.wait()
            self._news.clear()
            ended = self._ended.is_set()
            try:
                await self._write()
            except AWAY:
                self._news.set()
                await asyncio.sleep(AWAY_PAUSE_S)
                continue
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), BATCH_S)

    async def _write(self) -> None:
        """Write what Redis does not have yet.

        Raises:
            RedisError, OSError, TimeoutError: it cannot be asked, or refuses. What was not written is still kept.
        """
        self._number_pending()
        if self._written is None:
            self._written = await self._ask_for_last()
        while new := [kept for kept in self._kept if kept.number > self._written][:WRITTEN_AT_ONCE]:
            key = self._wire.stream(self._task_id)
            async with self._wire.redis.pipeline(transaction=False) as pipe:
                for number, kind, data in new:
                    pipe.xadd(key, {kind: data}, id=f"{self._attempt}-{number}", maxlen=KEPT_EVENTS)
                pipe.expire(key, KEPT_S)
                pipe.publish(self._wire.live, self._task_id)
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not _has_it_already(answer):
                    raise answer
            self._written = new[-1].number

    async def _ask_for_last(self) -> int:
        entries = await self._wire.redis.xrevrange(self._wire.stream(self._task_id), count=1)
        last = parse_event_id(entries[0][0].decode("ascii", "replace")) if entries else None
        return last.number if last is not None and last.attempt == self._attempt else 0

    def _number_pending(self) -> None:
        """Make events of what came since."""
        pending, self._pending, self._newest = self._pending, [], {}
        for one in pending:
            if isinstance(one, Progress):
                self._keep("progress", one)
            else:
                self._keep_text(one.stream, self._decoder(one.stream).decode(bytes(one.bytes)))
        if self._ended.is_set():
            for stream, decoder in self._decoders.items():
                self._keep_text(stream, decoder.decode(b"", final=True))

    def _decoder(self, stream: Stream) -> codecs.IncrementalDecoder:
        """Waits for the rest of a character. What is none is shown as the whole logs show it."""
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return self._decoders[stream]

    def _keep_text(self, stream: Stream, text: str) -> None:
        for start in range(0, len(text), TEXT_CHARACTERS):
            self._keep("log", Log(stream, text[start : start + TEXT_CHARACTERS]))

    def _keep(self, kind: str, event: Event) -> None:
        self._number += 1
        self._kept.append(_Kept(self._number, kind, msgspec.json.encode(event)))


class EventWriter:
    """Hears which tasks are followed, and has the attempts at them write."""

    def __init__(self, url: str, queue_name: str) -> None:
        self._wire = Wire(url, queue_name)
        self._followed_until_s: dict[str, float] = {}
        self._attempts: dict[str, AttemptEvents] = {}

    async def listen(self) -> None:
        """Hear of followed tasks, until cancelled."""
        await self._wire.hear(self._wire.followed, self._hear, self._ask)

    @contextlib.contextmanager
    def attempt(self, claim: Claim) -> Iterator[AttemptEvents]:
        """What an attempt says, from its claim to its end."""
        task_id = str(claim.task_id)
        events = AttemptEvents(self._wire, task_id, claim.attempt, lambda: self._is_followed(task_id))
        self._attempts[task_id] = events
        try:
            if self._is_followed(task_id):
                events.follow()
            yield events
        finally:
            if self._attempts[task_id] is events:  # else its lease was lost, and the next attempt is ours too
                del self._attempts[task_id]
            events.close()

    async def say_changed(self, task_id: UUID) -> None:
        """Have who follows a task look at its status."""
        if self._is_followed(str(task_id)):
            with contextlib.suppress(*AWAY):
                await self._wire.redis.publish(self._wire.live, str(task_id))

    async def close(self) -> None:
        """Close every connection."""
        await self._wire.close()

    async def _ask(self, listening: bool) -> None:
        if listening:
            await self._wire.redis.publish(self._wire.live, WHO_FOLLOWS)

    def _hear(self, said: str) -> None:
        """``+`` before the id says that somebody has just come."""
        task_id = said.removeprefix("+")
        if not _TASK_ID.fullmatch(task_id) or not self._has_room():
            return
        is_new = said != task_id or not self._is_followed(task_id)
        self._followed_until_s[task_id] = time.monotonic() + FOLLOWED_S
        if is_new and (events := self._attempts.get(task_id)) is not None:
            events.follow()

    def _has_room(self) -> bool:
        if len(self._followed_until_s) >= MOST_FOLLOWED:
            now_s = time.monotonic()
            self._followed_until_s = {one: until for one, until in self._followed_until_s.items() if until > now_s}
        return len(self._followed_until_s) < MOST_FOLLOWED

    def _is_followed(self, task_id: str) -> bool:
        return self._followed_until_s.get(task_id, 0.0) > time.monotonic()


# -- the API's side


class EventReader:
    """Says which tasks are followed, and reads what is new of them."""

    def __init__(self, url: str, queue_name: str, wake: Callable[[str], None], wake_all: Callable[[], None]) -> None:
        """
        Args:
            url: Redis' URL; nothing is connected yet.
            queue_name: prefix of our keys.
            wake: called with the id of a task of which there may be news, or any other text.
            wake_all: called when news may have been missed.
        """
        self._wire = Wire(url, queue_name)
        self._wake, self._wake_all = wake, wake_all
        self._away_until_s = 0.0
        self.listening = False
        """Whether it hears of all news."""
        self.questions = 0
        """How often workers have asked which tasks are followed."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens for news."""
        listening = asyncio.create_task(self._wire.hear(self._wire.live, self._hear, self._note_listening))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self._wire.close()

    async def say_followed(self, task_id: str, *, just_come: bool) -> None:
        """Have the worker that runs a task write what is new of it. To be said again before ``FOLLOWED_S`` is over."""
        await self._asked(self._wire.redis.publish, self._wire.followed, f"+{task_id}" if just_come else task_id)

    async def read(self, task_id: str, after: EventId, last_attempt: int) -> list[Arrived]:
        """The next few events, in order; none where there are none, or Redis cannot be asked just now."""
        entries = await self._asked(
            self._wire.redis.xrange, self._wire.stream(task_id), f"({after}", str(last_attempt), READ_AT_ONCE
        )
        return [arrived for name, fields in entries or () if (arrived := _read_entry(name, fields)) is not None]

    def _hear(self, said: str) -> None:
        if said == WHO_FOLLOWS:
            self.questions += 1
            self._wake_all()
        else:
            self._wake(said)

    async def _note_listening(self, listening: bool) -> None:
        self.listening = listening
        if listening:
            self._wake_all()

    async def _asked(self, command: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, ``None`` when Redis is away; then it is not asked for a second."""
        if time.monotonic() < self._away_until_s:
            return None
        try:
            return await command(*arguments)
        except AWAY:
            self._away_until_s = time.monotonic() + AWAY_PAUSE_S
            return None


def _read_entry(name: bytes, fields: dict[bytes, bytes]) -> Arrived | None:
    """Whoever can write to Redis may have written it: data of one shape, or nothing."""
    event_id = parse_event_id(name.decode("ascii", "replace"))
    if event_id is None:
        return None
    try:
        ((kind, data),) = fields.items()
        return Arrived(event_id, msgspec.json.decode(data[:EVENT_BYTES], type=KINDS[kind]))
    except (ValueError, KeyError, RecursionError) as error:
        get_logger().warning("event dropped", event_id=str(event_id), reason=str(error)[:200])
        return Arrived(event_id, None)


def _has_it_already(error: Exception) -> bool:
    """Redis has this id or a greater one: ours from before an answer got lost, or a later attempt's."""
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)


def _client(url: str, connections: int, timeout_s: float | None) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=COMMAND_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    )
    return Redis(connection_pool=pool)
