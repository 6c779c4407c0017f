"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.readme import ROOT, Block, blocks, read_page
from tests.support.stack import FOREIGN, open_folder

PAGE = "CONTRIBUTING.md"
RECIPES = ("Adding a task type", "Adding a named script", "Adding a policy")
NOT_COPIED = (".git", ".venv", ".libraries", "models", ".data", "__pycache__", ".*_cache", ".hypothesis")


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A copy of the project, with the same models, libraries and interpreter."""
    with open_folder() as folder:
        copy = folder / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        for name in ("models", ".libraries"):
            (copy / name).symlink_to((ROOT / name).resolve())
        yield copy


def recipe(title: str) -> list[Block]:
    """The blocks between a heading and the next one."""
    text = read_page(PAGE)
    start = text.index(f"\n## {title}\n")
    end = text.find("\n## ", start + 1)
    return [block for block in blocks(PAGE) if start < block.start < end]


def run(project: Path, shell: str) -> subprocess.CompletedProcess[str]:
    """Commands in the copy, until one fails; ``python`` is this interpreter."""
    environ = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", shell]
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=250, check=False)


def follow(project: Path, block: Block, printed: str) -> str:
    """Do what a block says; what its commands printed, or what was printed before.

    ``python`` is a file, which the sentence before it names; ``diff`` changes files; ``sh`` is run; ``json`` is the
    result in what the last commands printed.
    """
    text = textwrap.dedent(block.text)
    if block.language == "python":
        before = read_page(PAGE)[: block.start].rpartition("\n\n")[0]  # without the fence's own line
        paths = re.findall(r", in `([\w/]+\.py)`\.", before.rpartition("\n\n")[2])
        (project / paths[-1]).write_text(text, encoding="utf-8")
    elif block.language == "diff":
        for change in filter(None, re.split(r"^--- ", text, flags=re.MULTILINE)):
            add(project, *change.rstrip("\n").split("\n"))
    elif block.language == "sh":
        done = run(project, text)
        assert 0 == done.returncode, f"{block.where}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout
    else:
        ended = json.loads(printed[printed.index("{") :])
        assert ("ok", json.loads(text)) == (ended["exit_reason"], ended["result"])
    return printed


def add(project: Path, path: str, known: str, *lines: str) -> None:
    """Add lines with ``+`` after the only line that stands before them."""
    assert known.startswith(" ")
    assert all(line.startswith("+") for line in lines)
    old = (project / path).read_text(encoding="utf-8")
    assert 1 == f"\n{old}".count(f"\n{known[1:]}\n"), f"{path} has no line, or several lines: {known[1:]}"
    new = "\n".join([known[1:], *(line[1:] for line in lines)])
    (project / path).write_text(f"\n{old}".replace(f"\n{known[1:]}\n", f"\n{new}\n", 1)[1:], encoding="utf-8")


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works_as_it_stands(project: Path, title: str) -> None:
    """Every block of it, in order: files, changes, commands, and the result that the page shows."""
    steps, printed = recipe(title), ""
    assert {"sh", "json"} <= {block.language for block in steps}
    for block in steps:
        printed = follow(project, block, printed)


@pytest.fixture
def handler(project: Path) -> Path:
    """The handler of word_count, in a project that has this task type."""
    path = project / "handlers" / "word_count.py"
    if not path.exists():  # the test above has not run
        test_a_recipe_works_as_it_stands(project, RECIPES[0])
    return path


@pytest.mark.usefixtures("handler")
def test_what_a_new_task_type_still_lacks_is_named(project: Path) -> None:
    """After the recipe's blocks everything is there but the pages, which only an author can write."""
    done = run(project, "python -m pytest -q tests/unit/test_task_types.py")
    failed = re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
    assert ["test_task_type_has_its_tests_and_docs[word_count]"] == failed, done.stdout


def test_a_handler_without_rehearsal_is_named_with_what_it_lacks(project: Path, handler: Path) -> None:
    """The command's own error says it; a reader need not look for it in a traceback."""
    whole = handler.read_text(encoding="utf-8")
    handler.write_text(whole.replace("def rehearse", "def rehearsal"), encoding="utf-8")
    request = json.dumps({"task_type": "word_count", "parameters": {"text": "a"}})
    try:
        done = run(project, f"python -m engine run - <<< '{request}'")
    finally:
        handler.write_text(whole, encoding="utf-8")
    assert 1 == done.returncode
    error = done.stderr.rstrip().splitlines()[-1]
    assert error.startswith("error: start_zygote: word_count: ")
    assert error.endswith("module 'handlers.word_count' has no attribute 'rehearse'")
