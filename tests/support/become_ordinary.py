"""Gives root up, if it is there, then starts ``ordinary_worker.py``, which imports what this program need not.

As root it first does what ``tests/programs/as_user.py`` does, so that what the worker shows holds for any user.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # it runs as a program of its own, in the folder /

from tests.programs.as_user import UID, make_reachable  # noqa: E402
from tests.support.libraries import FOLDER  # noqa: E402

WORKER = Path(__file__).with_name("ordinary_worker.py")


def main(arguments: list[str]) -> None:
    """Be an ordinary user in a new program: a process that changed its user is not its own to inspect."""
    if os.geteuid() == 0:
        make_reachable([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT, FOLDER.resolve()])
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    home = tempfile.mkdtemp(prefix="ordinary-", dir="/tmp")
    environment = {"HOME": home, "TMPDIR": home, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    environment |= {name: value for name, value in os.environ.items() if "COVERAGE" in name}
    os.execve(sys.executable, [sys.executable, "-B", str(WORKER), *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
