"""Work that runs beside requests, and is waited for at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Background:
    """Tasks that nobody awaits. They must handle their own failures."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run it, and keep it until it is done: the loop itself holds tasks weakly only."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._tasks

    async def wait(self) -> None:
        """Wait until all of it is done, however it ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
