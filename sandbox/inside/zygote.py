"""The template process of one policy: pre-imported, single-threaded, without a secret, forked for every run.

It is started in two stages. The first runs on the host's paths: it builds the minimal root, leaves the host's behind,
gives up root, enters namespaces. The second is a fresh interpreter inside that root, pid 1 of its pid namespace: it
imports what the policy preloads and then forks a child whenever the worker asks. When the worker dies the kernel kills
the first stage, then the second, and with its pid namespace every child.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import gc
import importlib
import mmap
import os
import select
import signal
import site
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from sandbox.inside import arenas, caches, child, fork_hooks, interrupts, streams, surroundings
from sandbox.inside.child import STDERR
from sandbox.inside.networks import Networks
from sandbox.inside.orders import FAILED, HEAD, READY, Orders
from sandbox.inside.plan import Plan
from sandbox.inside.randomness import Renewal
from sandbox.isolation import inheritance, landlock, libc, mounts, namespaces, privileges
from sandbox.isolation.prepared import CallFailedError, Fork, Later, Prepared, at_once

_THREADS_LEAVE_S = 0.5
_MAX_PACKET = 1 << 17
_REHEARSALS, _REHEARSALS_S = 30, 0.1
_MAX_REASON = 2000
_FIRST_FREE_FD = 16
_SMALL_PAGES = libc.HUGE_PAGE_BYTES // mmap.PAGESIZE
_NEARLY_FULL = _SMALL_PAGES * 7 // 8


def launch(control_fd: int) -> NoReturn:
    """First stage, on the host's paths: build the root, start the second stage in it, end when that does.

    Args:
        control_fd: socket to the worker, over which the plan comes.
    """
    privileges.die_with_parent()
    control = socket.socket(fileno=control_fd)
    plan = Plan.decode(control.recv(_MAX_PACKET))
    try:
        pid = start_second_stage(plan, control_fd)
    except BaseException as error:
        control.recv(_MAX_PACKET)  # the plan of the second stage: left unread, it would reset the connection
        tell_failure(control, error)
        raise  # the traceback is for the operator, on the worker's stderr
    libc.close_range(3)
    # by a new interpreter that has nothing loaded: 2.6 MiB stand by instead of 9, and no host path is in them
    become_interpreter(f"import posix; posix.waitpid({pid}, 0)", plan)


def start_second_stage(plan: Plan, control_fd: int) -> int:
    """Start the second stage, and return its pid; without namespaces, become it."""
    proc_fd = namespaces.open_proc()
    inheritance.leave_starter_behind(proc_fd)
    for fd in (control_fd, proc_fd):
        os.set_inheritable(fd, True)
    second_stage = f"serve({control_fd}, {proc_fd})"
    if plan.profile == "unprivileged":
        if os.geteuid() == 0:
            privileges.become(plan.outer_uid, plan.outer_gid)
        execute(second_stage, plan)
    enter_root_and_namespaces(plan, proc_fd)
    namespaces.hide_hostname()  # before anything that the zygote imports can keep the host's
    pid = os.fork()
    if pid == 0:
        execute(second_stage, plan)
    return pid


def tell_failure(control: socket.socket, error: BaseException) -> None:
    """Tell the worker why this zygote cannot be prepared."""
    name = "" if isinstance(error, SystemExit) else f"{type(error).__name__}: "
    control.send(HEAD.pack(FAILED, 0) + f"{name}{error}".encode(errors="replace")[:_MAX_REASON])


def execute(call: str, plan: Plan) -> NoReturn:
    """Become a new interpreter that calls a function of this module."""
    import_it = "from sandbox.inside import zygote"
    if fork_hooks.are_idle(plan):
        import_it = f"from sandbox.inside import fork_hooks\nwith fork_hooks.left_out(): {import_it}"
    become_interpreter(f"import sys; sys.path.append({plan.code!r})\n{import_it}\nzygote.{call}", plan)


def become_interpreter(text: str, plan: Plan) -> NoReturn:
    """Become a new interpreter that runs a text; end with a sentence where that cannot be."""
    arguments = [plan.interpreter, "-I", "-S", "-B", "-c", text]
    try:
        os.execve(plan.interpreter, arguments, plan.environment)  # noqa: S606 ours
    except OSError as error:
        sys.exit(f"user {os.geteuid()} cannot start the interpreter {plan.interpreter}: {error.strerror}")


def enter_root_and_namespaces(plan: Plan, proc_fd: int) -> None:
    """Build the root with what privilege there is, then be an ordinary user in namespaces of its own."""
    binds = [(source, target) for source, target in plan.binds]
    links = [(goal, path) for goal, path in plan.links]
    if os.geteuid() == 0:
        libc.unshare(libc.CLONE_NEWNS)
        mounts.build_root(binds, links)
        privileges.become(plan.outer_uid, plan.outer_gid)
        # entering a user namespace once more locks every mount made so far
        at_once(namespaces.enter, namespaces.ZYGOTE, proc_fd=proc_fd, inner_uid=0)
    else:
        at_once(namespaces.enter, namespaces.ZYGOTE, proc_fd=proc_fd, inner_uid=0)
        mounts.build_root(binds, links)


def serve(control_fd: int, proc_fd: int) -> NoReturn:
    """Second stage, inside the root: prepare, then fork a child whenever the worker asks.

    Args:
        control_fd: socket to the worker, over which the plan comes once more, now without host paths.
        proc_fd: the host's /proc, as ``namespaces.open_proc`` gives it.
    """
    privileges.die_with_parent()
    at_once(privileges.forbid_new_privileges)
    control_fd, proc_fd = free_low_descriptors(control_fd, proc_fd)
    control = socket.socket(fileno=control_fd)
    plan = Plan.decode(control.recv(_MAX_PACKET))
    networks = Networks.of(plan, proc_fd)
    plan = dataclasses.replace(plan, lends_network=networks is not None)
    own_pid_ns = None if plan.profile == "unprivileged" else os.open("self/ns/pid", os.O_RDONLY, dir_fd=proc_fd)
    orders = Orders(control, own_pid_ns)
    try:
        children, live = (prepare_cold if plan.cold else prepare_warm)(plan, proc_fd, orders.descriptors)
        fork = orders.fork(children, live)
        gc.freeze()  # this, too
    except BaseException as error:
        tell_failure(control, error)
        raise  # the traceback is for the operator, on the worker's stderr
    control.send(HEAD.pack(READY, 0))
    ForkServer(control_fd, orders, fork, networks).serve()


Children = tuple[tuple[Prepared, Prepared], Callable[[bool, CallFailedError | None], NoReturn]]
"""The calls of a child, without and with a rehearsal; and what it does then, see ``Fork``."""


def prepare_warm(plan: Plan, proc_fd: int, descriptors: list[Later]) -> Children:
    """Import everything now; a child is a fork of what that makes."""
    lives = prepare(plan, proc_fd, descriptors, os.getpid())
    return (lives[False].calls, lives[True].calls), lambda rehearse, failed: lives[rehearse].go_on(failed)


def prepare_cold(plan: Plan, proc_fd: int, descriptors: list[Later]) -> Children:
    """Import nothing; a child executes a new interpreter: an address layout and a hash seed of its own."""
    plan_fd, zygote_pid = os.memfd_create("plan"), os.getpid()
    os.write(plan_fd, plan.encode())

    def live(rehearse: bool, _: CallFailedError | None) -> NoReturn:
        fds = [descriptor.value for descriptor in descriptors]
        for fd in (plan_fd, proc_fd, *fds):
            os.set_inheritable(fd, True)
        execute(f"live_cold({plan_fd}, {proc_fd}, {fds}, {rehearse}, {zygote_pid})", plan)

    return (Prepared([]), Prepared([])), live


def live_cold(plan_fd: int, proc_fd: int, descriptors: list[int], rehearse: bool, zygote_pid: int) -> NoReturn:
    """The new interpreter of a cold child: prepare as a zygote does, then do what a warm child does."""
    free_low_descriptors()
    size = os.fstat(plan_fd).st_size
    fds = (ctypes.c_int * len(descriptors))(*descriptors)
    given = [Later(ctypes.addressof(fds) + place * ctypes.sizeof(ctypes.c_int)) for place in range(len(fds))]
    life = prepare(Plan.decode(os.pread(plan_fd, size, 0)), proc_fd, given, zygote_pid)[rehearse]
    try:
        life.calls.make()
    except CallFailedError as error:
        life.go_on(error)
    life.go_on(None)


def free_low_descriptors(*kept: int) -> list[int]:
    """Move ``kept`` to high numbers and occupy the low ones; returns the new numbers.

    Invariant: no descriptor that arrives later gets a number below ``_FIRST_FREE_FD``. So a child can put its own at
    their places by dup2 without overwriting one that it still needs.
    """
    *moved, null = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for fd in (*kept, 0)]
    for fd in range(STDERR + 1, _FIRST_FREE_FD):
        os.dup2(null, fd, inheritable=False)
    return moved


def settle_threads(proc_fd: int) -> int:
    """How many threads this process has. Waits a moment for those that were joined and still leave the kernel."""
    deadline = time.monotonic() + _THREADS_LEAVE_S
    while (threads := child.count_threads(proc_fd)) != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    return threads


def prepare(plan: Plan, proc_fd: int, descriptors: list[Later], zygote_pid: int) -> dict[bool, child.Life]:
    """Import what every child needs, then measure and freeze the heap that they will share.

    Args:
        descriptors: as of ``child.Life``.
        zygote_pid: of the process that forks the children.
    Returns:
        What a child does, with and without a rehearsal.
    """
    sys.path.append(plan.site_packages)
    site.setquit()
    surroundings.settle(places(plan), own_users=plan.profile == "full")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # every signal as a new process has it
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    streams.open_streams()
    are_idle = fork_hooks.are_idle(plan)
    with (
        arenas.side_by_side() if forks_much(plan) else contextlib.nullcontext(),
        fork_hooks.left_out() if are_idle else contextlib.nullcontext(list[str]()) as others,
    ):
        with caches.lend_matplotlib(plan.caches, plan.preload):
            for name in plan.preload:
                importlib.import_module(name)
        caches.listen(plan.caches)
        module, _, function = plan.entry.partition(":")
        entry = getattr(importlib.import_module(module), function)
        prepare, rehearse = find_hook(plan, "prepare"), find_hook(plan, "rehearse")
        if prepare is not None:
            prepare()
        if rehearse is not None:
            rehearse_often(rehearse)
    renewal = Renewal()
    renewal.finish()  # the first time is slow: here, not in every child
    # Invariant: one thread from here to every fork. A fork copies the calling thread alone: a lock that another thread
    # held would stay locked for ever in the child, and unshare(CLONE_NEWUSER) refuses a process with threads.
    if (threads := settle_threads(proc_fd)) != 1:
        raise RuntimeError(f"{threads} threads after importing {plan.preload}: a fork would copy one of them only")
    gc.collect()
    gc.freeze()
    libc.give_back_free_memory()
    with contextlib.suppress(OSError):
        use_huge_pages(proc_fd)
    inheritance = child.Inheritance(
        plan=plan,
        entry=entry,
        prepare=prepare,
        rehearse=rehearse,
        baseline=measure(proc_fd),
        proc_fd=proc_fd,
        rules=landlock_rules(plan),
        filter=plan.filter,
        last_filter=plan.last_filter,
        zygote_pid=zygote_pid,
        renewal=renewal,
        interrupts=interrupts.mind_in_children(),
        ready=child.ReadyReport(plan),
        wakes_first=bool(others) or not are_idle,
    )
    lives = {rehearsing: child.Life(inheritance, descriptors, rehearse=rehearsing) for rehearsing in (False, True)}
    gc.freeze()  # these, too
    return lives


def rehearse_often(rehearse: Callable[[], None]) -> None:
    """Rehearse until the interpreter has made of our own code what it makes of code that runs often (PEP 659).

    Such code looks fewer things up, and so a child that runs it touches, and copies, fewer pages.
    """
    until_s = time.process_time() + _REHEARSALS_S
    for _ in range(_REHEARSALS):
        rehearse()
        if time.process_time() > until_s:
            break


def forks_much(plan: Plan) -> bool:
    """Whether what is loaded beforehand is so much that its place matters: packages, and not for one child alone."""
    ours = {"handlers", *sys.stdlib_module_names}
    return not plan.cold and any(name.partition(".")[0] not in ours for name in plan.preload)


def use_huge_pages(proc_fd: int) -> None:
    """Collapse the heap into huge pages where the kernel can: a fork then copies one entry instead of 512.

    madvise(2) on MADV_COLLAPSE, Linux 6.1. Only what is nearly full: the kernel would fill the rest with zeros. Where
    it fails forks take longer; nothing else changes.
    """
    with os.fdopen(os.open("self/maps", os.O_RDONLY, dir_fd=proc_fd), encoding="ascii", errors="replace") as file:
        lines = [line.split() for line in file]
    heaps = (where for where, access, *rest in lines if access.startswith("rw") and is_anonymous(rest))
    with os.fdopen(os.open("self/pagemap", os.O_RDONLY, dir_fd=proc_fd), "rb", buffering=0) as pages:
        for where in heaps:
            start, end = (int(address, 16) // libc.HUGE_PAGE_BYTES for address in where.split("-"))
            for huge in range(start + 1, end):
                if count_present(pages.fileno(), huge * _SMALL_PAGES, _SMALL_PAGES) >= _NEARLY_FULL:
                    with contextlib.suppress(OSError):  # e.g. no huge page is free; the next one may be
                        libc.collapse(huge * libc.HUGE_PAGE_BYTES)


def is_anonymous(described: list[str]) -> bool:
    """Whether a mapping is of no file, by what stands behind its access in proc_pid_maps(5): three fields, no path."""
    return len(described) == 3 + (described[-1:] == ["[heap]"])


def count_present(pagemap: int, first: int, count: int) -> int:
    """How many of the pages from the number ``first`` on are in memory: proc_pid_pagemap(5), bit 63 of each entry."""
    entries = os.pread(pagemap, count * 8, first * 8)
    return sum(byte >> 7 for byte in entries[7::8])


def find_hook(plan: Plan, name: str) -> Callable[[], None] | None:
    """What ``find_hook(name, task_type)`` beside the entry finds for the plan's task type; ``None`` if there is none.

    ``prepare`` is called in the zygote and in every child, and opens what a locked child can open no more.
    ``rehearse`` is an optimisation: called in the zygote it loads what is loaded on first use; called in some children
    it touches, and so copies, the pages that a request will write to.
    """
    find = getattr(importlib.import_module(plan.entry.partition(":")[0]), "find_hook", None)
    return None if find is None else find(name, plan.task_type)


def places(plan: Plan) -> list[str]:
    """Where what a run may read is, as the zygote sees it."""
    return [target if plan.profile == "full" else source for source, target in plan.binds]


def landlock_rules(plan: Plan) -> list[tuple[int, int]]:
    """One open descriptor and its rights for each place of the root."""
    granted = landlock.RUN if plan.processes else landlock.READ
    rules = [
        (os.open(path, os.O_PATH), granted if os.path.isdir(path) else granted & ~landlock.READ_DIR)
        for path in places(plan)
    ]
    if plan.profile == "full":  # the host's stays closed
        rules.append((os.open("/etc", os.O_PATH), landlock.READ))
    for name in mounts.DEVICES:
        access = landlock.READ_ONLY_DEVICE if name in mounts.READ_ONLY_DEVICES else landlock.DEVICE
        rules.append((os.open(f"/dev/{name}", os.O_PATH), access))
    return rules


def measure(proc_fd: int) -> child.Baseline:
    """Own sizes from /proc/self/status, see proc_pid_status(5)."""
    fd = os.open("self/status", os.O_RDONLY, dir_fd=proc_fd)
    with os.fdopen(fd, encoding="ascii") as file:
        lines = dict(line.rstrip("\n").split(":", 1) for line in file)

    def size(name: str) -> int:
        return int(lines[name].split()[0]) << 10

    return child.Baseline(data=size("VmData"), address_space=size("VmSize"), anonymous=size("RssAnon"))


class ForkServer:
    """Forks children and reports their deaths, one thing after the other, until the worker is gone."""

    def __init__(self, control_fd: int, orders: Orders, fork: Fork, networks: Networks | None) -> None:
        self._control_fd = control_fd
        self._orders = orders
        self._fork = fork
        self._networks = networks
        self._children: dict[int, tuple[int, int, int | None]] = {}
        self._poll = select.poll()
        self._poll.register(control_fd, select.POLLIN)

    def serve(self) -> NoReturn:
        """Serve until the worker closes its end."""
        while True:
            for fd, _ in self._poll.poll():
                try:
                    if fd == self._control_fd:
                        self._spawn()
                    else:
                        self._reap(fd)
                except OSError as error:
                    if error.errno in (errno.ENODATA, errno.EPIPE, errno.ECONNRESET):
                        os._exit(0)  # the worker has closed its end or died
                    raise

    def _spawn(self) -> None:
        """Take an order, fork a child, and pass the worker a descriptor of it."""
        self._orders.take()
        network = None
        try:
            if self._networks is not None:
                network = self._networks.lend()
            pid = self._fork.make()
        except OSError as error:
            if getattr(error, "step", "") == "tell":
                raise
            if network is not None:
                self._networks.take_back(network)  # type: ignore[union-attr]
            self._orders.tell_failed(error)
            return
        number, pidfd = self._orders.last
        self._children[pidfd] = (number, pid, network)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        """Take a dead child's status and report it."""
        number, pid, network = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        self._orders.tell_end(number, pid, pidfd)
        if network is not None:
            self._networks.take_back(network)  # type: ignore[union-attr]
