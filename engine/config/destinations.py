"""Where callbacks may go: below the URLs that the operator names, and in one form only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from engine.model.errors import EngineError

MAX_URL = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"\A[!-\[\]-~]+\Z")  # ASCII without spaces, control characters and the backslash
_TRAVERSAL = re.compile(r"(?:\A|/)(?:\.|%2e){1,2}(?:/|\Z)|%2f|%5c", re.IGNORECASE)


class CallbackUrlError(EngineError):
    """A URL that callbacks do not go to, and why."""


class Destinations:
    """Where callbacks may go."""

    def __init__(self, bases: Iterable[str]) -> None:
        """
        Args:
            bases: URLs below which callbacks may go.
        """
        self._bases = tuple(urlsplit(base) for base in bases)
        self.origins = tuple(dict.fromkeys(_origin(base) for base in self._bases))
        """Scheme, host and port of each, as checked URLs begin."""

    def check(self, url: str) -> str:
        """A URL in the one form in which it is stored and dialled.

        Raises:
            CallbackUrlError: callbacks do not go there, and why.
        """
        if not self._bases:
            raise CallbackUrlError("goes nowhere: N8N_WEBHOOK_URL, FASTAPI_URL and CALLBACK_ALLOW are not set")
        if len(url) > MAX_URL or not _PLAIN.fullmatch(url):
            raise CallbackUrlError(f"must be at most {MAX_URL} characters of ASCII without spaces and backslashes")
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            raise CallbackUrlError("is no URL; give one such as https://n8n.example.com/webhook/1") from None
        if parts.username is not None or parts.password is not None or "#" in url:
            raise CallbackUrlError("must have no user name, password or fragment")
        if _TRAVERSAL.search(parts.path):
            raise CallbackUrlError("must have no segment . or .. and no slash in disguise")
        if not any(_is_below(origin, parts.path, base) for base in self._bases):
            raise CallbackUrlError(
                "lies below none of the URLs that callbacks may go to (N8N_WEBHOOK_URL, FASTAPI_URL, CALLBACK_ALLOW)"
            )
        query = f"?{parts.query}" if parts.query else ""
        return f"{origin}{parts.path or '/'}{query}"


def _origin(parts: SplitResult) -> str:
    """Scheme, host and port; the port is left out where it is the scheme's own.

    Raises:
        ValueError: not http or https, no host, or no port.
    """
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port != _DEFAULT_PORTS[parts.scheme] else "")


def _is_below(origin: str, path: str, base: SplitResult) -> bool:
    folder = base.path.rstrip("/")
    return origin == _origin(base) and (path == folder or path.startswith(f"{folder}/") or not folder)
