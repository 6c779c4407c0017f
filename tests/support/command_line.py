"""Runs commands of the engine as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.forked import Forked, Streams
from tests.support.stack import FOREIGN, ROOT

WITHIN_S = 250


def engine(*command: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """``python -m engine ...``, without what this process's environment says of servers.

    It is forked from a process that has imported the engine (``forked.py``): importing is most of a command's work.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = Streams(*(str(Path(folder, name)) for name in Streams._fields))
        Path(streams.stdin).write_bytes(stdin)
        code = Forked("engine", command, _environ() | environ, streams).wait(WITHIN_S)
        return subprocess.CompletedProcess(
            command, code, Path(streams.stdout).read_bytes(), Path(streams.stderr).read_bytes()
        )


def engine_text(*command: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The same, with texts."""
    done = engine(*command, stdin=stdin.encode(), **environ)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def fresh_engine(*command: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """``python -m engine ...`` by an interpreter that has imported nothing yet, exactly as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "engine", *command],
        cwd=ROOT,
        env=_environ() | environ,
        input=stdin,
        capture_output=True,
        timeout=WITHIN_S,
        check=False,
    )


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}
