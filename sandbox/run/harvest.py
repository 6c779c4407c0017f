"""Collects the files that a run left in ``artifacts/``, without following anything that it left.

Called when no thread of the run can run any more, so nothing changes meanwhile. Every open is one name, relative
to a descriptor of its own folder, and refuses symbolic links: the same as openat2(2) with ``RESOLVE_BENEATH`` and
``RESOLVE_NO_SYMLINKS``, without needing it. Only regular files with one name are read; what is refused is named.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from sandbox.result import Artifact, RefusedArtifact
from sandbox.untrusted import meets_untrusted

FOLDER = "artifacts"
MAX_FILES = 256
MAX_ENTRIES = 4096
MAX_DEPTH = 8
MAX_NAME_BYTES = 1024
MAX_REFUSALS = 64
MAX_S = 5.0
FEW, LITTLE_BYTES = 8, 1 << 18
"""Files, and their lengths together, that are harvested at once."""
MAX_STRAYS, MAX_STRAY_ENTRIES, MAX_STRAY_DEPTH = 3, 512, 4
"""Of the look for folders that a script took for the one whose files are kept."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other end; O_NOCTTY: nothing that is opened becomes our terminal
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GOOD_NAME = re.compile(r"[^/\\]+")
_BAD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Of the Unicode Character Database: controls, bidirectional and other formats, surrogates (bytes that are not UTF-8),
line and paragraph ends."""
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | frozenset(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)))
)
"""Of no such category, and yet without a form of their own: Default_Ignorable_Code_Point."""


class Harvest(NamedTuple):
    """The files that a run left."""

    artifacts: tuple[Artifact, ...]
    """By name."""
    refused: tuple[RefusedArtifact, ...]
    """The files that were not taken, each with the reason."""


def harvest(workspace: int, *, max_bytes: int) -> Harvest:
    """Read the artifacts of a run that is over: none of its threads can run any more.

    Args:
        workspace: descriptor of its workspace.
        max_bytes: all artifacts together.
    """
    return _Harvester(max_bytes).collect(workspace)


def find_strays(workspace: int) -> tuple[str, ...]:
    """Find folders named ``artifacts`` deeper in the workspace that hold something, as far as a short look shows.

    Nothing of them is taken. No thread of the run may be able to run any more, as for ``harvest``.
    """
    found: list[str] = []
    with contextlib.suppress(PermissionError):  # the run has taken even its own way in
        _look_for_strays(workspace, "", 0, found, iter(range(MAX_STRAY_ENTRIES)))
    return tuple(path for path in found if _name_fault(path, FOLDER) is None)


def _look_for_strays(folder: int, prefix: str, depth: int, found: list[str], allowance: Iterator[int]) -> None:
    with os.scandir(folder) as entries:
        names = [one.name for one, _ in zip(entries, allowance, strict=False) if one.is_dir(follow_symlinks=False)]
    for name in sorted(names):
        if len(found) == MAX_STRAYS or depth == MAX_STRAY_DEPTH or (depth == 0 and name == FOLDER):
            continue
        with contextlib.suppress(OSError):  # a folder that may not be entered
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            try:
                if name == FOLDER and _holds_something(inner):
                    found.append(prefix + name)
                _look_for_strays(inner, f"{prefix}{name}/", depth + 1, found, allowance)
            finally:
                os.close(inner)


def is_empty(workspace: int) -> bool:
    """Whether there is nothing to harvest. Quick, because it is nearly always so."""
    try:
        folder = os.open(FOLDER, _FOLDER_FLAGS, dir_fd=workspace)
    except OSError:
        return True
    try:
        return not _holds_something(folder)
    finally:
        os.close(folder)


def _holds_something(folder: int) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def is_little(workspace: int) -> bool:
    """Whether what there is to harvest is a few small files beside each other: read in less than a millisecond.

    By their lengths, and not by the room that they take: a file may be a hole.
    """
    try:
        folder = os.open(FOLDER, _FOLDER_FLAGS, dir_fd=workspace)
    except OSError:
        return False
    try:
        with os.scandir(folder) as entries:
            found = [one.stat(follow_symlinks=False) for one, _ in zip(entries, range(FEW + 1), strict=False)]
    except OSError:
        return False
    finally:
        os.close(folder)
    return len(found) <= FEW and all(map(_is_file, found)) and sum(one.st_size for one in found) <= LITTLE_BYTES


def _is_file(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode)


class _Refused(Exception):  # noqa: N818 no error of ours
    """Why one entry is not taken."""


class _Harvester:
    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._entries = 0
        self._deadline_s = time.monotonic() + MAX_S
        self._taken: list[Artifact] = []
        self._refused: list[RefusedArtifact] = []

    def collect(self, workspace: int) -> Harvest:
        try:
            folder = os.open(FOLDER, _FOLDER_FLAGS, dir_fd=workspace)
        except OSError:
            return Harvest((), ())  # the run removed or replaced the folder: then there is none
        try:
            for path, parent, name in self._walk(folder, "", 1):
                self._take(path, parent, name)
        except _Refused as reason:
            self._refuse("…", str(reason))
        finally:
            os.close(folder)
        artifacts = tuple(sorted(self._taken, key=lambda artifact: artifact.name))
        return Harvest(artifacts, tuple(self._refused))

    def _walk(self, folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int, str]]:
        """(path, descriptor of the folder, name in it) of everything that is not a folder."""
        for name in sorted(os.listdir(folder)):
            self._entries += 1
            if self._entries > MAX_ENTRIES or time.monotonic() > self._deadline_s:
                raise _Refused(f"the rest: more than {MAX_ENTRIES} entries, or more than {MAX_S:g} s to read them")
            path = prefix + name
            if (fault := _name_fault(path, name)) is not None:
                self._refuse(path, fault)
                continue
            try:
                is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            except OSError as error:  # a folder that may be listed but not entered
                self._refuse(path, f"cannot be read: {error.strerror}")
                continue
            if not is_folder:
                yield path, folder, name
            elif depth >= MAX_DEPTH:
                self._refuse(path, f"folders deeper than {MAX_DEPTH} levels are not read")
            else:
                yield from self._walk_into(folder, name, path, depth)

    def _walk_into(self, folder: int, name: str, path: str, depth: int) -> Iterator[tuple[str, int, str]]:
        try:
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
        except OSError as error:
            self._refuse(path, f"cannot be opened: {error.strerror}")
            return
        try:
            yield from self._walk(inner, path + "/", depth + 1)
        finally:
            os.close(inner)

    def _take(self, path: str, folder: int, name: str) -> None:
        if len(self._taken) >= MAX_FILES:
            self._refuse(path, f"more than {MAX_FILES} files")
            return
        try:
            content = self._read(folder, name)
        except _Refused as reason:
            self._refuse(path, str(reason))
        except OSError as error:
            self._refuse(path, f"cannot be read: {error.strerror}")
        else:
            self._left_bytes -= len(content)
            digest = hashlib.sha256(content).hexdigest()
            self._taken.append(Artifact(name=path, size_bytes=len(content), sha256=digest, content=content))

    def _read(self, folder: int, name: str) -> bytes:
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(kind.st_mode):
            raise _Refused("a symbolic link is not followed")
        if not stat.S_ISREG(kind.st_mode):
            raise _Refused("not a regular file")
        fd = os.open(name, _FILE_FLAGS, dir_fd=folder)
        try:
            self._check_file(os.fstat(fd))
            parts = []
            while part := os.read(fd, 1 << 20):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def _check_file(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise _Refused("not a regular file")
        if found.st_nlink != 1:
            raise _Refused("it has more than one name (a hard link)")
        if found.st_size > self._left_bytes:
            raise _Refused(f"{found.st_size} bytes, more than is left of artifacts_mib ({self._left_bytes} bytes)")

    def _refuse(self, path: str, reason: str) -> None:
        if len(self._refused) < MAX_REFUSALS:
            shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in path[:MAX_NAME_BYTES])
            self._refused.append(RefusedArtifact(name=shown, reason=reason))


def _misleads(character: str) -> bool:
    """Whether a reader would not see it, or see others in another order."""
    return unicodedata.category(character) in _BAD_CATEGORIES or character in _INVISIBLE


@meets_untrusted
def _name_fault(path: str, name: str) -> str | None:
    if not _GOOD_NAME.fullmatch(name) or any(map(_misleads, name)):
        return "the name has control, bidirectional or invisible characters, a backslash, or is not UTF-8"
    if len(path.encode()) > MAX_NAME_BYTES:
        return f"the path is longer than {MAX_NAME_BYTES} bytes"
    return None
