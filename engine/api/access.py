"""The one place where a key is asked for. Which scope a call needs stands on its route (``Call``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import MutableMapping
from typing import Any, cast

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from engine.api.call import PUBLIC, call_of
from engine.api.problems import RETRY_AFTER_S, RequestError
from engine.api.session import TOKEN_HEADER, BrowserSession, check_token, find_session
from engine.config.keys import ExpiredKeyError, Keys
from engine.model.principal import ANYONE, Principal, Scope
from engine.store.sessions import Sessions
from handlers.parameters.faults import nearest

_ASK = {"WWW-Authenticate": 'Bearer realm="unityai"'}


def refuse_unknown_parameters(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard of every call: a slip in the query is met with the name that was meant, and never passed over.

    Raises:
        RequestError: 400 with a name that the call does not take.
    """
    said = call_of(handler)
    known = sorted(parameter["name"] for parameter in said.parameters if parameter["in"] == "query") if said else []
    for name in connection.query_params:
        if name not in known:
            there_are = f"there are: {', '.join(known)}" if known else "this call has none"
            raise RequestError(400, f"no such parameter; {nearest(name, known)}{there_are}", path=name[:80])


class Access:
    """Asks for a key where there are keys."""

    def __init__(self, keys: Keys | None, most_of_one: int, *, sessions: Sessions) -> None:
        """
        Args:
            keys: those that there are; ``None`` lets anyone do anything, which only development allows.
            sessions: of browsers. They are looked up for calls that ask for a key, and for no others.
            most_of_one: requests of one tenant that may be open at the same time, so that those that wait long leave
                connections to others.
        """
        self._keys = keys
        self._sessions = sessions
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()

    @property
    def keys(self) -> Keys | None:
        """Those that there are; ``None`` where anyone may do anything."""
        return self._keys

    async def guard(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Litestar's guard of every call: who asks, and whether it may.

        Raises:
            RequestError: 401 for a missing or invalid API key, 403 for a key that does not open this call, 429 when too
                many requests of the tenant are open.
            StoreUnavailableError: PostgreSQL, which would know the session, is unreachable.
        """
        said = call_of(handler)
        needed = said.scope if said else None
        is_open = self._keys is None or needed == PUBLIC
        principal = ANYONE if self._keys is None or is_open else await self._principal(connection, self._keys)
        scope = cast(MutableMapping[str, Any], connection.scope)
        address, _ = scope.get("client") or (None, 0)
        principal = msgspec.structs.replace(principal, request_id=scope.get("request_id"), client_address=address)
        connection.scope["principal"] = principal  # type: ignore[typeddict-unknown-key]  # the line of the log has it
        if isinstance(needed, Scope) and needed not in principal.scopes:
            raise RequestError(
                403,
                f"The key {principal.key_id} lacks the scope `{needed}`, which this call needs: use a key that has it.",
            )
        if needed is None:
            raise RequestError(403, "This call declares no scope, so no key opens it.")
        if not is_open:
            self._enter(scope, principal.tenant)

    def _enter(self, scope: MutableMapping[str, Any], tenant: str) -> None:
        if self._open[tenant] >= self._most_of_one:
            detail = f"Your tenant has {self._most_of_one} requests open, and may have no more. Wait for an answer."
            raise RequestError(429, detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        self._open[tenant] += 1
        scope["leave"] = lambda: self._leave(tenant)

    def _leave(self, tenant: str) -> None:
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]

    async def _principal(self, connection: ASGIConnection[Any, Any, Any, Any], keys: Keys) -> Principal:
        scope = cast(MutableMapping[str, Any], connection.scope)
        session = scope["session"] = await find_session(scope, self._sessions)
        try:
            found = (
                self._of_header(connection, keys) if session is None else self._of_session(connection, session, keys)
            )
        except ExpiredKeyError as error:
            raise RequestError(
                401, f"The key {error.key_id} has expired: ask the operator for a new one.", headers=_ASK
            ) from None
        if found is None:
            detail = "Missing or invalid API key. Send `Authorization: Bearer uak_…` or `X-API-Key: uak_…`."
            raise RequestError(401, detail, headers=_ASK)
        return found

    @staticmethod
    def _of_session(
        connection: ASGIConnection[Any, Any, Any, Any], session: BrowserSession, keys: Keys
    ) -> Principal | None:
        """What its key opens now: a key that was revoked, or lost a scope, takes that from its sessions, too."""
        check_token(session, str(connection.scope.get("method")), connection.headers.get(TOKEN_HEADER))
        return keys.find_by_hash(*session.key)

    @staticmethod
    def _of_header(connection: ASGIConnection[Any, Any, Any, Any], keys: Keys) -> Principal | None:
        given = connection.headers.getall("authorization", []) + connection.headers.getall("x-api-key", [])
        text = given[0] if len(given) == 1 else ""
        scheme, _, rest = text.partition(" ")
        return keys.find(rest.strip() if scheme.lower() == "bearer" else text)


def leave(scope: MutableMapping[str, Any]) -> None:
    """The request has been answered, or has gone: its tenant may open another."""
    if "leave" in scope:
        scope.pop("leave")()
