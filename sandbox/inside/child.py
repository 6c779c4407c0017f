"""The single-use fork that runs one attempt. Everything here runs between the fork and the last byte of a task."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import itertools
import os
import resource
import select
import struct
import sys
import tempfile
from collections.abc import Callable
from typing import Concatenate, NoReturn, ParamSpec, cast

from sandbox.inside.plan import Plan
from sandbox.inside.randomness import Renewal
from sandbox.isolation import landlock, libc, mounts, namespaces, network, privileges, rlimits, seccomp
from sandbox.isolation.inheritance import die_before_others
from sandbox.isolation.packet import Packet
from sandbox.isolation.prepared import WHATEVER, CallFailedError, Calls, Later, Prepared

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
_SMALL_READ_BYTES, _LARGE_READ_BYTES = 1 << 16, 1 << 20
_LAST_DESCRIPTOR = 0x7FFFFFFF
_READY, _MOST_NAME_BYTES = b"ready\0", 255
_Parameters = ParamSpec("_Parameters")

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
    prepare: Callable[[], None] | None
    """Opens what a task needs and a locked child can open no more, see ``sandbox.inside.zygote.find_hook``."""
    rehearse: Callable[[], None] | None
    """Runs the handler once on a request of our own, see ``sandbox.inside.zygote.find_hook``."""
    baseline: Baseline
    proc_fd: int
    rules: list[tuple[int, int]]
    """(descriptor, access rights) of the Landlock rules, without the workspace's."""
    filter: bytes
    last_filter: bytes
    zygote_pid: int
    renewal: Renewal
    interrupts: Calls
    """As of ``sandbox.inside.interrupts``."""
    ready: ReadyReport
    wakes_first: bool
    """Whether the interpreter of each child wakes before the lock-down: a library has registered for a fork what may
    do anything, which the lock would forbid."""


class ReadyReport:
    """What a child passes to the supervisor when it is locked: workspace, listener, and the way to the proxy if any.

    Attributes:
        packet: to be sent. Its text ends with the name of the workspace's folder, where that is one of the host's.
    """

    def __init__(self, plan: Plan) -> None:
        self._text = ctypes.create_string_buffer(_READY, len(_READY) + _MOST_NAME_BYTES)
        self.packet = Packet([(ctypes.addressof(self._text), len(_READY))], 3 if plan.proxy_port else 2)

    def name_folder(self, name: str) -> None:
        """Add the folder's name, which the supervisor needs to remove it."""
        text = _READY + name.encode()
        self._text.value = text
        self.packet.shorten(len(text))


class _PollFd(ctypes.Structure):
    # struct pollfd
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


Act = Calls | Callable[[], None]
Steps = list[tuple[str, Act]]
"""What ``lock_down`` says: the name of each step, and the calls that it makes, or a function where it takes more."""


class Life:
    """What a child does from its fork to its death, prepared by its zygote.

    Attributes:
        calls: what comes first, before the interpreter runs.
    """

    def __init__(self, inheritance: Inheritance, descriptors: list[Later], *, rehearse: bool) -> None:
        """
        Args:
            inheritance: what the zygote has made ready.
            descriptors: where they will stand that the child is given: stdin, stdout, stderr, response, control.
            rehearse: as of ``lock_down``.
        """
        self._inheritance = inheritance  # which holds what the calls point to
        take = prepared(take_descriptors, descriptors)
        steps = [("take_descriptors", take), *lock_down(inheritance, rehearse=rehearse)]
        if inheritance.wakes_first:
            steps.insert(1, ("wake_first", lambda: None))
        in_c = "in_c" not in inheritance.plan.ablated
        first, *self._rest = _in_parts([step for step in steps if step[0] not in inheritance.plan.ablated], in_c=in_c)
        self.calls = cast(Prepared, first[1])

    def go_on(self, failed: CallFailedError | None) -> NoReturn:
        """Go through what is left of the lock-down, report ready, serve one request, die.

        Args:
            failed: how ``calls`` failed, which have been made.
        """
        if failed is not None:
            report_failure(failed.step, failed)
        for step, act in self._rest:
            try:
                act.make() if isinstance(act, Prepared) else act()
            except BaseException as error:  # whatever it is, no request may ever reach a half-locked child
                report_failure(getattr(error, "step", step), error)
        serve(self._inheritance)


