"""Real refusals of this kernel, and what ``probe_host`` makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import probe_host

pytestmark = pytest.mark.privilege("root is probed as another user, an ordinary user as itself")

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import msgspec, sys
from sandbox import probe_host
from sandbox.isolation import libc, namespaces, privileges, seccomp
from sandbox.isolation.prepared import Calls, at_once
def probe():
    print(msgspec.json.encode({layer.name: layer for layer in probe_host().layers}).decode())
"""
LISTENER = """
import pyseccomp
allow = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
allow.add_rule(pyseccomp.NOTIFY, "acct")  # a rule that notifies, so that a listener is made
at_once(privileges.forbid_new_privileges)
allow.load()
probe()
"""
NO_NETWORK_NAMESPACES = """
proc = namespaces.open_proc()
at_once(namespaces.enter, libc.CLONE_NEWUSER, proc_fd=proc, inner_uid=1000)
at_once(Calls.write_file, proc, "sys/user/max_net_namespaces", "0")
probe()
"""


NO_CAPABILITIES = """
at_once(privileges.drop_bounding_set)  # so that no program which it starts has any
probe()
"""
CHROOT = """
import os
at_once(namespaces.enter, libc.CLONE_NEWUSER | libc.CLONE_NEWNS, proc_fd=namespaces.open_proc(), inner_uid=1000)
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

FILTER = """
import errno, pyseccomp
refuse = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
refuse.add_rule(pyseccomp.ERRNO(errno.EPERM), "unshare")
at_once(privileges.forbid_new_privileges)
refuse.load()
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


def test_system_call_filter_is_named() -> None:
    """As a container's profile refuses it: by EPERM, which says nothing by itself."""
    assert "A system call filter is in force here" in probed(FILTER)["namespaces"]["fix"]


def test_root_without_capabilities_is_named(is_root: bool) -> None:
    """It cannot give root up; an ordinary user needs no capability."""
    if not is_root:
        assert probed("probe()")["namespaces"]["available"]
        return
    found = probed(NO_CAPABILITIES)["namespaces"]
    assert (False, "refused at become: Operation not permitted") == (found["available"], found["detail"])
    assert "start it as an ordinary user" in found["fix"]


def test_try_that_takes_too_long_is_a_missing_layer() -> None:
    """On a very slow machine; how long is a setting."""
    for layer in probe_host(try_s=1e-6).layers:
        if layer.name in ("namespaces", "landlock", "seccomp"):
            assert (False, "no answer within 1e-06 s") == (layer.available, layer.detail.strip())
