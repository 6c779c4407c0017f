"""Sends the callbacks of tasks that are final. Every worker does, from one outbox in PostgreSQL.

The transaction that ends a task also writes its row of the outbox (a trigger, see ``store/sql/0004_calls.sql``), so
that no end is forgotten. A worker takes a row with a lease, so that a worker that dies in the middle delays a callback
and loses none. Hence each callback is delivered at least once, always under the same ``webhook-id``.

Messages are signed by the Standard Webhooks scheme (https://www.standardwebhooks.com). They go only to URLs below those
that the operator names: no request decides which machine is called. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec
from standardwebhooks import Webhook

from engine.config.destinations import CallbackUrlError, Destinations
from engine.config.settings import Settings
from engine.model.answers import Task, task_answer
from engine.model.cancel import end_tasks
from engine.model.errors import StoreUnavailableError
from engine.model.task import CONFLICT, OwedCallback
from engine.model.unreachable import ServerUnreachableError, named_if_unreachable, reason_of
from engine.store.store import Store
from engine.telemetry.logs import get_logger
from engine.telemetry.tracing import NO_TRACES, Traces

PARALLEL = 8
"""Deliveries under way at the same time to one origin; a slow one does not keep another waiting."""
ATTEMPT_S = 15.0
LEASE_S = 60.0
"""Longer than an attempt and the storing of its end."""
LOOK_S = 1.0
"""Between two looks into the outbox while nothing is due."""
BURY_S = 60.0
"""Between two looks for callbacks whose destination is not allowed any more."""
GROWTH = 3.0
"""The pause before an attempt is so many times that before the last one."""
MAX_PAUSE_S = 4 * 3600.0
CONFLICT_BYTES = 4096
"""Of the answer of a 409, which alone is read."""
MOST_CONFLICTS = 8
"""A receiver that still answers 409 to this attempt, an hour and a half after the first, is asked no more."""
DEFAULT_PORTS = MappingProxyType({"http": 80, "https": 443})
GONE = 410
"""The status (RFC 9110, section 15.5.11) by which a receiver asks for no further attempt."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a callback, as the Standard Webhooks specification proposes it."""

    type: str
    """``task.succeeded``, ``task.failed`` or ``task.cancelled``."""
    timestamp: datetime
    """When the task ended."""
    data: Task
    """Read the same object that ``GET /task/{task_id}`` answers."""


class Delivery(NamedTuple):
    """How one attempt at a callback went."""

    delivered: bool
    status: int | None
    error: str | None
    is_final: bool = False
    """Whether a further attempt is pointless."""
    retry_after_s: float = 0.0


