"""The way out of a run: through the proxy to what the policy names, and nowhere else. Real servers, real namespaces."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from sandbox import ExitReason, Host, HostError, Policy, Pool, Template
from tests.support.synchronous import BUSY, PATIENCE_S, Sandbox, eventually, value_of
from tests.support.web import Names, Server, ok, raw_server, tls_server

LOOPBACK = ip_network("127.0.0.0/8")
FETCH = """
import urllib.request, urllib.error
try:
    with urllib.request.urlopen(args, timeout=10) as answer:
        result = [answer.status, answer.read().decode("latin-1")]
except urllib.error.HTTPError as error:
    result = [error.code, error.headers.get("X-Egress-Decision")]
"""
TALK = """
import socket
with socket.create_connection(("127.0.0.1", 3128), timeout=10) as proxy:
    proxy.sendall(args.encode("latin-1"))
    answer = b""
    while part := proxy.recv(65536):
        answer += part
result = answer.decode("latin-1")
"""
CAPS: dict[str, Any] = {
    "connections": 8,
    "connections_total": 64,
    "in_mib": 4,
    "out_mib": 4,
    "head_kib": 16,
    "first_byte_s": 2.0,
    "total_s": 10.0,
}

MakeEgress = Callable[..., Sandbox]


@pytest.fixture
def make_egress(light_policy: Policy, host: Host, template: Template) -> Iterator[MakeEgress]:
    """Makes sandboxes whose policy names hosts; loopback is the operator's exception unless told otherwise."""
    made: list[Sandbox] = []

    def make(*allow: str, names: Names, exceptions: tuple[Any, ...] = (LOOPBACK,), **caps: Any) -> Sandbox:
        network = msgspec.structs.replace(light_policy.network, allow=allow, **(CAPS | caps))
        policy = msgspec.structs.replace(light_policy, network=network)
        outside = msgspec.structs.replace(template, egress_exceptions=exceptions)
        made.append(Sandbox(policy, host, outside, ready=1, resolve=names))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows(result: Any) -> list[tuple[str, str, int]]:
    """(host, decision, connections) of what a run asked of the network."""
    return [(row.host, row.decision, row.connections) for row in result.usage.egress]


# -- what works


