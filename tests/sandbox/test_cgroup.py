"""A cgroup of its own for each child: where the subtree is found, what is written, what is read of it.

Whether a kernel does what was written is for ``make cgroup-test``, on a host that delegates a subtree.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import probe_host
from sandbox.run.cgroup import LEAF, CgroupUnavailableError, Groups, RunGroup, find_subtree

MOUNT = "30 24 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def make_proc(folder: Path, own: str, *, root: str = "/", controllers: str = "cpu memory pids") -> Path:
    """A /proc and a hierarchy with one cgroup, all of which the caller may write."""
    proc, point = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text(
        "22 1 8:1 / / rw - ext4 /dev/x rw\n" + MOUNT.format(root=root, point=point), encoding="utf-8"
    )
    (proc / "self/cgroup").write_text(f"4:memory:/old\n0::{own}\n", encoding="utf-8")
    group = point.joinpath(*Path(own).relative_to(root).parts)
    group.mkdir(parents=True)
    for at in {group, group.parent if group.name == LEAF else group}:
        (at / "cgroup.controllers").write_text(controllers + "\n", encoding="ascii")
        (at / "cgroup.procs").write_text("", encoding="ascii")
    return proc


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be an ordinary user, for whom a subtree that can be written is a delegated one."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize(
    ("own", "root", "expected"),
    [
        ("/system.slice/unityai.service", "/", "system.slice/unityai.service"),
        (f"/system.slice/unityai.service/{LEAF}", "/", "system.slice/unityai.service"),
        ("/kubepods/pod1/abc", "/kubepods/pod1/abc", "."),
    ],
    ids=["a unit", "its leaf, from a worker before", "a container"],
)
def test_the_subtree_is_the_cgroup_of_the_service(tmp_path: Path, own: str, root: str, expected: str) -> None:
    """Not the leaf into which an earlier process of the service has moved all of them."""
    assert (tmp_path / "cgroup" / expected).resolve() == find_subtree(make_proc(tmp_path, own, root=root)).resolve()


@pytest.mark.usefixtures("ordinary")
def test_a_missing_controller_is_named(tmp_path: Path) -> None:
    """As where version 1 still has the memory controller."""
    with pytest.raises(CgroupUnavailableError, match="has no controller memory"):
        find_subtree(make_proc(tmp_path, "/a", controllers="cpu pids"))


def test_root_takes_no_cgroup_that_nobody_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere: that is no leave to rearrange a login session."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(CgroupUnavailableError, match="is not delegated"):
        find_subtree(make_proc(tmp_path, "/user.slice/session-1.scope"))


def test_a_host_without_version_2_says_so(tmp_path: Path) -> None:
    """No mount of that type."""
    proc = make_proc(tmp_path, "/a")
    (proc / "self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/x rw\n", encoding="utf-8")
    with pytest.raises(CgroupUnavailableError, match="no cgroup v2 hierarchy is mounted"):
        find_subtree(proc)


def test_all_processes_move_into_the_leaf_before_controllers_are_handed_down(tmp_path: Path) -> None:
    """A cgroup with processes in it cannot have controllers for others."""
    (tmp_path / "cgroup.procs").write_text("12\n34\n", encoding="ascii")
    (tmp_path / LEAF).mkdir()
    (tmp_path / LEAF / "cgroup.procs").write_text("", encoding="ascii")
    Groups(tmp_path).take_over()
    assert "34" == (tmp_path / LEAF / "cgroup.procs").read_text(encoding="ascii")
    assert "+memory +pids" == (tmp_path / "cgroup.subtree_control").read_text(encoding="ascii")


def test_a_group_has_every_limit_before_a_process_is_in_it(tmp_path: Path) -> None:
    """Memory, tasks, and that all of it ends together."""
    Groups(tmp_path).make(memory_bytes=64 << 20, tasks=33)
    (folder,) = tmp_path.iterdir()
    written = {file.name: file.read_text(encoding="ascii") for file in folder.iterdir()}
    assert {"memory.max": str(64 << 20), "memory.oom.group": "1", "pids.max": "33"} == written


def test_a_group_has_the_time_of_so_many_processors(tmp_path: Path) -> None:
    """cpu.max, in microseconds of each tenth of a second; the controller is handed down where it is delegated."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n", encoding="ascii")
    (tmp_path / "cgroup.procs").write_text("", encoding="ascii")
    Groups(tmp_path).take_over()
    assert "+memory +pids +cpu" == (tmp_path / "cgroup.subtree_control").read_text(encoding="ascii")
    Groups(tmp_path).make(memory_bytes=64 << 20, tasks=33, processors=0.5)
    (limit,) = tmp_path.glob("*/cpu.max")
    assert "50000 100000" == limit.read_text(encoding="ascii")


def test_memory_is_all_but_the_cache_of_files(tmp_path: Path) -> None:
    """Pages of a tmpfs count as memory, pages of files on disk do not."""
    (tmp_path / "memory.current").write_text("1000\n", encoding="ascii")
    (tmp_path / "memory.peak").write_text("1500\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text("anon 200\nfile 700\nshmem 300\nsock 50\n", encoding="ascii")
    group = RunGroup(tmp_path)
    assert ((600, 50), 1100) == (group.held(), group.peak_bytes())


@pytest.mark.parametrize(
    ("stat", "kernel_bytes"),
    [
        ("anon 1\nfile 0\nshmem 0\nkernel 70\nkernel_stack 30\nslab 40\nsock 5\n", 75),
        ("anon 1\nfile 0\nshmem 0\nkernel_stack 30\nslab 40\nsock 5\n", 75),
    ],
    ids=["Linux 5.18", "before"],
)
def test_what_the_kernel_holds_for_a_run_counts(tmp_path: Path, stat: str, kernel_bytes: int) -> None:
    """Buffers of sockets and pipes are in no process's memory; each part counts once."""
    (tmp_path / "memory.current").write_text("100\n", encoding="ascii")
    (tmp_path / "memory.stat").write_text(stat, encoding="ascii")
    assert kernel_bytes == RunGroup(tmp_path).held().kernel_bytes


@pytest.mark.parametrize(("kills", "expected"), [(0, False), (1, True)])
def test_the_kernel_says_whether_it_ended_the_group(tmp_path: Path, kills: int, expected: bool) -> None:
    """memory.events, which nothing in the group can write."""
    (tmp_path / "memory.events").write_text(f"low 0\nmax 9\noom 1\noom_kill {kills}\n", encoding="ascii")
    assert expected is RunGroup(tmp_path).was_out_of_memory()


def test_check_shows_the_layer_and_how_to_get_it() -> None:
    """On a host that delegates nothing the layer is missing, with the reason and the fix."""
    (layer,) = (layer for layer in probe_host().layers if layer.name == "cgroup")
    assert layer.available or ("Delegate=cpu memory pids" in layer.fix and layer.detail)
