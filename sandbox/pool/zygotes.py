"""The zygote of one pool: started anew when it has died, and replaced when it has forked often enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandbox.errors import SandboxError
from sandbox.inside.plan import Plan
from sandbox.pool.background import Background
from sandbox.pool.template import Template
from sandbox.pool.zygote_client import ZygoteClient
from sandbox.run.cgroup import Groups
from sandbox.run.child_handle import ChildHandle


class Zygotes:
    """The zygote that forks now, and those that wait for the last of their children.

    Attributes:
        spawned: children forked so far.
        restarts: zygotes that were started because the one before had died.
        rotations: zygotes that took the place of a living one.
        retiring: replaced ones, of which children still live.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        template: Template,
        background: Background,
        *,
        pool: str,
        rotate_after: int,
        groups: Groups | None = None,
    ) -> None:
        """
        Args:
            plan: makes the plan of a new zygote.
            template: what zygotes are made of.
            background: where a rotation runs.
            pool: its name, for messages.
            rotate_after: children that one zygote forks before a new one, with another address layout and hash seed,
                takes its place.
            groups: make the cgroup of each child, where the worker has a subtree.
        """
        self._groups = groups
        self._plan = plan
        self._template = template
        self._background = background
        self._pool = pool
        self._rotate_after = rotate_after
        self._current: ZygoteClient | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self.rotating = False
        self.retiring: set[ZygoteClient] = set()
        self.spawned = self.restarts = self.rotations = 0

    @property
    def current(self) -> ZygoteClient | None:
        """The one that forks now, dead or alive; ``None`` before the first."""
        return self._current

    def owns(self, child: ChildHandle) -> bool:
        """Whether a child is of the zygote that forks now. Others are to be used up first: theirs waits for them."""
        return self._current is not None and self._current.owns(child)

    async def ensure_living(self) -> ZygoteClient:
        """The zygote; a new one if there is none, or it has died.

        Raises:
            SandboxError: it did not come up, or the pool is closed.
        """
        async with self._starting:
            if self._closed:
                raise SandboxError("pool", f"the pool of {self._pool} is closed")
            if self._current is not None and not self._current.gone.done():
                return self._current
            if self._current is not None:
                self.restarts += 1
                await self._current.close()
            self._current = await self._start_one()
            return self._current

    async def spawn(self, *, rehearse: bool) -> ChildHandle:
        """A new child, locked down and ready.

        Raises:
            SandboxError: a step of its lock-down failed, or there is no zygote.
        """
        zygote = await self.ensure_living()
        child = await zygote.spawn(rehearse=rehearse)
        self.spawned += 1
        # one that has been replaced may still end a fork or two: they say nothing of the zygote in its place
        used_up = zygote is self._current and zygote.spawned >= self._rotate_after
        if used_up and not self.rotating and not self._closed:
            self.rotating = True
            self._background.start(self._rotate())
        return child

    async def close(self) -> None:
        """End every zygote, and with it every child. May be called again."""
        self._closed = True
        async with self._starting:
            zygotes = [*self.retiring, *([self._current] if self._current else [])]
        await asyncio.gather(*(zygote.close() for zygote in zygotes))

    async def _rotate(self) -> None:
        """Put a new zygote in the old one's place; the old one's children live on until they are used."""
        try:
            new = await self._start_one()
        except SandboxError:
            self.rotating = False  # the old one still serves; the next spawn tries again
            return
        async with self._starting:
            old = new if self._closed else self._current
            if old is not new:
                self._current = new
                self.rotations += 1
        self.rotating = False
        if old is not None:
            self.retiring.add(old)
            await old.retire()
            self.retiring.discard(old)

    async def _start_one(self) -> ZygoteClient:
        zygote = ZygoteClient(self._plan(), self._template.code, self._groups, start_s=self._template.start_s)
        await zygote.start()
        return zygote
