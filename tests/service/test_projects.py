"""A project of several files in ``inputs``, beside the same run by plain ``python`` with ``PYTHONPATH=inputs``."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import ROOT, task

PROJECTS: dict[str, tuple[str, dict[str, str]]] = {
    "a module": ("import mod\nprint(mod.x)", {"mod.py": "x = 1"}),
    "a package": ("from pkg.mod import x\nprint(x)", {"pkg/__init__.py": "", "pkg/mod.py": "from .deep import x",
                                                        "pkg/deep/__init__.py": "x = 'deep'"}),
    "a namespace package": ("from plain.mod import x\nprint(x)", {"plain/mod.py": "x = 2"}),
    "data beside a module": (
        "import mod\nprint(mod.words())",
        {"mod.py": "import pathlib\ndef words():\n    return pathlib.Path(__file__).with_name('w.txt').read_text()",
         "w.txt": "grüße"},
    ),
    "resources of a package": (
        "from importlib.resources import files\nprint(files('pkg').joinpath('data/w.txt').read_text())",
        {"pkg/__init__.py": "", "pkg/data/w.txt": "words"},
    ),
    "a module wins over an installed package": ("import tabulate\nprint(tabulate.x)", {"tabulate.py": "x = 'mine'"}),
    "a folder of data hides no package": (
        "import tabulate\nprint(tabulate.tabulate([[1]], tablefmt='plain'))", {"tabulate/a.csv": "1", "mod.py": ""},
    ),
    "the script's folder wins": (
        "open('mod.py', 'w').write('x = 1')\nimport mod\nprint(mod.x)", {"mod.py": "x = 2"},
    ),
    "a module reads stdin's descriptor": ("import mod\nprint(mod.x > 0)", {"mod.py": "x = len(open(0).read())"}),
    "a module asks for the script's file": (
        "import mod\nprint(mod.x)", {"mod.py": "import sys\nx = open(sys.modules['__main__'].__file__).read()"},
    ),
    "a module leaves a file open": ("import mod\nprint('done')", {"mod.py": "f = open('left.txt', 'w')\nf.write('x')"}),
    "a class of a module is pickled": (
        "import mod, pickle\nprint(pickle.loads(pickle.dumps(mod.A())).b)", {"mod.py": "class A:\n    b = 3"},
    ),
    "runpy": ("import runpy\nrunpy.run_module('pkg', run_name='__main__')", {"pkg/__main__.py": "print(__package__)"}),
}  # fmt: skip


@pytest.mark.parametrize(("script", "files"), PROJECTS.values(), ids=PROJECTS)
def test_a_project_prints_what_plain_python_prints(
    client: httpx.Client, tmp_path: Path, script: str, files: dict[str, str]
) -> None:
    """With the same packages installed."""
    answer = _send(client, script, files)
    assert ("ok", _plain(script, files, tmp_path).stdout) == (answer["exit_reason"], answer["logs"]["stdout"]), answer


def test_a_traceback_shows_the_lines_of_a_module(client: httpx.Client, tmp_path: Path) -> None:
    """The last frames are those of plain Python, but for the folder."""
    script, files = "import pkg.mod\npkg.mod.f(0)", {"pkg/mod.py": "def f(x):\n    return (1 +\n        1 / x)\n"}
    answer = _send(client, script, files)
    plain = _plain(script, files, tmp_path)
    here = answer["error"]["traceback"].replace("/work/inputs", "inputs")
    assert plain.stderr.replace(f"{tmp_path}/inputs", "inputs").splitlines()[3:] == here.splitlines()[3:]
    assert 'File "inputs/pkg/mod.py", line 3, in f\n    1 / x)' in here


def test_no_input_stands_in_for_the_standard_library(client: httpx.Client) -> None:
    """Unlike with PYTHONPATH: an unlucky name breaks no library."""
    files = {"random.py": "x = 'mine'", "colorsys.py": "x = 'mine'"}
    script = "import random, colorsys\nresult = [hasattr(random, 'x'), hasattr(colorsys, 'x')]"
    assert [False, False] == _send(client, script, files)["result"]


def test_what_is_no_module_changes_no_path(client: httpx.Client) -> None:
    """Only files that end in ``.py`` put ``inputs`` on ``sys.path``."""
    script = "import sys\nresult = any('inputs' in place for place in sys.path)"
    found = [_send(client, script, {name: ""})["result"] for name in ("a/b.csv", "b.py")]
    assert [False, True] == found


def test_no_input_stands_in_for_what_a_named_script_imports(client: httpx.Client) -> None:
    """An operator's script imports the operator's packages, whatever its caller sends."""
    files = {f"{name}.py": {"text": "raise SystemExit(3)"} for name in ("pandas", "numpy", "json", "data_analysis")}
    named = {
        "script": "data_analysis.py",
        "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"},
    }
    plain = client.post("/execute?wait=30", json={"task_type": "custom_script", "parameters": named}).json()
    body = {"task_type": "custom_script", "parameters": named | {"inputs": files}}
    answer = client.post("/execute?wait=30", json=body).json()
    assert "ok" == plain["exit_reason"], plain
    assert (plain["exit_reason"], plain["result"]) == (answer["exit_reason"], answer["result"])


def test_modules_come_in_each_way(client: httpx.Client) -> None:
    """As base64 and as an upload, under the folder that the request names."""
    kept = client.post("/files", params={"name": "anything.bin"}, content=b"y = 2").json()
    files = {
        "pkg/one.py": {"base64": base64.b64encode(b"x = 1").decode()},
        "pkg/two.py": {"file_id": kept["file_id"]},
        "pkg/three.py": {"file_id": kept["file_id"]},
    }
    script = "import os\nfrom pkg import one, two, three\nresult = [one.x, two.y, three.y, os.listdir('inputs')]"
    assert [1, 2, 2, ["pkg"]] == _ask(client, script, files)["result"]


def _send(client: httpx.Client, script: str, files: dict[str, str]) -> dict[str, Any]:
    return _ask(client, script, {name: {"text": text} for name, text in files.items()})


def _ask(client: httpx.Client, script: str, inputs: dict[str, Any]) -> dict[str, Any]:
    body = task(script)
    body["parameters"]["inputs"] = inputs
    answer: dict[str, Any] = client.post("/execute?wait=30", json=body).json()
    return answer


def _plain(script: str, files: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    for name, text in (files | {"../script.py": script}).items():
        path = folder / "inputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    environ = os.environ | {"PYTHONPATH": str(folder / "inputs"), "PYTHONUTF8": "1"}
    command = [str(ROOT / ".libraries/scripts/bin/python"), str(folder / "script.py")]
    return subprocess.run(
        command, check=False, cwd=folder, env=environ, input="some words", capture_output=True, text=True, timeout=60
    )
