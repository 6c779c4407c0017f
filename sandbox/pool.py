from __future__ import annotations

import asyncio

import msgspec

from sandbox.policy import Limits, Policy
from sandbox.probe import Host
from sandbox.result import Isolation, Result
from sandbox.zygote import Template


class PoolStats(msgspec.Struct, frozen=True, kw_only=True):
    ready: int
    wanted: int
    running: int
    spawned: int
    zygote_restarts: int


class Pool:
    """Keeps ``ready`` single-use children of one policy at hand and runs requests in them."""

    def __init__(self, policy: Policy, host: Host, template: Template, *, ready: int = 2) -> None:
        raise NotImplementedError

    @property
    def isolation(self) -> Isolation:
        """The layers that hold every run of this pool."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start the zygote and fill the pool.

        Raises:
            HostError: the policy requires a layer that the host lacks.
            SandboxError: the zygote did not come up.
        """
        raise NotImplementedError

    async def run(
        self, request: bytes, *, limits: Limits | None = None, cancel: asyncio.Event | None = None
    ) -> Result:
        """Run one request in a fresh child and say how it ended.

        Args:
            request: what the child reads on stdin, whole.
            limits: the limits in force, at most the policy's; ``None`` is the policy's own.
            cancel: set it to have the run killed; the result then says ``cancelled``.

        Raises:
            SandboxError: our own failure; the request may be tried again.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Kill every child and the zygote, and wait until they are gone."""
        raise NotImplementedError

    def stats(self) -> PoolStats:
        raise NotImplementedError
