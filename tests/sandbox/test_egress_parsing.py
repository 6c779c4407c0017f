"""The egress proxy's parsers: heads, hosts, addresses, chunks, TLS greetings. One reading, or a refusal."""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from sandbox.egress import greeting, heads
from sandbox.egress.address import METADATA, SPECIAL, parse_exceptions, why_refused
from sandbox.egress.chunks import ChunkDecoder, chunk
from sandbox.egress.decisions import MAX_ROWS, OTHERS, Decision, Ledger, Refused, answer
from sandbox.egress.hosts import AllowList, entry_fault, is_wide, parse_entry, parse_host

PIECES = some.sampled_from([
    b"GET ", b"POST ", b"CONNECT ", b"http://", b"https://", b"allowed.test", b"127.0.0.1", b"[::1]", b":80", b":443",
    b"/", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"Host: allowed.test",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked", b"Connection: close", b"Proxy-Authorization: x", b"@", b"#", b"%00", b"\xff",
    b"X: y", b"Expect: 100-continue", b"Upgrade: websocket", b"?a=b", b"..", b"Host:", b"\x0b", b"\x7f", b"a" * 300,
])  # fmt: skip
HEADS = some.lists(PIECES, max_size=30).map(b"".join) | some.binary(max_size=400)
GOOD = (
    b"POST http://allowed.test:8080/a?b=c HTTP/1.1\r\nHost: allowed.test:8080\r\nContent-Length: 5\r\nX: \xe4\r\n\r\n"
)


def read(parse: Any, *arguments: Any) -> tuple[Any, Refused | None]:
    """Parse it, or return the refusal; any other exception fails the test."""
    try:
        return parse(*arguments), None
    except Refused as refused:
        return None, refused


@settings(max_examples=1500, deadline=None)
@given(HEADS)
@example(GOOD)
@example(GOOD.replace(b"POST", b"CONNECT").replace(b"http://", b"").replace(b"/a?b=c", b""))
def test_any_bytes_are_a_request_or_a_refusal(head: bytes) -> None:
    """Nothing else is raised; what is accepted and written anew reads the same again, and holds no control bytes."""
    request, refused = read(heads.parse_request, head)
    if refused is not None:
        assert Decision.BAD_REQUEST is refused.decision
        assert answer(refused).startswith(b"HTTP/1.1 400 ")
        return
    written = request.encode()
    assert written.count(heads.END) == 1
    assert not any(byte < 0x20 and byte not in b"\r\n\t" for byte in written)
    assert written.count(b"\r") == written.count(b"\n") == written.count(b"\r\n")
    if request.method == "CONNECT":
        return
    whole = f"{request.method} http://{request.host.with_port(request.port)}{request.target} HTTP/1.1\r\n".encode(
        "latin-1"
    )
    again = heads.parse_request(whole + written.partition(b"\r\n")[2])
    assert (again.host, again.port, again.target, again.body) == (
        request.host,
        request.port,
        request.target,
        request.body,
    )
    assert again.fields == request.fields


@settings(max_examples=800, deadline=None)
@given(HEADS.map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest) | HEADS)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
def test_any_bytes_are_a_response_or_a_refusal(head: bytes) -> None:
    """As for requests."""
    response, refused = read(heads.parse_response, head, "GET")
    if refused is not None:
        assert Decision.BAD_RESPONSE is refused.decision
        return
    again = heads.parse_response(response.encode(), "GET")
    assert (again.status, again.body, again.fields) == (response.status, response.body, response.fields)


@settings(max_examples=500, deadline=None)
@given(some.binary(max_size=600), some.integers(1, 64))
def test_any_chunks_are_decoded_or_refused_however_they_are_cut(data: bytes, size: int) -> None:
    """The same payload or the same refusal, whatever arrives at once."""

    def decode(step: int) -> tuple[bytes, bool] | str:
        decoder, payload = ChunkDecoder(), b""
        try:
            for at in range(0, len(data), step):
                payload += decoder.feed(data[at : at + step])
        except ValueError as error:
            return str(error)
        return payload, decoder.done

    whole, cut = decode(len(data) or 1), decode(size)
    assert whole == cut


@settings(max_examples=200, deadline=None)
@given(some.lists(some.binary(min_size=1, max_size=200), max_size=8))
def test_what_is_chunked_is_read_again(parts: list[bytes]) -> None:
    """Our own framing."""
    decoder = ChunkDecoder()
    payload = decoder.feed(b"".join(map(chunk, parts)) + chunk(b""))
    assert (b"".join(parts), True) == (payload, decoder.done)


# -- addresses


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_public_addresses_are_open(address: str) -> None:
    """The positive control of the table below."""
    assert why_refused(ipaddress.ip_address(address)) is None


@settings(max_examples=2000, deadline=None)
@given(some.ip_addresses())
def test_what_python_calls_not_global_is_refused(address: Any) -> None:
    """Our table is our own; it must never be looser than the standard library's."""
    if not address.is_global or address.is_multicast:
        assert why_refused(address) is not None


def test_every_special_network_is_refused_at_both_ends() -> None:
    """First and last address of each."""
    for special in SPECIAL:
        for address in (special.network[0], special.network[-1]):
            assert why_refused(address) is not None, special


