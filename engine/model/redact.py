"""Cuts out of a text what looks like a secret, before it is logged or shown."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"://[^\s/@'\"]*@")
"""Begins at the ``://``: a pattern that began with the scheme would try each letter of a long word as its first one."""
_SECRET_OPTION = re.compile(
    r"(?P<name>\b(?:password|passwd|secret|token|api[_-]?key|authorization)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+|basic\s+)?)"
    r"[^&\s,;'\"]+",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"(?P<sort>\bbearer\s+|\bwhsec_|\buarec_|\buak_[0-9a-f]{12}_)[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_OPEN_END = re.compile(
    r"(?P<sort>://|\bbearer\s+|\bwhsec_|\buarec_|\buak_)(?:(?<=://)[^\s/@'\"]*|(?<!://)[A-Za-z0-9+/=._~-]*)\Z",
    re.IGNORECASE,
)
"""What would be a secret if the text went on: a URL's user and password lack the ``@``, a token its length."""
_MARKS = ("=", ": ", "://", '":', "':", "earer", "EARER", "whsec_", "uarec_", "uak_")
"""A text without any of these has no secret that we would know: most have none, and looking costs a microsecond."""


def redact(text: str) -> str:
    """The text without what looks like a secret: user and password of a URL, values of options named so, tokens."""
    if not any(mark in text for mark in _MARKS):
        return text
    text = _SECRET_OPTION.sub(r"\g<name>***", _PASSWORD.sub("://***@", text))
    return _TOKEN.sub(r"\g<sort>***", text)


def redact_beginning(text: str) -> str:
    """The same for the beginning of a longer text, whose end may be the first part of a secret."""
    return _OPEN_END.sub(r"\g<sort>***", redact(text))
