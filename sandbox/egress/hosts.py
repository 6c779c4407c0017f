"""The entries of a policy's ``network.allow``, and how the name of a host is read, there and in requests.

An entry is ``HOST:PORT``. HOST is a name (``example.com``), all names below one (``*.example.com``, any depth, not the
name itself), an address (``203.0.113.9``, ``[2001:db8::1]``), or ``*``: any public name, on port 80 or 443 only. An
address in a request is covered by the entry that names that very address, and by no other.

Names are letters, digits and hyphens; anything else has to come as punycode. A name whose last label is a number, in
any spelling that some resolver takes for an address (decimal, octal, hexadecimal, short), is refused: there is no such
name.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal, NamedTuple

from sandbox.egress.address import Address, IPNetwork, why_refused

MAX_NAME = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_ANY_PORTS: Final = (80, 443)

_INTERNAL: Final = frozenset({
    "localhost", "local", "internal", "home.arpa", "intranet", "private", "corp", "home", "lan", "localdomain",
})  # fmt: skip
"""Names of networks' own use: RFC 6761, RFC 6762 (appendix G), RFC 8375, ICANN's resolution on .internal (2024)."""

_SECOND_LEVELS: Final = frozenset({"ac", "co", "com", "edu", "gov", "gob", "ne", "net", "or", "org"})
_ANYBODYS: Final = frozenset({
    "amazonaws.com", "cloudfront.net", "azureedge.net", "azurewebsites.net", "windows.net", "googleapis.com",
    "googleusercontent.com", "appspot.com", "run.app", "web.app", "firebaseapp.com", "github.io", "gitlab.io",
    "pages.dev", "workers.dev", "vercel.app", "netlify.app", "herokuapp.com", "onrender.com", "fly.dev", "ngrok.io",
    "ngrok.app", "ngrok-free.app", "trycloudflare.com", "duckdns.org", "nip.io", "sslip.io",
})  # fmt: skip
"""Domains below which anybody can have a name. Not complete: for warnings, not for decisions."""


class EgressHost(NamedTuple):
    """A host as a request or an entry names it."""

    name: str
    """Lower case, without a final dot; of an address its one canonical spelling, without brackets."""
    address: Address | None = None
    """Set when it is an address and not a name."""

    def with_port(self, port: int) -> str:
        """As it stands in a URL, e.g. ``example.com:443``, ``[::1]:80``."""
        return f"[{self.name}]:{port}" if ":" in self.name else f"{self.name}:{port}"


class AllowEntry(NamedTuple):
    """One entry of ``network.allow``."""

    kind: Literal["any", "below", "exactly"]
    host: EgressHost
    """Of ``any`` the name is empty."""
    port: int

    def covers(self, host: EgressHost, port: int) -> bool:
        """Whether a request for ``host`` and ``port`` is granted by this entry."""
        if port != self.port:
            return False
        if self.kind == "exactly":
            return host == self.host
        return host.address is None and (self.kind == "any" or host.name.endswith("." + self.host.name))


def parse_host(text: str) -> EgressHost:
    """Read a host as it stands in a URL: a name, an IPv4 address, or an IPv6 address in brackets.

    Raises:
        ValueError: it is none of these; one sentence without the text itself.
    """
    if text.startswith("["):
        return _parse_ipv6(text)
    if not text.isascii():
        raise ValueError("a host outside of ASCII must be written in punycode (xn--...)")
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _parse_ipv4(name, text)
    if len(name) > MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("a host must be labels of letters, digits and hyphens with dots between")
    return EgressHost(name)


def _parse_ipv4(name: str, text: str) -> EgressHost:
    try:
        address = IPv4Address(name)
    except AddressValueError:
        address = None
    if address is None or name != text:
        raise ValueError("an IPv4 address must be four decimal numbers with dots between")
    return EgressHost(str(address), address)


def _parse_ipv6(text: str) -> EgressHost:
    try:
        address = IPv6Address(text[1:-1]) if text.endswith("]") and "%" not in text else None
    except ValueError:
        address = None
    if address is None:
        raise ValueError("an IPv6 address must stand in brackets and have no zone")
    return EgressHost(str(address), address)


def parse_port(text: str) -> int:
    """Read a port: 1 to 65535, without leading zeros.

    Raises:
        ValueError: it is not that.
    """
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError("a port must be a number from 1 to 65535 without leading zeros")
    return int(text)


def split_port(text: str) -> tuple[str, str | None]:
    """Part ``host:port`` at the colon that no bracket holds; the port is ``None`` where there is no such colon."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        return text, None
    return host, port


