"""The versions of what runs here: the engine, Python, the kernel."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import msgspec


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The versions that a process runs on."""

    engine: str = "unknown"
    python: str = "unknown"
    kernel: str = "unknown"


def engine_version() -> str:
    """The version of this service."""
    try:
        return importlib.metadata.version("unityai-python-worker")
    except importlib.metadata.PackageNotFoundError:
        return "0.1.0"


def versions() -> Versions:
    """The versions of this process."""
    return Versions(engine=engine_version(), python=platform.python_version(), kernel=os.uname().release)
