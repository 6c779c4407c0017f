"""Which addresses a run may be connected to: public ones, and what the operator has excepted by name.

The tables are our own, because what ``ipaddress`` calls global differs between versions of Python. Sources: the IANA
registries of special-purpose addresses for IPv4 and IPv6, and the RFC or vendor named in each row. What carries another
address inside (mapped, NAT64, 6to4, Teredo) is never better than the address that it carries. IPv6 beyond 2000::/3 is
not global unicast (RFC 4291, 2.4) and refused as a whole.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, NamedTuple

Address = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class SpecialNetwork(NamedTuple):
    """A network that is not public."""

    network: IPNetwork
    what: str
    source: str
    kind: Literal["private", "reserved", "never"]
    """``private``: opened by ``deny_private = false`` or an exception; ``reserved``: by an exception; ``never``."""


def _rows(kind: Literal["private", "reserved", "never"], *rows: tuple[str, str, str]) -> tuple[SpecialNetwork, ...]:
    return tuple(SpecialNetwork(ip_network(network), what, source, kind) for network, what, source in rows)


SPECIAL: Final = (
    *_rows(
        "never",
        ("0.0.0.0/8", "this network", "RFC 791, 3.2: Linux connects to itself"),
        ("224.0.0.0/4", "multicast", "RFC 5771"),
        ("255.255.255.255/32", "broadcast", "RFC 919"),
        ("::/128", "unspecified", "RFC 4291, 2.5.2: Linux connects to itself"),
        ("ff00::/8", "multicast", "RFC 4291, 2.7"),
    ),
    *_rows(
        "private",
        ("10.0.0.0/8", "private", "RFC 1918"),
        ("100.64.0.0/10", "shared between a carrier and its customers", "RFC 6598"),
        ("127.0.0.0/8", "loopback", "RFC 1122, 3.2.1.3"),
        ("169.254.0.0/16", "link-local", "RFC 3927"),
        ("172.16.0.0/12", "private", "RFC 1918"),
        ("192.168.0.0/16", "private", "RFC 1918"),
        ("::1/128", "loopback", "RFC 4291, 2.5.3"),
        ("fc00::/7", "unique local", "RFC 4193"),
        ("fe80::/10", "link-local", "RFC 4291, 2.5.6"),
        ("fec0::/10", "site-local", "RFC 3879"),
    ),
    *_rows(
        "reserved",
        ("192.0.0.0/24", "protocol assignments", "RFC 6890, 2.1"),
        ("192.0.2.0/24", "documentation", "RFC 5737"),
        ("192.88.99.0/24", "6to4 relays", "RFC 7526"),
        ("198.18.0.0/15", "benchmarking", "RFC 2544"),
        ("198.51.100.0/24", "documentation", "RFC 5737"),
        ("203.0.113.0/24", "documentation", "RFC 5737"),
        ("240.0.0.0/4", "reserved", "RFC 1112, 4"),
        ("::/96", "IPv4-compatible", "RFC 4291, 2.5.5.1"),
        ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291, 2.5.5.2"),
        ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765, 2.1"),
        ("64:ff9b::/96", "NAT64", "RFC 6052"),
        ("64:ff9b:1::/48", "local NAT64", "RFC 8215"),
        ("100::/64", "discard", "RFC 6666"),
        ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
        ("2001::/32", "Teredo", "RFC 4380"),
        ("2001:2::/48", "benchmarking", "RFC 5180"),
        ("2001:10::/28", "ORCHID", "RFC 4843"),
        ("2001:20::/28", "ORCHIDv2", "RFC 7343"),
        ("2001:30::/28", "drone identifiers", "RFC 9374"),
        ("2001::/23", "protocol assignments", "RFC 2928"),
        ("2001:db8::/32", "documentation", "RFC 3849"),
        ("2002::/16", "6to4", "RFC 3056"),
        ("3fff::/20", "documentation", "RFC 9637"),
        ("5f00::/16", "segment routing", "RFC 9602"),
    ),
)
"""The first row that holds an address says what it is."""

METADATA: Final[dict[Address, str]] = {
    ip_address(address): what
    for address, what in (
        ("169.254.169.254", "cloud metadata"),
        ("169.254.169.253", "name servers of AWS"),
        ("169.254.169.123", "clock of AWS"),
        ("169.254.170.2", "credentials of AWS ECS"),
        ("169.254.170.23", "credentials of AWS EKS"),
        ("169.254.0.23", "cloud metadata of Tencent"),
        ("100.100.100.200", "cloud metadata of Alibaba"),
        ("168.63.129.16", "host agent of Azure; looks like a public address"),
        ("192.0.0.192", "cloud metadata of Oracle"),
        ("fd00:ec2::254", "cloud metadata of AWS"),
        ("fd00:ec2::23", "credentials of AWS EKS"),
        ("fd20:ce::254", "cloud metadata of Google"),
        ("fe80::a9fe:a9fe", "cloud metadata of OpenStack"),
    )
}
"""Services that give credentials to every caller. Only an exception for that one address opens it."""

_UNICAST: Final = IPv6Network("2000::/3")
_IN_THE_LAST_32_BITS: Final = tuple(
    IPv6Network(network) for network in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")


def why_refused(address: Address, exceptions: tuple[IPNetwork, ...] = (), *, deny_private: bool = True) -> str | None:
    """Why no run may be connected to ``address``, or ``None`` when it may.

    Args:
        address: without a zone.
        exceptions: the operator's, as ``parse_exceptions`` gives them.
        deny_private: whether the policy keeps private ranges shut.
    """
    if address in METADATA:
        return None if _named_exactly(address, exceptions) else METADATA[address]
    special = _special(address)
    if special is not None:
        opened = special.kind == "private" and not deny_private
        if special.kind == "never" or not (opened or _within(address, exceptions)):
            return f"{special.what} ({special.network})"
    elif isinstance(address, IPv6Address) and address not in _UNICAST:
        return f"not global unicast ({_UNICAST})"
    for carried in embedded(address):
        if fault := why_refused(carried, exceptions, deny_private=deny_private):
            return f"carries {carried}: {fault}"
    return None


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries for a translator or a tunnel."""
    if isinstance(address, IPv4Address):
        return ()
    if address.teredo:
        return address.teredo
    if address.sixtofour:
        return (address.sixtofour,)
    if address in _LOCAL_NAT64:  # RFC 6052, 2.2: where it lies depends on the prefix that the site has chosen
        bits = int(address)
        by_48 = (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF
        return tuple(IPv4Address(value) for value in (by_48, bits >> 24 & 0xFFFFFFFF, bits & 0xFFFFFFFF))
    if any(address in network for network in _IN_THE_LAST_32_BITS) and int(address) > 1:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def parse_exceptions(text: str) -> tuple[IPNetwork, ...]:
    """Read ``EGRESS_ALLOW_PRIVATE``: networks or addresses with commas between, e.g. ``10.1.0.0/16, 192.168.7.9``.

    Raises:
        ValueError: names the invalid part, why it is invalid, and what would be accepted.
    """
    return tuple(_parse_exception(part) for part in (raw.strip() for raw in text.split(",")) if part)


def _parse_exception(text: str) -> IPNetwork:
    try:
        network = ip_network(text, strict=True)
    except ValueError as error:
        raise ValueError(f"{text}: not a network such as 10.1.0.0/16: {error}") from error
    if isinstance(network, IPv6Network) and network.network_address.scope_id:
        raise ValueError(f"{text}: a zone cannot be part of a network")
    if network.num_addresses == 1 and network.network_address in METADATA:
        return network
    if any(_overlap(network, one.network) for one in SPECIAL if one.kind == "never"):
        raise ValueError(f"{text}: holds addresses that nothing can be connected to; name the private networks alone")
    if not any(_holds(one.network, network) for one in SPECIAL):
        raise ValueError(f"{text}: not within one private or special network; public addresses need no exception")
    return network


def _special(address: Address) -> SpecialNetwork | None:
    return next((one for one in SPECIAL if address in one.network), None)


def _within(address: Address, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address in network for network in networks)


def _named_exactly(address: Address, networks: tuple[IPNetwork, ...]) -> bool:
    return any(network.num_addresses == 1 and network.network_address == address for network in networks)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _holds(outer: IPNetwork, inner: IPNetwork) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)
