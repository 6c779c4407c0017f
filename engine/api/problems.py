"""Every error as a problem document (RFC 9457). The one place where an exception becomes an HTTP status."""

from __future__ import annotations

import math
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import Meta

from engine.api.body.check import Fault, InvalidRequestError
from engine.api.body.checker import CheckError
from engine.model.errors import KeyTakenError, PolicyForbiddenError, QuotaError, StoreUnavailableError, TaskError
from engine.service.follow import TooManyFollowersError
from engine.telemetry.logs import get_logger

QUOTAS = MappingProxyType(
    {
        "tasks_per_minute": "Your quota is {} tasks a minute (tasks_per_minute).",
        "queued_tasks": "Your quota is {} tasks that wait at the same time (queued_tasks).",
    }
)
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
RETRY_FOLLOWING_S = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: Annotated[
        str, Meta(description="Stable word for programs, as a URN.", examples=["urn:unityai:problem:invalid-request"])
    ]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What is wrong this time, in a sentence.")]
    errors: Annotated[tuple[Fault, ...], Meta(description="Which parts of the request are at fault.")] = ()


class RequestError(Exception):
    """A request that is refused before its body is understood."""

    def __init__(
        self, status: int, detail: str, *, path: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.path = path
        self.headers = headers or {}


def answer_exception(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler: any exception to its problem document."""
    problem, headers = problem_of(error)
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The problem document and the headers that an exception comes to. What nobody expected is logged and a 500."""
    headers: dict[str, str] = {}
    if isinstance(error, InvalidRequestError):
        problem = _faulty(error.fault)
    elif isinstance(error, TaskError):
        status = 403 if isinstance(error, PolicyForbiddenError) else 400
        problem = _faulty(Fault(path=error.path, message=error.message), status)
    elif isinstance(error, RequestError):
        headers |= error.headers
        faults = (Fault(path=error.path, message=error.detail),) if error.path else ()
        problem = make_problem(error.status, error.detail, faults)
    elif isinstance(error, KeyTakenError):
        problem = make_problem(409, "This Idempotency-Key stands for another request of yours: take a new key.")
    elif isinstance(error, QuotaError):
        headers["Retry-After"] = str(math.ceil(max(error.retry_after_s, 1)))
        problem = make_problem(429, f"{QUOTAS[error.quota].format(error.limit)} Try again after Retry-After seconds.")
    elif isinstance(error, StoreUnavailableError | CheckError):
        headers["Retry-After"] = str(RETRY_AFTER_S)
        problem = make_problem(503, "PostgreSQL cannot be asked just now. Nothing is promised: try again.")
        get_logger().warning("request refused", reason=str(error))
    elif isinstance(error, TooManyFollowersError):
        headers["Retry-After"] = str(RETRY_FOLLOWING_S)
        problem = make_problem(503, "As many clients follow tasks here as may (EVENT_FOLLOWERS). Try again.")
    elif isinstance(error, HTTPException) and error.status_code < 500:
        headers |= error.headers or {}
        problem = make_problem(error.status_code, str(error.detail) or HTTPStatus(error.status_code).phrase)
    else:
        get_logger().error("request failed", exc_info=error)
        problem = make_problem(500, "The service failed; the log says more.")
    return problem, headers


def make_problem(status: int, detail: str, errors: tuple[Fault, ...] = ()) -> Problem:
    """A problem document; type and title follow from the status."""
    title = "Invalid request" if status == 400 else HTTPStatus(status).phrase
    word = title.lower().replace(" ", "-")
    return Problem(type=f"urn:unityai:problem:{word}", title=title, status=status, detail=detail, errors=errors)


def _faulty(fault: Fault, status: int = 400) -> Problem:
    return make_problem(status, f"{fault.path}: {fault.message}", (fault,))