def parse_entry(text: str) -> AllowEntry:
    """Read one entry of ``network.allow``.

    Raises:
        ValueError: it is not of the form; one sentence that says what would be.
    """
    left, port_text = split_port(text)
    if port_text is None:
        raise ValueError('a port is missing, as in "example.com:443"')
    port = parse_port(port_text)
    if left == "*":
        if port not in _ANY_PORTS:
            raise ValueError('"*" is for ports 80 and 443 only; name the hosts for any other')
        return AllowEntry("any", EgressHost(""), port)
    below, rest = left.startswith("*."), left.removeprefix("*.")
    if "*" in rest:
        raise ValueError('"*" stands alone or first and before a dot, as in "*.example.com:443"')
    host = parse_host(rest)
    if host.name != rest.strip("[]") and host.address is None:
        raise ValueError(f"write it as {host.with_port(port)}: lower case, no final dot")
    if below and host.address is not None:
        raise ValueError("there is nothing below an address")
    return AllowEntry("below" if below else "exactly", host, port)


def entry_fault(text: str, *, deny_private: bool, exceptions: tuple[IPNetwork, ...] = ()) -> str | None:
    """Why ``text`` is not valid in ``network.allow``, or ``None`` when it is.

    Args:
        text: the entry.
        deny_private: what the policy says beside it.
        exceptions: the operator's; with any, names of private networks are left to the check of their addresses.
    """
    try:
        entry = parse_entry(text)
    except ValueError as error:
        return str(error)
    remedy = "deny_private would refuse every request to it; to open it, name it in EGRESS_ALLOW_PRIVATE"
    if entry.host.address is not None:
        fault = why_refused(entry.host.address, exceptions, deny_private=deny_private)
        return f"{fault}: {remedy}" if fault else None
    if deny_private and not exceptions and entry.kind != "any" and is_internal(entry.host.name):
        return f"a name of private networks: {remedy}"
    return None


def is_internal(name: str) -> bool:
    """Whether a name is of the kind that only private networks have: one label, or below a domain for their use."""
    return "." not in name or any(name == domain or name.endswith("." + domain) for domain in _INTERNAL)


def is_wide(text: str) -> bool:
    """Whether an entry reaches hosts of people whom its writer does not know. That is worth a warning, and no fault.

    ``*``, all of a top-level domain (``*.com``) or of a registry's second level (``*.co.uk``), and all of a domain
    below which anybody can have a name. Such an entry lets a run send what it knows to anybody.

    Raises:
        ValueError: it is no entry.
    """
    entry = parse_entry(text)
    if entry.kind != "below":
        return entry.kind == "any"
    labels = entry.host.name.split(".")
    registry = len(labels) == 1 or (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVELS)
    return registry or any(entry.host.name == one or entry.host.name.endswith("." + one) for one in _ANYBODYS)


class AllowList:
    """The hosts of one policy."""

    def __init__(self, allow: tuple[str, ...]) -> None:
        """
        Args:
            allow: the entries of ``network.allow``.

        Raises:
            ValueError: one of them is no entry.
        """
        self._entries = tuple(parse_entry(text) for text in allow)

    def grants(self, host: EgressHost, port: int) -> bool:
        """Whether any entry covers ``host`` and ``port``."""
        return any(entry.covers(host, port) for entry in self._entries)
