"""Flame graphs of the service's processes while a load runs, by py-spy: ``engine bench service --profile FOLDER``."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine.dev.bench.parts import PYTHON, processes
from engine.model.errors import EngineError

RATE_HZ = 200
LEAST_USED_S = 0.1
"""Processor time of a process that did something meanwhile."""
WRITE_S = 60.0
"""For a profiler to write its file after it was told to stop."""


class ProfileError(EngineError):
    """A flame graph could not be made; the message says why."""


@contextlib.contextmanager
def flame_graphs(folder: Path | None) -> Iterator[None]:
    """Record every Python process of the service below this one, for as long as the block runs.

    Writes ``PART-PID.svg`` for each process that did something: ``api``, ``worker``, ``check`` (of bodies), ``keeper``.
    Zygotes and runs have a root of their own, in which py-spy does not find the interpreter.

    Args:
        folder: of the files, made if it is not there; ``None`` records nothing.

    Raises:
        ProfileError: py-spy is missing, or may not look into a process (ptrace(2)).
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    found = [(process, folder / f"{part}-{process.pid}.svg") for part, process in processes() if part in PYTHON]
    used_s = {path: _used_s(process) for process, path in found}
    recorders = {path: _record(process.pid, path) for process, path in found}
    try:
        yield
    finally:
        busy = {path for process, path in found if _used_s(process) - used_s[path] >= LEAST_USED_S}
        for recorder in recorders.values():
            recorder.send_signal(signal.SIGINT)
        said = {path: recorder.communicate(timeout=WRITE_S)[0] for path, recorder in recorders.items()}
    for path in recorders.keys() - busy:
        path.unlink(missing_ok=True)
    if not any(path.exists() for path in busy):
        words = b"\n".join(said[path] for path in busy) or b"no process did anything"
        raise ProfileError(f"no flame graph was written: {words.decode(errors='replace').strip()}")


def _used_s(process: psutil.Process) -> float:
    """Seconds of processor time; of a process that has ended, none."""
    try:
        used = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def _record(pid: int, path: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        raise ProfileError("py-spy is missing, which `make install` brings")
    command = [str(program), "record", "--gil", "--rate", str(RATE_HZ), "--output", str(path), "--pid", str(pid)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603  our own words
