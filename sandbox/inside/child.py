"""The single-use fork that runs one attempt. Everything here runs between the fork and the last byte of a task."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C part of ``signal``
import array
import contextlib
import dataclasses
import errno
import os
import resource
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox.inside.plan import Plan
from sandbox.isolation import landlock, libc, mounts, namespaces, network, privileges, rlimits, seccomp
from sandbox.isolation.inheritance import die_before_others

STDIN, STDOUT, STDERR, RESPONSE, CONTROL, WORKSPACE, PROXY = range(7)
"""Descriptors of a child. Once it is ready only the first four are open. PROXY is opened with egress only."""

SETUP_FAILED = 70
"""Exit code when a step of the lock-down failed, EX_SOFTWARE of sysexits(3)."""

KINDS = {"result": b"R", "error": b"E", "invalid": b"I"}
"""Sort of response → first byte of its frame. Then 8 bytes of length, big-endian, then that many bytes of JSON."""

PROGRESS = b"P"
"""First byte of a report of progress, a frame of the same form. Any number of them may come before the response."""
MAX_PROGRESS_BYTES = 2048
"""Of a report's JSON: small enough for a pipe to take the whole frame at once, PIPE_BUF of pipe(7)."""

NARROWING = struct.Struct(">QQI")
"""Head of the message on stdin: by how many bytes the memory limit is lowered, the limit of processor time in seconds
(0 keeps the policy's), how many input files follow. Then come the files, see ``INPUT``; the rest is the request."""

INPUT = struct.Struct(">HQ")
"""Head of an input file: lengths of its name and of its content in bytes. Both follow."""

INPUTS_DO_NOT_FIT = (
    b'{"type":"OSError","message":"The input files do not fit into the workspace","code":"workspace_limit"}'
)
_MERSENNE_TWISTER, _STATE_WORDS = "MT19937", 624
"""numpy's global generator, and how many words of 32 bits are its state; after the last it makes new ones."""
_SMALL_READ_BYTES, _LARGE_READ_BYTES = 1 << 16, 1 << 20

ReportProgress = Callable[[bytes], None]
"""Writes the JSON of one ``sandbox.result.Progress``; see ``report_progress``."""

