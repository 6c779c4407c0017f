"""The start of a zygote does not grow with the set of libraries that its policy names, counted and not timed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox import Host, LibrarySet, Policy, Template
from tests.support.synchronous import Sandbox, value_of

MANY = 400
_COUNTING = """
import sys
counts = {}
def count(event, _):
    if event in ("open", "import", "exec", "compile", "os.listdir", "os.scandir"):
        counts[event] = counts.get(event, 0) + 1
sys.addaudithook(count)
"""
_ASK = "import sys\ncounted = sys.modules['handlers.counting'].counts.copy()\nresult = [counted, sorted(sys.modules)]"


@pytest.fixture
def counting(template: Template, tmp_path: Path) -> Iterator[Template]:
    """A template whose code counts what its zygote opens, lists, compiles and imports."""
    shutil.copytree(template.code, tmp_path / "code", symlinks=True)
    (tmp_path / "code/handlers/counting.py").write_text(_COUNTING, encoding="utf-8")
    tmp_path.chmod(0o755)
    yield msgspec.structs.replace(template, code=tmp_path / "code")
    shutil.rmtree(tmp_path)


def test_the_start_does_not_grow_with_the_libraries(
    light_policy: Policy, host: Host, counting: Template, tmp_path: Path
) -> None:
    """Four hundred packages more, some of which ask to be loaded at each start, open and import nothing."""
    own = counting.libraries[light_policy.libraries].folder
    few = _set_of(tmp_path / "few", own, packages=0)
    many = _set_of(tmp_path / "many", own, packages=MANY)
    policy = msgspec.structs.replace(light_policy, preload=("handlers.counting", "handlers.custom_script"))
    small, large = (_ask(policy, host, counting, libraries) for libraries in (few, many))
    assert small == large
    assert small[0]["open"] > 10 < small[0]["import"]


def _set_of(folder: Path, own: Path, *, packages: int) -> LibrarySet:
    """What our code itself needs, and so many packages beside it."""
    folder.mkdir(mode=0o755)
    for path in own.glob("msgspec*"):
        shutil.copytree(path, folder / path.name)
    for number in range(packages):
        name = f"package_{number}"
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("value = 1\n", encoding="utf-8")
        (folder / f"{name}-1.0.dist-info").mkdir()
        (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n", encoding="utf-8")
        if number % 10 == 0:
            (folder / f"{name}.pth").write_text(f"import {name}\n", encoding="utf-8")
    return LibrarySet(folder=folder, digest=f"sha256:{packages:064x}")


def _ask(policy: Policy, host: Host, template: Template, libraries: LibrarySet) -> Any:
    sets = template.libraries | {policy.libraries: libraries}
    box = Sandbox(policy, host, msgspec.structs.replace(template, libraries=sets), ready=0)
    try:
        return value_of(box.run(_ASK))
    finally:
        box.close()
