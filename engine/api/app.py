"""The ASGI application: Litestar's routes inside a thin shell that refuses, marks and logs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from uuid import uuid4

import msgspec
from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State as AppState
from litestar.handlers import HTTPRouteHandler

from engine.api.access import Access, leave, refuse_unknown_parameters
from engine.api.body.checker import Checker
from engine.api.console.files import CONSOLE_POLICY, Console
from engine.api.docs.openapi import build_openapi
from engine.api.docs.page import build_docs, content_security_policy
from engine.api.heads import answer_head
from engine.api.problems import MEDIA_TYPE, NO_SUCH_PATH, Problem, answer_exception, make_problem, problem_of
from engine.api.routes.requests import BigBodies, State
from engine.api.routes.system import ROUTES
from engine.config.keys import Keys
from engine.config.listening import is_loopback
from engine.config.machine import check_memory_mib
from engine.model.principal import ANYONE
from engine.service.follow import Followers
from engine.service.service import Service
from engine.telemetry.audit import AuditLog, Refusals
from engine.telemetry.logs import get_logger, lines_with
from engine.telemetry.metrics import ApiMetrics
from engine.telemetry.tracing import NO_TRACES, SAYS_NOTHING, Span, Traces

REFUSALS = (401, 403, 429)
"""What the audit log names: no key, a key that does not open the call, a quota."""
METHODS = ("GET", "HEAD", "POST", "DELETE")

READABLE_HEADERS = (
    "Content-Disposition", "ETag", "Idempotent-Replay", "Location", "Retry-After", "WWW-Authenticate", "X-Request-Id",
)  # fmt: skip
"""What a page of another origin may read of an answer; the Fetch standard lets it read few others."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def create_app(service: Service, keys: Keys | None, audit: AuditLog, *, version: str, connections: int) -> Shell:
    """The application around a service, which it runs while it is up.

    Args:
        service: it answers.
        keys: those that there are; ``None`` lets anyone do anything.
        audit: names what is refused.
        version: its own.
        connections: how many clients may be connected; a tenant's may have half as many requests open.
    """
    document = build_openapi(ROUTES, service.policies.task_types, version)
    access = Access(keys, (connections + 1) // 2, sessions=service.sessions)
    parts = State(
        service=service,
        checker=Checker(check_memory_mib(service.settings.check_memory_mib, service.settings.max_body_mib)),
        followers=Followers(service),
        big_bodies=BigBodies(),
        openapi=msgspec.json.encode(document),
        docs=build_docs(document).encode(),
        access=access,
        audit=audit,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with service.running(), parts.followers.running(), parts.checker.running():
            yield

    app = Litestar(
        route_handlers=list(ROUTES),
        guards=[access.guard, refuse_unknown_parameters],
        state=AppState({"parts": parts}),
        lifespan=[lifespan],
        exception_handlers={Exception: answer_exception},
        cors_config=_cors(service.settings.cors_origins),
        request_max_body_size=service.settings.max_body_mib << 20,
        openapi_config=None,
        logging_config=None,
    )
    return Shell(
        app,
        service.metrics,
        service.traces,
        patience=service.patience,
        audit=audit,
        has_keys=keys is not None,
    )


class Shell:
    """The rules that hold for every request."""

    def __init__(
        self,
        app: Litestar,
        metrics: ApiMetrics,
        traces: Traces,
        *,
        patience: Callable[[], contextlib.AbstractContextManager[None]],
        audit: AuditLog,
        has_keys: bool,
    ) -> None:
        """
        Args:
            app: answers what is not refused here.
            metrics: counts the requests.
            traces: records them.
            patience: the context in which one of them asks PostgreSQL.
            audit: names the requests that are refused, and those that delete.
            has_keys: whether a key is asked for. Where there are none, a Host header that is not this machine's own is
                refused: a page of a foreign site that rebinds its name to 127.0.0.1 would otherwise reach a service
                that listens there without a key.
        """
        self._app: Any = app
        self._metrics = metrics
        self._traces = traces
        self._patience = patience
        self._audit = audit
        self._refusals = Refusals(audit)
        self._has_keys = has_keys
        self._console = Console()
        self._has_cors = app.cors_config is not None
        self._log = get_logger()
        strict = "default-src 'none'; frame-ancestors 'none'"
        self._headers = _security_headers(strict)
        self._docs_headers = _security_headers(f"{content_security_policy()}; frame-ancestors 'none'")
        self._console_headers = _security_headers(CONSOLE_POLICY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        request_id = scope["request_id"] = _request_id(scope)
        with self._traced(scope, request_id) as span, lines_with(request_id=request_id, trace_id=span.trace_id):
            status = await self._answer_marked(scope, receive, send, request_id)
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = scope.get("path_template")
            path = scope["path"] if route else None  # of a path that there is not, a client chose every character
            span.note(
                method=method if method != "other" else "_OTHER",
                route=route,
                path=path,
                scheme=scope["scheme"],
                status=status,
                error_type=str(status) if status >= 500 else None,
                task_id=scope.get("task_id"),
            )
            span.end_as(f"{method} {route or 'no route'}", failed=status >= 500)

    def _traced(self, scope: Scope, request_id: str) -> contextlib.AbstractContextManager[Span]:
        if scope["path"].startswith(SAYS_NOTHING):
            return NO_TRACES.request(None)
        return self._traces.request(_sent_once(scope, b"traceparent"), request_id=request_id)

    async def _answer_marked(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Answer with what every answer has; returns the status, 0 when there was none."""
        scope["principal"] = ANYONE
        started, status = time.perf_counter(), 0
        marks = [*self._headers_of(scope["path"]), (b"x-request-id", request_id.encode())]

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *marks]
                # before the answer goes out: whoever has it finds its line in the audit log
                self._note_refusal(scope, status)
                self._note_deleted(scope)
            await send(message)

        try:
            with self._patience():
                await self._answer(scope, receive, send_marked)
        except Exception as error:
            if status:
                raise
            await _send_problem(problem_of(error)[0], send_marked)
        finally:
            leave(scope)
            duration_s = time.perf_counter() - started
            self._metrics.answered(scope.get("path_template"), scope["method"], status, duration_s)
            self._log_request(scope, status, duration_s)
        return status

    def _headers_of(self, path: str) -> list[tuple[bytes, bytes]]:
        if Console.has(path):
            return self._console_headers
        return self._docs_headers if path == "/docs" else self._headers

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_allowed(scope):
            await _refuse_method(scope, send)
        elif not self._has_keys and not _names_loopback(scope):
            detail = "This service listens on this machine only and answers to its names only (see HOST)."
            await _send_problem(make_problem(421, detail), send)
        elif Console.has(scope["path"]):
            scope["path_template"] = "/console"
            await self._console.answer(scope, send)
        else:
            answer = answer_head if scope["method"] == "HEAD" else _answer_whole
            await answer(self._app, scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        """Whether its path has its method; a path that is not there is left to the application."""
        method = scope["method"]
        known = _methods_at(scope["path"])
        return method in known or (method == "OPTIONS" and self._has_cors) or (not known and method in METHODS)

    def _note_refusal(self, scope: Scope, status: int) -> None:
        """Have the audit log name a refused request, or the refused tasks of a batch."""
        refused_tasks = scope.get("refused_tasks", 0)
        if status not in REFUSALS and not refused_tasks:
            return
        facts = {
            "status": 403 if refused_tasks else status,
            "method": scope["method"],
            "call": scope.get("path_template"),
            **_who(scope),
        }
        self._refusals.note(facts | ({"tasks": refused_tasks} if refused_tasks else {}))

    def _note_deleted(self, scope: Scope) -> None:
        """Have the audit log name who deleted what: its call has put that into the scope."""
        if what := scope.get("deleted"):
            task = {"task_id": scope["task_id"]} if scope.get("task_id") else {}
            self._audit.note("stored bytes deleted", task | what | _who(scope))

    def _log_request(self, scope: Scope, status: int, duration_s: float) -> None:
        say = self._log.debug if scope["path"].startswith(SAYS_NOTHING) else self._log.info
        say(
            "request",
            method=scope["method"],
            path=scope["path"][:200],
            status=status,
            duration_ms=round(duration_s * 1000, 2),
            task_id=scope.get("task_id"),
            key_id=scope["principal"].key_id,
        )


def _who(scope: Scope) -> dict[str, Any]:
    """Who sent a request, as the audit log names them."""
    principal, client = scope["principal"], scope.get("client")
    return {
        "tenant": principal.tenant if principal.key_id else None,
        "key_id": principal.key_id,
        "request_id": scope["request_id"],
        "client": client[0] if client else None,
    }


def _sent_once(scope: Scope, name: bytes) -> str | None:
    """A header that was sent once: one that was sent twice can be read in two ways, so it is not read."""
    found = [value for header, value in scope["headers"] if header == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _request_id(scope: Scope) -> str:
    """The client's own, when it is well-formed; else a new one. It goes into logs and into the answer."""
    given = _sent_once(scope, b"x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else uuid4().hex


def _security_headers(content_policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", content_policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


async def _send_problem(problem: Problem, send: Send, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = msgspec.json.encode(problem)
    head = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), *(headers or ())]
    await send({"type": "http.response.start", "status": problem.status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _cors(origins: tuple[str, ...]) -> CORSConfig | None:
    """Configure which origins' pages may call the API from a browser; none, unless the operator names them."""
    if not origins:
        return None
    headers = ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "X-API-Key"]
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=headers,
        expose_headers=list(READABLE_HEADERS),
    )


def _refuse_method(scope: Scope, send: Send) -> Awaitable[None]:
    """A method that its path does not have: 405 and those that it has, 404 where there is no such path."""
    known = _methods_at(scope["path"])
    if not known:
        return _send_problem(make_problem(404, NO_SUCH_PATH), send)
    detail = f"{scope['method']} is not allowed here; {' and '.join(known)} {'is' if len(known) == 1 else 'are'}."
    return _send_problem(make_problem(405, detail), send, [(b"allow", ", ".join(known).encode())])


def _methods_at(path: str) -> list[str]:
    """The methods of a path, one list for whoever asks (RFC 9110, section 10.2.1); HEAD is wherever GET is."""
    if Console.has(path):
        return ["GET", "HEAD"]
    known = {method for pattern, methods in _PATHS if pattern.fullmatch(path) for method in methods}
    return sorted(known | ({"HEAD"} if "GET" in known else set()))


async def _answer_whole(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def _path_of(route: HTTPRouteHandler) -> re.Pattern[str]:
    path = re.sub(r"\{[^}]*:path\}", ".+", next(iter(route.paths)))
    return re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))


_PATHS = tuple((_path_of(route), tuple(sorted(route.http_methods))) for route in ROUTES)


def _names_loopback(scope: Scope) -> bool:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    name = given.partition("]")[0].lstrip("[") if given.startswith("[") else given.partition(":")[0]
    return is_loopback(name)
