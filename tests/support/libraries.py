"""The sets of libraries that ``make install`` has made."""

from __future__ import annotations

from pathlib import Path

from engine.config.libraries import find_sets
from sandbox import LibrarySet

FOLDER = Path(__file__).resolve().parents[2] / ".libraries"


def library_sets() -> dict[str, LibrarySet]:
    """Set name → packages, as a worker finds them."""
    return find_sets(FOLDER)
