"""How long a zygote may take to start: by the processor time that it uses, not by the wall.

On a machine that gives it a fifth of a core it takes five times as long, and is as far as it would be elsewhere. What
uses no processor time waits for something that does not come: that has the same patience on the wall.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sandbox.run.child_handle import cpu_s_of, stats_of_tree

LOOK_S = 0.5
"""Between two looks."""


def used_s(pid: int) -> float | None:
    """Processor time of a process and all below it, those that have ended included, seconds.

    ``None`` where nothing can be said: it is gone, or we are short of descriptors.
    """
    try:
        found = [cpu_s_of(stat) for _, stat in stats_of_tree(pid)]
    except OSError:
        return None
    return sum(found) if found else None


class StartPatience:
    """Says when a process has had its time."""

    def __init__(self, total_s: float, used: Callable[[], float | None]) -> None:
        """
        Args:
            total_s: of the processor; and on the wall without any progress.
            used: processor time so far; ``None`` where nothing can be said.
        """
        self._total_s, self._used = total_s, used
        self._seen_s = 0.0
        self._progress_at = time.monotonic()

    def fault(self) -> str | None:
        """Why it has had its time; ``None`` while it may go on."""
        used_s, now = self._used(), time.monotonic()
        if used_s is not None and used_s > self._seen_s:
            self._seen_s, self._progress_at = used_s, now
        if self._seen_s > self._total_s:
            return f"not ready after {self._seen_s:.0f} s of processor time"
        if now - self._progress_at > self._total_s:
            return f"not ready, and without any progress for {self._total_s:g} s"
        return None
