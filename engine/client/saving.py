"""Writes the artifacts of a task to a folder. Their names come from code that nobody has read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import ClientError


def place_of(name: str, folder: Path) -> Path:
    """Where an artifact goes below a folder.

    Raises:
        ClientError: its name leads out of the folder, or cannot be a path.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or any("\0" in part or "\\" in part for part in parts):
        raise ClientError(f"the artifact {name!r} has a name that is no path below the folder: get it by `artifact()`")
    return folder.joinpath(*parts)


def save(content: bytes, artifact: Mapping[str, Any], folder: Path) -> Path:
    """Write an artifact, whole or not at all; what was there under its name is replaced.

    Args:
        content: its bytes.
        artifact: as the task's answer lists it.
        folder: is made, where it is not there.

    Raises:
        ClientError: the bytes are not those of the task, or the name leads out of the folder.
        OSError: the file cannot be written.
    """
    if hashlib.sha256(content).hexdigest() != artifact["sha256"]:
        raise ClientError(f"the artifact {artifact['name']!r} did not arrive as it was: its SHA-256 is another")
    folder.mkdir(parents=True, exist_ok=True)
    path = place_of(artifact["name"], folder.resolve())
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ClientError(f"the artifact {artifact['name']!r} would go through a link out of {folder}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".artifact-")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