@pytest.mark.privilege("the worker takes a socket out of the run's namespaces")
@pytest.mark.parametrize(
    "script",
    [
        FETCH,
        "import httpx\nanswer = httpx.get(args)\nresult = [answer.status_code, answer.text]",
        "import requests\nanswer = requests.get(args)\nresult = [answer.status_code, answer.text]",
        (
            "import asyncio, httpx\nasync def main(url):\n    async with httpx.AsyncClient() as client:\n"
            "        answer = await client.get(url)\n        return [answer.status_code, answer.text]"
        ),
    ],
    ids=["urllib", "httpx", "requests", "httpx async"],
)
def test_libraries_reach_an_allowed_host_unchanged(make_egress: MakeEgress, script: str) -> None:
    """By the environment's proxy; no call that they make is denied, and the bytes are counted."""
    with raw_server(ok(b"hello")) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        result = box.run(script, f"http://allowed.test:{server.port}/path?q=1")
        assert [200, "hello"] == value_of(result)
        assert (1, ()) == (server.connections, result.violations)
        (row,) = result.usage.egress
        assert ("allowed.test", server.port, "allowed", 1) == (row.host, row.port, row.decision, row.connections)
        assert row.bytes_in == len(ok(b"hello"))
        assert row.bytes_out == len(server.received[0])
        assert server.received[0].startswith(b"GET /path?q=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("library", ["urllib", "requests", "httpx"])
def test_tls_goes_through_and_the_certificate_is_checked_inside(
    make_egress: MakeEgress, template: Template, tmp_path: Path, library: str
) -> None:
    """The proxy passes sealed bytes on; the run itself trusts the operator's certificates only."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    tmp_path.chmod(0o755)
    script = {
        "urllib": "import urllib.request\nresult = urllib.request.urlopen(args).read().decode()",
        "requests": "import requests\nresult = requests.get(args).text",
        "httpx": "import httpx\nresult = httpx.get(args).text",
    }[library]
    with tls_server(authority.issue_cert("allowed.test")) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        entry, url = f"allowed.test:{server.port}", f"https://allowed.test:{server.port}/"
        box = make_egress(entry, names=names)
        untrusted = box.run(script, url)
        assert ExitReason.ERROR is untrusted.exit_reason
        assert "CERTIFICATE_VERIFY_FAILED" in str(untrusted.error)
        trusting = msgspec.structs.replace(template, ca_file=bundle, egress_exceptions=(LOOPBACK,))
        with contextlib.closing(Sandbox(box.policy, box.pool._host, trusting, ready=0, resolve=names)) as trusted:
            assert "secret hello" == value_of(trusted.run(script, url))


def test_a_body_of_megabytes_arrives_whole_both_ways(make_egress: MakeEgress) -> None:
    """2 MiB out, 3 MiB in, by length and in chunks."""
    size_out, size_in = 2 << 20, 3 << 20

    def talk(sock: socket.socket, head: bytes) -> None:
        left = size_out - len(head.partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(sock.recv(65536))
        body = bytes(size_in)
        chunks = b"".join(b"%x\r\n%b\r\n" % (65536, body[at : at + 65536]) for at in range(0, size_in, 65536))
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    script = "import httpx\nbody = httpx.post(args, content=bytes(2 << 20)).content\nresult = [len(body), any(body)]"
    with raw_server(talk) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        assert [size_in, False] == value_of(box.run(script, f"http://allowed.test:{server.port}/"))


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", [200, ""]),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", [204, ""]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", [304, ""]),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(b"after"), [200, "after"]),
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nto the end", [200, "to the end"]),
        ("DELETE", ok(b"gone"), [200, "gone"]),
    ],
    ids=["HEAD", "204", "304", "early hints", "to the end", "DELETE"],
)
def test_answers_of_every_framing_are_passed_on(
    make_egress: MakeEgress, method: str, answer: bytes, expected: list[Any]
) -> None:
    """A body is where the method and the status say that there is one."""
    with raw_server(answer) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        script = f"import httpx\nanswer = httpx.request({method!r}, args)\nresult = [answer.status_code, answer.text]"
        assert expected == value_of(box.run(script, f"http://allowed.test:{server.port}/"))


def test_a_host_may_answer_before_it_has_the_whole_body(make_egress: MakeEgress) -> None:
    """Its refusal arrives, although the rest of the body finds nobody any more."""
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
    with raw_server(refusal) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        script = (
            "import socket\nproxy = socket.create_connection(('127.0.0.1', 3128))\n"
            "proxy.sendall(args.encode())\nanswer = b''\n"
            "while part := proxy.recv(65536):\n    answer += part\nresult = answer.decode()"
        )
        head = f"POST http://allowed.test:{server.port}/ HTTP/1.1\r\nHost: allowed.test:{server.port}\r\n"
        answer = value_of(box.run(script, f"{head}Content-Length: 1000000\r\n\r\n" + "x" * 1000))
        assert answer.startswith("HTTP/1.1 413"), answer
        assert answer.endswith("big")


def test_the_proxy_says_continue_itself(make_egress: MakeEgress) -> None:
    """A client that waits for that word is not kept waiting."""

    def talk(sock: socket.socket, head: bytes) -> None:
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < 5:
            body += sock.recv(65536)
        sock.sendall(ok(body))

    with raw_server(talk) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        script = (
            "import socket\nproxy = socket.create_connection(('127.0.0.1', 3128))\n"
            "proxy.sendall(args.encode())\nfirst = proxy.recv(65536)\nproxy.sendall(b'hello')\nanswer = b''\n"
            "while part := proxy.recv(65536):\n    answer += part\nresult = [first.decode(), answer.decode()]"
        )
        head = f"POST http://allowed.test:{server.port}/ HTTP/1.1\r\nHost: allowed.test:{server.port}\r\n"
        first, answer = value_of(box.run(script, f"{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"))
        assert first.startswith("HTTP/1.1 100")
        assert answer.endswith("hello")


# -- hosts and addresses


def refused(box: Sandbox, url: str, *servers: Server) -> str:
    """The decision with which a fetch was refused, after making sure that no server saw anything of it."""
    code, decision = value_of(box.run(FETCH, url))
    assert code >= 400
    assert [0] * len(servers) == [server.connections for server in servers]
    return str(decision)


def test_a_host_that_the_policy_does_not_name_sees_nothing(make_egress: MakeEgress) -> None:
    """Neither a packet nor a look-up of its name."""
    with raw_server(ok()) as server:
        names = Names(allowed_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
        box = make_egress(f"allowed.test:{server.port}", names=names)
        for host in ("other.test", "allowed.test.other.test", "notallowed.test", "sub.allowed.test"):
            assert "host_not_allowed" == refused(box, f"http://{host}:{server.port}/", server)
        assert [] == names.asked


def test_another_port_of_an_allowed_host_sees_nothing(make_egress: MakeEgress) -> None:
    """An entry is one port."""
    with raw_server(ok()) as allowed, raw_server(ok()) as other:
        box = make_egress(f"allowed.test:{allowed.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        assert "host_not_allowed" == refused(box, f"http://allowed.test:{other.port}/", other)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "fe80::1", "fd00::1", "fd00:ec2::254",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "ff02::1",
        "2001:db8::1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(make_egress: MakeEgress, address: str) -> None:
    """Whatever form the address has; one such among good ones is enough."""
    with raw_server(ok()) as server:
        names = Names(alone_test=[[address]], mixed_test=[["93.184.216.34", address]])
        entries = (f"alone.test:{server.port}", f"mixed.test:{server.port}")
        box = make_egress(*entries, names=names, exceptions=())
        assert "private_address" == refused(box, f"http://alone.test:{server.port}/", server)
        assert "private_address" == refused(box, f"http://mixed.test:{server.port}/", server)


@pytest.mark.parametrize(
    "spelled",
    ["127.0.0.1", "2130706433", "0x7f000001", "017700000001", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "localhost"],
)
def test_an_address_in_the_url_is_refused_in_every_spelling(make_egress: MakeEgress, spelled: str) -> None:
    """Also where the policy names any host on that port."""
    names = Names(localhost=[["127.0.0.1"]])
    box = make_egress("*:80", names=names, exceptions=())
    answer = value_of(box.run(TALK, f"GET http://{spelled}/ HTTP/1.1\r\nHost: {spelled}\r\n\r\n"))
    assert answer.startswith(("HTTP/1.1 400", "HTTP/1.1 403")), answer
    assert [] == names.asked


def test_a_rebinding_name_is_looked_up_once_and_dialled_where_it_was_checked(make_egress: MakeEgress) -> None:
    """The second answer, which would lead inside, is never asked for."""
    with raw_server(ok(b"first")) as server:
        names = Names(rebinding_test=[["127.0.0.1"], ["10.0.0.1"]])
        box = make_egress(f"rebinding.test:{server.port}", names=names)
        assert [200, "first"] == value_of(box.run(FETCH, f"http://rebinding.test:{server.port}/"))
        assert ["rebinding.test"] == names.asked
        assert "private_address" == refused(box, f"http://rebinding.test:{server.port}/")


def test_a_redirect_is_a_request_like_any_other(make_egress: MakeEgress) -> None:
    """The proxy follows none; where the client goes on to, the policy decides."""
    with raw_server(ok(b"internal")) as inside:
        moved = f"HTTP/1.1 302 Found\r\nLocation: http://inside.test:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        with raw_server(moved.encode()) as server:
            names = Names(allowed_test=[["127.0.0.1"]], inside_test=[["127.0.0.1"]])
            box = make_egress(f"allowed.test:{server.port}", names=names)
            result = box.run(FETCH, f"http://allowed.test:{server.port}/")
            assert [403, "host_not_allowed"] == value_of(result)
            assert (1, 0) == (server.connections, inside.connections)
            # a row is noted when its connection ends, and which of the two ends first is the client's to say
        assert {("allowed.test", "allowed", 1), ("inside.test", "host_not_allowed", 1)} == set(rows(result))


def test_an_unknown_name_and_a_closed_port_are_told_apart(make_egress: MakeEgress) -> None:
    """So that a script can say what is wrong."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    box = make_egress(f"a.test:{port}", f"b.test:{port}", names=Names(a_test=[["127.0.0.1"]]))
    assert "connect_failed" == refused(box, f"http://a.test:{port}/")
    assert "dns_failed" == refused(box, f"http://b.test:{port}/")


# -- ways around the proxy


@pytest.mark.privilege("raw and packet sockets are for root")
@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', {port}), 2)",
        "socket.create_connection(('10.0.0.1', 3128), 2)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
        "socket.socket().bind(('127.0.0.1', 9999))",
        "socket.socket().setsockopt(socket.SOL_SOCKET, 26, b'x' * 16)",
        "socket.socket().setsockopt(6, 31, b'tls')",
    ],
)
def test_no_other_way_leads_out(make_egress: MakeEgress, attempt: str) -> None:
    """Sockets of the run end in its own network namespace, and few sorts of them can be made at all."""
    with raw_server(ok()) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        tried = attempt.format(port=server.port)
        script = f"import socket\ntry:\n    {tried}\nexcept OSError as error:\n    result = error.errno"
        assert value_of(box.run(script)) in (1, 13, 97, 101, 111), attempt
        assert 0 == server.connections


