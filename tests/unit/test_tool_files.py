"""The files of tools: the same checks by hand, before a commit and in CI; pinned actions; bounds where we subclass."""

from __future__ import annotations

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.sources import ROOT, modules

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OURS = ("engine", "sandbox", "handlers", "scripts")
PACKAGES = {"prometheus_client": "prometheus-client"}
"""Module → distribution, where the two differ."""


def workflow(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text()))


def test_a_commit_is_checked_as_by_make_lint() -> None:
    """The same commands, in the same order; none of them fetches anything."""
    text = (ROOT / "Makefile").read_text().partition("\nlint: ")[2].partition("\n\n")[0]
    by_hand = [line.strip().removeprefix("$(VENV)/bin/").removesuffix(" .") for line in text.splitlines()[1:]]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in local["hooks"]]
    assert by_hand == entries
    assert ("local", {"system"}) == (local["repo"], {hook["language"] for hook in local["hooks"]})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_uses_pinned_actions(path: Path) -> None:
    """An action is a commit, with its version beside it: a tag may be moved."""
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [] == [use for use in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", use)]
    assert {"contents": "read"} == workflow(path.name)["permissions"]
    assert workflow(path.name)["concurrency"]["cancel-in-progress"]


def test_every_version_of_python_that_is_named_is_tested() -> None:
    """By the workflow; the lowest is the one that is required, and that ruff and mypy assume."""
    named = [name.rpartition(" :: ")[2] for name in PROJECT["classifiers"] if " :: Python :: 3." in name]
    jobs = workflow("ci.yml")["jobs"]
    assert named == jobs["test"]["strategy"]["matrix"]["python"]
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert (f">={named[0]}", named[0]) == (PROJECT["requires-python"], tools["mypy"]["python_version"])
    assert f"py{named[0].replace('.', '')}" == tools["ruff"]["target-version"]
    assert {"lint"} == {job["needs"] for name, job in jobs.items() if name != "lint"}


def bases() -> Iterator[tuple[str, str]]:
    """(module, class of ours) for each subclass of what a library defines."""
    for _, tree in (found for package in OURS for found in modules(package)):
        origins: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                origins |= {(name.asname or name.name).partition(".")[0]: name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                origins |= {name.asname or name.name: node.module for name in node.names}
        for node in ast.walk(tree):
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                name = next(inner.id for inner in ast.walk(base) if isinstance(inner, ast.Name))
                module = origins.get(name, "").partition(".")[0]
                if module and module not in {*OURS, *sys.stdlib_module_names}:
                    yield module, node.name  # type: ignore[attr-defined]


def test_what_we_make_subclasses_of_has_an_upper_bound() -> None:
    """A new minor version may change what a subclass rests on; then somebody is to look, not a user."""
    found: dict[str, set[str]] = {}
    for module, name in bases():
        found.setdefault(PACKAGES.get(module, module), set()).add(name)
    assert {"uvicorn", "arq", "redis"} <= found.keys()
    groups = itertools.chain.from_iterable(PYPROJECT["dependency-groups"].values())
    named = [*PROJECT["dependencies"], *(wanted for wanted in groups if isinstance(wanted, str))]
    bounds = {re.split(r"[<>=]", wanted)[0]: wanted for wanted in named}
    # matplotlib is a library of scripts: what of it is loaded is for the operator to say
    assert [] == [
        (package, sorted(names))
        for package, names in found.items()
        if package != "matplotlib" and "<" not in bounds[package]
    ]
