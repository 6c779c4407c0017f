"""Reads the head of a request or a response once, strictly, and writes it anew.

What is passed on is written from what was understood, never copied: two readers of it can then not disagree on where
the request goes or where its body ends (request smuggling). Every doubt is a refusal. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from sandbox.egress.decisions import Decision, Refused
from sandbox.egress.hosts import EgressHost, parse_host, parse_port, split_port

END: Final = b"\r\n\r\n"
MAX_FIELDS: Final = 128
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_NOT_IN_A_HEAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)")
_REQUEST_LINE: Final = re.compile(r"([A-Z]{1,16}) ([!-~]+) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: (.*))?")
_TARGET: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)")
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_OF_ONE_CONNECTION: Final = frozenset({
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host", "expect",
    "alt-svc", "http2-settings", "x-egress-decision",
})  # fmt: skip
"""Written anew or left out, RFC 9110, 7.6.1; so is all that begins with ``proxy-``. Alt-Svc names other hosts, and
X-Egress-Decision is the proxy's own word."""

Framing = int | Literal["chunked"] | None
"""How a body is framed: its length in bytes, chunks, or neither: then a request has none, a response all that comes."""


class HeaderField(NamedTuple):
    """One header."""

    name: str
    value: str


class RequestHead(NamedTuple):
    """A request, understood."""

    method: str
    host: EgressHost
    port: int
    target: str
    """Path and query; empty for CONNECT."""
    fields: tuple[HeaderField, ...]
    """The head that the proxy passes on."""
    body: Framing
    expects_continue: bool

    def encode(self) -> bytes:
        """The head as the host gets it."""
        host = HeaderField("Host", self.host.with_port(self.port).removesuffix(":80"))
        return _encode(f"{self.method} {self.target} HTTP/1.1", (host, *self.fields), self.body)


class ResponseHead(NamedTuple):
    """The head of a response, understood."""

    status: int
    reason: str
    fields: tuple[HeaderField, ...]
    body: Framing
    has_body: bool
    """False where a body never follows, whatever the head says of one."""

    def encode(self) -> bytes:
        """The head as the run gets it."""
        return _encode(f"HTTP/1.1 {self.status} {self.reason}", self.fields, self.body)


def _encode(first: str, fields: tuple[HeaderField, ...], body: Framing) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in fields)]
    if body == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif body is not None:
        lines.append(f"Content-Length: {body}")
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1")


def is_hopeless(head: bytearray, start: int) -> bool:
    """Whether a head that is still arriving holds what none may hold. What stood before ``start`` was looked at."""
    end = len(head) - 1 if head.endswith(b"\r") else len(head)
    return _NOT_IN_A_HEAD.search(head, max(start - 1, 0), end) is not None


def parse_request(head: bytes) -> RequestHead:
    """Read the head of a request, up to and with the empty line.

    Raises:
        Refused: ``bad_request``, with what is wrong.
    """
    try:
        return _parse_request(head)
    except ValueError as error:
        raise Refused(Decision.BAD_REQUEST, str(error)) from error


def parse_response(head: bytes, method: str) -> ResponseHead:
    """Read the head of a response to a request of ``method``, up to and with the empty line.

    Raises:
        Refused: ``bad_response``, with what is wrong.
    """
    try:
        return _parse_response(head, method)
    except ValueError as error:
        raise Refused(Decision.BAD_RESPONSE, f"the host's answer cannot be read: {error}") from error


# -- requests


def _parse_request(head: bytes) -> RequestHead:
    first, fields = _split(head)
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise ValueError("the first line must be METHOD URL HTTP/1.1 in printable ASCII")
    method, target, minor = line.groups()
    connect, named = method == "CONNECT", _by_name(fields)
    if not connect and minor != "1":
        raise ValueError("HTTP/1.0 is not served")
    host, port, path = (*_parse_authority(target, None), "") if connect else _parse_url(method, target)
    _check_host_field(named.get("host", []), host, port, connect=connect)
    if connect and ("content-length" in named or "transfer-encoding" in named):
        raise ValueError("CONNECT has no body")
    _only(named.get("proxy-authorization", [""]), "Proxy-Authorization")
    body = _framing(named)
    return RequestHead(
        method=method,
        host=host,
        port=port,
        target=path,
        fields=_passed_on(fields, named),
        body=body,
        expects_continue=_expects_continue(named) and body not in (None, 0),
    )


