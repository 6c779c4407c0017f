"""Two pools of one policy: one whose children have little loaded, and one whose children have everything loaded.

A fork copies the page tables of its zygote and its end gives them back: a zygote with pandas in it costs each child
some four milliseconds of processor time, whether or not the script ever imports pandas. So a request in whose text one
of the policy's ``preload_if_named`` occurs gets a child of the larger zygote; every other one a child of the smaller.
The text decides about speed only: both have the same grant, and what is not loaded can be imported all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from sandbox.policy.policy import Limits, Policy
from sandbox.pool.pool import Pool, PoolStats
from sandbox.pool.template import Template
from sandbox.probe import Host
from sandbox.result import Isolation, OnOutput, OnProgress, Result


class SplitPool:
    """Two pools that are used like one ``Pool``."""

    def __init__(self, policy: Policy, host: Host, template: Template, *, ready: int, **options: Any) -> None:
        """
        Args:
            policy: one with ``preload_if_named``.
            host: what ``probe_host`` found.
            template: what zygotes are made of.
            ready: children that each of the two keeps at hand.
            options: as of ``Pool``.
        """
        self._names = tuple({name.partition(".")[0].encode() for name in policy.preload_if_named})
        self._small = Pool(policy, host, template, ready=ready, **options)
        self._large = Pool(policy.fully_loaded, host, template, ready=ready, **options)
        self._both = (self._small, self._large)

    @property
    def isolation(self) -> Isolation:
        """The layers that hold every run."""
        return self._small.isolation

    async def start(self) -> None:
        """Start both.

        Raises:
            HostError: the policy requires a layer that the host lacks.
            SandboxError: a zygote did not come up.
        """
        try:
            await asyncio.gather(*(pool.start() for pool in self._both))
        except BaseException:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        """Start both pools, as ``start`` does."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close both pools, as ``close`` does."""
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
        pool = self._large if any(name in request for name in self._names) else self._small
        return await pool.run(
            request, inputs=inputs, limits=limits, cancel=cancel, on_output=on_output, on_progress=on_progress
        )

    async def close(self) -> None:
        """Kill every child and both zygotes, and wait until they are gone."""
        await asyncio.gather(*(pool.close() for pool in self._both))

    def stats(self) -> PoolStats:
        """Counts of both together."""
        small, large = (pool.stats() for pool in self._both)
        return PoolStats(**{name: getattr(small, name) + getattr(large, name) for name in PoolStats.__struct_fields__})

    def ready_pids(self) -> list[int]:
        """Process ids of the children that wait for a request."""
        return [pid for pool in self._both for pid in pool.ready_pids()]


def make_pool(policy: Policy, host: Host, template: Template, *, ready: int, **options: Any) -> Pool | SplitPool:
    """The pool that a policy asks for: split where it has ``preload_if_named``.

    Where no child is kept ready, each zygote is a cost without a gain: one with everything loaded serves all.
    """
    if policy.preload_if_named and ready:
        return SplitPool(policy, host, template, ready=ready, **options)
    return Pool(policy.fully_loaded, host, template, ready=ready, **options)