@pytest.mark.privilege("both runs and the worker are one user")
def test_a_run_reaches_no_other_runs_proxy(make_egress: MakeEgress) -> None:
    """Each listens in a network namespace of its own: what one may reach says nothing for the other."""
    with raw_server(ok()) as server:
        names = Names(a_test=[["127.0.0.1"]])
        make_egress(f"a.test:{server.port}", names=names)
        other = make_egress(f"b.test:{server.port}", names=names)
        assert "host_not_allowed" == refused(other, f"http://a.test:{server.port}/", server)


# -- what the proxy reads


@pytest.mark.parametrize(
    "request_",
    [
        "GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "GET http://allowed.test:{port}/\0x HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET http://other.test\0.allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET http://user:pass@allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET http://allowed.test:{port}/ HTTP/1.1\nHost: allowed.test:{port}\n\n",
        "GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n folded: x\r\n\r\n",
        "GET http://allowed.test:{port}/ HTTP/1.1\r\nHost : allowed.test:{port}\r\n\r\n",
        "GET  http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET file:///etc/passwd HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
        "GET gopher://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        (
            "POST http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\nContent-Length: 3\r\n"
            "Content-Length: 4\r\n\r\nabcd"
        ),
        (
            "POST http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\nContent-Length: 3\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        (
            "POST http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n"
            "Transfer-Encoding: gzip, chunked\r\n"
            "\r\n0\r\n\r\n"
        ),
        "POST http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\nContent-Length: +3\r\n\r\nabc",
        "TRACE http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "CONNECT allowed.test HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
        "GET http://allowed.test:0{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "GET http://älloved.test:{port}/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00",
        "A" * 70000,
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(make_egress: MakeEgress, request_: str) -> None:
    """Before a name is looked up: the host that the policy grants sees nothing of it either."""
    with raw_server(ok()) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        box = make_egress(f"allowed.test:{server.port}", names=names)
        answer = value_of(box.run(TALK, request_.replace("{port}", str(server.port))))
        assert answer.startswith(("HTTP/1.1 400", "HTTP/1.1 431")), answer
        assert "X-Egress-Decision: " in answer
        assert (0, []) == (server.connections, names.asked)


def test_a_smuggled_second_request_is_not_passed_on(make_egress: MakeEgress) -> None:
    """The proxy drops bytes after the announced body, and each connection carries one request."""
    with raw_server(ok()) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        head = f"POST http://allowed.test:{server.port}/ HTTP/1.1\r\nHost: allowed.test:{server.port}\r\n"
        smuggled = f"GET http://allowed.test:{server.port}/admin HTTP/1.1\r\nHost: allowed.test:{server.port}\r\n\r\n"
        answer = value_of(box.run(TALK, f"{head}Content-Length: 0\r\n\r\n{smuggled}"))
        assert 1 == answer.count("HTTP/1.1 200")
        assert 1 == server.connections
        assert b"admin" not in b"".join(server.received)


def test_headers_for_the_proxy_alone_are_not_passed_on(make_egress: MakeEgress) -> None:
    """Nor those that its own connection names."""
    with raw_server(ok()) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        request = (
            f"GET http://allowed.test:{server.port}/ HTTP/1.1\r\nHost: allowed.test:{server.port}\r\nX-Kept: 1\r\n"
            "Proxy-Authorization: Basic c2VjcmV0\r\nConnection: x-secret, close\r\nX-Secret: 1\r\nUpgrade: h2c\r\n\r\n"
        )
        assert value_of(box.run(TALK, request)).startswith("HTTP/1.1 200")
        (head,) = server.received
        assert b"X-Kept: 1" in head
        for secret in (b"c2VjcmV0", b"X-Secret", b"Upgrade"):
            assert secret not in head


@pytest.mark.parametrize(
    "greeting", ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\x00\x04\x02\x00\x00\x00"]
)
def test_only_tls_follows_connect(make_egress: MakeEgress, greeting: str) -> None:
    """A tunnel for anything else would be a way past every check of requests."""
    with raw_server(ok()) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        connect = f"CONNECT allowed.test:{server.port} HTTP/1.1\r\nHost: allowed.test:{server.port}\r\n\r\n{greeting}"
        result = box.run(TALK.replace("proxy.recv(65536)", "(proxy.recv(65536) if True else b'')"), connect)
        assert ("allowed.test", "not_tls", 1) in rows(result)
        assert [] == [head for head in server.received if head]


def test_a_tunnel_that_asks_for_another_name_is_cut(make_egress: MakeEgress) -> None:
    """Domain fronting: CONNECT to one name, TLS to another on the same address."""
    authority = trustme.CA()
    with tls_server(authority.issue_cert("hidden.test")) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        script = """
import socket, ssl
proxy = socket.create_connection(("127.0.0.1", 3128))
proxy.sendall(f"CONNECT allowed.test:{args} HTTP/1.1\\r\\nHost: allowed.test:{args}\\r\\n\\r\\n".encode())
proxy.recv(65536)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    context.wrap_socket(proxy, server_hostname="hidden.test")
    result = "open"
except OSError as error:
    result = "cut"
"""
        result = box.run(script, server.port)
        assert "cut" == value_of(result)
        assert [("allowed.test", "name_mismatch", 1)] == rows(result)
        assert [] == server.received


# -- caps


def test_bytes_beyond_the_cap_are_not_received(make_egress: MakeEgress) -> None:
    """A bomb of a body is cut where the policy says, and the run cannot take it for whole."""
    with raw_server(ok(bytes(8 << 20))) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]), in_mib=1)
        script = (
            "import httpx\ntry:\n    httpx.get(args)\n    result = 'whole'\n"
            "except httpx.HTTPError as error:\n    result = type(error).__name__"
        )
        result = box.run(script, f"http://allowed.test:{server.port}/")
        assert value_of(result) in ("ReadError", "RemoteProtocolError")
        (row,) = result.usage.egress
        assert ("bytes_limit", True) == (row.decision, row.bytes_in <= (1 << 20) + 1)