EntryPoint = Callable[[bytes, ReportProgress], tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Memory of the zygote at the fork, in bytes: a child starts with as much, which its limits must not count."""

    data: int
    address_space: int
    anonymous: int


@dataclasses.dataclass(frozen=True)
class Inheritance:
    """The values that a child inherits in its zygote's memory."""

    plan: Plan
    entry: EntryPoint
    prepare: Callable[[], None]
    """Opens what a task needs and a locked child can open no more, see ``sandbox.inside.zygote.find_hook``."""
    rehearse: Callable[[], None]
    """Runs the handler once on a request of our own, see ``sandbox.inside.zygote.find_hook``."""
    baseline: Baseline
    proc_fd: int
    rules: list[tuple[int, int]]
    """(descriptor, access rights) of the Landlock rules, without the workspace's."""
    filter: bytes
    last_filter: bytes
    zygote_pid: int


Steps = list[tuple[str, Callable[[], None]]]
"""What ``lock_down`` says."""


def live(inheritance: Inheritance, descriptors: list[int], steps: Steps) -> NoReturn:
    """Lock down, report ready, serve one request, die.

    Args:
        inheritance: what the zygote has made ready.
        descriptors: five: stdin, stdout, stderr, response, control.
        steps: as ``lock_down`` lists them.
    """
    take_descriptors(descriptors)
    for step, act in steps:
        try:
            act()
        except BaseException as error:  # whatever it is, no request may ever reach a half-locked child
            report_failure(step, error)
    message = StdinMessage()
    narrow_limits(message)
    serve(inheritance.entry, message)


def lock_down(inheritance: Inheritance, *, rehearse: bool) -> Steps:
    """The steps from a copy of the zygote to a locked child. Their order is the security argument.

    The zygote makes the list, with and without a rehearsal, and a child goes through it: what a child makes itself
    costs it a copy of each page that this touches.

    Namespaces first, while the process still has what it takes to enter them; then everything that needs a privilege
    inside them. What the handler opens for every task comes before the lock, in each child: nothing may rest on the
    rehearsal, which is left out where a request waits. The rehearsal is our own code on our own data: it touches
    the memory that a request will touch, so that no request waits for pages to be copied. Then the privileges go;
    then Landlock, which needs open files; then the open files go; the system call filter comes last, because it
    denies all of the above.

    Args:
        inheritance: what the zygote has made ready.
        rehearse: whether there is time to rehearse, because no request waits for the child yet.
    """
    plan = inheritance.plan
    apart: Steps = [
        ("enter_namespaces", lambda: enter_namespaces(inheritance)),
        ("mount_workspace", lambda: mount_workspace(plan)),
    ]
    if plan.proxy_port:
        apart.append(("open_way_to_proxy", open_way_to_proxy))
    if plan.profile == "unprivileged":
        apart = [
            ("die_with_zygote", lambda: die_with_zygote(inheritance.zygote_pid)),
            ("make_workspace_folder", lambda: make_workspace_folder(plan)),
        ]
    steps: Steps = [
        ("reset_process", reset_process),
        *apart,
        ("limit_resources", lambda: limit_resources(inheritance)),
        ("prepare", inheritance.prepare),
        ("rehearse", inheritance.rehearse if rehearse else lambda: None),
        ("renew_randomness", renew_randomness),
        ("be_single_threaded", lambda: be_single_threaded(inheritance)),
        ("drop_capabilities", privileges.drop_capabilities),
        ("forbid_new_privileges", privileges.forbid_new_privileges),
        ("hide_from_inspection", privileges.hide_from_inspection),
        ("restrict_by_landlock", lambda: restrict_by_landlock(inheritance)),
        ("close_descriptors", lambda: libc.close_range((PROXY if plan.proxy_port else WORKSPACE) + 1)),
        ("filter_syscalls_and_report_ready", lambda: filter_syscalls_and_report_ready(inheritance)),
    ]
    return [(name, act) for name, act in steps if name not in plan.ablated]


def take_descriptors(descriptors: list[int]) -> None:
    """Put the five descriptors at 0 to 4. They come with higher numbers, so no one overwrites another.

    What a run executes, where its policy lets it, gets the first three.
    """
    for target, fd in enumerate(descriptors):
        os.dup2(fd, target, inheritable=target <= STDERR)


def reset_process() -> None:
    """Start a session of its own, make every new file private to its user, and mind interrupts as Python does."""
    os.setsid()
    os.umask(0o077)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)  # without the enumerations that ``signal`` puts around


def enter_namespaces(inheritance: Inheritance) -> None:
    """Enter user, mount, net, ipc and uts namespaces. The pid namespace is the child's own since its fork.

    And so is the net namespace where the zygote lends one (``sandbox.inside.networks``).
    """
    flags = namespaces.CHILD_WITH_NETWORK if inheritance.plan.lends_network else namespaces.CHILD
    namespaces.enter(flags, proc_fd=inheritance.proc_fd, inner_uid=namespaces.INNER_UID)
    namespaces.forbid_further(inheritance.proc_fd)  # the host name is the zygote's, which is "sandbox" already


def mount_workspace(plan: Plan) -> None:
    """Mount a tmpfs of the child's own, and keep a descriptor of it for the supervisor."""
    fd = mounts.mount_workspace(size_bytes=plan.workspace_bytes, files=plan.workspace_files)
    os.dup2(fd, WORKSPACE, inheritable=False)


def open_way_to_proxy() -> None:
    """Listen on the child's own loopback; the proxy outside accepts from that socket."""
    fd = network.listen_for_proxy()
    os.dup2(fd, PROXY, inheritable=False)
    os.close(fd)


def die_with_zygote(zygote_pid: int) -> None:
    """Be killed when the zygote dies: without a pid namespace nothing else would end this process then."""
    privileges.die_with_parent()
    if os.getppid() != zygote_pid:
        raise RuntimeError("the zygote is gone")


def make_workspace_folder(plan: Plan) -> None:
    """Make a private folder on the host's disk the workspace, for hosts that grant no namespaces."""
    path = tempfile.mkdtemp(prefix="run-", dir=plan.workspace_base)
    os.chdir(path)
    os.environ.update(HOME=path, TMPDIR=f"{path}/tmp")  # noqa: S108 within its own folder
    os.mkdir("tmp", 0o700)
    os.mkdir("artifacts", 0o700)
    os.dup2(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), WORKSPACE, inheritable=False)


