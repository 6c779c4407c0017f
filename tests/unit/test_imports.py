"""Allow-lists of imports, compared with the source. An import that no list names is refused.

import-linter (pyproject.toml) holds the direction between the packages; it knows deny-lists only, which a new library
passes unseen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.support.sources import ROOT, modules

OURS = ("engine", "sandbox", "handlers")
RULES = {
    "sandbox": ("sandbox", "msgspec", "pyseccomp"),
    "handlers/parameters": ("handlers.parameters", "msgspec"),
}
"""Folder → what it may import beside the standard library."""
OF_OURS = {
    "engine": ("engine", "sandbox", "handlers.parameters"),
    "handlers": ("handlers",),
}
"""Folder → what it may import of our own packages; other libraries are its own affair."""


def imported(module: ast.Module, package: str) -> Iterator[str]:
    """List a module's imports as dotted names: ``from a.b import c`` is ``a.b.c``.

    Args:
        module: its syntax tree.
        package: where the module lies, for relative imports.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                yield str(node.args[0].value)


def is_below(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the allowed ones, or lies in one."""
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def in_standard_library(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def refused(module: ast.Module, package: str, folder: str) -> list[str]:
    """The imports of a module that its folder may not have."""
    names = imported(module, package)
    if folder in RULES:
        return [name for name in names if not in_standard_library(name) and not is_below(name, RULES[folder])]
    return [name for name in names if is_below(name, OURS) and not is_below(name, OF_OURS[folder])]


@pytest.mark.parametrize("folder", [*RULES, *OF_OURS])
def test_a_folder_imports_what_it_may(folder: str) -> None:
    """Nothing else, in any module, wherever in it the import stands."""
    assert len(modules(folder)) > 5
    found = {}
    for path, module in modules(folder):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        if names := refused(module, package, folder):
            found[str(path.relative_to(ROOT))] = names
    assert {} == found


REFUSED = {
    "a library in the sandbox": ("sandbox", "import requests", ["requests"]),
    "a library in a function": ("sandbox", "def f():\n    from numpy.linalg import norm", ["numpy.linalg.norm"]),
    "a library by its name": ("sandbox", "importlib.import_module('psutil')", ["psutil"]),
    "a handler in the sandbox": ("sandbox", "from handlers import entry", ["handlers.entry"]),
    "a handler in the engine": ("engine", "from handlers import jsonable", ["handlers.jsonable"]),
    "all handlers in the engine": ("engine", "import handlers", ["handlers"]),
    "a name that only begins like it": (
        "engine",
        "import handlers.parameters_of_mine",
        ["handlers.parameters_of_mine"],
    ),
    "the engine in a handler": ("handlers", "import engine.model.task", ["engine.model.task"]),
    "the sandbox in a handler": ("handlers", "from sandbox import Pool", ["sandbox.Pool"]),
    "a neighbour of the parameters": ("handlers/parameters", "from .. import inputs", ["handlers.inputs"]),
    "a library in the parameters": ("handlers/parameters", "import numpy", ["numpy"]),
}


@pytest.mark.parametrize(("folder", "source", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(folder: str, source: str, expected: list[str]) -> None:
    """The rules see an import in each of its forms."""
    assert expected == refused(ast.parse(source), folder.replace("/", "."), folder)


ALLOWED = {
    "sandbox": "import os, msgspec\nfrom sandbox.run import decide\nfrom . import policy",
    "engine": "import litestar\nfrom handlers.parameters.registry import decode\nfrom sandbox import Pool",
    "handlers": "import numpy\nfrom handlers import inputs\nfrom .data import rows",
    "handlers/parameters": "import re\nfrom msgspec import Meta\nfrom .files import InputFile",
}


@pytest.mark.parametrize(("folder", "source"), ALLOWED.items(), ids=ALLOWED)
def test_what_is_allowed(folder: str, source: str) -> None:
    """The standard library, the libraries named above, and one's own package."""
    assert [] == refused(ast.parse(source), folder.replace("/", "."), folder)