def test_an_exception_opens_its_network_and_no_metadata() -> None:
    """Credentials of the cloud stay shut unless that very address is named."""
    exceptions = parse_exceptions("10.0.0.0/8, 169.254.0.0/16")
    assert why_refused(ipaddress.ip_address("10.1.2.3"), exceptions) is None
    assert why_refused(ipaddress.ip_address("169.254.1.1"), exceptions) is None
    assert why_refused(ipaddress.ip_address("192.168.1.1"), exceptions) is not None
    for address in METADATA:
        assert why_refused(address, exceptions) is not None
    named = parse_exceptions("169.254.169.254")
    assert why_refused(ipaddress.ip_address("169.254.169.254"), named) is None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "everything", "8.8.8.0/24", "0.0.0.0/0", "10.0.0.0/8;x", "fe80::%1/64"])
def test_an_exception_that_is_no_private_network_is_refused(text: str) -> None:
    """With what would be accepted, or why not."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_exceptions(text)


# -- hosts


@pytest.mark.parametrize(
    ("entry", "host", "port", "covered"),
    [
        ("example.com:443", "example.com", 443, True),
        ("example.com:443", "EXAMPLE.com.", 443, True),
        ("example.com:443", "example.com", 80, False),
        ("example.com:443", "sub.example.com", 443, False),
        ("*.example.com:443", "sub.example.com", 443, True),
        ("*.example.com:443", "a.b.example.com", 443, True),
        ("*.example.com:443", "example.com", 443, False),
        ("*.example.com:443", "badexample.com", 443, False),
        ("*:443", "anything.test", 443, True),
        ("*:443", "1.1.1.1", 443, False),
        ("1.1.1.1:443", "1.1.1.1", 443, True),
        ("[2606:4700::1]:443", "[2606:4700:0::1]", 443, True),
    ],
)
def test_an_entry_covers_what_it_says(entry: str, host: str, port: int, covered: bool) -> None:
    """And no more."""
    assert covered is AllowList((entry,)).grants(parse_host(host), port)


@pytest.mark.parametrize(
    "entry",
    [
        "*", "*:22", "example.com", "example.com:0", "example.com:99999", "example.com:443/path", "http://example.com:80",
        "ex*mple.com:443", "*.*.com:443", "user@example.com:443", "exa mple.com:443", "exämple.com:443",
        "EXAMPLE.com:443",
        "example.com.:443", "127.1:80", "0x7f.1:80", "*.1.1.1.1:80", ":443", "",
    ],
)  # fmt: skip
def test_an_entry_of_another_form_is_refused(entry: str) -> None:
    """At the start, not when a run asks."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_entry(entry)


@pytest.mark.parametrize(
    "entry", ["localhost:80", "127.0.0.1:80", "10.0.0.1:443", "169.254.169.254:80", "db.internal:5"]
)
def test_an_entry_that_could_never_be_reached_is_a_fault(entry: str) -> None:
    """Unless the operator or the policy opens private networks."""
    assert entry_fault(entry, deny_private=True) is not None


def test_wide_entries_are_told_from_narrow_ones() -> None:
    """For the warning of ``policies check``."""
    assert [True, True, True, False, False] == [
        is_wide(entry) for entry in ("*:443", "*.com:443", "*.github.io:443", "*.example.com:443", "example.com:443")
    ]


# -- TLS greetings


def client_hello(name: str | None) -> bytes:
    """The first bytes that a real client sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_a_greeting_is_whole_with_its_last_byte_and_not_before() -> None:
    """However it is cut."""
    hello = client_hello("allowed.test")
    assert [False] * (len(hello) - 1) == [greeting.is_whole(hello[:end]) for end in range(1, len(hello))]
    assert greeting.is_whole(hello)
    greeting.check(hello, parse_host("allowed.test"))


def test_a_greeting_for_another_name_is_refused_and_one_without_is_not() -> None:
    """Without a name the certificate alone decides, as it does on any network."""
    with pytest.raises(Refused) as refused:
        greeting.check(client_hello("hidden.test"), parse_host("allowed.test"))
    assert Decision.NAME_MISMATCH is refused.value.decision
    greeting.check(client_hello(None), parse_host("allowed.test"))


BEGUN = client_hello("a.test")[:60]


@settings(max_examples=800, deadline=None)
@given(some.binary(max_size=300) | some.binary(max_size=300).map(lambda rest: BEGUN + rest))
def test_any_bytes_are_a_greeting_or_a_refusal(data: bytes) -> None:
    """Nothing else is raised."""
    whole, refused = read(greeting.is_whole, data)
    if whole:
        _, refused = read(greeting.check, data, parse_host("allowed.test"))
    assert refused is None or refused.decision in (Decision.NOT_TLS, Decision.NAME_MISMATCH)


# -- what is told of it


def test_the_ledger_stays_small_whatever_a_run_asks_for() -> None:
    """Beyond a hundred rows they are summed up, and names are printable and short."""
    ledger = Ledger()
    for number in range(5000):
        ledger.add(f"host{number}.test", 443, Decision.HOST_NOT_ALLOWED, bytes_out=1)
    ledger.add("\x1b[31m" + "x" * 1000, 1, Decision.BAD_REQUEST)
    rows = ledger.rows()
    assert len(rows) <= MAX_ROWS + len(Decision)
    assert 5001 == sum(row.connections for row in rows)
    assert OTHERS in {row.host for row in rows}
    assert all(row.host.isprintable() and len(row.host) <= 253 for row in rows)
