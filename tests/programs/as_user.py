"""Runs those tests of the sandbox and those attacks again, without any privilege, that can depend on the user.

``python -m tests.programs.as_user [--all] [pytest options]``

Which these are is said by their mark ``privilege``, with the reason (tests/README.md); ``--all`` runs the others, too.
Ids of tests among the options run those alone.
Started as root it gives root up first. In a mount namespace of its own it makes reachable what that user needs (the
interpreter may lie in a closed home folder), then drops groups, ids and with them every capability. Started as an
ordinary user it only says so and goes on. Nothing of the host is changed.

Sources: mount_namespaces(7), capabilities(7) on what a change of user ids takes away.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from sandbox.isolation import libc
from tests.support.libraries import FOLDER

ROOT = Path(__file__).resolve().parents[2]

UID = 61234
TESTS = ("tests/sandbox", "tests/attacks")


def main(options: list[str]) -> int:
    """Become the user, then run pytest; its exit code."""
    home = tempfile.mkdtemp(prefix="home-")
    if os.geteuid() == 0:
        make_reachable([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT, FOLDER.resolve()])
        os.chown(home, UID, UID)
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    print(f"running as uid {os.geteuid()}, gid {os.getegid()}, capabilities {capabilities()}", flush=True)
    os.chdir(ROOT)
    os.environ.update(
        HOME=home, TMPDIR=home, PYTHONDONTWRITEBYTECODE="1", HYPOTHESIS_STORAGE_DIRECTORY=f"{home}/examples"
    )
    chosen = [] if "--all" in options else ["-m", "privilege"]
    options = [option for option in options if option != "--all"]
    places = () if any("::" in option for option in options) else TESTS
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *chosen, *places, *options]
    try:
        return subprocess.call(command)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make_reachable(places: list[Path]) -> None:
    """Cover each folder that others may not enter with an open one that holds the places alone, for us only."""
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    closed: dict[Path, list[Path]] = {}
    for place in places:
        folder = first_closed_folder(place)
        if folder is not None:
            closed.setdefault(folder, []).append(place)
    for folder, inside in closed.items():
        descriptors = [(place, os.open(place, os.O_PATH)) for place in inside]
        libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", libc.MS_NOSUID | libc.MS_NODEV, b"mode=0755")
        for place, fd in descriptors:
            place.mkdir(parents=True, exist_ok=True)
            libc.mount(f"/proc/self/fd/{fd}".encode(), os.fsencode(place), None, libc.MS_BIND | libc.MS_REC)
            os.close(fd)


def first_closed_folder(place: Path) -> Path | None:
    """The outermost folder on the way to ``place`` that others may not enter."""
    for folder in [*reversed(place.parents), place]:
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def capabilities() -> str:
    """The effective set, as the kernel shows it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
