"""The children that wait for a request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from sandbox.pool.zygotes import Zygotes
from sandbox.run.child_handle import ChildHandle

REHEARSED = 2
"""Ready children that have rehearsed. The others would each copy megabytes that they may never need."""
_PRESSED_FOR_S = 1.0
"""After a request has found no child ready, how long new ones are made without a rehearsal: sooner beats warmer."""


class ReadyChildren:
    """Children at hand. Those of a retiring zygote are used first, then those that have rehearsed."""

    def __init__(self, zygotes: Zygotes) -> None:
        self._zygotes = zygotes
        self._children: deque[ChildHandle] = deque()
        self._pressed_until_s = 0.0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._children)

    def __iter__(self) -> Iterator[ChildHandle]:
        """Each of them."""
        return iter(self._children)

    def add(self, child: ChildHandle) -> None:
        """Keep one at hand."""
        self._children.append(child)

    def take(self) -> ChildHandle | None:
        """The one to be used next, which is then the caller's; ``None`` when there is none."""
        self.discard_dead()
        living = [child for child in self._children if not child.has_ended()]  # a busy zygote reports deaths late
        if not living:
            self._pressed_until_s = time.monotonic() + _PRESSED_FOR_S
            return None
        chosen = min(living, key=lambda child: (self._zygotes.owns(child), not child.rehearsed))
        self._children.remove(chosen)
        return chosen

    def discard_dead(self) -> None:
        """Let go of those that died with their zygote, or were killed from outside."""
        for child in [child for child in self._children if child.death.done()]:
            self._children.remove(child)
            child.close()

    def has_time_to_rehearse(self) -> bool:
        """Whether the next one should rehearse: too few have, and no request has waited for a child of late."""
        rehearsed = sum(child.rehearsed for child in self._children)
        return rehearsed < REHEARSED and time.monotonic() > self._pressed_until_s

    def close(self) -> None:
        """Let go of all. They must be dead."""
        while self._children:
            self._children.popleft().close()
