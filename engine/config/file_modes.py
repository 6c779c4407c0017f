"""Whether other users of the host can read or change a file that decides who gets in.

Three things count: the mode of the file, that of each folder above it (where others may not enter, the file's own mode
does not matter), and whether its file system is mounted read-only. Members of the file's group are not "others": that
is how root hands a secret to a service's user. Access control lists are not looked at.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

GIVEN_BY_CONTAINER_ENGINES = (Path("/run/secrets"), Path("/var/run/secrets"))
"""Where Docker, Podman and Kubernetes mount secrets, by default readable for everybody in the container (0444)."""


def find_wide_mode(path: Path, *, secret: bool) -> str | None:
    """What others can do with a file that they should not, and the fix; ``None`` when nothing.

    Args:
        path: the file, which must exist. What is no regular file, such as a pipe, has no such mode.
        secret: others must not read it either.

    Raises:
        OSError: the file cannot be looked at.
    """
    whole = path.resolve()
    mode = whole.stat().st_mode
    if not stat.S_ISREG(mode):
        return None
    folders = list(reversed(whole.parents))
    wide = _first_wide_folder(folders)
    is_writable = not os.statvfs(whole).f_flag & os.ST_RDONLY
    if is_writable and wide is not None:
        return f"every user of this host can replace it, for {wide} is open to all: `chmod o-w {wide}`"
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
        return None
    if is_writable and mode & stat.S_IWOTH:
        return f"every user of this host can write to it (mode {mode & 0o7777:04o}): `chmod o-w {whole}`"
    if secret and mode & stat.S_IROTH and not _is_given(path, whole):
        return (
            f"every user of this host can read it (mode {mode & 0o7777:04o}): `chmod o-r {whole}`, or have the "
            "container engine mount it below /run/secrets"
        )
    return None


def _first_wide_folder(folders: list[Path]) -> Path | None:
    """The first folder, from the root down, in which everybody may replace what is another's (no sticky bit)."""
    for folder in folders:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and mode & stat.S_IXOTH and not mode & stat.S_ISVTX:
            return folder
        if not mode & stat.S_IXOTH:
            return None
    return None


def _is_given(*paths: Path) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in GIVEN_BY_CONTAINER_ENGINES)