class CallbackSender:
    """Sends the callbacks that are due."""

    def __init__(
        self, settings: Settings, store: Store, count: Callable[[str], None], traces: Traces = NO_TRACES
    ) -> None:
        """
        Args:
            settings: where callbacks may go, and how they are signed.
            store: holds the outbox.
            count: called with the end of each attempt: ``delivered``, ``retried`` or ``dead``.
            traces: record each attempt as a span of its task's trace, which goes on at the receiver.
        """
        self._settings = settings
        self._store = store
        self._count = count
        self._traces = traces
        self._destinations = Destinations(settings.callback_urls)
        self._keys = tuple(Webhook(secret) for secret in settings.callback_secrets)
        self._owed = asyncio.Event()
        self._log = get_logger()

    def wake(self) -> None:
        """Look into the outbox at once: a task with a callback has ended here."""
        self._owed.set()

    async def run(self) -> None:
        """Deliver what is due, until cancelled. Each origin has its own loop: an unreachable one delays no other."""
        async with self._client() as client, asyncio.TaskGroup() as loops:
            for origin in self._destinations.origins if self._keys else ():
                loops.create_task(self._serve(client, origin))
            loops.create_task(self._bury())

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=ATTEMPT_S,
            verify=ssl.create_default_context(cafile=self._settings.ca_file),
            headers={
                "user-agent": "unityai-python-worker",
                "content-type": "application/json",
                "accept-encoding": "identity",
            },
        ) as client:
            yield client

    async def _serve(self, client: httpx.AsyncClient, origin: str) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                owed = await self._take(origin, PARALLEL - len(running))
                running |= {asyncio.create_task(self._deliver(client, callback)) for callback in owed}
                if len(running) == PARALLEL:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                elif not owed:
                    await self._pause()
                running = {task for task in running if not task.done()}
        finally:
            await end_tasks(*running)

    async def _take(self, origin: str, most: int) -> list[OwedCallback]:
        try:
            await self._store.opened.wait()
            return await self._store.callbacks.take(f"{origin}/", LEASE_S, most)
        except StoreUnavailableError as error:
            self._log.warning("callbacks not taken: PostgreSQL is unreachable", reason=str(error))
            return []

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S * random.uniform(0.8, 1.2)):  # noqa: S311  workers take turns
                await self._owed.wait()
        self._owed.clear()

    async def _deliver(self, client: httpx.AsyncClient, callback: OwedCallback) -> None:
        """Make one attempt and store its end. If either fails, the callback is due again when its lease is over."""
        try:
            delivery = await self._traced_attempt(client, callback)
            await self._settle(callback, delivery)
        except StoreUnavailableError as error:
            self._log.warning("callback not stored", task_id=str(callback.task.task_id), reason=str(error))
        except Exception:
            self._log.exception("callback failed", task_id=str(callback.task.task_id))

    async def _traced_attempt(self, client: httpx.AsyncClient, callback: OwedCallback) -> Delivery:
        parts = urlsplit(callback.url)
        with self._traces.callback(
            callback.traceparent,
            server=parts.hostname,
            port=parts.port or DEFAULT_PORTS.get(parts.scheme),
            resent=callback.attempts - 1 or None,
            task_id=str(callback.task.task_id),
        ) as span:
            delivery = await self._attempt(client, callback)
            span.note(status=delivery.status)
            if not delivery.delivered:
                span.fail(str(delivery.status or "no_answer"))
            return delivery

    async def _attempt(self, client: httpx.AsyncClient, callback: OwedCallback) -> Delivery:
        try:
            url = self._destinations.check(callback.url)
        except CallbackUrlError as error:  # allowed when the task was accepted, and not any more
            return Delivery(delivered=False, status=None, error=f"the URL {error}", is_final=True)
        body = msgspec.json.encode(_message(callback))
        try:
            with named_if_unreachable():
                async with (
                    asyncio.timeout(ATTEMPT_S),
                    client.stream("POST", url, content=body, headers=self._signed(callback, body)) as response,
                ):
                    if response.status_code == CONFLICT and await _says_finished(response):
                        return _finished_already(callback)
                    return delivery_of(response, callback.attempts)
        except (httpx.HTTPError, ServerUnreachableError) as error:
            is_late = isinstance(error.__cause__, TimeoutError)
            reason = f"no answer within {ATTEMPT_S:g} s" if is_late else reason_of(error)
            return Delivery(delivered=False, status=None, error=reason)

    def _signed(self, callback: OwedCallback, body: bytes) -> dict[str, str]:
        message_id, now = f"msg_{callback.task.task_id.hex}", datetime.now(UTC)
        signatures = (key.sign(message_id, now, body.decode()) for key in self._keys)
        traceparent = self._traces.traceparent()
        return ({} if traceparent is None else {"traceparent": traceparent}) | {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    async def _settle(self, callback: OwedCallback, delivery: Delivery) -> None:
        """Store how an attempt ended, and when the next is due."""
        pause_s = max(delivery.retry_after_s, self._pause_s(callback.attempts))
        is_late = callback.age_s + pause_s > self._settings.callback_give_up_s
        outcome = "delivered" if delivery.delivered else "dead" if delivery.is_final or is_late else "retried"
        if outcome == "retried":
            await self._store.callbacks.retry(callback, pause_s, delivery.status, delivery.error)
        else:
            await self._store.callbacks.end(callback, outcome, delivery.status, delivery.error)
        self._count(outcome)
        say = self._log.info if outcome == "delivered" else self._log.warning
        say(
            "callback",
            task_id=str(callback.task.task_id),
            outcome=outcome,
            attempts=callback.attempts,
            status=delivery.status,
            reason=delivery.error,
        )

    def _pause_s(self, attempts: int) -> float:
        """The pause before the next attempt, seconds: it grows, and differs for two that failed together."""
        grown = self._settings.callback_retry_s * GROWTH ** min(attempts - 1, 30)
        return min(grown, MAX_PAUSE_S) * random.uniform(0.8, 1.2)  # noqa: S311  nobody gains by guessing it

    async def _bury(self) -> None:
        """Give up the callbacks to destinations that are not allowed any more, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailableError):
                await self._store.opened.wait()
                origins = self._destinations.origins if self._keys else ()
                if buried := await self._store.callbacks.bury([f"{origin}/" for origin in origins]):
                    self._log.warning("callbacks given up: their destinations are not allowed any more", count=buried)
            await asyncio.sleep(BURY_S)


def _message(callback: OwedCallback) -> Message:
    task = callback.task
    ended = task.finished_at or task.created_at
    return Message(type=f"task.{task.status}", timestamp=ended, data=task_answer(task))


def delivery_of(response: httpx.Response, attempts: int) -> Delivery:
    """How an attempt ended, by the head of the answer.

    Args:
        response: the answer.
        attempts: how many there have been, this one included.
    """
    status = response.status_code
    if response.is_success:
        return Delivery(delivered=True, status=status, error=None)
    error = "a redirect, which is not followed" if response.is_redirect else f"answered {status}"
    retry_after_s = _retry_after_s(response.headers.get("retry-after", ""))
    is_final = status == GONE or (status == CONFLICT and attempts >= MOST_CONFLICTS)
    return Delivery(delivered=False, status=status, error=error, is_final=is_final, retry_after_s=retry_after_s)


def _finished_already(callback: OwedCallback) -> Delivery:
    """How an attempt ended whose receiver is done with what the callback is about."""
    if callback.may_have_arrived:
        return Delivery(
            delivered=True, status=CONFLICT, error="an earlier attempt had arrived: it has finished already"
        )
    return Delivery(delivered=False, status=CONFLICT, error="answered 409: it has finished already", is_final=True)


async def _says_finished(response: httpx.Response) -> bool:
    """Whether a 409 says, as n8n's Wait node does, that the execution has finished; else it may be asked again."""
    head = b""
    async for part in response.aiter_raw():
        head += part
        if len(head) >= CONFLICT_BYTES:
            break
    return b"finished already" in head[:CONFLICT_BYTES]


def _retry_after_s(text: str) -> float:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3), at most ``MAX_PAUSE_S``."""
    if text.isdecimal() and text.isascii():
        return min(float(text[:9]), MAX_PAUSE_S)
    try:
        wanted = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    aware = wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)
    return min(max(0.0, (aware - datetime.now(UTC)).total_seconds()), MAX_PAUSE_S)
