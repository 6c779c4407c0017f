"""The memory that all running tasks of a worker may have together, and how much of it is taken.

A task takes its whole limit (``memory_mib``) before it is claimed and gives it back at its end, so that all running
tasks can reach their limits at the same time and the machine still has room.
"""

from __future__ import annotations

import asyncio
import contextlib


class MemoryBudget:
    """The memory of one worker's tasks, in MiB."""

    def __init__(self, whole_mib: int, largest_mib: int) -> None:
        """
        Args:
            whole_mib: what all running tasks may have together.
            largest_mib: most that one task may have, under any policy of this worker.
        """
        self.whole_mib = whole_mib
        self.largest_mib = min(largest_mib, whole_mib)
        """What to take for a task of which nothing is known: no task that can run here needs more."""
        self.taken_mib = 0
        self.is_short = False
        """Whether tasks wait that this worker has a slot for, and no memory."""
        self._given_back = asyncio.Event()

    @property
    def free_mib(self) -> int:
        """What is left."""
        return self.whole_mib - self.taken_mib

    def take(self, mib: int) -> MemoryShare | None:
        """A share of so much; ``None`` if there is not so much left."""
        if mib > self.free_mib:
            return None
        self.taken_mib += mib
        return MemoryShare(self, mib)

    async def change(self, timeout_s: float | None = None) -> None:
        """Wait until memory is given back, or for ``timeout_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._given_back.wait()

    def give_back(self, mib: int) -> None:
        """So much is free again: whoever waits looks."""
        self.taken_mib -= mib
        self._given_back.set()
        self._given_back = asyncio.Event()


class MemoryShare:
    """What one task has taken of a budget."""

    def __init__(self, budget: MemoryBudget, mib: int) -> None:
        self._budget = budget
        self._mib = mib

    @property
    def whole_mib(self) -> int:
        """What all running tasks of the worker may have together."""
        return self._budget.whole_mib

    async def become(self, mib: int) -> bool:
        """Change the size, now that the task's limit is known. Waits where it grows and too little is left.

        Returns:
            ``False``: so much is more than all tasks of this worker may have together. Nothing has changed.
        """
        if mib > self._budget.whole_mib:
            return False
        # What it has is given back first: two that waited with theirs in hand could wait for each other.
        self.release()
        while self._budget.take(mib) is None:
            await self._budget.change()
        self._mib = mib
        return True

    def release(self) -> None:
        """Give it back. May be called twice."""
        mib, self._mib = self._mib, 0
        self._budget.give_back(mib)
