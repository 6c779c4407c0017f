"""The single-use fork that runs one attempt. Everything here runs between the fork and the last byte of a task."""

from __future__ import annotations

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
from typing import NoReturn

from sandbox.inside.plan import Plan
from sandbox.isolation import landlock, libc, mounts, namespaces, network, privileges, rlimits, seccomp

STDIN, STDOUT, STDERR, RESPONSE, CONTROL, WORKSPACE, PROXY = range(7)
"""Descriptors of a child. From ``ready`` on only the first four are open; the last is never opened without egress."""

SETUP_FAILED = 70
"""Exit code when a step of the lock-down failed, EX_SOFTWARE of sysexits(3)."""

KINDS = {"result": b"R", "error": b"E", "invalid": b"I"}
"""Sort of response → first byte of its frame. Then 8 bytes of length, big-endian, then that many bytes of JSON."""

PROGRESS = b"P"
"""First byte of a report of progress, a frame of the same form. Any number of them may come before the response."""
MAX_PROGRESS_BYTES = 2048
"""Of a report's JSON: small enough for a pipe to take the whole frame at once, PIPE_BUF of pipe(7)."""

NARROWING = struct.Struct(">QQI")
"""What comes first on stdin: bytes of memory less, seconds of processor time at most (0 leaves the policy's), and how
many input files follow. Then each file, see ``INPUT``; what is left is the request."""

INPUT = struct.Struct(">HQ")
"""Lengths of an input file's name and content, in bytes, which follow."""

INPUTS_DO_NOT_FIT = (
    b'{"type":"OSError","message":"The input files do not fit into the workspace","code":"workspace_limit"}'
)
_SMALL_READ_BYTES, _LARGE_READ_BYTES = 1 << 16, 1 << 20

Report = Callable[[bytes], None]
"""Writes the JSON of one ``sandbox.result.Progress``; see ``report_progress``."""

