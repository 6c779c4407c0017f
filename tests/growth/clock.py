"""A worker whose sweeps come as often as a test wants: ``python -m tests.growth.clock worker``.

It is the very program of the service. Only the pauses of its sweeps are others, and each sweep that is over is counted:
``SWEEP_PAUSE_S`` says how long the pauses are, ``SWEEP_COUNTS`` names the file that has the counts.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from engine.__main__ import app
from engine.store.callbacks import Outbox
from engine.store.tasks import Tasks
from engine.worker import callbacks, sweep

_FORM = struct.Struct("=3Q")


class Counts(NamedTuple):
    """How many sweeps of each sort are over."""

    sweeps: int
    """For lost workers, held tasks, and tasks that Redis has lost."""
    outbox: int
    """Looks for callbacks that are due."""
    clean_ups: int


def read_counts(file: Path) -> Counts:
    """What the worker has counted so far."""
    return Counts(*_FORM.unpack(file.read_bytes()))


def _counted(owner: type, name: str, note: Callable[[], None]) -> None:
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(method)
    async def counted(*arguments: Any, **named: Any) -> Any:
        answer = await method(*arguments, **named)
        note()
        return answer

    setattr(owner, name, counted)


def quicken(pause_s: float, file: Path) -> None:
    """Shorten the pauses in this process, and count into the file."""
    counts = [0, 0, 0]
    counter = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)

    def note(index: int) -> None:
        counts[index] += 1
        os.pwrite(counter, _FORM.pack(*counts), 0)

    os.pwrite(counter, _FORM.pack(*counts), 0)
    sweep.SWEEP_S = callbacks.LOOK_S = pause_s
    _counted(sweep.Sweeper, "_sweep_overdue", lambda: note(0))  # the last step of a sweep
    _counted(Outbox, "take", lambda: note(1))
    _counted(Tasks, "delete_old", lambda: note(2))


def main() -> None:
    """Be the part that the arguments name."""
    quicken(float(os.environ["SWEEP_PAUSE_S"]), Path(os.environ["SWEEP_COUNTS"]))
    app(sys.argv[1:])


if __name__ == "__main__":
    main()
