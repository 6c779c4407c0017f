"""The seccomp profile for containers: ``full`` works under it, each opening is needed, and none is wider than that.

The profile is put over a real worker by the kernel, as runc would, and the worker is an ordinary user. The container
itself is tried by ``make image-test``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import container_seccomp
from tests.support.container_seccomp import openings, read, read_docker_default
from tests.support.remote_worker import worker

NAMES = [opening["names"][0] for opening in openings(read())]
LEND = next(number for number, opening in enumerate(openings(read())) if "CLONE_NEWNET" in opening["comment"])
NEEDED = [number for number, name in enumerate(NAMES) if name != "sethostname" and number != LEND]
ASK = "import os\nresult = os.uname().nodename"

CALLS = """
import ctypes, os, sys
sys.path[:0] = {path!r}
import json, pyseccomp
from tests.support import container_seccomp
container_seccomp.apply(json.loads(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    failed = libc.syscall(ctypes.c_long(number), *arguments) < 0
    return os.strerror(ctypes.get_errno()) if failed else "done"
print(json.dumps({calls}))
"""


def test_full_isolation_works_under_it() -> None:
    """An ordinary user's worker has every layer, and runs see nothing of the host's name."""
    with worker(seccomp=read(), isolation="full") as remote:
        assert [] == remote.probe()["missing"]
        assert "started" == remote.start()
        result = remote.run(script=ASK)
        assert ("ok", "sandbox") == (result["exit_reason"], result["value"])


@pytest.mark.parametrize("number", NEEDED, ids=lambda number: f"{number}-{NAMES[number]}")
def test_each_opening_is_needed(number: int) -> None:
    """Without any one of them no sandbox starts, and nothing runs in a weaker one."""
    with worker(seccomp=read(without=(number,)), isolation="full") as remote:
        assert "started" != remote.start()


def test_without_sethostname_all_works_but_the_name() -> None:
    """As under Podman's default profile."""
    with worker(seccomp=read(without=(NAMES.index("sethostname"),)), isolation="full") as remote:
        assert "started" == remote.start()
        result = remote.run(script=ASK)
        assert "ok" == result["exit_reason"]
        assert "sandbox" != result["value"]


def test_without_setns_into_networks_each_run_makes_its_own() -> None:
    """As under the profile of an earlier version: slower, and as tight."""
    with worker(seccomp=read(without=(LEND,)), isolation="full") as remote:
        assert "started" == remote.start()
        assert "ok" == remote.run(script=ASK)["exit_reason"]


def test_under_dockers_default_profile_only_unprivileged_works() -> None:
    """`full` does not start there and says why; `unprivileged` runs tasks."""
    with worker(seccomp=read_docker_default()) as remote:
        refused = remote.start(isolation="full")
        assert "HostError" == refused[0]
        assert "seccomp profile" in refused[1]
        assert "started" == remote.start(isolation="unprivileged")
        assert "ok" == remote.run(script="result = 6 * 7")["exit_reason"]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("call('unshare', 0x02000000)", "Operation not permitted"),  # CLONE_NEWCGROUP
        ("call('unshare', 0x80)", "Operation not permitted"),  # CLONE_NEWTIME
        ("call('unshare', 0)", "done"),  # and what passes reaches the kernel
        ("call('setns', -1, 0)", "Operation not permitted"),  # any sort
        ("call('setns', -1, 0x10000000)", "Operation not permitted"),  # CLONE_NEWUSER
        ("call('setns', -1, 0x20000000)", "Bad file descriptor"),
        ("call('setns', -1, 0x40000000)", "Bad file descriptor"),
        ("call('mount', 0, 0, 0, 32 | 4096, 0)", "Operation not permitted"),  # MS_REMOUNT | MS_BIND
        ("call('mount', 0, 0, 0, 8192, 0)", "Operation not permitted"),  # MS_MOVE
        ("call('mount', 0, 0, 0, 4096, 0)", "Bad address"),
        ("call('umount2', b'/nothing', 0)", "Operation not permitted"),  # without MNT_DETACH
        ("call('clone', 0x10000000 | 17, 0, 0, 0, 0)", "Operation not permitted"),  # CLONE_NEWUSER
        ("call('clone3', 0, 0)", "Function not implemented"),  # glibc then takes clone
        ("call('bpf', 0, 0, 0)", "Operation not permitted"),
        ("call('io_uring_setup', 1, 0)", "Operation not permitted"),
        ("call('move_mount', 0, 0, 0)", "Operation not permitted"),
    ],
)
def test_openings_are_no_wider_than_needed(call: str, answer: str) -> None:
    """The profile refuses every other use of these calls, before any question of capabilities."""
    path = [str(Path(container_seccomp.__file__).parents[2])]
    script = CALLS.format(path=path, calls=call)
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(read())], capture_output=True, text=True, check=False
    )
    assert "" == ran.stderr
    assert answer == json.loads(ran.stdout)


def test_every_opening_says_what_it_is_for() -> None:
    """One call and one sentence each; nothing conditional, because not every runtime understands that."""
    profile = read()
    for opening in openings(profile):
        assert 1 == len(opening["names"])
        assert opening["comment"].endswith(".")
    keys: set[Any] = {key for rule in profile["syscalls"] for key in rule}
    assert {"names", "action", "args", "errnoRet", "comment"} == keys
