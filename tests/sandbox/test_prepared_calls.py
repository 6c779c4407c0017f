"""The lock-down as a list of prepared calls: made by the C part, or by a loop in Python, it comes to the same."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

import sandbox
from sandbox.inside.orders import DESCRIPTORS, EXIT, EXITED, FAILED, FORKED, HEAD, SPAWN, Orders
from sandbox.isolation import libc, privileges, rlimits
from sandbox.isolation.prepared import HAS_C_PART, WHATEVER, CallFailedError, Calls, Fork, Later, Prepared, at_once

if HAS_C_PART:
    from sandbox.isolation import _prepared  # type: ignore[attr-defined]
from tests.support.synchronous import HOLD, Sandbox, eventually, status_of, value_of

pytestmark = pytest.mark.privilege(
    "it gives up root where there is root, and has an ordinary user's way into namespaces otherwise"
)
WAYS = [pytest.param(True, id="in C"), pytest.param(False, id="in Python")]
IN_PYTHON = ("in_c",)
"""What is to be left out for that."""


def test_the_c_part_is_there_where_it_can_be_built() -> None:
    """With a C compiler and Python's headers the installation has made it: the fast way is the one that is tested."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    assert HAS_C_PART or not (shutil.which("cc") and headers.exists())


@pytest.fixture(scope="module", params=[(), IN_PYTHON], ids=["in C", "in Python"])
def other_box(
    request: pytest.FixtureRequest, light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template
) -> Iterator[Sandbox]:
    """A pool whose children are locked down in one of the two ways."""
    box = Sandbox(light_policy, host, template, ready=4, ablated=request.param)
    yield box
    box.close()


