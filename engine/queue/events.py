"""Live events: what a task prints and reports of its progress, on the way from its worker to those who follow it.

Live events are news and nothing more. PostgreSQL has the status, the result and the whole logs; an event that is lost
here is a few lines that a follower would have seen earlier. Hence nothing is written of a task that nobody follows, and
no run ever waits:

- An API announces on the channel ``…:followed`` which task one of its clients follows, again every few seconds. A
  worker that does not hear this of a task keeps its events for a follower who may still come, and drops them when the
  attempt ends. A worker that has just begun to listen asks for the announcements on the channel ``…:live``.
- Of a followed task a worker appends new events to the stream ``…:events:{task_id}``, at most twenty times a second,
  and announces that on the channel ``…:live``. Each event has the id ``attempt-number``, numbered without a hole from
  1: a reader knows where to go on, and sees what is missing. Redis refuses an id that is not the greatest, so a worker
  that lost its lease appends nothing to what a later attempt has begun.
- A reader takes a few events at a time, when it has room for them: nothing piles up in an API.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ResponseError

from engine.model.task import Claim
from engine.model.unreachable import ServerUnreachableError, ignore_unreachable, named_if_unreachable
from engine.queue.channels import close, hear
from engine.telemetry.logs import get_logger
from sandbox import Progress, Stream

CONNECT_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 1.0
CONNECTIONS = 8
OUTAGE_PAUSE_S = 1.0
BATCH_S = 0.05
"""Between two writes of one attempt."""
WRITTEN_AT_ONCE = 64
READ_AT_ONCE = 16
KEPT_EVENTS = 1000
"""Of one attempt in a worker, and of one task in Redis; the oldest are dropped first."""
KEPT_S = 600
"""How long Redis keeps them after the last."""
TEXT_CHARACTERS = 8192
"""Of one event; a longer print becomes several events."""
EVENT_BYTES = 1 << 17
"""More than any event of ours takes as JSON; a longer entry is cut, and then is invalid."""
MAX_PENDING = 500
"""Prints and reports that wait to be written, before the next print joins the last one of its stream."""
FOLLOWED_S = 15.0
"""How long a worker takes a task for followed after the last announcement."""
MOST_FOLLOWED = 10_000
WHO_FOLLOWS = "?"
"""The message by which a worker that has just begun to listen asks which tasks are followed."""
LAST_NUMBER = 999_999_999
"""Greater than the number of every event."""
END_S = 0.5
"""How long the end of a followed attempt waits for its last events to be written."""

_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENT_ID = re.compile(r"(\d{1,9})-(\d{1,9})")


class Log(msgspec.Struct, frozen=True):
    """Text that a task printed. It continues the stream's event before it, even within a line of text."""

    stream: Stream
    text: Annotated[str, Meta(max_length=TEXT_CHARACTERS)]


Event = Log | Progress
KINDS: Mapping[bytes, type[Event]] = MappingProxyType({b"log": Log, b"progress": Progress})
"""Name of the only field of a stream's entry → the type of its JSON."""


class EventId(NamedTuple):
    """The place of an event. Number 0 of an attempt is before its first event."""

    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"


class ReceivedEvent(NamedTuple):
    """An event as it was read; ``None`` for an entry that is not one of ours."""

    event_id: EventId
    event: Event | None


def parse_event_id(text: str) -> EventId | None:
    """The id that a text is; ``None`` when it is none."""
    found = _EVENT_ID.fullmatch(text)
    return EventId(int(found[1]), int(found[2])) if found else None


class EventStreams:
    """Where events are in Redis: the names of streams and channels, and the connections to them."""

    def __init__(self, url: str, queue_name: str) -> None:
        """
        Args:
            url: Redis' URL; nothing is connected yet.
            queue_name: prefix of our keys.
        """
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
        """Call ``heard`` with each message on a channel, as ``engine.queue.channels.hear`` does."""
        await hear(lambda: _client(self._url, 1, None), channel, heard, listening)

    async def close(self) -> None:
        """Close every connection but those that listen."""
        await close(self.redis)


# -- the worker's side


class _Print:
    """The bytes that an attempt printed on one stream; they may end within a character."""

    def __init__(self, stream: Stream, chunk: bytes) -> None:
        self.stream, self.bytes = stream, bytearray(chunk)


class _NumberedEvent(NamedTuple):
    """An event as it is written to Redis, under its number."""

    number: int
    kind: str
    data: bytes


