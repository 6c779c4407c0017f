"""Every exception as a problem document (RFC 9457)."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from msgspec import Meta

from engine.api.docs.page import build_refusal
from engine.model.errors import EngineError
from engine.telemetry.logs import get_logger
from handlers.parameters.faults import Fault

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
NO_SUCH_PATH = "There is nothing at this path: GET /docs shows the calls that there are."
_IN_WORDS = {
    404: NO_SUCH_PATH,
    413: "The body is longer than MAX_BODY_MIB allows: send less, or upload data by POST /files and name its id.",
}
"""Status of a refusal of Litestar's own → what it means, and what to do."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request failed (RFC 9457)."""

    type: Annotated[
        str, Meta(description="A stable word for programs, as a URN.", examples=["urn:unityai:problem:invalid-request"])
    ]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What went wrong this time, in sentences.")]
    errors: Annotated[tuple[Fault, ...], Meta(description="The parts of the request that are invalid.")] = ()


class RequestError(EngineError):
    """A request that is refused before anybody reads it as a task."""

    def __init__(
        self, status: int, detail: str, *, path: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """
        Args:
            status: of HTTP.
            detail: what is wrong, in sentences.
            path: the parameter or header that is invalid.
            headers: that the answer has.
        """
        super().__init__(detail)
        self.status = status
        self.path = path
        self.headers = headers or {}

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The parameter or header that is invalid, where it is one."""
        return (Fault(path=self.path, message=self.detail),) if self.path else ()


def answer_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler: any exception to its problem document; a person without a key gets a page."""
    problem, headers = problem_of(error)
    if problem.status == HTTPStatus.UNAUTHORIZED and _is_opened_by_a_person(request):
        page = build_refusal(request.url.path, problem.detail).encode()
        return Response(page, status_code=problem.status, media_type=MediaType.HTML, headers=headers)
    return Response(msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _is_opened_by_a_person(request: Request[Any, Any, Any]) -> bool:
    """Whether a browser asks for a page: programs, and the scripts of pages, do not name HTML first."""
    return request.method == "GET" and request.headers.get("accept", "").startswith("text/html")


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The problem document of an exception, and the headers that go with it.

    What the engine raised on purpose says itself how it is answered. Everything else is our own fault: it is logged,
    and the client is told nothing of it.
    """
    if isinstance(error, EngineError) and error.status != 500:
        if error.status > 500:
            get_logger().warning("request refused", reason=str(error))
        headers = dict(getattr(error, "headers", {}))
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(math.ceil(max(error.retry_after_s, 1)))
        return make_problem(error.status, error.detail, error.errors, title=error.title), headers
    if isinstance(error, HTTPException) and error.status_code < 500:  # Litestar's own refusals
        detail = _IN_WORDS.get(error.status_code) or str(error.detail) or HTTPStatus(error.status_code).phrase
        return make_problem(error.status_code, detail), dict(error.headers or {})
    get_logger().error("request failed", exc_info=error)
    return make_problem(500, "The service failed. Its log says more, under the X-Request-ID of this answer."), {}


def make_problem(status: int, detail: str, errors: tuple[Fault, ...] = (), *, title: str = "") -> Problem:
    """A problem document. Its type follows from the title, and the title from the status unless it is given."""
    title = title or ("Invalid request" if status == 400 else HTTPStatus(status).phrase)
    word = title.lower().replace(" ", "-")
    return Problem(type=f"urn:unityai:problem:{word}", title=title, status=status, detail=detail, errors=errors)