def limit_resources(inheritance: Inheritance) -> None:
    """Set the rlimits. Of what the zygote had mapped, only what is really in memory counts towards the memory limit."""
    plan, baseline = inheritance.plan, inheritance.baseline
    die_before_others(inheritance.proc_fd, "child")
    headroom = max(plan.memory_bytes - baseline.anonymous, 1)
    rlimits.limit_resources(
        cpu_s=plan.cpu_s,
        data_bytes=baseline.data + headroom,
        address_space_bytes=baseline.address_space + headroom + rlimits.ADDRESS_SLACK_MIB * rlimits.MIB,
        # without a user namespace of its own a run would be counted together with everything else of its user
        tasks=plan.threads + plan.processes if plan.profile == "full" else None,
        file_bytes=plan.workspace_bytes,
    )


def renew_randomness() -> None:
    """Reseed what would repeat in every child. ``random`` reseeds itself at fork; these do not."""
    if (numpy := sys.modules.get("numpy")) is not None:
        renew_numpy(numpy.random)
    if (ssl := sys.modules.get("ssl")) is not None:
        # OpenSSL notices a fork by the process id, and zygote and child are both pid 1 of their namespaces
        ssl.RAND_add(os.urandom(48), 48.0)
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 there is no public way
    tempfile.tempdir = None


def renew_numpy(random: Any) -> None:
    """Give numpy's global generator another state, all of it from the kernel: no number is left over from before.

    ``seed()`` takes a millisecond to stretch a short seed to that length, and copies half a megabyte of pages.
    """
    random.set_state((_MERSENNE_TWISTER, array.array("I", os.urandom(4 * _STATE_WORDS)), _STATE_WORDS, 0, 0.0))


def be_single_threaded(inheritance: Inheritance) -> None:
    """Require one thread: Landlock and seccomp bind the calling thread and those that it starts, no other.

    With namespaces the kernel checks it: it grants CLONE_THREAD to nobody but a process with one thread, whose memory
    no other process shares, and then does nothing (unshare(2)). Without, a container's filter may refuse that call.
    """
    if inheritance.plan.profile == "full":
        with contextlib.suppress(OSError):
            libc.unshare(libc.CLONE_THREAD)
            return
    if (threads := count_threads(inheritance.proc_fd)) != 1:
        raise RuntimeError(f"{threads} threads before the lock-down")


def count_threads(proc_fd: int) -> int:
    """How many threads this process has."""
    fd = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc_fd)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def restrict_by_landlock(inheritance: Inheritance) -> None:
    """Allow to read the places of the root and to use the workspace; deny all else that Landlock mediates."""
    rules = [*inheritance.rules, (WORKSPACE, landlock.WORKSPACE)]
    plan = inheritance.plan
    landlock.restrict(plan.landlock_abi, rules, connect_port=plan.proxy_port)


def filter_syscalls_and_report_ready(inheritance: Inheritance) -> None:
    """Install the filter, pass workspace and listeners to the supervisor, close all that is not the task's.

    The order: the listener exists from the first filter on, and only the calls that hand it over are open until the
    last filter closes them (``seccomp.compile_last_filter``). The limit of open files comes after the hand-over: the
    kernel holds descriptors that are being passed to it, too.
    """
    control = socket.socket(fileno=CONTROL)
    fds = [WORKSPACE]
    if "filter_syscalls" in inheritance.plan.ablated:
        fds.append(os.pipe()[0])  # hangs up at our end, as a listener would
    else:
        fds.append(seccomp.install(inheritance.filter))
    if inheritance.plan.proxy_port:
        fds.append(PROXY)
    # the folder's name, which the supervisor needs to remove it; with namespaces there is none
    name = os.path.basename(os.getcwd()) if inheritance.plan.profile == "unprivileged" else ""
    socket.send_fds(control, [b"ready\0" + name.encode()], fds)
    control.close()
    for fd in fds:
        os.close(fd)
    rlimits.limit_open_files(inheritance.plan.open_files)
    if "filter_syscalls" not in inheritance.plan.ablated:
        seccomp.install_last(inheritance.last_filter)


def report_failure(step: str, error: BaseException) -> NoReturn:
    """Report to the supervisor which step failed, and die."""
    try:
        os.write(CONTROL, f"{step}\0{type(error).__name__}: {error}".encode(errors="replace")[:4096])
    finally:
        os._exit(SETUP_FAILED)


