"""The versions that a process runs on. That of the engine stands in ``pyproject.toml`` and nowhere else."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

DISTRIBUTION = "unityai-python-worker"
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The versions that a process runs on."""

    engine: str = "unknown"
    python: str = "unknown"
    kernel: str = "unknown"


class EngineVersion(NamedTuple):
    """The version of this service, and where it was read."""

    number: str
    note: str = ""
    """Where it was read, when that is not the installed package."""


def find_version() -> EngineVersion:
    """The version of this service: of the installed package, or, in a checkout that nobody installed, of its own
    ``pyproject.toml``."""
    try:
        return EngineVersion(importlib.metadata.version(DISTRIBUTION))
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    except FileNotFoundError:
        return EngineVersion("unknown", "the package is not installed, and there is no pyproject.toml")
    return EngineVersion(project["version"], "from pyproject.toml: the package is not installed")


def engine_version() -> str:
    """The version of this service as a number, e.g. ``1.2.0``."""
    return find_version().number


def versions() -> Versions:
    """The versions of this process."""
    return Versions(engine=engine_version(), python=platform.python_version(), kernel=os.uname().release)
