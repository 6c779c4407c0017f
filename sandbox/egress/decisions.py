"""The decision on each connection, as an HTTP answer to the run and as rows of its result."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from sandbox.result import EgressRow

MAX_ROWS: Final = 100
MAX_HOST_CHARACTERS: Final = 253
OTHERS: Final = "(others)"
"""Stands for the host in rows beyond ``MAX_ROWS``, with port 0."""


class Decision(enum.StrEnum):
    """One word for what became of a connection."""

    ALLOWED = "allowed"
    """The policy grants it, and it was served to its end or until the run let go of it."""
    BAD_REQUEST = "bad_request"
    """The head cannot be read in one way only, or asks for what this proxy does not do."""
    HEAD_LIMIT = "head_limit"
    """The head is longer than ``head_kib``."""
    HOST_NOT_ALLOWED = "host_not_allowed"
    """No entry of ``network.allow`` covers host and port."""
    PRIVATE_ADDRESS = "private_address"
    """The host is, or resolves to, at least one address that is not public."""
    DNS_FAILED = "dns_failed"
    """The name has no address, or the name server failed."""
    CONNECT_FAILED = "connect_failed"
    """None of its addresses took the connection."""
    BAD_RESPONSE = "bad_response"
    """The host's answer is not HTTP/1.x in one reading, is longer than ``head_kib`` in its head, or broke off."""
    NOT_TLS = "not_tls"
    """The bytes after CONNECT are not a TLS greeting, or hide the name of the host."""
    NAME_MISMATCH = "name_mismatch"
    """The TLS greeting asks for another name than CONNECT did."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """More than ``connections`` at once, or than ``connections_total``."""
    BYTES_LIMIT = "bytes_limit"
    """``in_mib`` or ``out_mib`` is used up; the connection was refused or cut off."""
    TIMEOUT = "timeout"
    """Longer than ``first_byte_s`` or ``total_s``; the connection was refused or cut off."""
    RUN_ENDED = "run_ended"
    """The run ended before anything was decided."""


_STATUS: Final = {
    Decision.BAD_REQUEST: "400 Bad Request",
    Decision.HEAD_LIMIT: "431 Request Header Fields Too Large",
    Decision.HOST_NOT_ALLOWED: "403 Forbidden",
    Decision.PRIVATE_ADDRESS: "403 Forbidden",
    Decision.DNS_FAILED: "502 Bad Gateway",
    Decision.CONNECT_FAILED: "502 Bad Gateway",
    Decision.BAD_RESPONSE: "502 Bad Gateway",
    Decision.TOO_MANY_CONNECTIONS: "429 Too Many Requests",
    Decision.BYTES_LIMIT: "413 Content Too Large",
    Decision.TIMEOUT: "504 Gateway Timeout",
}
"""Status line of the answer, for refusals that can come before an answer has begun."""


class Refused(Exception):  # noqa: N818 no error of ours
    """A connection is refused or cut off.

    Args:
        decision: why, as a word.
        sentence: why, for people; holds nothing of the request that was not checked.
    """

    def __init__(self, decision: Decision, sentence: str) -> None:
        super().__init__(sentence)
        self.decision = decision


def answer(refused: Refused) -> bytes:
    """The whole HTTP response to a refused request: a problem document (RFC 9457) with the decision beside it."""
    status = _STATUS[refused.decision]
    code, _, title = status.partition(" ")
    problem = {"title": title, "status": int(code), "detail": str(refused), "decision": refused.decision}
    body = msgspec.json.encode(problem)
    lines = [
        # of a refused CONNECT clients show the status line alone, whose words are free (RFC 9112, section 4)
        f"HTTP/1.1 {status} ({refused.decision})",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"X-Egress-Decision: {refused.decision}",
        "Connection: close",
    ]
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


class Ledger:
    """Sums up decisions by host, port and decision, in bounded space."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int, Decision], list[int]] = {}

    def add(self, host: str, port: int, decision: Decision, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Count one connection. ``host`` may be any text."""
        key = (_clean(host), port, decision)
        if key not in self._sums and len(self._sums) >= MAX_ROWS:
            key = (OTHERS, 0, decision)
        sums = self._sums.setdefault(key, [0, 0, 0])
        for place, more in enumerate((1, bytes_in, bytes_out)):
            sums[place] += more

    def rows(self) -> tuple[EgressRow, ...]:
        """One row for each host, port and decision, in the order in which they first came."""
        return tuple(
            EgressRow(
                host=host,
                port=port,
                decision=decision.value,
                connections=sums[0],
                bytes_in=sums[1],
                bytes_out=sums[2],
            )
            for (host, port, decision), sums in self._sums.items()
        )


def _clean(host: str) -> str:
    """Printable ASCII of bounded length."""
    return "".join(one if "!" <= one <= "~" else "?" for one in host[:MAX_HOST_CHARACTERS])
