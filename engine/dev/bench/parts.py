"""The parts of a service, by its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import psutil

PARTS = ("api", "check", "worker", "keeper", "sandbox", "postgres", "redis", "client")
"""Whose processor time is told: ``check`` checks bodies for the API, ``client`` is the process that measures."""
PYTHON = ("api", "check", "worker", "keeper")
"""Those that are the engine's own code and no sandbox."""
_MODULES = MappingProxyType(
    {"engine.api.body.check": "check", "engine.worker.keeper": "keeper", "engine.dev.bench.sleeper": "worker"}
)
_NAMES = MappingProxyType({"postgres": "postgres", "valkey-server": "redis", "redis-server": "redis"})


def processes() -> Iterator[tuple[str, psutil.Process]]:
    """Part and process of the service that is a child of this process, and of this process, which is the client.

    What ends meanwhile is left out.
    """
    own = psutil.Process()
    yield "client", own
    for process in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield _part(process), process


def pss_mib(pid: int) -> float:
    """Proportional set size of a process: proc_pid_smaps(5).

    Raises:
        OSError: it has ended.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _part(process: psutil.Process) -> str:
    match process.cmdline()[1:4]:
        case ["-m", "engine", command]:
            return command
        case ["-m", module, *_] if module in _MODULES:
            return _MODULES[module]
    return _NAMES.get(process.name(), "sandbox")