class AttemptEvents:
    """The events of one attempt; written to Redis while its task is followed."""

    def __init__(self, streams: EventStreams, task_id: str, attempt: int, is_followed: Callable[[], bool]) -> None:
        self._streams = streams
        self._task_id, self._attempt = task_id, attempt
        self._is_followed = is_followed
        self._pending: list[_Print | Progress] = []
        self._newest: dict[Stream, _Print] = {}
        self._kept: deque[_NumberedEvent] = deque(maxlen=KEPT_EVENTS)
        self._number = 0
        self._written: int | None = None
        """Number of the last event that Redis has; ``None`` until Redis has said it."""
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {}
        self._news, self._ended = asyncio.Event(), asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def on_output(self, stream: Stream, chunk: bytes) -> None:
        """Add what the run printed.

        Args:
            stream: where it printed.
            chunk: bytes, which may begin and end within a character.
        """
        piece = self._newest.get(stream)
        last = self._pending[-1] if self._pending else None
        if piece is not None and (piece is last or len(self._pending) >= MAX_PENDING):
            piece.bytes += chunk
        else:
            self._newest[stream] = piece = _Print(stream, chunk)
            self._pending.append(piece)
        self._news.set()

    def on_progress(self, progress: Progress) -> None:
        """Add how far the run reports to have come."""
        self._pending.append(progress)
        self._news.set()

    def follow(self) -> None:
        """Begin to write: the task has a new follower. Events that Redis has already are not written again."""
        self._written = None
        self._news.set()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_while_followed())

    async def end(self) -> int:
        """Write the last events: the run is over. Waits at most ``END_S`` for that.

        Returns:
            How many events there were, so that a follower can tell whether it has had all: also one of whom this worker
            could not hear.
        """
        self._ended.set()
        self._news.set()
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=END_S)
        self._number_pending()  # where nobody follows, or while Redis hangs, nobody else has done so
        return self._number

    def close(self) -> None:
        """Stop writing."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write_while_followed(self) -> None:
        with ignore_unreachable():  # the status has changed to running: followers look at it
            await self._streams.redis.publish(self._streams.live, self._task_id)
        while self._is_followed():
            await self._news.wait()
            # Both are read before the pending events are. An event that is added later sets ``_news`` again; and where
            # ``ended`` is true, all events are pending already, so that this round writes the last of them.
            self._news.clear()
            ended = self._ended.is_set()
            try:
                with named_if_unreachable():
                    await self._write()
            except ServerUnreachableError:
                self._news.set()
                await asyncio.sleep(OUTAGE_PAUSE_S)
                continue
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BATCH_S):
                    await self._ended.wait()

    async def _write(self) -> None:
        """Write the events that Redis does not have yet.

        Raises:
            RedisError, OSError, TimeoutError: Redis is unreachable, or refuses. What was not written is still kept.
        """
        self._number_pending()
        if self._written is None:
            self._written = await self._ask_for_last()
        while new := [kept for kept in self._kept if kept.number > self._written][:WRITTEN_AT_ONCE]:
            key = self._streams.stream(self._task_id)
            async with self._streams.redis.pipeline(transaction=False) as pipe:
                for number, kind, data in new:
                    pipe.xadd(key, {kind: data}, id=f"{self._attempt}-{number}", maxlen=KEPT_EVENTS)
                pipe.expire(key, KEPT_S)
                pipe.publish(self._streams.live, self._task_id)
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not _has_it_already(answer):
                    raise answer
            self._written = new[-1].number

    async def _ask_for_last(self) -> int:
        entries = await self._streams.redis.xrevrange(self._streams.stream(self._task_id), count=1)
        last = parse_event_id(entries[0][0].decode("ascii", "replace")) if entries else None
        return last.number if last is not None and last.attempt == self._attempt else 0

    def _number_pending(self) -> None:
        """Make numbered events of what was printed and reported since the last time."""
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
        """The decoder of a stream, which keeps an unfinished character. Invalid bytes become backslash escapes."""
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return self._decoders[stream]

    def _keep_text(self, stream: Stream, text: str) -> None:
        for start in range(0, len(text), TEXT_CHARACTERS):
            self._keep("log", Log(stream, text[start : start + TEXT_CHARACTERS]))

    def _keep(self, kind: str, event: Event) -> None:
        self._number += 1
        self._kept.append(_NumberedEvent(self._number, kind, msgspec.json.encode(event)))


class EventWriter:
    """Hears which tasks are followed, and has the attempts at them write their events."""

    def __init__(self, url: str, queue_name: str) -> None:
        self._streams = EventStreams(url, queue_name)
        self._followed_until_s: dict[str, float] = {}
        self._attempts: dict[str, AttemptEvents] = {}

    async def listen(self) -> None:
        """Hear of followed tasks, until cancelled."""
        await self._streams.hear(self._streams.followed, self._hear, self._ask)

    @contextlib.contextmanager
    def attempt(self, claim: Claim) -> Iterator[AttemptEvents]:
        """The events of an attempt, from its claim to its end."""
        task_id = str(claim.task_id)
        events = AttemptEvents(self._streams, task_id, claim.attempt, lambda: self._is_followed(task_id))
        self._attempts[task_id] = events
        try:
            if self._is_followed(task_id):
                events.follow()
            yield events
        finally:
            # else its lease was lost, and the next attempt is this worker's, too, or was: it may have ended before
            if self._attempts.get(task_id) is events:
                del self._attempts[task_id]
            events.close()

    async def announce_change(self, task_id: UUID) -> None:
        """Have the followers of a task look at its status."""
        if self._is_followed(str(task_id)):
            with ignore_unreachable():
                await self._streams.redis.publish(self._streams.live, str(task_id))

    async def close(self) -> None:
        """Close every connection."""
        await self._streams.close()

    async def _ask(self, listening: bool) -> None:
        if listening:
            await self._streams.redis.publish(self._streams.live, WHO_FOLLOWS)

    def _hear(self, message: str) -> None:
        """Note that a task is followed; ``+`` before its id marks a new follower."""
        task_id = message.removeprefix("+")
        if not _TASK_ID.fullmatch(task_id) or not self._make_room():
            return
        is_new = message != task_id or not self._is_followed(task_id)
        self._followed_until_s[task_id] = time.monotonic() + FOLLOWED_S
        if is_new and (events := self._attempts.get(task_id)) is not None:
            events.follow()

    def _make_room(self) -> bool:
        """Forget tasks that are not followed any more, if there are many; whether one more fits."""
        if len(self._followed_until_s) >= MOST_FOLLOWED:
            now_s = time.monotonic()
            self._followed_until_s = {one: until for one, until in self._followed_until_s.items() if until > now_s}
        return len(self._followed_until_s) < MOST_FOLLOWED

    def _is_followed(self, task_id: str) -> bool:
        return self._followed_until_s.get(task_id, 0.0) > time.monotonic()


# -- the API's side


class EventReader:
    """Announces which tasks are followed, and reads their new events."""

    def __init__(self, url: str, queue_name: str, wake: Callable[[str], None], wake_all: Callable[[], None]) -> None:
        """
        Args:
            url: Redis' URL; nothing is connected yet.
            queue_name: prefix of our keys.
            wake: called with the id of a task that may have new events, or with any other text.
            wake_all: called when announcements may have been missed.
        """
        self._streams = EventStreams(url, queue_name)
        self._wake, self._wake_all = wake, wake_all
        self._turns = asyncio.Semaphore(CONNECTIONS)
        """Who needs a connection waits here: to wait for one in its pool, which has a timeout, looks like an outage."""
        self._unreachable_until_s = 0.0
        """Until then nothing is sent to Redis, on the clock of ``time.monotonic``."""
        self.listening = False
        """Whether it hears every announcement of new events."""
        self.questions = 0
        """How often workers have asked which tasks are followed."""

    async def listen(self) -> None:
        """Listen for announcements of new events, until cancelled."""
        await self._streams.hear(self._streams.live, self._hear, self._note_listening)

    async def close(self) -> None:
        """Close every connection."""
        await self._streams.close()

    async def announce_follower(self, task_id: str, *, is_new: bool) -> None:
        """Have the worker that runs a task write its events. To be repeated before ``FOLLOWED_S`` is over.

        Args:
            task_id: the task.
            is_new: whether the follower has just come, and so needs the events of before as well.
        """
        await self._asked(self._streams.redis.publish, self._streams.followed, f"+{task_id}" if is_new else task_id)

    async def read(self, task_id: str, after: EventId, last_attempt: int) -> list[ReceivedEvent]:
        """The next few events, in order; none when there are none or Redis is unreachable."""
        entries = await self._asked(
            self._streams.redis.xrange, self._streams.stream(task_id), f"({after}", str(last_attempt), READ_AT_ONCE
        )
        return [arrived for name, fields in entries or () if (arrived := _read_entry(name, fields)) is not None]

    def _hear(self, message: str) -> None:
        if message == WHO_FOLLOWS:
            self.questions += 1
            self._wake_all()
        else:
            self._wake(message)

    async def _note_listening(self, listening: bool) -> None:
        self.listening = listening
        if listening:
            self._wake_all()

    async def _asked(self, command: Callable[..., Any], *arguments: Any) -> Any:
        """The answer; ``None`` when Redis is unreachable, and for a second after that without a new try."""
        async with self._turns:
            if time.monotonic() < self._unreachable_until_s:
                return None
            try:
                with named_if_unreachable():
                    return await command(*arguments)
            except ServerUnreachableError:
                self._unreachable_until_s = time.monotonic() + OUTAGE_PAUSE_S
                return None


def _read_entry(name: bytes, fields: dict[bytes, bytes]) -> ReceivedEvent | None:
    """The event that an entry holds; ``None`` when its name is no id of an event.

    Anybody who can write to Redis may have written the entry, so it is read strictly.
    """
    event_id = parse_event_id(name.decode("ascii", "replace"))
    if event_id is None:
        return None
    try:
        ((kind, data),) = fields.items()
        return ReceivedEvent(event_id, msgspec.json.decode(data[:EVENT_BYTES], type=KINDS[kind]))
    except (ValueError, KeyError, RecursionError) as error:
        get_logger().warning("event dropped", event_id=str(event_id), reason=str(error)[:200])
        return ReceivedEvent(event_id, None)


def _has_it_already(error: Exception) -> bool:
    """Whether Redis has this id or a greater one: ours, written before an answer got lost, or a later attempt's."""
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
