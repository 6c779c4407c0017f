"""Whether a machine is quiet enough for its times to be believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOOK_S = 1.0
QUIET = 0.1
"""Share of all cores that others may use."""


def busy_share(look_s: float = LOOK_S) -> float:
    """The share of all cores that is used while this process waits: proc_stat(5)."""
    before = _used_s()
    time.sleep(look_s)
    return min(1.0, (_used_s() - before) / look_s / (os.cpu_count() or 1))


def _used_s() -> float:
    """user, nice, system, irq, softirq and steal of the first line; neither idle nor waiting for a disk."""
    user, nice, system, _idle, _waits, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def in_words(share: float) -> str:
    """The sentence about it, which is empty on a quiet machine."""
    if share <= QUIET:
        return ""
    return (
        f"The machine was busy: other programs used {share:.0%} of its cores. Do not believe the times; a ratio says "
        "more, and processor time most."
    )
