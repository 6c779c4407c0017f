"""Ready children of one policy: taken one by one, each for one request, replaced while the request runs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import math
import os
import socket
import sys
import sysconfig
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Self

import msgspec

from sandbox.egress.lookup import Resolve, SystemResolver
from sandbox.egress.proxy import Proxy
from sandbox.errors import HostError, SandboxError
from sandbox.inside.plan import Plan
from sandbox.isolation import network, seccomp
from sandbox.policy.policy import Limits, Policy
from sandbox.pool.template import (
    CODE,
    INTERPRETER,
    SITE_PACKAGES,
    Template,
    binds,
    environment,
    granted_places,
    ways_out,
)
from sandbox.pool.zygote_client import ZygoteClient
from sandbox.probe import Host
from sandbox.result import EgressRow, Isolation, Result
from sandbox.run.child_handle import Child
from sandbox.run.decide import Outcome
from sandbox.run.watch import OnOutput, OnProgress, Watch
from sandbox.run.watch import message as build_message

_MIB = 1 << 20
REFILL_AFTER_S = 0.005
_LEAVE_OUT = "Run it on a host that grants user namespaces, or leave it out here (DISABLED_POLICIES)."
REHEARSED = 2
"""Ready children that have rehearsed. The others would each copy megabytes that they may never need."""
_PRESSED_FOR_S = 1.0
"""After a request has found no child ready, how long new ones are made without a rehearsal: sooner beats warmer."""


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one pool."""

    ready: int
    wanted: int
    running: int
    spawned: int
    zygote_restarts: int
    zygote_rotations: int