def test_bytes_beyond_the_cap_are_not_sent(make_egress: MakeEgress) -> None:
    """A run cannot carry out more than its policy grants."""
    seen = threading.Event()

    def talk(sock: socket.socket, head: bytes) -> None:
        count = len(head)
        with contextlib.suppress(OSError):
            while part := sock.recv(65536):
                count += len(part)
        server.received.append(b"x" * count)
        seen.set()

    with raw_server(talk) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]), out_mib=1)
        script = (
            "import httpx\ntry:\n    result = httpx.post(args, content=bytes(4 << 20)).status_code\n"
            "except httpx.HTTPError as error:\n    result = 0"
        )
        result = box.run(script, f"http://allowed.test:{server.port}/")
        assert value_of(result) in (0, 413)
        assert "bytes_limit" == result.usage.egress[0].decision
        assert seen.wait(5)
        assert len(server.received[-1]) <= 1 << 20


def test_connections_beyond_the_cap_are_refused(make_egress: MakeEgress) -> None:
    """In total and at once; the rest is served."""
    with raw_server(ok()) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        box = make_egress(f"allowed.test:{server.port}", names=names, connections=2, connections_total=5)
        script = (
            "import urllib.request, urllib.error\nresult = []\nfor _ in range(8):\n    try:\n"
            "        result.append(urllib.request.urlopen(args).status)\n"
            "    except urllib.error.HTTPError as error:\n        result.append(error.code)\n"
        )
        result = box.run(script, f"http://allowed.test:{server.port}/")
        assert [200] * 5 + [429] * 3 == value_of(result)
        assert 5 == server.connections
        assert ("", "too_many_connections", 3) in rows(result)


