"""Several pools of one policy: one whose children have little loaded, and one for each group of ``preload_if_named``.

A fork copies the page tables of its zygote and its end gives them back: a zygote with pandas in it costs each child
some four milliseconds of processor time, whether or not the script ever imports pandas. What the zygote has loaded
counts towards the run's memory, too. So a request in whose text a name of a group occurs gets a child of a zygote that
has this group and those before it loaded; every other one a child of the smallest. The text decides about speed only:
all have the same grant, and what is not loaded can be imported all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sandbox.policy.policy import Limits, Policy
from sandbox.pool.pool import Pool, PoolStats, require_host
from sandbox.pool.template import Template
from sandbox.probe import Host
from sandbox.result import Isolation, OnOutput, OnProgress, Result

_STANDING = 2
"""The smallest pool and that of the first group start with the worker; each other one with its first request, for few
requests need it, and its zygote is the largest."""


class SplitPool:
    """Several pools, each with more loaded than the one before, that are used like one ``Pool``."""

    def __init__(self, policy: Policy, host: Host, template: Template, *, ready: int, **options: Any) -> None:
        """
        Args:
            policy: one with ``preload_if_named``.
            host: what ``probe_host`` found.
            template: what zygotes are made of.
            ready: children that each pool keeps at hand. Where it is 0, no pool starts before its first request.
            options: as of ``Pool``.
        """
        self._policy = policy
        self._host = host
        self._names = tuple(_first_parts(group) for group in policy.preload_if_named)
        self._pools = tuple(
            Pool(policy.loaded_with(groups), host, template, ready=ready, **options)
            for groups in range(len(policy.preload_if_named) + 1)
        )
        self._started = list(self._pools[:_STANDING] if ready else ())

    @property
    def isolation(self) -> Isolation:
        """The layers that hold every run."""
        return self._pools[0].isolation

    async def start(self) -> None:
        """Start the pools that stand from the beginning.

        Raises:
            HostError: the policy requires a layer that the host lacks.
            SandboxError: a zygote did not come up.
        """
        require_host(self._policy, self._host)
        try:
            await asyncio.gather(*(pool.start() for pool in self._started))
        except BaseException:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        """Start, as ``start`` does."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all pools, as ``close`` does."""
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
        """Run one request in the pool that fits it. The arguments are those of ``Pool.run``.

        Raises:
            SandboxError: our own failure; the request may be tried again.
        """
        pool = self._choose(request)
        return await pool.run(
            request, inputs=inputs, limits=limits, cancel=cancel, on_output=on_output, on_progress=on_progress
        )

    async def close(self) -> None:
        """Kill every child and every zygote, and wait until they are gone."""
        await asyncio.gather(*(pool.close() for pool in self._pools))

    def stats(self) -> PoolStats:
        """Counts of all pools that have started."""
        all_of_them = [pool.stats() for pool in self._started]
        return PoolStats(
            **{name: sum(getattr(one, name) for one in all_of_them) for name in PoolStats.__struct_fields__}
        )

    def ready_pids(self) -> list[int]:
        """Process ids of the children that wait for a request."""
        return [pid for pool in self._pools for pid in pool.ready_pids()]

    def _choose(self, request: bytes) -> Pool:
        """The smallest pool with all groups that a request names. Its first run starts its zygote."""
        groups = [number for number, names in enumerate(self._names, 1) if any(name in request for name in names)]
        pool = self._pools[max(groups, default=0)]
        if pool not in self._started:
            self._started.append(pool)
        return pool


def _first_parts(group: Sequence[str]) -> tuple[bytes, ...]:
    return tuple({name.partition(".")[0].encode() for name in group})


def make_pool(policy: Policy, host: Host, template: Template, *, ready: int, **options: Any) -> Pool | SplitPool:
    """The pool that a policy asks for: split where it has ``preload_if_named``."""
    kind = SplitPool if policy.preload_if_named else Pool
    return kind(policy, host, template, ready=ready, **options)