def state(pid: int) -> dict[str, Any]:
    """What the kernel says of a process's confinement: proc_pid_status(5), proc_pid_limits(5) and their like."""
    status = status_of(pid)
    folder = Path(f"/proc/{pid}")
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Threads")
    mounts = [line.split()[1:4] for line in (folder / "mounts").read_text(encoding="utf-8").splitlines()]
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts")
    return {
        "status": {name: status[name] for name in (*names, "Umask", "SigIgn", "SigCgt", "SigBlk")},
        "pid": status["NSpid"].split()[-1],
        "session": status["NSsid"].split()[-1],
        "limits": {
            line[:26].strip(): line[26:].split()[:2]
            for line in (folder / "limits").read_text(encoding="ascii").splitlines()[1:]
        },
        "mounts": mounts,
        "shared with us": [
            kind for kind in kinds if os.readlink(folder / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")
        ],
        "user": (folder / "uid_map").read_text(encoding="ascii").split()[0],
        "oom": (folder / "oom_score_adj").read_text(encoding="ascii"),
        "descriptors": sorted(os.listdir(folder / "fd")),
        "dumpable": os.stat(folder / "mem").st_uid,
    }  # fmt: skip


def test_both_ways_end_in_the_same_state(
    light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template
) -> None:
    """Privileges, limits, mounts, namespaces, descriptors, signals, as the kernel tells them of a run."""
    if os.geteuid() != 0:
        pytest.skip("the kernel tells nobody else of a process that cannot be dumped")
    found = []
    for ablated in ((), IN_PYTHON):
        box = Sandbox(light_policy, host, template, ready=1, ablated=ablated)
        try:
            found.append(box.while_running(HOLD + "hold()", state, then="release")[0])
        finally:
            box.close()
    in_c, in_python = found
    # what a zygote has mapped counts as there before, and is never the same to the byte
    for one in found:
        assert one["limits"].pop("Max data size")
        assert one["limits"].pop("Max address space")
    assert in_python == in_c
    assert [] == in_c["shared with us"]


def test_a_run_is_answered_in_both_ways(other_box: Sandbox) -> None:
    """Ready before, or forked for it, with and without a rehearsal."""
    results = other_box.run_many([("import os\nresult = [os.getpid(), os.getcwd()]", None)] * 12)
    assert [[1, "/work"]] * 12 == [value_of(one) for one in results]


def test_interrupts_are_as_pythons(other_box: Sandbox) -> None:
    """SIGINT raises KeyboardInterrupt, as in a fresh interpreter, although the zygote minds none."""
    script = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except KeyboardInterrupt:
    result = [signal.getsignal(signal.SIGINT) is signal.default_int_handler, "interrupted"]
"""
    assert [True, "interrupted"] == value_of(other_box.run(script))


def test_a_limit_below_what_is_loaded_is_no_run_without_an_answer(
    light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template, other_box: Sandbox
) -> None:
    """The limits are set before the interpreter has run: it has room for its first buffers all the same.

    Where the watchdog looks before so short a run is over, it is the limit that ends it.
    """
    ablated = other_box.pool._ablated
    policy = msgspec.structs.replace(light_policy, limits=msgspec.structs.replace(light_policy.limits, memory_mib=2))
    for ready in (0, 2):
        box = Sandbox(policy, host, template, ready=ready, ablated=ablated)
        try:
            small, large = box.run("result = 1"), box.run("taken = bytearray(30 << 20)\nresult = 1")
        finally:
            box.close()
        assert small.exit_reason in (sandbox.ExitReason.OK, sandbox.ExitReason.MEMORY_LIMIT), small
        assert sandbox.ExitReason.MEMORY_LIMIT is large.exit_reason


def test_what_waits_without_a_rehearsal_has_copied_few_pages(
    light_policy: sandbox.Policy, host: sandbox.Host, template: sandbox.Template
) -> None:
    """By the kernel's own count of page faults: of five ready children two have rehearsed, and three have not woken."""
    if not HAS_C_PART:
        pytest.skip("only the C part does without the interpreter")
    box = Sandbox(light_policy, host, template, ready=5)
    try:
        assert box.settle()
        assert eventually(lambda: len(box.pool.ready_pids()) == 5)
        # proc_pid_stat(5): the tenth field, minflt; the name in brackets has no space
        faults = sorted(int(Path(f"/proc/{pid}/stat").read_text().split()[9]) for pid in box.pool.ready_pids())
    finally:
        box.close()
    assert faults[2] * 4 < faults[3]


# ---- what one list does ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_c", WAYS)
def test_a_later_call_gets_what_an_earlier_one_returned(in_c: bool) -> None:
    """A descriptor from one call, in the next two."""
    calls = Calls()
    read, write = os.pipe()
    copy = calls.call("dup", "dup", write)
    calls.call("write", "write", copy, b"told", 4)
    calls.call("close", "close", copy)
    Prepared([("step", calls)], in_c=in_c).make()
    assert b"told" == os.read(read, 9)
    assert copy.value not in (-1, read, write)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("in_c", WAYS)
def test_the_first_failure_ends_the_list_and_names_its_step(in_c: bool) -> None:
    """What comes after it is not made."""
    first, second = Calls(), Calls()
    first.call("dup", "dup", os.open(os.devnull, os.O_RDONLY))
    second.call("close the unopened", "close", 9999)
    never = second.call("dup", "dup", 1)
    with pytest.raises(CallFailedError, match="close the unopened: Bad file descriptor") as caught:
        Prepared([("one", first), ("two", second)], in_c=in_c).make()
    assert ("two", errno.EBADF) == (caught.value.step, caught.value.errno)
    assert 0 == never.value


@pytest.mark.parametrize("in_c", WAYS)
@pytest.mark.parametrize(("forgiven", "is_forgiven"), [(errno.EBADF, True), (WHATEVER, True), (errno.EPERM, False)])
def test_only_the_errno_that_is_named_is_forgiven(in_c: bool, forgiven: int, is_forgiven: bool) -> None:
    """Any other is a failure."""
    calls = Calls()
    calls.call("close", "close", 9999, forgiven=forgiven)
    if is_forgiven:
        Prepared([("", calls)], in_c=in_c).make()
    else:
        with pytest.raises(CallFailedError):
            Prepared([("", calls)], in_c=in_c).make()


def prepared(*calls: tuple[object, ...], in_c: bool = True) -> Prepared:
    """A list of one step."""
    noted = Calls()
    for call in calls:
        noted.call("", *call)  # type: ignore[arg-type]
    return Prepared([("step", noted)], in_c=in_c)


@pytest.mark.parametrize("in_c", WAYS)
@pytest.mark.parametrize("chosen", [0, 1])
def test_a_fork_makes_each_list_where_it_belongs(in_c: bool, chosen: int) -> None:
    """Before it, in the child the chosen one, after it. When the child goes on, what libraries registered has run."""
    read, write = os.pipe()
    seen: list[str] = []
    os.register_at_fork(after_in_child=lambda: seen.append("hook"))
    pid = ctypes.c_int()

    def live(rehearse: bool, failed: CallFailedError | None) -> NoReturn:
        os.write(write, f"{rehearse} {failed} {seen} {os.umask(0):o}\n".encode())
        os._exit(0)

    fork = Fork(
        prepared(("write", write, b"before\n", 7), in_c=in_c),
        (prepared(("umask", 0o111), in_c=in_c), prepared(("umask", 0o222), in_c=in_c)),
        prepared(("wait4", Later(ctypes.addressof(pid)), None, 0, None), ("write", write, b"after\n", 6), in_c=in_c),
        chosen=ctypes.c_ubyte(chosen),
        pid=pid,
        live=live,
    )
    assert fork.make() == pid.value > 0
    expected = [b"before", f"{bool(chosen)} None ['hook'] {(111, 222)[chosen]}".encode(), b"after"]
    assert expected == os.read(read, 999).splitlines()
    os.close(read)
    os.close(write)
    assert [] == seen


@pytest.mark.parametrize("in_c", WAYS)
def test_a_failure_before_a_fork_leaves_no_child(in_c: bool) -> None:
    """And one in the child is the child's."""
    read, write = os.pipe()

    def live(_: bool, failed: CallFailedError | None) -> NoReturn:
        os.write(write, f"{failed and failed.step} {failed and failed.errno}".encode())
        os._exit(0)

    fails, nothing = prepared(("close", 9999), in_c=in_c), prepared(in_c=in_c)
    pid, parts = ctypes.c_int(), {"chosen": ctypes.c_ubyte(0), "live": live}
    with pytest.raises(CallFailedError, match="Bad file descriptor"):
        Fork(fails, (nothing, nothing), nothing, pid=pid, **parts).make()  # type: ignore[arg-type]
    assert 0 == pid.value
    os.waitpid(Fork(nothing, (fails, nothing), nothing, pid=pid, **parts).make(), 0)  # type: ignore[arg-type]
    assert f"step {errno.EBADF}".encode() == os.read(read, 99)
    with pytest.raises(CallFailedError, match="Bad file descriptor"):
        Fork(nothing, (nothing, nothing), fails, pid=pid, **parts).make()  # type: ignore[arg-type]
    os.waitpid(pid.value, 0)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("in_c", WAYS)
def test_a_fork_that_the_kernel_refuses_is_an_error_in_the_parent(in_c: bool) -> None:
    """EAGAIN, under a limit of no process at all. In a process of its own, which is no root: root has no such limit."""
    program = f"""
import ctypes, os, resource, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from sandbox.isolation.prepared import Fork, Prepared
if os.geteuid() == 0:
    os.setresuid(60999, 60999, 60999)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
nothing = Prepared([], in_c={in_c})
try:
    Fork(nothing, (nothing, nothing), nothing, chosen=ctypes.c_ubyte(), pid=ctypes.c_int(), live=print).make()
except BlockingIOError as error:
    print("refused", error.errno)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"refused {errno.EAGAIN}\n" == ended.stdout, ended.stderr


def test_a_limit_above_the_starters_is_named_with_its_fix() -> None:
    """In the words of an operator: which, how much, and where to raise it."""

    def prepare_in_child() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        if os.geteuid() == 0:
            os.setresuid(60999, 60999, 60999)
        at_once(rlimits.limit_open_files, 128)

    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            prepare_in_child()
        except OSError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    said = os.read(read, 999).decode()
    os.close(read)
    os.close(write)
    assert "RLIMIT_NOFILE: the policy needs 128, and whoever started the service left a hard limit of 64" in said


@pytest.mark.parametrize("architecture", ["X86_64", "AARCH64"])
def test_numbers_are_those_of_libseccomp(architecture: str) -> None:
    """Each name's number on both architectures, as a library knows them that is not ours."""
    import pyseccomp  # noqa: PLC0415 loads the C library

    arch = getattr(pyseccomp.Arch, architecture)
    place = ("X86_64", "AARCH64").index(architecture)
    known = {name: pyseccomp.resolve_syscall(arch, name) for name in libc.BY_ARCHITECTURE}
    assert known == {name: numbers[place] for name, numbers in libc.BY_ARCHITECTURE.items()}


def test_every_capability_that_the_kernel_knows_is_dropped() -> None:
    """As many calls as it says itself: proc_sys_kernel(5) on cap_last_cap."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    assert [*range(last + 1)] == list(libc.capabilities())
    calls = Calls()
    privileges.drop_bounding_set(calls)
    assert last + 1 == len(calls.noted)


@pytest.mark.parametrize("in_c", WAYS)
def test_less_than_is_asked_for_is_a_failure(in_c: bool) -> None:
    """As where a socket's other end is closed: recvmsg(2) returns 0, which is no error of the kernel's."""
    read, write = os.pipe()
    os.close(write)
    calls = Calls()
    calls.call("read", "fcntl", read, 1)  # F_GETFD: 1 is FD_CLOEXEC
    calls.call("another end", "fcntl", read, 1, least=2)
    with pytest.raises(CallFailedError, match="another end: No data available"):
        Prepared([("", calls)], in_c=in_c).make()
    os.close(read)


@pytest.fixture
def orders() -> Iterator[tuple[Orders, socket.socket, Fork]]:
    """A zygote's end, the worker's, and a fork whose child does nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Orders(theirs, None)
    nothing = Prepared([])
    yield made, ours, made.fork((nothing, nothing), lambda *_: os._exit(7))
    ours.close()
    theirs.close()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_an_order_that_lacks_descriptors_forks_nothing(orders: tuple[Orders, socket.socket, Fork], count: int) -> None:
    """Also where the order before it had them all: those numbers may be anything's by now. The next one is whole."""
    made, worker, fork = orders
    with open(os.devnull, encoding="ascii") as null:
        for number, fds in enumerate([DESCRIPTORS, count, DESCRIPTORS]):
            socket.send_fds(worker, [SPAWN.pack(False, number)], [null.fileno()] * fds)
            made.take()
            if fds < DESCRIPTORS:
                with pytest.raises(CallFailedError, match="an order came without its descriptors") as caught:
                    fork.make()
                made.tell_failed(caught.value)
                kind, said = HEAD.unpack_from(told := worker.recv(999))
                assert (FAILED, number) == (kind, said)
                assert b"an order came without its descriptors" in told
            else:
                pid = fork.make()
                packet, (pidfd,), _, _ = socket.recv_fds(worker, 99, 1)
                os.close(pidfd)
                assert HEAD.pack(FORKED, number) == packet
                made.tell_end(number, pid, made.last[1])
                kind, said, status, *_ = EXIT.unpack(worker.recv(99))
                assert (EXITED, number, 7) == (kind, said, os.waitstatus_to_exitcode(status))
            assert [-1] * DESCRIPTORS == [fd.value for fd in made.descriptors]


def test_a_worker_that_has_closed_its_end_is_told_from_an_order(orders: tuple[Orders, socket.socket, Fork]) -> None:
    """By ENODATA, on which a zygote ends."""
    made, worker, _ = orders
    worker.close()
    with pytest.raises(CallFailedError) as caught:
        made.take()
    assert errno.ENODATA == caught.value.errno


def test_a_c_part_of_another_build_is_refused() -> None:
    """Of which the calls have another length: of no list may a call be left out in silence, and the last is a lock."""
    if not HAS_C_PART:
        pytest.skip("there is none")
    for array in ((ctypes.c_char * 88)(), (ctypes.c_long * 12)()):
        with pytest.raises(ValueError, match="build it anew"):
            _prepared.make(array)


@pytest.mark.parametrize("in_c", WAYS)
def test_what_comes_after_a_fork_is_never_the_childs(in_c: bool) -> None:
    """Whatever its life raises."""
    read, write = os.pipe()

    def live(_: bool, failed: CallFailedError | None) -> NoReturn:
        raise OSError(errno.EIO, "an injected fault")

    nothing = prepared(in_c=in_c)
    fork = Fork(nothing, (nothing, nothing), nothing, chosen=ctypes.c_ubyte(), pid=ctypes.c_int(), live=live)
    here = os.getpid()
    try:
        pid = fork.make()
    finally:
        if os.getpid() != here:
            os.write(write, b"the child goes on")
            os._exit(0)
    assert 70 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(write)
    assert b"" == os.read(read, 99)
    os.close(read)


def test_a_value_outlives_the_list_that_made_it() -> None:
    """Although the list is gone when ``at_once`` returns."""
    copies = [at_once(lambda calls: calls.call("dup", "dup", 1)) for _ in range(20)]
    junk = [bytes(64) * 4 for _ in range(1000)]
    assert len({copy.value for copy in copies}) == len(copies)
    assert all(os.fstat(copy.value).st_ino == os.fstat(1).st_ino for copy in copies)
    for copy in copies:
        os.close(copy.value)
    assert junk
