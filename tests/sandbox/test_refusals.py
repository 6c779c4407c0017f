"""Real refusals of this kernel, and what ``probe_host`` makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.privilege("root is probed as another user, an ordinary user as itself")

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import msgspec, sys
from sandbox import probe_host
from sandbox.isolation import libc, namespaces, privileges, seccomp
def probe():
    print(msgspec.json.encode({layer.name: layer for layer in probe_host().layers}).decode())
"""
LISTENER = """
import pyseccomp
allow = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
allow.add_rule(pyseccomp.NOTIFY, "acct")  # a rule that notifies, so that a listener is made
privileges.forbid_new_privileges()
allow.load()
probe()
"""
NO_NETWORK_NAMESPACES = """
proc = namespaces.open_proc()
namespaces.enter(libc.CLONE_NEWUSER, proc_fd=proc, inner_uid=1000)
namespaces._write(proc, "sys/user/max_net_namespaces", "0")
probe()
"""


CHROOT = """
import os
namespaces.enter(libc.CLONE_NEWUSER | libc.CLONE_NEWNS, proc_fd=namespaces.open_proc(), inner_uid=1000)
for name in os.listdir("/"):
    inside = f"{sys.argv[1]}/{name}"
    if os.path.islink(f"/{name}"):
        os.symlink(os.readlink(f"/{name}"), inside)
    elif os.path.isdir(f"/{name}"):
        os.mkdir(inside)
        libc.mount(f"/{name}".encode(), inside.encode(), b"", 0x1000 | 0x4000)  # MS_BIND | MS_REC
os.chroot(sys.argv[1])
os.chdir("/")
probe()
"""


def probed(program: str, *arguments: str) -> dict[str, Any]:
    """The layers that a process finds which has first done to itself what ``program`` says."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_listener_that_is_there_already_is_found_at_seccomp() -> None:
    """The kernel allows one: every run would fail, so the layer is missing."""
    found = probed(LISTENER)["seccomp"]
    assert (False, "refused at install: Device or resource busy") == (found["available"], found["detail"])
    assert "one listener" in found["fix"]


def test_count_of_namespaces_that_is_zero_is_named() -> None:
    """Which of the six it is."""
    found = probed(NO_NETWORK_NAMESPACES)["namespaces"]
    assert (False, "refused at unshare: No space left on device") == (found["available"], found["detail"])
    assert "Set `sysctl user.max_net_namespaces=10000`." == found["fix"]


def test_positive_control_has_both_layers() -> None:
    """A process that has done nothing to itself."""
    found = probed("probe()")
    assert (True, True) == (found["seccomp"]["available"], found["namespaces"]["available"])


def test_chroot_is_named(tmp_path: Path) -> None:
    """The same files, seen from a chroot: no user namespace comes there."""
    assert "chroot" in probed(CHROOT, str(tmp_path))["namespaces"]["fix"]
