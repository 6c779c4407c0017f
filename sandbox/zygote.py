from __future__ import annotations

from pathlib import Path

import msgspec


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What every zygote of a worker is made of, beside its policy."""

    code: Path
    """Folder that holds ``handlers/`` and ``sandbox/``; these two, nothing beside them, are visible inside."""
    entry: str
    """``module:function`` that answers a request, e.g. ``handlers.entry:main``."""
    places: dict[str, Path]
    """Place name in a policy's ``filesystem.read`` → host folder, e.g. ``{"scripts": Path("scripts")}``."""
    uid: int
    """Outer user id of zygotes and children when the worker is root; unused otherwise."""
    gid: int
