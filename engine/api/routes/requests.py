"""The steps that every call takes with its request and its answer, and the parts of the service behind them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import InternalServerException

from engine.api.access import Access
from engine.api.body.checker import INLINE_BYTES, Checker
from engine.api.call import in_path, in_query
from engine.api.problems import RequestError
from engine.config.machine import BODY_PLACES
from engine.model.answers import task_answer
from engine.model.principal import Principal
from engine.model.task import StoredTask
from engine.service.follow import Followers
from engine.service.service import MAX_WAIT_S, Service
from engine.telemetry.audit import AuditLog

BODY_TIMEOUT_S = 120.0
TASK_ID = in_path("task_id", "The task's id, as the service gave it.", format="uuid")
WAIT = in_query(
    "wait",
    f"Seconds to wait for the end of the task; more than {MAX_WAIT_S:g} counts as {MAX_WAIT_S:g}.",
    type="number",
    minimum=0,
) | {"example": 10}

ApiRequest = Request[Any, Any, Any]
Found = TypeVar("Found")
Answer = msgspec.Struct | tuple[msgspec.Struct, ...]


class BigBodies:
    """Places in memory for bodies beyond ``INLINE_BYTES``, or of unknown length.

    No tenant has all of them: one that sends slowly would keep the others waiting.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(BODY_PLACES)
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[None]:
        """One place, as soon as there is one."""
        own = self._tenants.setdefault(tenant, asyncio.Semaphore(BODY_PLACES - 1))
        async with own, self._places:
            yield


class State(msgspec.Struct, frozen=True):
    """The parts of the service that the calls use."""

    service: Service
    checker: Checker
    followers: Followers
    big_bodies: BigBodies
    openapi: bytes
    docs: bytes
    access: Access
    audit: AuditLog


def principal_of(request: ApiRequest) -> Principal:
    found: Principal = request.scope["principal"]  # type: ignore[typeddict-item]  # the Shell puts it there
    return found


def answer_task(task: StoredTask, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return answer_json(task_answer(task), status=status, headers=headers)


def answer_json(answer: Answer, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(answer), status_code=status, media_type=MediaType.JSON, headers=headers)


def found_task(task: Found | None) -> Found:
    """What was found of a task.

    Raises:
        RequestError: nothing was: there is no such task, or it belongs to another tenant.
    """
    if task is None:
        raise RequestError(404, "There is no task with this id: GET /tasks lists yours, until they expire.")
    return task


def found_policy(policy: Found | None) -> Found:
    """What was found of a policy.

    Raises:
        RequestError: nothing was: there is no such policy here.
    """
    if policy is None:
        raise RequestError(404, "There is no policy of this name here; GET /policies lists them.")
    return policy


def task_id_of(text: str) -> UUID | None:
    """The id, when the text is one in the form that we give out, in small letters or capitals (RFC 9562, section 4)."""
    try:
        task_id = UUID(text)
    except ValueError:
        return None
    return task_id if str(task_id) == text.lower() else None


def wait_s_of(request: ApiRequest) -> float:
    given = request.query_params.getall("wait", [])
    if not given:
        return 0.0
    try:
        wait_s = float(given[0])
    except ValueError:
        wait_s = math.nan
    if len(given) > 1 or not wait_s >= 0:
        raise RequestError(400, "wait must be one number of seconds, 0 or more", path="wait")
    return min(wait_s, MAX_WAIT_S)


def check_content_type(request: ApiRequest) -> None:
    media, options = request.content_type
    charset = options.get("charset", "utf-8").strip('"').lower()
    if media.lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise RequestError(415, "Send JSON in UTF-8, with the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "Send the body as it is, without Content-Encoding.")


def room_for(request: ApiRequest, state: State) -> contextlib.AbstractAsyncContextManager[None]:
    length = request.headers.get("content-length", "")
    small = length.isdecimal() and int(length) <= INLINE_BYTES
    return contextlib.nullcontext() if small else state.big_bodies.place(principal_of(request).tenant)


async def read_body(request: ApiRequest) -> bytes:
    async with arriving():
        return await request.body()


@contextlib.asynccontextmanager
async def arriving() -> AsyncIterator[None]:
    """Waits for a body, and not for ever."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            yield
    except InternalServerException:  # Litestar's word for a client that has gone
        raise RequestError(400, "The body broke off.") from None
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from None