def _in_parts(steps: Steps, *, in_c: bool) -> list[tuple[str, Prepared | Callable[[], None]]]:
    """The steps, with all calls that follow each other as one list."""
    parts: list[tuple[str, Prepared | Callable[[], None]]] = []
    for is_calls, together in itertools.groupby(steps, lambda step: isinstance(step[1], Calls)):
        if is_calls:
            parts.append(("", Prepared(cast(list[tuple[str, Calls]], list(together)), in_c=in_c)))
        else:
            parts += cast(list[tuple[str, Callable[[], None]]], list(together))
    return parts


def lock_down(inheritance: Inheritance, *, rehearse: bool) -> Steps:
    """The steps from a copy of the zygote to a locked child. Their order is the security argument.

    The zygote makes the list, with and without a rehearsal, and a child goes through it: what a child makes itself
    costs it a copy of each page that this touches (``sandbox.isolation.prepared``).

    Namespaces first, while the process still has what it takes to enter them; then everything that needs a privilege
    inside them. What the handler opens for every task comes before the lock, in each child: nothing may rest on the
    rehearsal, which is left out where a request waits. The rehearsal is our own code on our own data: it touches
    the memory that a request will touch, so that no request waits for pages to be copied. Then the privileges go;
    then Landlock, which needs open files; then the open files go; the system call filter comes last, because it
    denies all of the above.

    Args:
        inheritance: what the zygote has made ready.
        rehearse: whether there is time to rehearse, because no request waits for the child yet. A child that does not
            rehearse waits for its request before the interpreter runs: so it has copied few pages until then.
    """
    plan = inheritance.plan
    if plan.profile == "unprivileged":
        apart: Steps = [
            ("die_with_zygote", lambda: die_with_zygote(inheritance.zygote_pid)),
            ("make_workspace_folder", lambda: make_workspace_folder(inheritance)),
        ]
    else:
        apart = [
            ("enter_namespaces", prepared(enter_namespaces, inheritance)),
            ("mount_workspace", prepared(mount_workspace, plan)),
        ]
        if plan.proxy_port:
            apart.append(("open_way_to_proxy", prepared(open_way_to_proxy)))
    steps: list[tuple[str, Act | None]] = [
        ("reset_process", prepared(reset_process)),
        ("mind_interrupts", inheritance.interrupts),
        *apart,
        ("limit_resources", prepared(limit_resources, inheritance)),
        ("renew_generators", inheritance.renewal.calls),
        ("prepare", inheritance.prepare),
        ("rehearse", inheritance.rehearse if rehearse else None),
        ("be_single_threaded", be_single_threaded(inheritance)),
        ("drop_capabilities", prepared(privileges.drop_capabilities)),
        ("forbid_new_privileges", prepared(privileges.forbid_new_privileges)),
        ("hide_from_inspection", prepared(privileges.hide_from_inspection)),
        ("restrict_by_landlock", prepared(restrict_by_landlock, inheritance)),
        ("close_descriptors", prepared(close_descriptors, plan)),
        ("filter_syscalls_and_report_ready", prepared(filter_syscalls_and_report_ready, inheritance)),
        ("wait_for_request", None if rehearse else prepared(wait_for_request)),
    ]
    return [(name, act) for name, act in steps if act is not None]