class StdinMessage:
    """The parts that the supervisor sends on stdin, in their order."""

    def __init__(self) -> None:
        """Block until the first of it is there."""
        self._pending = os.read(STDIN, _SMALL_READ_BYTES)
        if not self._pending:
            os._exit(0)  # the pool was closed; nobody would read an answer
        self.less_bytes, self.cpu_s, self.files = NARROWING.unpack(self._take(NARROWING.size))

    def put_files(self) -> None:
        """Put the input files into ``inputs`` of the workspace, without holding one of them in memory.

        Raises:
            OSError: they do not fit, ENOSPC or EFBIG.
        """
        if self.files:
            os.mkdir("inputs", 0o700)
        for _ in range(self.files):
            name_length, left = INPUT.unpack(self._take(INPUT.size))
            name = self._take(name_length).decode()
            fd = os.open(f"inputs/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            while left:
                if not self._pending:
                    self._pending = self._read(min(left, _LARGE_READ_BYTES))
                part = memoryview(self._pending)[:left]
                written = os.write(fd, part)
                self._pending = self._pending[written:]
                left -= written
            os.close(fd)

    def request(self) -> bytes:
        """The request: all that is left until the supervisor closes the pipe."""
        parts = [self._pending]
        # small at first: a large buffer costs more than most requests
        size = _SMALL_READ_BYTES if len(self._pending) < _SMALL_READ_BYTES else _LARGE_READ_BYTES
        while part := os.read(STDIN, size):
            parts.append(part)
            size = _LARGE_READ_BYTES
        return b"".join(parts)

    def _take(self, count: int) -> bytes:
        while len(self._pending) < count:
            self._pending += self._read(_SMALL_READ_BYTES)
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    def _read(self, size: int) -> bytes:
        return os.read(STDIN, size) or os._exit(0)  # the pipe ended early: the worker is gone


def narrow_limits(message: StdinMessage) -> None:
    """Lower the limits, which were set by the policy before there was a request, to those of this request."""
    if message.less_bytes:
        for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
            value = max(resource.getrlimit(kind)[0] - message.less_bytes, 0)
            resource.setrlimit(kind, (value, value))
    if message.cpu_s:
        rlimits.limit_cpu(message.cpu_s)


def serve(entry: EntryPoint, message: StdinMessage) -> NoReturn:
    """Run the handler, write one response frame, leave at once: no thread, no atexit, no finalizer is waited for."""
    exit_code = 1
    try:
        fits = put_files(message)
        kind, payload = entry(message.request(), report_progress) if fits else ("error", INPUTS_DO_NOT_FIT)
        write_all(KINDS[kind] + struct.pack(">Q", len(payload)) + payload)
        exit_code = 0 if kind == "result" else 1
    except SystemExit as leaving:
        exit_code = exit_status(leaving.code)
    except BaseException as error:  # the supervisor sees exit code 1 and no response
        os.write(STDERR, f"{type(error).__name__}: the handler failed\n".encode())
    finally:
        flush_prints()
        os._exit(exit_code)


def put_files(message: StdinMessage) -> bool:
    """Whether the input files fit into the workspace, where they then are."""
    try:
        message.put_files()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG):  # the tmpfs is full, or RLIMIT_FSIZE met, which is as large
            raise
        return False
    return True


def flush_prints() -> None:
    """Write what the script has printed and its streams still hold."""
    for stream in (sys.stdout, sys.stderr):
        # a script may have closed or replaced its stream, and then loses what was in it
        with contextlib.suppress(BaseException):
            stream.flush()


def exit_status(code: object) -> int:
    """Exit code of a ``SystemExit``, as the interpreter itself would choose it."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    os.write(STDERR, f"{code}\n".encode(errors="replace")[:4096])
    return 1


def report_progress(report: bytes) -> None:
    """Write one report, whole. Blocks while the pipe is full, and must not be called after the response.

    Raises:
        ValueError: it is too long.
        OSError: a script has closed the pipe.
    """
    if len(report) > MAX_PROGRESS_BYTES:
        raise ValueError(f"a report of {len(report)} bytes is longer than {MAX_PROGRESS_BYTES}")
    os.write(RESPONSE, PROGRESS + struct.pack(">Q", len(report)) + report)


def write_all(frame: bytes) -> None:
    """Write a frame to the response pipe, which the supervisor drains all the while."""
    view = memoryview(frame)
    while view:
        view = view[os.write(RESPONSE, view) :]
