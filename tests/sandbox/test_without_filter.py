"""What still holds when the system call filter is gone: the second layer behind it, in one pool without the filter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import sandbox
from sandbox.pool.make_plan import lends_network
from tests.support.synchronous import HOLD, Sandbox, value_of

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.privilege(
    "it gives up root where there is root, and has an ordinary user's way into namespaces otherwise"
)


@pytest.fixture(scope="module")
def bare(light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template) -> Any:
    """A pool whose children have no filter; two at hand."""
    box = Sandbox(light_policy, host, template, ablated=("filter_syscalls",))
    yield box
    box.close()


def test_no_namespace_can_be_made(bare: Sandbox) -> None:
    """Each kind but user takes CAP_SYS_ADMIN (EPERM); a user namespace takes one of the zero that are allowed."""
    script = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def attempt(flag):
    return "done" if libc.unshare(flag) == 0 else errno.errorcode[ctypes.get_errno()]
kinds = {"time": 0x80, "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
         "pid": 0x20000000, "net": 0x40000000, "user and net": 0x50000000}
result = {name: attempt(flag) for name, flag in kinds.items()}
"""
    expected = dict.fromkeys(("time", "mnt", "cgroup", "uts", "ipc", "pid", "net"), "EPERM")
    assert expected | {"user": "ENOSPC", "user and net": "ENOSPC"} == value_of(bare.run(script))


def test_the_network_that_a_run_has_is_nobody_elses_and_never_its_own(bare: Sandbox) -> None:
    """Beside a ready neighbour and ours it has another; it cannot bring the loopback up, and finds nothing on it.

    The zygote lends the same one to the next run, which finds it as empty.
    """
    script = (
        HOLD
        + """
import errno, fcntl, socket, struct
def attempt(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]
inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flags = lambda: struct.unpack_from("16sh", fcntl.ioctl(inet, 0x8913, b"lo".ljust(40, b"\\0")))[1] & 1
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 2)  # NETLINK_USERSOCK, on which programs talk
hold()
result = {
    "up": flags(),
    "bring up": attempt(lambda: fcntl.ioctl(inet, 0x8914, struct.pack("16sh22x", b"lo", 1))),
    "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "to itself": attempt(lambda: inet.sendto(b"x", ("127.0.0.1", 9))),
    "a listener's number": attempt(lambda: netlink.bind((77, 0))),
    "spoken to": attempt(lambda: netlink.sendto(b"x", (78, 0))),
}
"""
    )

    def networks(pid: int) -> list[str]:
        pids = [pid, os.getpid(), *(other for other in bare.pool.ready_pids() if other != pid)]
        return [os.readlink(f"/proc/{one}/ns/net") for one in pids]

    assert bare.settle()  # a neighbour is ready only then
    first, ended = bare.while_running(script, networks, then="release")
    assert len(first) == len(set(first)) > 2
    expected = {"up": 0, "bring up": "EPERM", "raw": "EPERM", "to itself": "ENETUNREACH"}
    assert expected | {"a listener's number": None, "spoken to": "ECONNREFUSED"} == value_of(ended)
    assert bare.settle()
    _, ended = bare.while_running(script, networks, then="release")
    assert expected | {"a listener's number": None, "spoken to": "ECONNREFUSED"} == value_of(ended)


@pytest.mark.parametrize("profile", ["full", "unprivileged"])
def test_second_thread_stops_the_lock_down(profile: str) -> None:
    """By the kernel's own check, and by a count where a container may refuse it. In a process with one thread more."""
    program = f"""
import threading
from types import SimpleNamespace
from sandbox.inside import child
from sandbox.isolation import namespaces
from sandbox.isolation.prepared import Calls, Prepared
plan = SimpleNamespace(profile={profile!r})
step = child.be_single_threaded(SimpleNamespace(plan=plan, proc_fd=namespaces.open_proc()))
act = Prepared([("be_single_threaded", step)]).make if isinstance(step, Calls) else step
act()  # alone it passes
leave = threading.Event()
threading.Thread(target=leave.wait).start()
try:
    act()
except (OSError, RuntimeError) as error:
    print(isinstance(step, Calls), error)
leave.set()
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    said = {
        "full": "True [Errno 22] more than one thread before the lock-down: Invalid argument\n",
        "unprivileged": "False 2 threads before the lock-down\n",
    }
    assert said[profile] == ended.stdout, ended.stderr


def test_network_is_a_runs_own_where_more_is_granted(light_policy: sandbox.Policy, host: sandbox.Host) -> None:
    """With egress, processes or further calls, and below Landlock ABI 6, nothing is lent."""
    policy, structs = light_policy, msgspec.structs
    assert lends_network(policy, structs.replace(host, profile="full", landlock_abi=6))
    assert not lends_network(policy, structs.replace(host, profile="full", landlock_abi=5))
    assert not lends_network(policy, structs.replace(host, profile="unprivileged", landlock_abi=6))
    for more in (
        {"network": structs.replace(policy.network, allow=("example.org:443",))},
        {"syscalls": structs.replace(policy.syscalls, profile="processes")},
        {"syscalls": structs.replace(policy.syscalls, allow=("socket",))},
    ):
        assert not lends_network(structs.replace(policy, **more), structs.replace(host, profile="full", landlock_abi=6))
