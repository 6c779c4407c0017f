"""Measures a run and compares it with its limits, as often as it must.

The kernel enforces the same limits for each process, more coarsely (whole seconds of processor time), or for private
memory only; the watchdog sees the sum.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from functools import partial

from sandbox.policy.policy import Limits
from sandbox.result import ExitReason
from sandbox.run.child_handle import ChildHandle, Measurement, measure_tree
from sandbox.run.ending import Ending
from sandbox.run.events import Events

_MIB = 1 << 20
_FASTEST_GROWTH_BYTES_S = 2 << 30
"""Memory that a run can touch in a second here; sets how long the watchdog may look away."""
_TICK_S = (0.005, 0.05)
_TICK_OF_SLEEPER_S = 0.1
"""At most, to look whether it still sleeps."""
_LONG_CPU_S = 0.1
"""A run that has computed for longer lets short ones, and the service itself, go first."""
_AWAY_S = 1.0
"""A tick that comes so much too late means that this process was away: stopped, frozen, or without a processor."""


class Watchdog:
    """Ends a run that takes more memory, processor time, threads or files than it may.

    Attributes:
        memory_peak_bytes, threads_peak: the most that was ever measured.
    """

    def __init__(self, child: ChildHandle, limits: Limits, events: Events, ending: Ending, *, whole_tree: bool) -> None:
        """``whole_tree``: the run may start processes, so measure all that descend from the child."""
        self._child = child
        self._limits = limits
        self._events = events
        self._ending = ending
        self._measure: Callable[[], Measurement | None]
        self._measure = partial(measure_tree, child.pid) if whole_tree else child.measure
        self._whole_tree = whole_tree
        self.memory_peak_bytes = child.at_rest.anonymous_bytes + child.at_rest.shared_bytes
        self._memory_bytes = self._shared_taken_bytes = 0
        self._files_peak_bytes = child.at_rest.file_bytes
        self.threads_peak = child.at_rest.threads
        self._began_s = self._cpu_before_s = self._cpu_peak_s = 0.0
        self._due_s = math.inf
        """When the next tick is due."""
        self._cpu_seen_s, self._looks_asleep = 0.0, 0
        """Its processor time when the last tick came, and how many ticks have found it unchanged."""
        self._gives_way = False
        self._away_s = 0.0
        """For how long nobody watched, because this process was away."""

    def begin(self) -> None:
        """Note what the child has used before it gets its request: that is not the run's. Lower its group's limit."""
        if self._child.group is not None:
            self._child.group.limit_memory(self._limits.memory_mib * _MIB)
        self._began_s = time.monotonic()
        with contextlib.suppress(OSError):  # dead already; its end will be reported
            self._cpu_before_s = self._child.cpu_s()

    def wall_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began_s

    def left_s(self) -> float:
        """Seconds that the run may still take.

        The time in which nobody watched is not held against the run, for it may have been stopped as we were (a frozen
        container), and its answer may be unread. It is given once more, at most as much as the limit: then somebody
        has watched for as long as the limit is.
        """
        self._note_absence()
        return self._limits.wall_s + min(self._away_s, self._limits.wall_s) - self.wall_s()

    def cpu_s(self, at_end_s: float) -> float:
        """Processor seconds of the run alone.

        Args:
            at_end_s: of the child in its whole life, as the kernel says at its end. With several processes the sum
                that was seen before may be higher: those that nobody waited for are missing at the end.
        """
        return max(self.cpu_total_s(at_end_s) - self._cpu_before_s, 0.0)

    def cpu_total_s(self, at_end_s: float) -> float:
        """Processor seconds of the child in its whole life, as RLIMIT_CPU counts them."""
        return max(at_end_s, self._cpu_peak_s)

    def look_back(self) -> ExitReason | None:
        """After the end: take the group's own peak, and say whether the kernel has ended it for want of memory."""
        if self._child.group is None:
            return None
        limit_bytes = self._limits.memory_mib * _MIB
        self.memory_peak_bytes = max(self.memory_peak_bytes, min(self._child.group.peak_bytes(), limit_bytes))
        return ExitReason.MEMORY_LIMIT if self._child.group.was_out_of_memory() else None

    def keep_watch(self) -> None:
        """Look for the first time soon, and then again and again."""
        self._look_after(_TICK_S[0])

    def _look_after(self, pause_s: float) -> None:
        self._due_s = time.monotonic() + pause_s
        self._events.after("watchdog", pause_s, self._look_and_compare)

    def _note_absence(self) -> None:
        """Add the time since the tick that is due, if that is long; count no moment twice."""
        now_s = time.monotonic()
        if now_s - self._due_s > _AWAY_S:
            self._away_s += now_s - self._due_s
            self._due_s = now_s

    def look(self) -> Measurement | None:
        """Measure the run and keep the peaks; ``None`` when it is gone."""
        measured = self._measure()
        if measured is None:
            return None
        self._child.last_facts.take()
        # of shared memory and of the workspace what is mapped is a part: never less, and not counted twice
        held_bytes = self._shared_taken_bytes + self._child.workspace.in_memory_bytes()
        self._memory_bytes = measured.anonymous_bytes + max(measured.shared_bytes, held_bytes)
        if self._child.group is not None:
            # it sees what no process shows, and not what the child shares with its zygote: neither has the whole
            held = self._child.group.held()
            self._memory_bytes = max(self._memory_bytes + held.kernel_bytes, held.all_bytes)
        self.memory_peak_bytes = max(self.memory_peak_bytes, self._memory_bytes, self._peak_between_looks(measured))
        self.threads_peak = max(self.threads_peak, measured.threads)
        self._cpu_peak_s = max(self._cpu_peak_s, measured.cpu_s)
        return measured

    def _peak_between_looks(self, measured: Measurement) -> int:
        """The most that the kernel saw, of a run that took memory and let it go while nobody looked.

        The kernel's mark counts mapped files too, so the most that was seen of them is taken off.
        """
        self._files_peak_bytes = max(self._files_peak_bytes, measured.file_bytes)
        is_of_this_run = measured.high_bytes > self._child.at_rest.high_bytes
        return measured.high_bytes - self._files_peak_bytes if is_of_this_run else 0

    def take_shared_memory(self, wanted_bytes: int) -> bool:
        """Whether the run may have so much shared anonymous memory more. It then counts whole, until the run ends."""
        self.look()
        if self._memory_bytes + wanted_bytes > self._limits.memory_mib * _MIB:
            return False
        self._shared_taken_bytes += wanted_bytes
        self.look()
        return True

    def _look_and_compare(self) -> None:
        """Compare what the run takes with its limits, then look away for as long as the rest could not be filled."""
        self._note_absence()
        if self._sleeps():
            self._look_after(self._pause_s(_TICK_OF_SLEEPER_S))
            return
        measured = self.look()
        if measured is None:
            return  # dead; its end will be reported
        if (reason := self._limit_met(measured)) is not None:
            self._ending.end(reason)
            return
        if not self._gives_way and measured.cpu_s - self._cpu_before_s > _LONG_CPU_S:
            self._gives_way = True
            self._child.give_way()
        self._look_after(self._pause_s(_TICK_S[1]))

    def _pause_s(self, most_s: float) -> float:
        left_bytes = self._limits.memory_mib * _MIB - self._memory_bytes
        return min(max(left_bytes / _FASTEST_GROWTH_BYTES_S / 4, _TICK_S[0]), most_s)

    def _sleeps(self) -> bool:
        """Whether the run has not computed since the tick before the last: then nothing that it holds has grown.

        A clock is read in a hundredth of the time of a whole look. That of a thread which computes on another
        processor moves with the kernel's own ticks, so that one tick of ours may find it unchanged, and not two.
        """
        if self._whole_tree:
            return False
        try:
            cpu_s = self._child.cpu_s()
        except OSError:  # reaped; its end will be reported
            return False
        self._looks_asleep = self._looks_asleep + 1 if cpu_s == self._cpu_seen_s else 0
        self._cpu_seen_s = cpu_s
        return self._looks_asleep > 1

    def _limit_met(self, measured: Measurement) -> ExitReason | None:
        """The first limit that the run has passed. Threads and workspace the kernel itself holds with namespaces."""
        limits = self._limits
        if measured.threads > limits.threads + limits.processes:
            return ExitReason.PROCESS_LIMIT
        size, files = self._child.workspace.usage()
        if size > limits.workspace_mib * _MIB or files > limits.workspace_files:
            return ExitReason.WORKSPACE_LIMIT
        if self._memory_bytes > limits.memory_mib * _MIB:
            return ExitReason.MEMORY_LIMIT
        if measured.cpu_s - self._cpu_before_s > limits.cpu_s:
            return ExitReason.CPU_LIMIT
        return None