def prepared(
    step: Callable[Concatenate[Calls, _Parameters], None], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> Calls:
    """The calls of a step."""
    calls = Calls()
    step(calls, *args, **kwargs)
    return calls


def take_descriptors(calls: Calls, descriptors: list[Later]) -> None:
    """Put the five descriptors at 0 to 4. They come with higher numbers, so no one overwrites another.

    What a run executes, where its policy lets it, gets the first three.
    """
    for given, target in zip(descriptors, (STDIN, STDOUT, STDERR, RESPONSE, CONTROL), strict=True):
        move(calls, given, target, flags=0 if target <= STDERR else os.O_CLOEXEC)


def move(calls: Calls, fd: Later, target: int, *, flags: int = os.O_CLOEXEC) -> None:
    """Have a descriptor at another number, too."""
    calls.call(f"dup to {target}", "dup3", fd, target, flags)


def reset_process(calls: Calls) -> None:
    """Start a session of its own, and make every new file private to its user."""
    calls.call("setsid", "setsid")
    calls.call("umask", "umask", 0o077)


def enter_namespaces(calls: Calls, inheritance: Inheritance) -> None:
    """Enter user, mount, net, ipc and uts namespaces. The pid namespace is the child's own since its fork.

    And so is the net namespace where the zygote lends one (``sandbox.inside.networks``).
    """
    flags = namespaces.CHILD_WITH_NETWORK if inheritance.plan.lends_network else namespaces.CHILD
    namespaces.enter(calls, flags, proc_fd=inheritance.proc_fd, inner_uid=namespaces.INNER_UID)
    namespaces.forbid_further(calls, inheritance.proc_fd)  # the host name is the zygote's, which is "sandbox" already


def mount_workspace(calls: Calls, plan: Plan) -> None:
    """Mount a tmpfs of the child's own, and keep a descriptor of it for the supervisor."""
    move(calls, mounts.mount_workspace(calls, size_bytes=plan.workspace_bytes, files=plan.workspace_files), WORKSPACE)


def open_way_to_proxy(calls: Calls) -> None:
    """Listen on the child's own loopback; the proxy outside accepts from that socket."""
    move(calls, network.listen_for_proxy(calls), PROXY)


def die_with_zygote(zygote_pid: int) -> None:
    """Be killed when the zygote dies: without a pid namespace nothing else would end this process then."""
    privileges.die_with_parent()
    if os.getppid() != zygote_pid:
        raise RuntimeError("the zygote is gone")


def make_workspace_folder(inheritance: Inheritance) -> None:
    """Make a private folder on the host's disk the workspace, for hosts that grant no namespaces."""
    path = tempfile.mkdtemp(prefix="run-", dir=inheritance.plan.workspace_base)
    os.chdir(path)
    os.environ.update(HOME=path, TMPDIR=f"{path}/tmp")  # noqa: S108 within its own folder
    os.mkdir("tmp", 0o700)
    os.mkdir("artifacts", 0o700)
    os.dup2(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), WORKSPACE, inheritable=False)
    inheritance.ready.name_folder(os.path.basename(path))


def limit_resources(calls: Calls, inheritance: Inheritance) -> None:
    """Set the rlimits. Of what the zygote had mapped, only what is really in memory counts towards the memory limit."""
    plan, baseline = inheritance.plan, inheritance.baseline
    die_before_others(calls, inheritance.proc_fd, "child")
    headroom = max(plan.memory_bytes - baseline.anonymous, 1)
    rlimits.limit_resources(
        calls,
        cpu_s=plan.cpu_s,
        data_bytes=baseline.data + headroom,
        address_space_bytes=baseline.address_space + headroom + rlimits.ADDRESS_SLACK_MIB * rlimits.MIB,
        # without a user namespace of its own a run would be counted together with everything else of its user
        tasks=plan.threads + plan.processes if plan.profile == "full" else None,
        file_bytes=plan.workspace_bytes,
    )


