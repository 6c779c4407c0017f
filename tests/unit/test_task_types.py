"""Every task type has all of its pieces: module, Struct, policy, test file, example, and a place in the README."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from engine.api.docs.examples import EXAMPLES
from engine.model.status import TASK_TYPES
from handlers.entry import HANDLERS
from handlers.parameters.registry import PARAMETERS
from sandbox import load_policies

ROOT = Path(__file__).resolve().parents[2]


def test_no_table_has_a_task_type_more_or_less() -> None:
    """Handlers, parameters and examples have exactly the task types of the interface."""
    assert set(TASK_TYPES) == set(HANDLERS) == set(PARAMETERS) == set(EXAMPLES)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_task_type_has_its_module(task_type: str) -> None:
    """With ``run``, which does a task, and ``rehearse``, which a zygote calls before there is one."""
    path = ROOT / f"{HANDLERS[task_type].replace('.', '/')}.py"
    defined = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert {"run", "rehearse"} <= defined
    assert task_type == path.stem


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_task_type_has_its_policy(task_type: str) -> None:
    """The file named like it is its default, and loads its module beforehand."""
    policy = load_policies(ROOT / "policies")[task_type]
    assert task_type == policy.task_type
    assert HANDLERS[task_type] in policy.preload


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_task_type_has_its_tests_and_docs(task_type: str) -> None:
    """A test file of its name, a section of handlers/README.md, and an example in README.md."""
    assert list((ROOT / "tests").glob(f"*/test_{task_type}.py"))
    assert f"\n## {task_type}" in (ROOT / "handlers" / "README.md").read_text()
    assert f'"task_type": "{task_type}"' in (ROOT / "README.md").read_text()