@pytest.mark.parametrize("part", ["nothing", "half a head"])
def test_a_host_that_is_slow_to_answer_is_given_up(make_egress: MakeEgress, part: str) -> None:
    """A slow trickle of a head counts as no head."""
    release = threading.Event()

    def talk(sock: socket.socket, head: bytes) -> None:
        if part == "half a head":
            sock.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        release.wait(15)

    with raw_server(talk) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        box = make_egress(f"allowed.test:{server.port}", names=names, first_byte_s=0.5, total_s=5.0)
        result = box.run(FETCH, f"http://allowed.test:{server.port}/")
        release.set()
        assert [504, "timeout"] == value_of(result)


def test_an_endless_body_ends_with_the_connections_time(make_egress: MakeEgress) -> None:
    """Drop by drop it would go on for ever."""
    release = threading.Event()

    def talk(sock: socket.socket, head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not release.wait(0.05):
            sock.sendall(b"x")

    with raw_server(talk) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        box = make_egress(f"allowed.test:{server.port}", names=names, first_byte_s=0.5, total_s=1.0)
        script = (
            "import urllib.request\ntry:\n    urllib.request.urlopen(args).read()\n    result = 'whole'\n"
            "except OSError as error:\n    result = 'cut'"
        )
        result = box.run(script, f"http://allowed.test:{server.port}/")
        release.set()
        assert ("cut", "timeout") == (value_of(result), result.usage.egress[0].decision)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40000 + b"\r\n\r\n",
        b"",
    ],
    ids=["two lengths", "length and chunks", "bare LF", "switching", "nonsense", "huge head", "nothing"],
)
def test_an_answer_that_can_be_read_in_two_ways_is_refused(make_egress: MakeEgress, answer: bytes) -> None:
    """The run gets one reading or none."""
    with raw_server(answer) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        assert [502, "bad_response"] == value_of(box.run(FETCH, f"http://allowed.test:{server.port}/"))


