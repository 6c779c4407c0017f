"""``GET /task/{task_id}/events``: what happens to a task, as server-sent events, to its end.

The stream is written here and not by Litestar's ``ServerSentEvent``: only so can a place be counted, and given up when
the client has gone or reads nothing for a minute. Nothing is read ahead: the next event is fetched when the one before
has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from litestar import Response, get
from litestar.response import ServerSentEventMessage

from engine.api.call import Answer, call, in_header
from engine.api.problems import RequestError, make_problem
from engine.api.routes.requests import TASK_ID, ApiRequest, State, found_task, principal_of, task_id_of
from engine.model.answers import task_answer
from engine.model.cancel import end_tasks
from engine.model.principal import Scope
from engine.queue.events import EventId, Log, parse_event_id
from engine.service.follow import BrokenOff, FinalTask, Gap, NewStatus, StreamItem
from engine.telemetry.logs import get_logger
from sandbox import Progress

SEND_S = 60.0
"""How long a client may take nothing."""
LAST = "end"
"""Id of a final result. Who comes again with it has seen everything."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]
LAST_EVENT_ID = in_header(
    "Last-Event-ID",
    "Id of the last event that the client has. The stream goes on after that event.",
    pattern=r"^(end|[0-9]{1,9}-[0-9]{1,9})?$",
)
_HEARTBEAT = ServerSentEventMessage(data=None, comment="nothing new").encode()
_NAMES: dict[type, str] = {NewStatus: "status", Log: "log", Progress: "progress", Gap: "gap"}

Message = MutableMapping[str, Any]
Follow = AsyncGenerator[StreamItem | None, None]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


@get(
    "/task/{task_id:str}/events",
    operation_id="followTask",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID, LAST_EVENT_ID),
        answers={
            200: Answer(
                "Server-sent events. `status` {status, attempt}: where the task stands. `log` {stream, text}: what it "
                "prints, as it prints it. `progress` {fraction, message}: what it reports. `gap` {missing}: how many "
                "`log` and `progress` events were lost. The last event is `result`, the task as `GET /task/{task_id}` "
                "answers it, or `error`, a problem document. After an `error` with a `retry`, connect again with the "
                "id of the last event.",
                media_type="text/event-stream",
                schema={"type": "string"},
            ),
            204: Answer("The client has seen the end: it sent `Last-Event-ID: end`."),
        },
        problems=(400, 404, 503),
    ),
)
async def follow_task(request: ApiRequest, task_id: str) -> Response[Any]:
    """Follow a task to its end, as server-sent events."""
    state: State = request.app.state.parts
    principal, key = principal_of(request), task_id_of(task_id)
    request.scope["task_id"] = str(key) if key else None  # type: ignore[typeddict-unknown-key]  # for the log line
    task = found_task(await state.service.get(principal, key) if key else None)
    given = request.headers.get("last-event-id", "")
    if given == LAST and task.status.final:
        return Response(None, status_code=204)  # the one answer after which a browser does not come again
    after = _parse_last_event_id(given)
    place = state.followers.place(principal.tenant)
    return EventStream(place, lambda: state.followers.follow(principal, task, after))


EVENT_ROUTES = (follow_task,)


class EventStream(Response[None]):
    """A response that goes on until the task has ended."""

    def __init__(self, place: AbstractContextManager[None], follow: Callable[[], Follow]) -> None:
        """
        Args:
            place: of the client, which it takes for as long as it follows.
            follow: begins to follow; see ``Followers.follow``.
        """
        super().__init__(None)
        self._place, self._follow = place, follow

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """The ASGI application that answers."""
        return self._answer

    async def _answer(self, _: Message, receive: Receive, send: Send) -> None:
        with self._place:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            jobs = [asyncio.create_task(self._send_all(send)), asyncio.create_task(_until_gone(receive))]
            try:
                await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
                if jobs[0].done():
                    jobs[0].result()
            except TimeoutError:
                get_logger().warning("follower takes nothing", seconds=SEND_S)
            finally:
                await end_tasks(*jobs)

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._follow()) as events:
            async for item in _to_the_end(events):
                async with asyncio.timeout(SEND_S):
                    await send({"type": "http.response.body", "body": encode(item), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def encode(item: StreamItem | None) -> bytes:
    """An event in the format of server-sent events (HTML standard, section 9.2); a comment for ``None``."""
    if item is None:
        return _HEARTBEAT
    what = item.what
    if isinstance(what, FinalTask):
        message = ServerSentEventMessage(_json(task_answer(what.task)), event="result", id=LAST)
    elif isinstance(what, BrokenOff):
        retry_ms = None if what.retry_s is None else int(what.retry_s * 1000)
        message = ServerSentEventMessage(_json(make_problem(what.status, what.detail)), event="error", retry=retry_ms)
    else:
        event_id = None if item.event_id is None else str(item.event_id)
        message = ServerSentEventMessage(_json(what), event=_NAMES[type(what)], id=event_id)
    return message.encode()


def _json(answer: msgspec.Struct) -> bytes:
    return msgspec.json.encode(answer)


def _parse_last_event_id(given: str) -> EventId | None:
    if given in ("", LAST):
        return None
    event_id = parse_event_id(given)
    if event_id is None:
        raise RequestError(400, "It must be an id that this stream gave.", path="Last-Event-ID")
    return event_id


async def _to_the_end(events: Follow) -> Follow:
    """Pass the events on. If reading them fails, the last one is an error: no stream ends silently."""
    try:
        async for item in events:
            yield item
    except Exception as error:
        get_logger().error("following failed", exc_info=error)
        yield StreamItem(BrokenOff(500, "The service failed; the log says more."))


async def _until_gone(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
