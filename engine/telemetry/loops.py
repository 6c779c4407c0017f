"""The endless loops of a process: nothing that a step of one raises ends it, and each failure is logged and counted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from engine.model.cancel import end_tasks
from engine.model.unreachable import is_unreachable, reason_of
from engine.telemetry.logs import get_logger

BACKOFF_S = (0.2, 10.0)
STEADY_S = 10.0
"""A loop that has gone on for so long is well, whatever it failed at before."""
DEAD_S = 60.0
"""A loop that has failed for so long, again and again, is dead: the process is better started anew."""
PULSE_S = 1.0

Loop = Callable[[], Coroutine[Any, Any, None]]


class Loops:
    """Keeps the loops of one process going, and knows which of them are dead."""

    def __init__(
        self, count: Callable[[str], None], *, dead_s: float = DEAD_S, backoff_s: tuple[float, float] = BACKOFF_S
    ) -> None:
        """
        Args:
            count: called with the name of a loop each time that it fails.
            dead_s: a loop is dead when it has failed for so many seconds.
            backoff_s: the first and the longest pause between a failure and the next try, seconds.
        """
        self._count = count
        self._dead_s, self._backoff_s = dead_s, backoff_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun_s: dict[str, float] = {}
        """Loop → when it was last begun, on the clock of ``time.monotonic``."""
        self._failing_since_s: dict[str, float] = {}
        self._pulse_s: float | None = None
        """When the event loop was last at work on its timers."""
        self._log = get_logger()

    @contextlib.asynccontextmanager
    async def running(self, loops: Mapping[str, Loop]) -> AsyncIterator[None]:
        """Keeps these loops going while this context is open.

        Args:
            loops: name → what makes the coroutine that goes on for ever. It is called anew after each failure.
        """
        for name, loop in loops.items():
            self._tasks[name] = asyncio.create_task(self._keep_going(name, loop))
        pulse = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            await asyncio.gather(end_tasks(pulse), *map(self.stop, loops))

    async def stop(self, name: str) -> None:
        """Stop one loop for good."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await end_tasks(task)

    async def _keep_going(self, name: str, loop: Loop) -> None:
        """Run one loop until cancelled, and begin it anew whenever it ends."""
        pause_s = self._backoff_s[0]
        while True:
            self._begun_s[name] = time.monotonic()
            try:
                await loop()
                self._log.error("loop ended by itself", loop=name)
            except Exception as error:
                self._log_failure(name, error)
            now_s = time.monotonic()
            if now_s - self._begun_s[name] >= STEADY_S:
                self._failing_since_s.pop(name, None)
                pause_s = self._backoff_s[0]
            self._failing_since_s.setdefault(name, now_s)
            self._count(name)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  so that not all come back at once
            pause_s = min(pause_s * 2, self._backoff_s[1])

    def dead(self, stall_s: float | None = None) -> tuple[str, ...]:
        """The loops that do not go on. May be called from another thread.

        Args:
            stall_s: the event loop itself counts as dead when it has not come round for so many seconds.
        """
        now_s = time.monotonic()
        found = [name for name, task in tuple(self._tasks.items()) if task.done() or self._is_dead(name, now_s)]
        if stall_s is not None and self._pulse_s is not None and now_s - self._pulse_s > stall_s:
            found.append("event loop")
        return tuple(found)

    def _is_dead(self, name: str, now_s: float) -> bool:
        failing_since_s = self._failing_since_s.get(name)
        is_steady = now_s - self._begun_s.get(name, now_s) >= STEADY_S
        return failing_since_s is not None and not is_steady and now_s - failing_since_s >= self._dead_s

    def _log_failure(self, name: str, error: Exception) -> None:
        if is_unreachable(error):
            self._log.warning("a server is unreachable", loop=name, reason=reason_of(error))
        else:
            self._log.error("loop failed", loop=name, exc_info=error)

    async def _beat(self) -> None:
        while True:
            self._pulse_s = time.monotonic()
            await asyncio.sleep(PULSE_S)
