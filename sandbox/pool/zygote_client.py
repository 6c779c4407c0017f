"""The worker's side of one zygote: starts it, asks it for children, learns of their deaths."""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.inside.child import RESPONSE, STDIN
from sandbox.inside.orders import EXIT, EXITED, FAILED, FORKED, HEAD, READY, SPAWN
from sandbox.inside.plan import Plan
from sandbox.isolation.passing import receive_descriptors
from sandbox.pool.patience import LOOK_S, StartPatience, used_s
from sandbox.pool.template import START_S
from sandbox.run.cgroup import Groups, RunGroup
from sandbox.run.child_handle import ChildHandle, ExitFacts, pid_of
from sandbox.run.workspace import FolderWorkspace, TmpfsWorkspace, Workspace, remove_folder

LEAVE_TIMEOUT_S = 5.0
_REMOVE_TRIES, _REMOVE_PAUSE_S = 50, 0.02
_MAX_PACKET = 1 << 16
MOST_FORKING = 64
"""Children that are asked for at the same time. The zygote forks one after the other; its socket has no room for more
than some 270 requests, and each holds ten descriptors."""


class ZygoteClient:
    """One zygote process and the children that it has forked."""

    def __init__(self, plan: Plan, code: Path, groups: Groups | None = None, *, start_s: float = START_S) -> None:
        self._plan = plan
        self._start_s = start_s
        self._groups = groups
        self._code = code
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(MOST_FORKING)
        self._forking: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, ChildHandle] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._childless = asyncio.Event()
        self._closed = False
        self.spawned = 0
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the zygote is dead, and with it every child."""

    async def start(self) -> None:
        """Start the process and wait until it can fork.

        Raises:
            SandboxError: it could not prepare, died, or took too long; a traceback is on our stderr.
        """
        if self._plan.profile != "full":
            try:
                base = _make_workspace_base(self._plan)
            except OSError as error:  # no place, or root that may give nothing away
                reason = f"{self._plan.policy}: no folder for workspaces can be made: {error}"
                raise SandboxError("start_zygote", reason) from error
            self._plan = dataclasses.replace(self._plan, workspace_base=base)
        try:
            self._control, self._process = self._begin()
        except OSError as error:  # no descriptor, no process or no memory is left
            await self._remove_workspace_base()
            raise SandboxError("start_zygote", f"{self._plan.policy}: no process can be started: {error}") from error
        self._control.send(self._plan.encode())  # one plan for each stage
        self._control.send(self._plan.without_host_paths().encode())
        self._loop.add_reader(self._control, self._read_packet)
        try:
            await self._until_ready()
        except BaseException:
            await self.close()
            raise

    def _begin(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """The socket to the process, and the process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                ours.setblocking(False)
                return ours, self._exec(theirs.fileno())
            except OSError:
                ours.close()
                raise

    async def _until_ready(self) -> None:
        patience = StartPatience(self._start_s, lambda: used_s(self._process.pid))
        while not self._ready.done():
            await asyncio.wait([self._ready], timeout=LOOK_S)
            if not self._ready.done() and (fault := patience.fault()) is not None:
                raise SandboxError("start_zygote", f"{self._plan.policy}: {fault}")
        await self._ready

    def _exec(self, control_fd: int) -> subprocess.Popen[bytes]:
        start = (
            f"import sys; sys.path.append({str(self._code)!r}); "
            f"from sandbox.inside import zygote; zygote.launch({control_fd})"
        )
        return subprocess.Popen(  # noqa: S603 our own interpreter with a text of ours
            [sys.executable, "-I", "-S", "-B", "-c", start],
            env=self._plan.environment | {"LD_LIBRARY_PATH": ""},
            pass_fds=[control_fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    async def spawn(self, *, rehearse: bool) -> ChildHandle:
        """Have a child forked and locked down, wait until it is ready.

        Args:
            rehearse: have it touch the memory that a request will touch, see ``sandbox.inside.child.lock_down``.
        Raises:
            SandboxError: a step of its lock-down failed (named as the stage), or the zygote is gone.
        """
        self.spawned += 1
        number = self.spawned
        forked: asyncio.Future[int] = self._loop.create_future()
        self._forking[number] = forked
        with contextlib.ExitStack() as undo:
            undo.callback(self._note_childless)
            undo.callback(self._forking.pop, number)
            try:
                async with self._turns:
                    return await self._fork_and_lock_down(number, forked, undo, rehearse=rehearse)
            except (TimeoutError, OSError) as error:
                raise SandboxError("spawn", f"no ready child: {str(error) or 'it took too long'}") from error

    async def _fork_and_lock_down(
        self, number: int, forked: asyncio.Future[int], undo: contextlib.ExitStack, *, rehearse: bool
    ) -> ChildHandle:
        """Have a child forked, and wait for its word that it is ready.

        Invariant: every descriptor is in a stack from its first moment. What is in ``given`` is closed as soon as the
        zygote has it, what is in ``undo`` at the end in any case; what is in ``keep``, and with it the child, is ended
        only if no handle comes of it.
        """
        if forked.done():  # the zygote was lost before it was our turn
            await forked
        keep = undo.enter_context(contextlib.ExitStack())
        with contextlib.ExitStack() as given:
            theirs, ours = _make_pipes(given, keep)
            control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            given.callback(child_control.close)
            undo.callback(control.close)
            control.setblocking(False)
            group = self._make_group()
            if group is not None:
                keep.callback(group.close)
            self._request_child(number, [*theirs, child_control.fileno()], rehearse=rehearse)
        pidfd = await forked
        keep.callback(os.close, pidfd)
        if group is not None:
            group.add(pid_of(pidfd))
        keep.callback(_kill, pidfd)  # a half-locked child might wait for an answer that nobody gives
        async with asyncio.timeout(self._start_s):
            workspace, listener, proxy = await self._read_ready(control)
        keep.callback(os.close, listener)
        keep.callback(workspace.close)
        if proxy is not None:
            keep.callback(os.close, proxy)
        if self.gone.done():  # nobody would report the child's death any more
            raise SandboxError("zygote", f"the zygote of {self._plan.policy} is gone")
        child = self._children[number] = ChildHandle(
            pidfd, ours, workspace, listener, proxy, group=group, rehearsed=rehearse
        )
        keep.pop_all()
        return child

    def _make_group(self) -> RunGroup | None:
        """The cgroup of the next child, where the worker has a subtree."""
        if self._groups is None:
            return None
        plan = self._plan
        tasks = plan.threads + plan.processes + 1
        return self._groups.make(memory_bytes=plan.memory_bytes, tasks=tasks, processors=plan.processors)

    def _request_child(self, number: int, fds: list[int], *, rehearse: bool) -> None:
        packet = SPAWN.pack(rehearse, number)
        self._control.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])

    async def _read_ready(self, control: socket.socket) -> tuple[Workspace, int, int | None]:
        """Workspace, seccomp listener, and the socket for the egress proxy where the policy grants one."""
        readable: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(control, _settle, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(control)
        packet, fds = receive_descriptors(control, _MAX_PACKET, 3)
        if packet.startswith(b"ready\0") and len(fds) == (3 if self._plan.proxy_port else 2):
            workspace = self._workspace(fds[0], packet.removeprefix(b"ready\0").decode())
            return workspace, fds[1], fds[2] if self._plan.proxy_port else None
        for fd in fds:
            os.close(fd)
        step, _, reason = packet.decode(errors="replace").partition("\0")
        raise SandboxError(step or "spawn", f"{self._plan.policy}: {reason or 'the child died before it was ready'}")

    def _workspace(self, fd: int, name: str) -> Workspace:
        plan = self._plan
        if plan.profile == "full":
            return TmpfsWorkspace(fd)
        sizes = {"max_bytes": plan.workspace_bytes, "max_files": plan.workspace_files}
        return FolderWorkspace(Path(plan.workspace_base), name, fd, **sizes)

    def _read_packet(self) -> None:
        """Handle one packet of the zygote."""
        try:
            packet, fds = receive_descriptors(self._control, _MAX_PACKET, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        if not packet:
            self._lose()
            return
        kind, number = HEAD.unpack_from(packet)
        if kind == READY:
            self._ready.set_result(None)
        elif kind == FORKED and not fds:  # its pidfd found no room in this process: recvmsg(2), MSG_CTRUNC
            self._settle_failure(number, "no descriptor is left for the child")
        elif kind == FORKED:
            self._settle_fork(number, fds[0])
        elif kind == FAILED:
            self._settle_failure(number, packet[HEAD.size :].decode(errors="replace"))
        elif kind == EXITED:
            _, _, status, user_s, user_us, system_s, system_us = EXIT.unpack(packet)
            self._settle_death(number, ExitFacts(status, user_s + system_s + (user_us + system_us) / 1e6))

    def _settle_fork(self, number: int, pidfd: int) -> None:
        waiting = self._forking.get(number)
        if waiting is None or waiting.done():
            os.close(pidfd)
        else:
            waiting.set_result(pidfd)

    def _settle_failure(self, number: int, reason: str) -> None:
        """A fork failed; or, with the number 0, the zygote could not prepare, and is about to end."""
        if number:
            if (waiting := self._forking.get(number)) is not None and not waiting.done():
                waiting.set_exception(SandboxError("fork", reason))
        elif not self._ready.done():
            self._ready.set_exception(SandboxError("start_zygote", f"{self._plan.policy}: {reason}"))

    def _settle_death(self, number: int, facts: ExitFacts) -> None:
        child = self._children.pop(number, None)
        if child is not None and not child.death.done():
            child.death.set_result(facts)
        self._note_childless()

    def _lose(self) -> None:
        """The zygote is dead, or given up. Fail everything that waits for it or for one of its children."""
        self._loop.remove_reader(self._control)
        lost = SandboxError("zygote", f"the zygote of {self._plan.policy} is gone")
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._forking.values()]
        waiting += [child.death for child in self._children.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(lost)
                future.exception()  # mark it as seen: perhaps nobody waits for it any more
        self._children.clear()
        self._childless.set()
        if not self.gone.done():
            self.gone.set_result(None)

    def owns(self, child: ChildHandle) -> bool:
        """Whether a living child is one of its own."""
        return child in self._children.values()

    async def retire(self) -> None:
        """Close once the last of its children is dead."""
        self._note_childless()
        await self._childless.wait()
        await self.close()

    def _note_childless(self) -> None:
        if self._children or self._forking:
            self._childless.clear()
        else:
            self._childless.set()

    def kill(self) -> None:
        """Kill the first stage; the kernel then kills the second, and with its pid namespace every child."""
        self._process.kill()

    async def close(self) -> None:
        """End it and wait until it, and every child, is gone. May be called again."""
        if self._closed:
            return
        self._closed = True
        # When the control socket closes, the second stage leaves by itself and the first reaps it. Were the first
        # killed instead, the second would be left to process 1, which in a container may be the worker itself.
        self._lose()
        self._control.close()
        try:
            await self._loop.run_in_executor(None, self._process.wait, LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            await self._loop.run_in_executor(None, self._process.wait)
        await self._remove_workspace_base()

    async def _remove_workspace_base(self) -> None:
        """Remove the folder, with what children left in it that died before there was a handle for them."""
        base = self._plan.workspace_base
        for _ in range(_REMOVE_TRIES if base else 0):
            if await self._loop.run_in_executor(None, remove_folder, base):
                return
            await asyncio.sleep(_REMOVE_PAUSE_S)  # a child may still be dying, after its zygote


def _make_workspace_base(plan: Plan) -> str:
    """A folder for the workspaces of one zygote's children, private to the user that they run as."""
    base = tempfile.mkdtemp(prefix="sandbox-")
    if os.geteuid() == 0:
        try:
            os.chown(base, plan.outer_uid, plan.outer_gid)
        except OSError:
            os.rmdir(base)
            raise
    return base


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _make_pipes(given: contextlib.ExitStack, keep: contextlib.ExitStack) -> tuple[list[int], tuple[int, int, int, int]]:
    """Make four pipes: the child's ends (stdin, stdout, stderr, response), and ours, which never block.

    Args:
        given: closes the child's ends.
        keep: closes ours.
    """
    theirs, ours = [], []
    for place in range(RESPONSE + 1):
        read, write = os.pipe2(os.O_CLOEXEC)
        child_end, own_end = (read, write) if place == STDIN else (write, read)
        given.callback(os.close, child_end)
        keep.callback(os.close, own_end)
        os.set_blocking(own_end, False)
        theirs.append(child_end)
        ours.append(own_end)
    stdin, stdout, stderr, response = ours
    return theirs, (stdin, stdout, stderr, response)