def test_an_answer_that_breaks_off_is_not_taken_for_whole(make_egress: MakeEgress) -> None:
    """Five bytes of ten: an error inside, not a short page."""
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello") as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        script = (
            "import urllib.request, http.client\ntry:\n    urllib.request.urlopen(args).read()\n    result = 'whole'\n"
            "except (OSError, http.client.HTTPException) as error:\n    result = 'broken'"
        )
        assert "broken" == value_of(box.run(script, f"http://allowed.test:{server.port}/"))


def test_a_run_that_floods_its_proxy_holds_up_no_other(make_egress: MakeEgress) -> None:
    """Ten thousand connections, silent or with a head that never ends; the other run's are served."""
    with raw_server(ok(b"served")) as server:
        names = Names(allowed_test=[["127.0.0.1"]])
        flooding = make_egress(f"allowed.test:{server.port}", names=names)
        other = make_egress(f"allowed.test:{server.port}", names=names)
        script = (
            "import socket\nkept = []\nfor number in range(args):\n    one = socket.socket()\n"
            "    one.setblocking(False)\n    try:\n        one.connect(('127.0.0.1', 3128))\n"
            "    except BlockingIOError:\n        pass\n"
            "    kept = (kept + [one])[-60:]\n    try:\n        number % 2 and one.send(b'GET http://a')\n"
            "    except OSError:\n        pass\nresult = number + 1"
        )
        answers = []
        thread = threading.Thread(target=lambda: answers.append(flooding.run(script, 10_000)))
        thread.start()
        for _ in range(10):
            assert [200, "served"] == value_of(other.run(FETCH, f"http://allowed.test:{server.port}/"))
        thread.join(60)
        assert 10_000 == value_of(answers[0])
        assert {"", "(others)"} >= {row.host for row in answers[0].usage.egress}
        assert 10 == server.connections


