"""The callbacks that one watch registers with the worker's loop: descriptors and timers, each call guarded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Events:
    """Calls back when a descriptor is ready or a time has come, until it is stopped.

    Every call is guarded: an exception in it, e.g. for want of memory, goes to ``on_failure``. Without that the loop
    would log it and go on, and a run that nobody watches any more would be blamed for what we did not see.
    """

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._readers: set[int] = set()
        self._writers: set[int] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def on_readable(self, fd: int, act: Callable[..., object], *arguments: object) -> None:
        """Call ``act`` whenever ``fd`` can be read or has ended."""
        self._readers.add(fd)
        self._loop.add_reader(fd, self._guard, act, *arguments)

    def ignore_readable(self, fd: int) -> None:
        """Call no longer for what can be read of ``fd``."""
        self._readers.discard(fd)
        self._loop.remove_reader(fd)

    def on_writable(self, fd: int, act: Callable[..., object], *arguments: object) -> None:
        """Call ``act`` whenever ``fd`` takes more, or its reader is gone."""
        self._writers.add(fd)
        self._loop.add_writer(fd, self._guard, act, *arguments)

    def ignore_writable(self, fd: int) -> None:
        """Call no longer for ``fd``. To be done before it is closed: its number may then be somebody else's."""
        if fd in self._writers:
            self._writers.discard(fd)
            self._loop.remove_writer(fd)

    def after(self, name: str, delay_s: float, act: Callable[..., object], *arguments: object) -> None:
        """Call ``act`` once, in ``delay_s`` seconds. A name stands for one timer at a time."""
        self._timers[name] = self._loop.call_later(delay_s, self._guard, act, *arguments)

    def stop(self) -> None:
        """Call for nothing any more. May be done again."""
        for timer in self._timers.values():
            timer.cancel()
        for fd in self._readers:
            self._loop.remove_reader(fd)
        for fd in self._writers:
            self._loop.remove_writer(fd)
        self._timers.clear()
        self._readers.clear()
        self._writers.clear()

    def _guard(self, act: Callable[..., object], *arguments: object) -> None:
        try:
            act(*arguments)
        except Exception as error:
            self._on_failure(error)
