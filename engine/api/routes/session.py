"""The calls of a browser's session: begin one with a key, look at it, end it."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from litestar import Response, delete, get, post
from msgspec import Meta

from engine.api.call import ANY_KEY, Answer, call
from engine.api.problems import RequestError
from engine.api.routes.requests import ApiRequest, State, answer_json, principal_of
from engine.api.session import LASTS_S, BrowserSession, session_id_of, set_cookie, token_of
from engine.model.principal import Principal, Scope
from engine.store.sessions import SessionKey


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what that opens."""

    tenant: str
    key_id: Annotated[str | None, Meta(description="Id of the key; null where the service has no keys.")]
    scopes: tuple[Scope, ...]
    policies: Annotated[tuple[str, ...] | None, Meta(description="The policies that it may use; null for all.")]
    csrf_token: Annotated[
        str | None,
        Meta(
            description="What `POST` and `DELETE` by this session have in the header `X-CSRF-Token`; null without one."
        ),
    ] = None


@post(
    "/session",
    operation_id="beginSession",
    status_code=201,
    opt=call(
        ANY_KEY,
        answers={201: Answer("The session has begun; its cookie is `HttpOnly` and `SameSite=Strict`.", SessionAnswer)},
        problems=(400, 503),
    ),
)
async def begin_session(request: ApiRequest) -> Response[bytes]:
    """Begin the session of a browser, for twelve hours.

    Send the key as any call does. The cookie then opens what the key opens, as long as the key does.
    """
    state: State = request.app.state.parts
    principal, scope = principal_of(request), cast(dict[str, Any], request.scope)
    if principal.key_id is None:
        raise RequestError(400, "This service has no keys: every call is open, and needs no session.")
    sha256 = state.access.keys.sha256_of(principal.key_id) if state.access.keys else None
    if sha256 is None or scope.get("session") is not None:
        raise RequestError(400, "A session begins with a key: send it as `Authorization: Bearer uak_…`.")
    if (old := session_id_of(scope)) is not None:
        await state.service.sessions.delete(old)
    session_id = await state.service.sessions.insert(SessionKey(principal.key_id, sha256), LASTS_S)
    headers = {"Set-Cookie": set_cookie(scope, session_id, LASTS_S)}
    return answer_json(_answer(principal, token_of(session_id)), status=201, headers=headers)


@get(
    "/session",
    operation_id="getSession",
    opt=call(ANY_KEY, answers={200: Answer("Who asks.", SessionAnswer)}, problems=(503,)),
)
async def get_session(request: ApiRequest) -> Response[bytes]:
    """Say who asks: tenant, scopes and policies, and the token of the session if there is one."""
    session: BrowserSession | None = cast(dict[str, Any], request.scope).get("session")
    return answer_json(_answer(principal_of(request), session.token if session else None))


@delete(
    "/session",
    operation_id="endSession",
    status_code=204,
    opt=call(ANY_KEY, answers={204: Answer("The session has ended.")}, problems=(503,)),
)
async def end_session(request: ApiRequest) -> Response[None]:
    """End the session of this browser."""
    state: State = request.app.state.parts
    scope = cast(dict[str, Any], request.scope)
    session: BrowserSession | None = scope.get("session")
    if session is not None:
        await state.service.sessions.delete(session.session_id)
    return Response(None, status_code=204, headers={"Set-Cookie": set_cookie(scope, "", 0)})


SESSION_ROUTES = (begin_session, get_session, end_session)


def _answer(principal: Principal, csrf_token: str | None) -> SessionAnswer:
    return SessionAnswer(
        tenant=principal.tenant,
        key_id=principal.key_id,
        scopes=tuple(sorted(principal.scopes)),
        policies=None if principal.policies is None else tuple(sorted(principal.policies)),
        csrf_token=csrf_token,
    )
