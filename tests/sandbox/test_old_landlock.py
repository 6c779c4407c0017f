"""``full`` isolation on kernels with an older Landlock: ABI 4 (Linux 6.8), 2 (6.1) and 1 (5.15). Other layers hold.

What an old ABI does not cover, sandbox/README.md says; a run meets the same refusals, by another layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import msgspec
import pytest

import sandbox
from tests.support.synchronous import Sandbox, value_of
from tests.support.web import Names, ok, raw_server

CAPS = {"connections": 8, "connections_total": 8, "in_mib": 1, "out_mib": 1, "head_kib": 16, "first_byte_s": 20.0,
        "total_s": 60.0}  # fmt: skip

ATTEMPTS = """
import ctypes, errno, os, socket
found = {}
def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
open("kept", "w").write("x" * 10)
os.makedirs("one"); os.makedirs("two")
open("one/file", "w").close()
attempt("write below the workspace", lambda: open("two/new", "w").close())
attempt("cut a file of the workspace", lambda: os.truncate("kept", 1))
attempt("rename within a folder", lambda: os.rename("kept", "renamed"))
attempt("rename between folders", lambda: os.rename("one/file", "two/file"))
attempt("read a file that is not shown", lambda: open("/etc/shadow").close())
attempt("cut a script of the service", lambda: os.truncate("/scripts/data_analysis.py", 0))
attempt("write to the root", lambda: open("/new", "w").close())
attempt("make a socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt("make an abstract socket", lambda: socket.socket(socket.AF_UNIX).bind("\\0name"))
attempt("signal all others", lambda: os.kill(-1, 0))
result = found
"""
HELD = {
    "write below the workspace": {"done"},
    "cut a file of the workspace": {"done"},
    "rename within a folder": {"done"},
    "read a file that is not shown": {"ENOENT"},
    "cut a script of the service": {"EROFS", "EACCES", "EPERM"},
    "write to the root": {"EROFS", "EACCES"},
    "make a socket": {"EPERM", "EACCES", "EAFNOSUPPORT"},
    "make an abstract socket": {"EPERM", "EACCES", "EAFNOSUPPORT"},
    "signal all others": {"EPERM", "ESRCH"},
}


@pytest.fixture(scope="module", params=[4, 2, 1], ids=lambda abi: f"ABI-{abi}")
def old(
    request: pytest.FixtureRequest, light_policy: sandbox.Policy, template: sandbox.Template
) -> Iterator[tuple[Sandbox, int]]:
    """A pool of ``full`` isolation that uses no later Landlock than this, and the ABI."""
    box = Sandbox(light_policy, sandbox.probe_host(landlock_abi_max=request.param), template, ready=1)
    yield box, request.param
    box.close()


def test_full_holds_under_an_older_landlock(old: tuple[Sandbox, int]) -> None:
    """The result names the ABI; what Landlock does not refuse there, another layer does. ABI 1 refuses renames."""
    box, abi = old
    result = box.run(ATTEMPTS)
    found = value_of(result)
    assert ("full", True) == (result.isolation.profile, result.isolation.layers["landlock"].startswith(f"ABI {abi}"))
    assert ("EXDEV" if abi == 1 else "done") == found.pop("rename between folders")
    assert {} == {name: errno for name, errno in found.items() if errno not in HELD[name]}


WAYS_OUT = """
import errno, socket, urllib.request
found = {"by the proxy": urllib.request.urlopen(args["url"]).read().decode()}
for name, address in args["around"].items():
    try:
        socket.create_connection(tuple(address), 2).close()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
result = found
"""


@pytest.mark.parametrize("abi", [4, 3, 1])
def test_only_way_out_is_the_proxy_under_an_older_landlock(
    light_policy: sandbox.Policy, template: sandbox.Template, abi: int
) -> None:
    """Below ABI 4 Landlock is not asked (EACCES); then the network namespace alone leads nowhere, and must."""
    with raw_server(ok(b"a page")) as server:
        network = msgspec.structs.replace(light_policy.network, allow=(f"allowed.test:{server.port}",), **CAPS)
        policy = msgspec.structs.replace(light_policy, network=network)
        outside = msgspec.structs.replace(template, egress_exceptions=(ip_network("127.0.0.0/8"),))
        host = sandbox.probe_host(landlock_abi_max=abi)
        box = Sandbox(policy, host, outside, ready=0, resolve=Names(allowed_test=[["127.0.0.1"]]))
        around = {"to the host": ["127.0.0.1", server.port], "to another address": ["10.0.0.1", 3128]}
        try:
            found = value_of(box.run(WAYS_OUT, {"url": f"http://allowed.test:{server.port}/", "around": around}))
        finally:
            box.close()
        assert ("a page", 1) == (found.pop("by the proxy"), server.connections)
    closed = {"to the host": "EACCES", "to another address": "ENETUNREACH"}
    closed |= {} if abi >= 4 else {"to the host": "ECONNREFUSED"}
    assert closed == found
