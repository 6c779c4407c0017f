"""Tools of PyPI that a test program needs and the project does not: each set in a virtual environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.stack import ROOT


def install(name: str) -> Path:
    """The folder of the programs of ``requirements-NAME.lock``, which are installed into ``.NAME/venv`` once.

    Args:
        name: of the lock, and of the folder.
    """
    folder, lock = ROOT / f".{name}", ROOT / f"requirements-{name}.lock"
    venv, done = folder / "venv", folder / lock.name
    if not done.exists() or done.read_bytes() != lock.read_bytes():
        folder.mkdir(exist_ok=True)
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", str(venv)], check=True)
        command = ["pip", "install", "--quiet", "--python", str(venv), "--require-hashes", "--requirement", str(lock)]
        subprocess.run([*uv, *command], check=True)
        shutil.copy(lock, done)
    return venv / "bin"
