"""Ready children of one policy: taken one by one, each for one request, replaced while the request runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import msgspec

from sandbox.egress.lookup import Resolve, SystemResolver
from sandbox.egress.proxy import Proxy
from sandbox.errors import HostError, SandboxError
from sandbox.inside.plan import Plan
from sandbox.isolation import seccomp
from sandbox.policy.policy import Limits, Policy
from sandbox.pool.background import Background
from sandbox.pool.make_plan import Filters, compile_filters, make_plan
from sandbox.pool.ready_children import ReadyChildren
from sandbox.pool.template import Template
from sandbox.pool.zygotes import Zygotes
from sandbox.probe import Host
from sandbox.result import EgressRow, Isolation, OnOutput, OnProgress, Result, RunFacts
from sandbox.run import json_rule
from sandbox.run.cgroup import Groups
from sandbox.run.child_handle import ChildHandle
from sandbox.run.pipes import build_message
from sandbox.run.watch import Watch

REFILL_AFTER_S = 0.005
_LEAVE_OUT = "Run it on a host that grants user namespaces, or leave it out here (DISABLED_POLICIES)."


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
        self._ablated = ablated
        self._holds_until_death = seccomp.holds_until_death()
        self._system_resolver = SystemResolver()
        self._resolve = resolve or self._system_resolver
        # one at a time: each holds the interpreter's lock now and then, and all other runs share that
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="check responses")
        self._background = Background()
        self._zygotes = Zygotes(
            self._make_plan,
            template,
            self._background,
            pool=policy.name,
            rotate_after=rotate_after,
            groups=Groups(host.cgroup) if host.cgroup is not None else None,
        )
        self._ready = ReadyChildren(self._zygotes)
        self._coming = self._running = 0

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
        require_host(self._policy, self._host)
        await asyncio.to_thread(json_rule.prepare)
        try:
            await self._zygotes.ensure_living()
            for _ in range(self._wanted):
                self._ready.add(await self._zygotes.spawn(rehearse=self._ready.has_time_to_rehearse()))
        except BaseException:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        """Start the pool, as ``start`` does."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the pool, as ``close`` does."""
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
            on_output: is given what the run prints while it runs: all of what ``Result.logs`` will hold, in bytes.
            on_progress: is given what the run reports of its progress, at most ten times a second.

        Raises:
            SandboxError: our own failure; the request may be tried again.
        """
        limits = limits or self._policy.limits
        child = self._ready.take() or await self._zygotes.spawn(rehearse=False)
        self._running += 1
        # a fork beside a short run would only slow it down; a long run hides it
        refill = asyncio.get_running_loop().call_later(REFILL_AFTER_S if len(self._ready) else 0, self._refill)
        try:
            message = build_message(request, self._policy.limits, limits, inputs or {})
            async with self._egress(child) as egress:
                whole_tree = self._policy.syscalls.profile == "processes"  # whatever the request leaves of its number
                watch = Watch(
                    child,
                    limits,
                    whole_tree=whole_tree,
                    holds_until_death=self._holds_until_death,
                    checker=self._checker,
                    on_output=on_output,
                    on_progress=on_progress,
                )
                facts = await watch.run(message, cancel)
        finally:
            self._running -= 1
            refill.cancel()
            self._refill()
            self._background.start(_dispose(child))
        return self._result(facts, limits, egress.decisions() if egress else ())

    async def close(self) -> None:
        """Kill every child and the zygote, and wait until they are gone. May be called again."""
        await self._zygotes.close()
        await self._background.wait()
        self._ready.close()
        self._system_resolver.close()
        self._checker.shutdown(wait=False, cancel_futures=True)

    def stats(self) -> PoolStats:
        """Counts as they are now."""
        return PoolStats(
            ready=len(self._ready),
            wanted=self._wanted,
            running=self._running,
            spawned=self._zygotes.spawned,
            zygote_restarts=self._zygotes.restarts,
            zygote_rotations=self._zygotes.rotations,
        )

    def ready_pids(self) -> list[int]:
        """Process ids, in the worker's pid namespace, of the children that wait for a request."""
        return [child.pid for child in self._ready]

    def _refill(self) -> None:
        """Replace what was taken or has died, in the background."""
        self._ready.discard_dead()
        for _ in range(self._wanted - len(self._ready) - self._coming):
            self._coming += 1
            self._background.start(self._add_ready())

    async def _add_ready(self) -> None:
        # a failure here is met again, and reported, by the next request that needs a child
        with contextlib.suppress(SandboxError):
            try:
                child = await self._zygotes.spawn(rehearse=self._ready.has_time_to_rehearse())
            finally:
                self._coming -= 1
            self._ready.add(child)

    @contextlib.asynccontextmanager
    async def _egress(self, child: ChildHandle) -> AsyncIterator[Proxy | None]:
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

    def _result(self, facts: RunFacts, limits: Limits, egress: tuple[EgressRow, ...]) -> Result:
        found = {field: getattr(facts, field) for field in facts.__struct_fields__}
        if egress:
            found["usage"] = msgspec.structs.replace(facts.usage, egress=egress)
        return Result(
            **found,
            isolation=self.isolation,
            policy=self._policy.name,
            policy_digest=self._policy.digest,
            libraries_digest=self._template.libraries[self._policy.libraries].digest,
            limits=limits,
        )

    @functools.cached_property
    def _filters(self) -> Filters:
        return compile_filters(self._policy, self._host)

    def _make_plan(self) -> Plan:
        return make_plan(self._policy, self._host, self._template, self._filters, ablated=self._ablated)


def require_host(policy: Policy, host: Host) -> None:
    """Check that a host has what a policy needs.

    Raises:
        HostError: it has not; says what is missing and the fix.
    """
    if host.profile != "full" and policy.limits.processes:
        raise HostError(
            f"policy {policy.name} allows processes, which only namespaces can count and end: "
            f"the {host.profile} profile cannot run it. {_LEAVE_OUT}"
        )
    if host.profile != "full" and policy.network.allow:
        raise HostError(
            f"policy {policy.name} grants network, which only a network namespace can confine to the egress "
            f"proxy: the {host.profile} profile cannot run it. (Landlock's rule for TCP names a port and no "
            f"address, so that the same port of any other host would be open too.) {_LEAVE_OUT}"
        )
    for layer in host.missing(policy):
        wanted = f"policy {policy.name} requires {layer.name}"
        raise HostError(f"{wanted}, and this host lacks it: {layer.detail}. {layer.fix}")
    if policy.limits.processors is not None and not host.limits_processors:
        raise HostError(
            f"policy {policy.name} limits processors, and the delegated subtree {host.cgroup} has no controller cpu. "
            "Delegate that, too (systemd: `Delegate=cpu memory pids`), or remove limits.processors."
        )


async def _dispose(child: ChildHandle) -> None:
    """Whatever happened, the child is dead and its descriptors are closed when this is done."""
    if not child.death.done():
        child.kill()
        with contextlib.suppress(SandboxError):
            await child.death
    child.close()
