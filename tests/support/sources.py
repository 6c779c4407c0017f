"""The project's own modules as syntax trees, for tests that read the code. Each file is parsed once in a process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def modules(folder: str) -> tuple[tuple[Path, ast.Module], ...]:
    """Path and syntax tree of every module below a folder of the project, in the order of their paths."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return tuple((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