class Pool:
    """Keeps ``ready`` single-use children of one policy at hand and runs requests in them."""

    def __init__(
        self,
        policy: Policy,
        host: Host,
        template: Template,
        *,
        ready: int = 2,
        rotate_after: int = 1000,
        resolve: Resolve | None = None,
        ablated: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            policy: what a run may do.
            host: what ``probe_host`` found.
            template: what zygotes are made of.
            ready: children kept at hand; 0 forks one for each request when it comes.
            rotate_after: children that one zygote forks before a new one, with another address layout and hash seed,
                takes its place.
            resolve: asks for the addresses of a name, for the egress proxy; the system's resolver unless given.
            ablated: steps of ``sandbox.inside.child.lock_down`` to leave out. For the ablation tests only.
        """
        self._policy = policy
        self._host = host
        self._template = template
        self._wanted = ready
        self._rotate_after = rotate_after
        self._ablated = ablated
        self._system_resolver = SystemResolver()
        self._resolve = resolve or self._system_resolver
        self._ready: deque[Child] = deque()
        self._background: set[asyncio.Task[None]] = set()
        self._zygote: ZygoteClient | None = None
        self._retiring: set[ZygoteClient] = set()
        self._rotating = False
        self._starting = asyncio.Lock()
        self._closed = False
        self._pressed_until_s = 0.0
        self._coming = self._running = self._spawned = self._restarts = self._rotations = 0

    @property
    def isolation(self) -> Isolation:
        """The layers that hold every run of this pool."""
        layers = {layer.name: layer.version for layer in self._host.layers if layer.available}
        if self._host.profile != "full":
            layers.pop("namespaces", None)
        return Isolation(profile=self._host.profile, start=self._policy.start, layers=layers)

    async def start(self) -> None:
        """Start the zygote and fill the pool.

        Raises:
            HostError: the policy requires a layer that the host lacks.
            SandboxError: the zygote did not come up.
        """
        if self._host.profile != "full" and self._policy.limits.processes:
            raise HostError(
                f"policy {self._policy.name} allows processes, which only namespaces can count and end: "
                f"the {self._host.profile} profile cannot run it. {_LEAVE_OUT}"
            )
        if self._host.profile != "full" and self._policy.network.allow:
            raise HostError(
                f"policy {self._policy.name} grants network, which only a network namespace can confine to the egress "
                f"proxy: the {self._host.profile} profile cannot run it. (Landlock's rule for TCP names a port and no "
                f"address, so that the same port of any other host would be open too.) {_LEAVE_OUT}"
            )
        for layer in self._host.missing(self._policy):
            wanted = f"policy {self._policy.name} requires {layer.name}"
            raise HostError(f"{wanted}, and this host lacks it: {layer.detail}. {layer.mend}")
        try:
            await self._living_zygote()
            for _ in range(self._wanted):
                self._ready.append(await self._spawn(rehearse=self._has_time_to_rehearse()))
        except BaseException:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        """Start; see there."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    async def run(
        self,
        request: bytes,
        *,
        inputs: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
        cancel: asyncio.Event | None = None,
        on_output: OnOutput | None = None,
        on_progress: OnProgress | None = None,
    ) -> Result:
        """Run one request in a fresh child and say how it ended.

        Args:
            request: what the child reads on stdin, whole; not empty.
            inputs: file name → content; the run finds them in ``inputs/`` of its workspace, whose limits they count
                towards.
            limits: the limits in force, at most the policy's; ``None`` is the policy's own.
            cancel: set it to have the run killed; the result then says ``cancelled``.
            on_output: is told what the run prints while it runs: all of what ``Result.logs`` will hold, in bytes.
            on_progress: is told what the run says of its progress, at most ten times a second.

        Raises:
            SandboxError: our own failure; the request may be tried again.
        """
        limits = limits or self._policy.limits
        child = await self._take()
        self._running += 1
        # a fork beside a short run would only slow it down; a long run hides it
        refill = asyncio.get_running_loop().call_later(REFILL_AFTER_S if self._ready else 0, self._refill)
        try:
            message = build_message(request, self._policy.limits, limits, inputs or {})
            async with self._egress(child) as egress:
                whole_tree = limits.processes > 0
                watch = Watch(child, limits, whole_tree=whole_tree, on_output=on_output, on_progress=on_progress)
                outcome = await watch.run(message, cancel)
        finally:
            self._running -= 1
            refill.cancel()
            self._refill()
            self._in_background(self._dispose(child))
        return self._result(outcome, limits, egress.decisions() if egress else ())

    async def close(self) -> None:
        """Kill every child and the zygote, and wait until they are gone. May be called again."""
        self._closed = True
        async with self._starting:
            zygotes = [*self._retiring, *([self._zygote] if self._zygote else [])]
        await asyncio.gather(*(zygote.close() for zygote in zygotes))
        await asyncio.gather(*self._background, return_exceptions=True)
        while self._ready:
            self._ready.popleft().close()
        self._system_resolver.close()

    def stats(self) -> PoolStats:
        """Counts as they are now."""
        return PoolStats(
            ready=len(self._ready),
            wanted=self._wanted,
            running=self._running,
            spawned=self._spawned,
            zygote_restarts=self._restarts,
            zygote_rotations=self._rotations,
        )

    def ready_pids(self) -> list[int]:
        """Process ids, in the worker's pid namespace, of the children that wait for a request."""
        return [child.pid for child in self._ready]

    @contextlib.asynccontextmanager
    async def _egress(self, child: Child) -> AsyncIterator[Proxy | None]:
        """The proxy of one run, which ends with it; ``None`` where the policy grants no network."""
        if child.proxy is None:
            yield None
            return
        exceptions = self._template.egress_exceptions
        proxy = Proxy(self._policy.network, self._resolve, exceptions=exceptions)
        with socket.socket(fileno=os.dup(child.proxy)) as listener:
            proxy.serve(listener)
            try:
                yield proxy
            finally:
                await proxy.close()

    async def _take(self) -> Child:
        """A living ready child; if there is none, a new one."""
        self._discard_dead()
        if self._ready:
            chosen = min(self._ready, key=lambda child: (self._is_of_living_zygote(child), not child.rehearsed))
            self._ready.remove(chosen)
            return chosen
        self._pressed_until_s = time.monotonic() + _PRESSED_FOR_S
        return await self._spawn(rehearse=False)

    def _discard_dead(self) -> None:
        """Ready children die with their zygote, or are killed from outside."""
        for child in [child for child in self._ready if child.death.done()]:
            self._ready.remove(child)
            child.close()

    def _refill(self) -> None:
        """Replace what was taken or has died, in the background."""
        self._discard_dead()
        for _ in range(self._wanted - len(self._ready) - self._coming):
            self._coming += 1
            self._in_background(self._add_ready())

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _add_ready(self) -> None:
        # a failure here is met again, and reported, by the next request that needs a child
        with contextlib.suppress(SandboxError):
            try:
                child = await self._spawn(rehearse=self._has_time_to_rehearse())
            finally:
                self._coming -= 1
            self._ready.append(child)

    def _has_time_to_rehearse(self) -> bool:
        rehearsed = sum(child.rehearsed for child in self._ready)
        return rehearsed < REHEARSED and time.monotonic() > self._pressed_until_s

    def _is_of_living_zygote(self, child: Child) -> bool:
        """Those of an old one are to be used up first: it stays for as long as one of them does."""
        return self._zygote is not None and self._zygote.owns(child)

    async def _spawn(self, *, rehearse: bool) -> Child:
        zygote = await self._living_zygote()
        child = await zygote.spawn(rehearse=rehearse)
        self._spawned += 1
        if zygote.spawned >= self._rotate_after and not self._rotating and not self._closed:
            self._rotating = True
            self._in_background(self._rotate())
        return child

    async def _rotate(self) -> None:
        """Put a new zygote in the old one's place; the old one's children live on until they are used."""
        try:
            new = await self._new_zygote()
        except SandboxError:
            self._rotating = False  # the old one still serves; the next spawn tries again
            return
        async with self._starting:
            old = new if self._closed else self._zygote
            if old is not new:
                self._zygote = new
                self._rotations += 1
        self._rotating = False
        if old is not None:
            self._retiring.add(old)
            await old.retire()
            self._retiring.discard(old)

    async def _living_zygote(self) -> ZygoteClient:
        """The zygote; a new one if it has died."""
        async with self._starting:
            if self._closed:
                raise SandboxError("pool", f"the pool of {self._policy.name} is closed")
            if self._zygote is not None and not self._zygote.gone.done():
                return self._zygote
            if self._zygote is not None:
                self._restarts += 1
                await self._zygote.close()
            self._zygote = await self._new_zygote()
            return self._zygote

    async def _new_zygote(self) -> ZygoteClient:
        zygote = ZygoteClient(self._plan(), self._template.code)
        await zygote.start()
        return zygote

    async def _dispose(self, child: Child) -> None:
        """Whatever happened, the child is dead and its descriptors are closed when this is done."""
        if not child.death.done():
            child.kill()
            with contextlib.suppress(SandboxError):
                await child.death
        child.close()

    def _result(self, outcome: Outcome, limits: Limits, egress: tuple[EgressRow, ...]) -> Result:
        facts = {field: getattr(outcome, field) for field in outcome.__struct_fields__}
        if egress:
            facts["usage"] = msgspec.structs.replace(outcome.usage, egress=egress)
        return Result(
            **facts,
            isolation=self.isolation,
            policy=self._policy.name,
            policy_digest=self._policy.digest,
            limits=limits,
        )

    @functools.cached_property
    def _filters(self) -> tuple[bytes, bytes]:
        """The system call filter, and the last one, which goes on top of it."""
        calls, host = self._policy.syscalls, self._host
        try:
            whole = seccomp.compile_filter(
                processes=calls.profile == "processes",
                network=bool(self._policy.network.allow),
                extra=calls.allow,
                alone=host.profile == "full",
                landlock_abi=host.landlock_abi,
            )
            return whole, seccomp.compile_last_filter()
        except (ImportError, RuntimeError, OSError) as error:
            raise HostError(f"the system call filter of {self._policy.name} cannot be made: {error}") from error

    def _plan(self) -> Plan:
        policy, limits, template = self._policy, self._policy.limits, self._template
        inside, egress = self._host.profile == "full", bool(policy.network.allow)
        places = granted_places(template, policy)
        return Plan(
            profile=self._host.profile,
            policy=policy.name,
            task_type=policy.task_type,
            cold=policy.start == "cold",
            entry=template.entry,
            preload=list(policy.preload),
            interpreter=INTERPRETER if inside else os.path.realpath(sys.executable),
            code=CODE if inside else str(template.code),
            site_packages=SITE_PACKAGES if inside else sysconfig.get_path("purelib"),
            environment=environment(
                inside=inside,
                places={place: f"/{place}" if inside else str(template.places[place]) for place in places},
                ways_out=ways_out(template) if egress else {},
            ),
            binds=[list(bind) for bind in binds(template, places, egress=egress)],
            links=[["/work/tmp", "/tmp"], ["/work/tmp", "/dev/shm"]],  # noqa: S108 inside the sandbox
            workspace_base="",  # the zygote's client makes one where it is needed
            outer_uid=template.uid,
            outer_gid=template.gid,
            cpu_s=math.ceil(limits.cpu_s),
            memory_bytes=limits.memory_mib * _MIB,
            threads=limits.threads,
            processes=limits.processes,
            open_files=limits.open_files,
            workspace_bytes=limits.workspace_mib * _MIB,
            workspace_files=limits.workspace_files,
            landlock_abi=self._host.landlock_abi,
            proxy_port=network.PORT if egress else 0,
            filter_base64=base64.b64encode(self._filters[0]).decode(),
            last_filter_base64=base64.b64encode(self._filters[1]).decode(),
            ablated=list(self._ablated),
        )