def be_single_threaded(inheritance: Inheritance) -> Act:
    """Require one thread: Landlock and seccomp bind the calling thread and those that it starts, no other.

    With namespaces the kernel checks it: it grants CLONE_THREAD to nobody but a process with one thread, whose memory
    no other process shares, and then does nothing (unshare(2)). Where that is refused to this process already, as a
    container's filter may do, the child counts.
    """
    if inheritance.plan.profile == "full":
        with contextlib.suppress(OSError):
            libc.unshare(libc.CLONE_THREAD)
            calls = Calls()
            calls.call("more than one thread before the lock-down", "unshare", libc.CLONE_THREAD)
            return calls
    return lambda: require_one_thread(inheritance.proc_fd)


def require_one_thread(proc_fd: int) -> None:
    """Count the threads.

    Raises:
        RuntimeError: there are several.
    """
    if (threads := count_threads(proc_fd)) != 1:
        raise RuntimeError(f"{threads} threads before the lock-down")


def count_threads(proc_fd: int) -> int:
    """How many threads this process has."""
    fd = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc_fd)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def restrict_by_landlock(calls: Calls, inheritance: Inheritance) -> None:
    """Allow to read the places of the root and to use the workspace; deny all else that Landlock mediates."""
    rules = [*inheritance.rules, (WORKSPACE, landlock.WORKSPACE)]
    plan = inheritance.plan
    landlock.restrict(calls, plan.landlock_abi, rules, connect_port=plan.proxy_port)


def close_descriptors(calls: Calls, plan: Plan) -> None:
    """Close everything but the child's own."""
    calls.call("close_range", "close_range", (PROXY if plan.proxy_port else WORKSPACE) + 1, _LAST_DESCRIPTOR, 0)


def filter_syscalls_and_report_ready(calls: Calls, inheritance: Inheritance) -> None:
    """Install the filter, pass workspace and listeners to the supervisor, close all that is not the task's.

    The order: the listener exists from the first filter on, and only the calls that hand it over are open until the
    last filter closes them (``seccomp.compile_last_filter``). The limit of open files comes after the hand-over: the
    kernel holds descriptors that are being passed to it, too.
    """
    plan = inheritance.plan
    has_filter = "filter_syscalls" not in plan.ablated
    passed = inheritance.ready.packet.descriptors
    calls.call("pass the workspace", "dup", WORKSPACE, into=passed[0])
    if has_filter:
        seccomp.install(calls, inheritance.filter, into=passed[1])
    else:
        calls.call("pipe", "pipe2", ends := (ctypes.c_int * 2)(), os.O_CLOEXEC)
        # hangs up at our end, as a listener would
        calls.call("dup", "dup", end := Later(calls.keep(ends)), into=passed[1])
        calls.call("close", "close", end)
    if plan.proxy_port:
        calls.call("pass the way to the proxy", "dup", PROXY, into=passed[2])
    calls.call("report ready", "sendmsg", CONTROL, inheritance.ready.packet.header, 0)
    for fd in (CONTROL, WORKSPACE, *map(Later, passed), *([PROXY] if plan.proxy_port else [])):
        calls.call("close", "close", fd)
    rlimits.limit_open_files(calls, plan.open_files)
    if has_filter:
        seccomp.install_last(calls, inheritance.last_filter)


def wait_for_request(calls: Calls) -> None:
    """Wait until the first of the request is there, or none will come: poll(2). Whatever else wakes it is no matter."""
    calls.call("wait", "ppoll", _PollFd(STDIN, select.POLLIN), 1, None, None, 0, forgiven=WHATEVER)


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


def serve(inheritance: Inheritance) -> NoReturn:
    """Run the handler, write one response frame, leave at once: no thread, no atexit, no finalizer is waited for."""
    exit_code = 1
    try:
        inheritance.renewal.finish()
        message = StdinMessage()
        narrow_limits(message)
        fits = put_files(message)
        kind, payload = inheritance.entry(message.request(), report_progress) if fits else ("error", INPUTS_DO_NOT_FIT)
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
