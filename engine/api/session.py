"""The session of a browser: a cookie instead of a key, which opens what the key opens and nothing more.

Scripts of a page cannot read the cookie (``HttpOnly``), and a browser sends it along from this site's own pages only
(``SameSite=Strict``). A request that changes something needs the session's token too, in a header: a page of another
port or name of this host, which is the same *site* to a browser, can neither read the token nor set the header.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from engine.api.problems import RequestError
from engine.store.sessions import SessionKey, Sessions

LASTS_S = 12 * 3600
NAMES = ("__Host-unityai_session", "unityai_session")
"""Of the cookie: over HTTPS, where its prefix keeps other hosts' pages from setting it (RFC 6265bis), and over HTTP."""
TOKEN_HEADER = "x-csrf-token"  # noqa: S105  a name
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN = (b"same-origin", b"none")
"""``Sec-Fetch-Site`` of a request from our own page, and of one that a person typed."""
_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class BrowserSession(NamedTuple):
    """The session that a request came with."""

    session_id: str
    key: SessionKey

    @property
    def token(self) -> str:
        """What a request that changes something has in ``X-CSRF-Token``."""
        return token_of(self.session_id)


def token_of(session_id: str) -> str:
    """The token of a session: made from its id, and tells nothing of it."""
    return hashlib.sha256(f"csrf {session_id}".encode()).hexdigest()


async def find_session(scope: MutableMapping[str, Any], sessions: Sessions) -> BrowserSession | None:
    """The session of a request; ``None`` where there is none, or a key stands in the request.

    Raises:
        StoreUnavailableError: PostgreSQL is unreachable.
    """
    names = [name for name, _ in scope["headers"]]
    if b"authorization" in names or b"x-api-key" in names or (session_id := session_id_of(scope)) is None:
        return None
    key = await sessions.find(session_id)
    return None if key is None else BrowserSession(session_id, key)


def session_id_of(scope: MutableMapping[str, Any]) -> str | None:
    """The id in a request's cookie. One that stands twice, or comes from another site, is none."""
    sites = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
    if any(site not in _OWN for site in sites):
        return None
    text = ";".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    pairs = [pair.strip().partition("=") for pair in text.split(";")]
    found = [value for name, _, value in pairs if name in NAMES]
    return found[0] if len(found) == 1 and _ID.fullmatch(found[0]) else None


def check_token(session: BrowserSession, method: str, given: str | None) -> None:
    """Refuse a request that changes something and lacks its session's token.

    Raises:
        RequestError: 403.
    """
    if method not in SAFE_METHODS and not hmac.compare_digest((given or "").encode(), session.token.encode()):
        detail = "A request by a session needs its token in the header X-CSRF-Token; GET /session tells it."
        raise RequestError(403, detail)


def set_cookie(scope: MutableMapping[str, Any], session_id: str, lasts_s: int) -> str:
    """The header ``Set-Cookie``; with an empty id and no time, the one that ends it."""
    is_secure = is_https(scope)
    name = NAMES[0] if is_secure else NAMES[1]
    secure = "; Secure" if is_secure else ""
    return f"{name}={session_id}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}"


def is_https(scope: MutableMapping[str, Any]) -> bool:
    """Whether the browser speaks HTTPS, here or to the proxy before us."""
    given = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    return scope.get("scheme") == "https" or given == [b"https"]
