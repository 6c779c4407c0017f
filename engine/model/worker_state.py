"""The state that a worker reports in its heartbeats."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import msgspec

from engine.model.versions import Versions
from sandbox import Isolation

BEAT_S = 2.0
"""Between two heartbeats of a worker, seconds."""
SHOWN_FOR_S = 300.0
"""How long a worker that sends none is still shown, seconds."""


class OuterConfinement(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a worker itself, as its container or service manager has set it up."""

    seccomp: Literal["none", "strict", "filter", "unknown"]
    """Its mode, proc_pid_status(5). The kernel keeps no name of a filter."""
    seccomp_filters: int | None
    """How many filters are in force; ``None`` where the kernel does not say."""
    security_label: str | None
    """AppArmor's profile with its mode, such as ``unityai-full (enforce)``, or SELinux's context; ``None``: neither."""


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """The state that a worker reports every few seconds."""

    worker_id: UUID
    host: str
    pid: int
    slots: int
    """Tasks that it can run at the same time."""
    running: int
    memory_mib: int = 0
    """What all tasks that run at the same time may have together; 0 from a worker of a version that has no such sum."""
    memory_taken_mib: int = 0
    """The sum of the limits of those that run."""
    waits_for_memory: bool = False
    """Whether tasks wait for which it has a slot, and not enough memory."""
    ready: dict[str, int]
    """Policy → sandboxes that are ready for a request."""
    redis: Literal["ok", "away"] = "ok"
    """Whether it reaches Redis, without which it takes no tasks. ``away`` is the API's word for unreachable."""
    failing: tuple[str, ...] = ()
    """Policies whose sandbox failed on this worker by our own fault, and has not worked since."""
    not_ready: dict[str, str] = {}
    """Policy whose sandboxes do not stand yet → why. Its tasks wait, and spend no attempt."""
    isolation: Isolation
    confinement: OuterConfinement | None = None
    """``None`` from a worker of a version that does not report it."""
    state: Literal["working", "draining"]
    versions: Versions = Versions()
    policies: dict[str, str] | None = None
    """Policy → digest of the file; ``None`` from a worker of a version that does not report it."""
    lag_s: float = 0.0
    """How late its event loop was at this heartbeat, seconds."""
    metrics: str | None = None
    """Address and port where it serves its metrics."""

    @property
    def works(self) -> bool:
        """Whether it can run tasks, of at least one policy."""
        return self.redis == "ok" and not set(self.ready) <= {*self.failing, *self.not_ready}


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The last report of a worker, and its age in seconds."""

    state: WorkerState
    age_s: float