def test_the_proxys_own_environment_changes_nothing(make_egress: MakeEgress, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy or a netrc of the worker's is not for runs: what was checked is dialled directly."""
    with raw_server(ok()) as server, raw_server(ok(b"elsewhere")) as elsewhere:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        assert [200, "hello"] == value_of(box.run(FETCH, f"http://allowed.test:{server.port}/"))
        assert (1, 0) == (server.connections, elsewhere.connections)


# -- the run and the proxy end together


@pytest.mark.privilege("the worker ends the run and its proxy by the rights of one user")
def test_connections_end_with_the_run(make_egress: MakeEgress) -> None:
    """A host that a killed run was talking to sees the end at once, and nothing stays open here."""
    talking, ended = threading.Event(), threading.Event()

    def talk(sock: socket.socket, head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        talking.set()
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass
        ended.set()

    with raw_server(talk) as server:
        box = make_egress(f"allowed.test:{server.port}", names=Names(allowed_test=[["127.0.0.1"]]))
        url = f"http://allowed.test:{server.port}/"
        talks, result = box.while_running(BUSY + FETCH, lambda _pid: talking.wait(PATIENCE_S), url, then="cancel")
        assert (True, ExitReason.CANCELLED) == (talks, result.exit_reason)
        assert [("allowed.test", "allowed", 1)] == rows(result)
        assert ended.wait(PATIENCE_S)
        assert eventually(box.at_rest)


def test_a_policy_without_hosts_has_no_proxy(box: Sandbox) -> None:
    """Nothing listens, and no socket can be made to find that out."""
    result = box.run("import socket\ntry:\n    socket.socket()\nexcept OSError as error:\n    result = error.errno")
    assert 1 == value_of(result)
    assert () == result.usage.egress


def test_the_unprivileged_profile_refuses_a_policy_with_hosts(
    light_policy: Policy, host: Host, template: Template
) -> None:
    """Landlock's rule names a port and no address: the way would be open to that port of any host."""
    network = msgspec.structs.replace(light_policy.network, allow=("allowed.test:443",), **CAPS)
    policy = msgspec.structs.replace(light_policy, network=network, require=("landlock", "seccomp", "rlimits"))
    weaker = msgspec.structs.replace(host, profile="unprivileged")

    async def start() -> None:
        await Pool(policy, weaker, template).start()

    box = Sandbox(light_policy, host, template, ready=0)
    try:
        with pytest.raises(HostError, match="grants network"):
            box.do(start())
    finally:
        box.close()