Entry = Callable[[bytes, Report], tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What the zygote itself takes at the moment of the fork, bytes: a child starts with as much."""

    data: int
    address_space: int
    anonymous: int


@dataclasses.dataclass(frozen=True)
class Inheritance:
    """What a child gets from its zygote."""

    plan: Plan
    entry: Entry
    rehearse: Callable[[], None]
    """Runs the handler once on a request of our own, see ``sandbox.inside.zygote.find_rehearsal``."""
    baseline: Baseline
    proc_fd: int
    rules: list[tuple[int, int]]
    """(descriptor, access rights) of the Landlock rules, without the workspace's."""
    filter: bytes
    last_filter: bytes
    zygote_pid: int


def live(inheritance: Inheritance, descriptors: list[int], *, rehearse: bool) -> NoReturn:
    """Lock down, report ready, serve one request, die.

    Args:
        descriptors: five: stdin, stdout, stderr, response, control.
        rehearse: whether there is time to rehearse, because no request waits for this child yet.
    """
    take_descriptors(descriptors)
    for step, act in lock_down(inheritance, rehearse=rehearse):
        try:
            act()
        except BaseException as error:  # whatever it is, no request may ever reach a half-locked child
            report_failure(step, error)
    incoming = Incoming()
    narrow_limits(incoming)
    serve(inheritance.entry, incoming)


def lock_down(inheritance: Inheritance, *, rehearse: bool) -> list[tuple[str, Callable[[], None]]]:
    """The steps from a copy of the zygote to a locked child. Their order is the security argument.

    Namespaces first, while the process still has what it takes to enter them; then everything that needs a privilege
    inside them. The rehearsal is our own code on our own data: it touches the memory that a request will touch, so that
    no request waits for pages to be copied. Then the privileges go; then Landlock, which needs open files; then the
    open files go; the system call filter comes last, because it denies all of the above.
    """
    plan = inheritance.plan
    apart: list[tuple[str, Callable[[], None]]] = [
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
    steps: list[tuple[str, Callable[[], None]]] = [
        ("reset_process", reset_process),
        *apart,
        ("limit_resources", lambda: limit_resources(inheritance)),
        ("rehearse", inheritance.rehearse if rehearse else lambda: None),
        ("renew_randomness", renew_randomness),
        ("be_single_threaded", lambda: be_single_threaded(inheritance.proc_fd)),
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
    """Own session, private files."""
    os.setsid()
    os.umask(0o077)


def enter_namespaces(inheritance: Inheritance) -> None:
    """The pid namespace is the child's own since the fork; now the other five."""
    namespaces.enter(namespaces.CHILD, proc_fd=inheritance.proc_fd, inner_uid=namespaces.INNER_UID)
    namespaces.forbid_further(inheritance.proc_fd)
    namespaces.hide_hostname()


def mount_workspace(plan: Plan) -> None:
    """A tmpfs of the child's own, kept at a known descriptor for the supervisor."""
    fd = mounts.mount_workspace(size_bytes=plan.workspace_bytes, files=plan.workspace_files)
    os.dup2(fd, WORKSPACE, inheritable=False)


def open_way_to_proxy() -> None:
    """A socket that listens on the child's own loopback; the proxy outside accepts from it."""
    fd = network.listen_for_proxy()
    os.dup2(fd, PROXY, inheritable=False)
    os.close(fd)


def die_with_zygote(zygote_pid: int) -> None:
    """Without a pid namespace nobody else would end us when the zygote dies."""
    privileges.die_with_parent()
    if os.getppid() != zygote_pid:
        raise RuntimeError("the zygote is gone")


def make_workspace_folder(plan: Plan) -> None:
    """A private folder on the host's disk, for hosts that grant no namespaces."""
    path = tempfile.mkdtemp(prefix="run-", dir=plan.workspace_base)
    os.chdir(path)
    os.environ.update(HOME=path, TMPDIR=f"{path}/tmp")  # noqa: S108 within its own folder
    os.mkdir("tmp", 0o700)
    os.mkdir("artifacts", 0o700)
    os.dup2(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), WORKSPACE, inheritable=False)


def limit_resources(inheritance: Inheritance) -> None:
    """What the zygote already had counts towards the memory limit only as far as it is really in memory."""
    plan, baseline = inheritance.plan, inheritance.baseline
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
        # with entropy of our own: seed() without any takes milliseconds to find some
        numpy.random.seed(numpy.frombuffer(os.urandom(32), dtype=numpy.uint32))
    if (ssl := sys.modules.get("ssl")) is not None:
        # OpenSSL notices a fork by the process id, and zygote and child are both pid 1 of their namespaces
        ssl.RAND_add(os.urandom(48), 48.0)
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 there is no public way
    tempfile.tempdir = None


def be_single_threaded(proc_fd: int) -> None:
    """What follows binds the calling thread and those that it starts, never one that already runs."""
    if (threads := count_threads(proc_fd)) != 1:
        raise RuntimeError(f"{threads} threads before the lock-down")


def count_threads(proc_fd: int) -> int:
    """Threads of this process."""
    fd = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc_fd)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def restrict_by_landlock(inheritance: Inheritance) -> None:
    """The places of the root may be read, the workspace used, nothing else."""
    rules = [*inheritance.rules, (WORKSPACE, landlock.WORKSPACE)]
    plan = inheritance.plan
    landlock.restrict(plan.landlock_abi, rules, connect_port=plan.proxy_port)


def filter_syscalls_and_report_ready(inheritance: Inheritance) -> None:
    """Install the filter, pass workspace and listeners to the supervisor, close all that is not the task's."""
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
    """Tell the supervisor which step failed and die."""
    try:
        os.write(CONTROL, f"{step}\0{type(error).__name__}: {error}".encode(errors="replace")[:4096])
    finally:
        os._exit(SETUP_FAILED)


class Incoming:
    """What the supervisor sends on stdin, in the order in which it comes."""

    def __init__(self) -> None:
        """Block until the first of it is there."""
        self._pending = os.read(STDIN, _SMALL_READ_BYTES)
        if not self._pending:
            os._exit(0)  # the pool was closed; nobody will read an answer
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
        """What is left, once the supervisor has closed the pipe."""
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
        return os.read(STDIN, size) or os._exit(0)  # it broke off: the worker is gone


def narrow_limits(incoming: Incoming) -> None:
    """Lower the policy's limits, which were set when nobody knew the request, to what is in force for it."""
    if incoming.less_bytes:
        for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
            value = max(resource.getrlimit(kind)[0] - incoming.less_bytes, 0)
            resource.setrlimit(kind, (value, value))
    if incoming.cpu_s:
        rlimits.limit_cpu(incoming.cpu_s)


def serve(entry: Entry, incoming: Incoming) -> NoReturn:
    """Run the handler, write one response frame, leave at once: no thread, no atexit, no finalizer is waited for."""
    exit_code = 1
    try:
        fits = put_files(incoming)
        kind, payload = entry(incoming.request(), report_progress) if fits else ("error", INPUTS_DO_NOT_FIT)
        write_all(KINDS[kind] + struct.pack(">Q", len(payload)) + payload)
        exit_code = 0 if kind == "result" else 1
    except SystemExit as leaving:
        exit_code = exit_status(leaving.code)
    except BaseException as error:  # the handler's own last words; the supervisor sees exit code 1 and no response
        os.write(STDERR, f"{type(error).__name__}: the handler failed\n".encode())
    finally:
        flush_prints()
        os._exit(exit_code)


def put_files(incoming: Incoming) -> bool:
    """Whether the input files fit into the workspace, where they then are."""
    try:
        incoming.put_files()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG):  # the tmpfs is full, or RLIMIT_FSIZE met, which is as large
            raise
        return False
    return True


def flush_prints() -> None:
    """The last unfinished line of what the script printed, whatever it has made of its streams."""
    for stream in (sys.stdout, sys.stderr):
        # a script may have closed or replaced it: its own loss
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
    """Write one report, whole. It waits while the supervisor has no time for it, and must not come after the response.

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
