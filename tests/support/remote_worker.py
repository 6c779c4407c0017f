"""Asks ``ordinary_worker.py``, a worker of an ordinary user in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("become_ordinary.py")


class Remote:
    """A worker in a process of its own: each method is a question to it."""

    def __init__(self, *, starter: list[str] | None = None, **options: Any) -> None:
        """``starter``: arguments of an interpreter that executes the worker, e.g. ``spoil.py`` of this folder."""
        before = [sys.executable, *starter] if starter else []
        self._process = subprocess.Popen(
            [*before, sys.executable, "-B", str(PROGRAM), json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROGRAM.parent if starter else "/", text=True,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        def ask(**options: Any) -> Any:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([name, options]) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or '{"raised": "the worker is dead"}')
            assert "raised" not in answer, answer["raised"]
            return answer["answer"]

        return ask

    def end(self) -> None:
        """Close its input, and wait for it."""
        self._process.communicate(timeout=60)


@contextlib.contextmanager
def worker(**options: Any) -> Iterator[Remote]:
    """A worker, and its end."""
    remote = Remote(**options)
    try:
        yield remote
    finally:
        remote.end()
