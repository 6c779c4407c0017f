"""Forks ``python -m MODULE`` from a process that has imported the engine already, instead of starting it anew.

multiprocessing's fork server is that process: it is started for the first part that a test wants, has no thread, and
ends with the process of the tests. A fork has what the command itself would have: arguments, environment, folder and
standard streams of its own.
"""

from __future__ import annotations

import functools
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = (
    "pytest", "uvloop", "engine.__main__", "engine.api.server.serve", "engine.worker.worker",
    "typer._adapters", "litestar.plugins.pydantic", "anyio._backends._asyncio", "httpcore", "pyseccomp",
)  # fmt: skip
"""What the forks have in common: what parts import at their start, and what libraries of theirs import in a function.

pytest: multiprocessing imports its parent's main program in every child.
"""


class Streams(NamedTuple):
    """Files that take the place of the standard streams."""

    stdin: str = os.devnull
    stdout: str = os.devnull
    stderr: str = os.devnull


class Forked:
    """A process of ``python -m MODULE COMMAND``, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, module: str, command: Sequence[str], environ: dict[str, str], streams: Streams) -> None:
        for path in streams[1:]:
            Path(path).touch()  # whoever waits for a line of it may read it from now on, as of `Popen`
        self._process = _forks().Process(target=_run, args=(module, tuple(command), environ, streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code; negative is a signal, ``None`` while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        self._process.join(timeout_s)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_s or 0)
        return code

    def send_signal(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)


@functools.cache
def _forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _run(module: str, command: tuple[str, ...], environ: dict[str, str], streams: Streams) -> None:
    """In the fork: be what ``python -m MODULE COMMAND`` is."""
    gc.freeze()  # what was imported is not looked through, and so not copied
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT if number else os.O_RDONLY, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for as long as the process lives
    program: Any = importlib.import_module(f"{module}.__main__" if module == "engine" else module)
    sys.modules["__main__"] = program
    sys.argv = [program.__file__, *command]
    program.main()
