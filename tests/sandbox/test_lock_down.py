"""The state of a locked child, as it sees itself and as the host's kernel sees it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.inside import child
from sandbox.isolation import mounts
from sandbox.pool.template import environment
from tests.support.synchronous import BUSY, Sandbox, status_of, value_of

pytestmark = pytest.mark.privilege(
    "it gives up root where there is root, and has an ordinary user's way into namespaces otherwise"
)

WAIT = BUSY + "import time\ntime.sleep(0.4)\nresult = 1"


def test_environment_is_the_allow_list_and_nothing_else(box: Sandbox) -> None:
    """Names and values, exactly."""
    expected = environment(zones=mounts.ZONES, places={"scripts": "/scripts"})
    assert expected == value_of(box.run("import os; result = dict(os.environ)"))


def test_descriptors_are_four(box: Sandbox) -> None:
    """stdin, stdout, stderr and the response; all of them pipes."""
    script = """
import os, stat
found = {}
for fd in range(1024):
    try:
        found[fd] = stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        pass
result = found
"""
    assert dict.fromkeys("0123", True) == value_of(box.run(script))


def test_identity_and_place(box: Sandbox) -> None:
    """Pid 1 of its own namespace, an ordinary user, a name that says nothing, its own folder."""
    script = """
import os
result = [os.getpid(), os.getppid(), os.getuid(), os.getgid(), os.getgroups()]
result += [os.uname().nodename, os.getcwd(), os.umask(0)]
"""
    pid, parent, uid, gid, groups, host, folder, mask = value_of(box.run(script))
    assert (1, 0, 1000, 1000, "sandbox", "/work", 0o077) == (pid, parent, uid, gid, host, folder, mask)
    assert set(groups) <= {1000, 65534}


def test_the_root_holds_what_the_mounts_file_says(box: Sandbox) -> None:
    """Nothing of the host beside it."""
    script = "import os\nresult = {name: os.path.exists('/' + name) for name in args}"
    there = ["python", "app", "scripts", "dev", "work", "tmp", "etc"]
    absent = ["proc", "sys", "home", "root", "var", "run", "boot", "mnt", "opt", "srv", ".old"]
    assert dict.fromkeys(there, True) | dict.fromkeys(absent, False) == value_of(box.run(script, there + absent))


def test_the_kernel_says_that_it_is_locked(box: Sandbox) -> None:
    """No capability in any set, no new privileges, a filter, one thread, another user than ours when we are root."""
    status, _ = box.while_running(WAIT, status_of)
    assert {"0" * 16} == {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert ("1", "2") == (status["NoNewPrivs"], status["Seccomp"])
    outer = "60999" if os.geteuid() == 0 else str(os.geteuid())
    assert [outer] * 4 == status["Uid"].split()
    assert "1" == status["NSpid"].split()[-1]


def test_every_namespace_is_its_own(box: Sandbox) -> None:
    """None of the six is ours, and none is the ready neighbour's."""

    def namespaces(pid: int) -> dict[str, str]:
        names = ("user", "mnt", "pid", "net", "ipc", "uts")
        return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}

    def compare(pid: int) -> tuple[set[str], set[str]]:
        mine, ours = namespaces(pid), namespaces(os.getpid())
        (neighbour, *_) = [other for other in box.pool.ready_pids() if other != pid]
        return set(mine.values()) & set(ours.values()), set(mine.values()) & set(namespaces(neighbour).values())

    (shared_with_us, shared_with_neighbour), _ = box.while_running(WAIT, compare)
    assert (set(), set()) == (shared_with_us, shared_with_neighbour)


def test_mounts_of_a_child_are_read_only_but_for_the_workspace(box: Sandbox) -> None:
    """Each mount but /work is read-only, without set-user-id and without devices that act."""
    text, _ = box.while_running(WAIT, lambda pid: Path(f"/proc/{pid}/mounts").read_text(encoding="utf-8"))
    mounts = [line.split() for line in text.splitlines()]
    writable = {point for _, point, _, options, *_ in mounts if "ro" not in options.split(",")}
    assert {"/work"} == writable
    assert all("nosuid" in options.split(",") for _, _, _, options, *_ in mounts)
    (work,) = [options.split(",") for _, point, _, options, *_ in mounts if point == "/work"]
    assert {"noexec", "nodev", "nosuid"} <= set(work)


def test_the_order_of_the_steps_is_the_security_argument() -> None:
    """Namespaces before the privileges go, Landlock before the descriptors go, the filter last."""
    names = list(child.lock_down.__code__.co_consts)
    order = [name for name in names if name in (
        "enter_namespaces", "mount_workspace", "limit_resources", "drop_capabilities", "forbid_new_privileges",
        "restrict_by_landlock", "close_descriptors", "filter_syscalls_and_report_ready",
    )]  # fmt: skip
    assert [
        "enter_namespaces", "mount_workspace", "limit_resources", "drop_capabilities", "forbid_new_privileges",
        "restrict_by_landlock", "close_descriptors", "filter_syscalls_and_report_ready",
    ] == order  # fmt: skip


def test_zygotes_have_no_secret_environment(box: Sandbox) -> None:
    """The zygote's environment has nothing of the worker's."""
    for pid in box.zygote_pids():
        try:
            text = Path(f"/proc/{pid}/environ").read_bytes().decode()
        except PermissionError:
            assert os.geteuid() != 0
            continue
        names = {entry.partition("=")[0] for entry in text.split("\0") if entry}
        assert names <= set(environment(zones=mounts.ZONES, places={"scripts": "/scripts"}))
