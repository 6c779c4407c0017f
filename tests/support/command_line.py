"""Runs commands of the engine as a user does."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.stack import FOREIGN, ROOT


def engine(*command: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """``python -m engine ...``, without what this process's environment says of servers."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return subprocess.run(
        [sys.executable, "-m", "engine", *command],
        cwd=ROOT,
        env=inherited | environ,
        input=stdin,
        capture_output=True,
        timeout=250,
        check=False,
    )
