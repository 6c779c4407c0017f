"""The supervisor's side of a run's private directory: how much is in it, whether it is full, and its end.

With namespaces it is a tmpfs that the child mounted: the kernel holds the quota and frees everything with the last
descriptor. Without them it is a folder on the host's disk: the watchdog adds its files up, and it is removed here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple, Protocol

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OWN_FOLDERS = 2
"""``tmp`` and ``artifacts``, which every workspace starts with."""
MAX_DEPTH = 32
"""Folders nested deeper on the host's disk count as a full workspace."""
_ADD_UP_EVERY_S = 0.1


class WorkspaceFacts(NamedTuple):
    """How full a workspace is."""

    size_bytes: int
    files: int
    """Inodes, the folders that it starts with not counted."""
    is_full: bool


class LastFacts:
    """The last facts of a workspace that were taken while its run could still hold files without a name.

    The kernel frees those when it closes the descriptors of a dead process: before the death is known on Linux before
    6.11, after a kill, and where the process had a second thread. So facts that are asked for after the end come too
    late.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._seen = WorkspaceFacts(0, 0, False)
        self._when_full: WorkspaceFacts | None = None

    def take(self) -> None:
        """Note how full it is now."""
        self._seen = self._workspace.facts()
        if self._seen.is_full:
            self._when_full = self._seen

    def at_end(self) -> WorkspaceFacts:
        """The facts of a run that is over: what was seen when it was full, else last, or what is there now if more."""
        seen = self._when_full or self._seen
        is_full = self._workspace.is_full() or seen.is_full
        size_bytes, files = self._workspace.usage()
        return WorkspaceFacts(max(size_bytes, seen.size_bytes), max(files, seen.files), is_full)


class Workspace(Protocol):
    """The interface of both kinds of workspace."""

    fd: int

    def usage(self) -> tuple[int, int]:
        """Bytes and inodes in use, the folders that it starts with not counted."""

    def facts(self) -> WorkspaceFacts:
        """How full it is, as far as that is known without much work."""

    def is_full(self) -> bool:
        """Whether one of its limits is met."""

    def in_memory_bytes(self) -> int:
        """The part of ``usage`` that is memory."""

    def close(self) -> None:
        """Free everything."""


class TmpfsWorkspace:
    """A tmpfs inside the child's mount namespace, see tmpfs(5)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def usage(self) -> tuple[int, int]:
        """Blocks and inodes of the file system, without those that it starts with: statvfs(3)."""
        size_bytes, files, _ = self.facts()
        return size_bytes, files

    def facts(self) -> WorkspaceFacts:
        """The same, and whether the kernel would refuse the next byte or file."""
        found = os.fstatvfs(self.fd)
        # the root of the tmpfs has an inode too
        files = found.f_files - found.f_ffree - OWN_FOLDERS - 1
        size_bytes = (found.f_blocks - found.f_bfree) * found.f_frsize
        return WorkspaceFacts(size_bytes, max(files, 0), found.f_bfree == 0 or found.f_ffree == 0)

    def is_full(self) -> bool:
        """Whether the kernel would refuse the next byte or file."""
        return self.facts().is_full

    def in_memory_bytes(self) -> int:
        """All of it: a tmpfs is memory."""
        return self.usage()[0]

    def close(self) -> None:
        """Close the descriptor; the kernel frees the pages with the last one."""
        os.close(self.fd)


class FolderWorkspace:
    """A folder on the host, for hosts that grant no namespaces."""

    def __init__(self, base: Path, name: str, fd: int, *, max_bytes: int, max_files: int) -> None:
        self.fd = fd
        self._base = base
        self._name = name
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._added_up_s = 0.0
        self._usage = (0, 0)

    def usage(self) -> tuple[int, int]:
        """Bytes and entries, added up anew at most ten times a second."""
        if time.monotonic() - self._added_up_s > _ADD_UP_EVERY_S:
            self._usage = self._add_up()
            self._added_up_s = time.monotonic()
        return self._usage

    def facts(self) -> WorkspaceFacts:
        """How full it is by the last adding up."""
        size_bytes, files = self.usage()
        return WorkspaceFacts(size_bytes, files, size_bytes >= self._max_bytes or files >= self._max_files)

    def _add_up(self) -> tuple[int, int]:
        size, files = self._add_up_folder(self.fd, 0)
        return size, max(files - OWN_FOLDERS, 0)

    def _add_up_folder(self, fd: int, depth: int) -> tuple[int, int]:
        """Bytes and entries beneath ``fd``; more than the limit as soon as that is certain, or when it is too deep."""
        size = files = 0
        try:
            names = os.listdir(fd)
        except OSError:
            return 0, 0
        for name in names:
            if files > self._max_files + OWN_FOLDERS or depth > MAX_DEPTH:
                return size, self._max_files + OWN_FOLDERS + 1
            files += 1
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                size += found.st_blocks * 512
                if stat.S_ISDIR(found.st_mode):
                    inner_size, inner_files = self._add_up_inner(fd, name, depth)
                    size, files = size + inner_size, files + inner_files
        return size, files

    def _add_up_inner(self, parent: int, name: str, depth: int) -> tuple[int, int]:
        fd = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
        try:
            return self._add_up_folder(fd, depth + 1)
        finally:
            os.close(fd)

    def is_full(self) -> bool:
        """Whether it holds as much as it may, added up anew."""
        self._added_up_s = 0.0
        return self.facts().is_full

    def in_memory_bytes(self) -> int:
        """Nothing: it lies on disk."""
        return 0

    def close(self) -> None:
        """Remove the folder. Every step is relative to a descriptor and follows no link; all writers must be dead."""
        os.close(self.fd)
        try:
            base_fd = os.open(self._base, _FOLDER_FLAGS)
        except FileNotFoundError:
            return  # removed whole, with its zygote
        try:
            remove_tree(base_fd, self._name)
        finally:
            os.close(base_fd)


def remove_folder(path: str) -> bool:
    """Remove a folder of workspaces and all that is left in it. Returns whether it is gone."""
    try:
        base_fd = os.open(path, _FOLDER_FLAGS)
    except FileNotFoundError:
        return True
    try:
        for name in os.listdir(base_fd):
            remove_tree(base_fd, name)
    finally:
        os.close(base_fd)
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return not os.path.exists(path)


def remove_tree(base_fd: int, name: str) -> None:
    """Remove a folder that a run has left, however deep it is and whatever modes it has; nothing is followed.

    Folders inside are first moved up beside it, so that no path and no stack grows with their depth.
    """
    waiting, count = [name], 0
    while waiting:
        folder = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700, dir_fd=base_fd)  # a mode that keeps even the owner out is no obstacle
            fd = os.open(folder, _FOLDER_FLAGS, dir_fd=base_fd)
            try:
                for inner in os.listdir(fd):
                    if stat.S_ISDIR(os.stat(inner, dir_fd=fd, follow_symlinks=False).st_mode):
                        os.chmod(inner, 0o700, dir_fd=fd)
                        count += 1
                        os.rename(inner, f"{name}.{count}", src_dir_fd=fd, dst_dir_fd=base_fd)
                        waiting.append(f"{name}.{count}")
                    else:
                        os.unlink(inner, dir_fd=fd)
            finally:
                os.close(fd)
            os.rmdir(folder, dir_fd=base_fd)