def _parse_url(method: str, target: str) -> tuple[EgressHost, int, str]:
    if method not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(METHODS)}, CONNECT")
    found = _TARGET.fullmatch(target)
    if found is None:
        raise ValueError("this is a proxy: the URL must be whole, as in http://example.com/")
    scheme, authority, path = found.groups()
    if scheme.lower() != "http":
        raise ValueError("the scheme of the URL must be http; for https there is CONNECT")
    if "#" in target or "\\" in target:
        raise ValueError("the URL holds a fragment or a backslash")
    return *_parse_authority(authority, 80), path if path.startswith("/") else "/" + path


def _parse_authority(text: str, default_port: int | None) -> tuple[EgressHost, int]:
    if "@" in text:
        raise ValueError("the URL holds a user name")
    name, port = split_port(text)
    if port is not None:
        return parse_host(name), parse_port(port)
    if default_port is None:
        raise ValueError("CONNECT needs HOST:PORT")
    return parse_host(name), default_port


def _check_host_field(values: list[str], host: EgressHost, port: int, *, connect: bool) -> None:
    """One Host header that says what the URL says. CONNECT may come without: ``http.client`` before 3.12 sends none."""
    if connect and not values:
        return
    name, own_port = split_port(_only(values, "Host"))
    named_port = parse_port(own_port) if own_port is not None else port if connect else 80
    if (parse_host(name), named_port) != (host, port):
        raise ValueError("the Host header and the URL name different hosts")


def _expects_continue(named: dict[str, list[str]]) -> bool:
    if "expect" not in named:
        return False
    if _only(named["expect"], "Expect").lower() != "100-continue":
        raise ValueError("the only expectation that can be met is 100-continue")
    return True


# -- responses


def _parse_response(head: bytes, method: str) -> ResponseHead:
    first, fields = _split(head)
    line = _STATUS_LINE.fullmatch(first)
    if line is None:
        raise ValueError("its first line is not HTTP/1.1 STATUS REASON")
    status, named = int(line[1]), _by_name(fields)
    if status == 101:
        raise ValueError("it changes the protocol, which nobody asked for")
    body = _framing(named)
    never = status < 200 or status in (204, 304)
    return ResponseHead(
        status=status,
        reason=line[2] or "",
        fields=_passed_on(fields, named),
        body=None if status < 200 or status == 204 else body,
        has_body=not never and method != "HEAD",
    )


# -- both


def _split(head: bytes) -> tuple[str, list[HeaderField]]:
    """The first line, and the headers."""
    if _NOT_IN_A_HEAD.search(head):
        raise ValueError("the head holds control characters, or line ends other than CR LF")
    if not head.endswith(END) or head.find(END) != len(head) - len(END):
        raise ValueError("the head does not end with one empty line")
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    if len(lines) > MAX_FIELDS:
        raise ValueError(f"the head has more than {MAX_FIELDS} headers")
    return first, [_parse_field(line) for line in lines]


def _parse_field(line: str) -> HeaderField:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise ValueError("a header is not NAME: VALUE, or is folded over two lines")
    return HeaderField(found[1], found[2])


def _by_name(fields: list[HeaderField]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for field in fields:
        named.setdefault(field.name.lower(), []).append(field.value)
    return named


def _only(values: list[str], name: str) -> str:
    if len(values) != 1:
        raise ValueError(f"there must be one {name} header")
    return values[0]


def _framing(named: dict[str, list[str]]) -> Framing:
    lengths, codings = named.get("content-length", []), named.get("transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise ValueError("the length of the body is given more than once")
    if codings:
        if codings[0].lower() != "chunked":
            raise ValueError("the only Transfer-Encoding is chunked")
        return "chunked"
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise ValueError("Content-Length is not a number")
    return int(lengths[0]) if lengths else None


def _passed_on(fields: list[HeaderField], named: dict[str, list[str]]) -> tuple[HeaderField, ...]:
    """The headers that are not of this one connection, RFC 9110, 7.6.1."""
    options = {option.strip().lower() for value in named.get("connection", []) for option in value.split(",")}
    dropped = _OF_ONE_CONNECTION | options
    return tuple(
        field for field in fields if (name := field.name.lower()) not in dropped and not name.startswith("proxy-")
    )
