"""The project as it is installed: its one version, its command, and an image without what is for development."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from engine.model.versions import engine_version
from tests.support.stack import ROOT

INSTALL = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
AS_A_PATH = ["--config-settings", "editable_mode=compat", "--editable", "."]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def copy_project(folder: Path, *left_out: str) -> Path:
    """The project without its tests, and without what else is to be left out."""
    for name in ("engine", "sandbox", "handlers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in left_out:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def make_environment(folder: Path) -> Path:
    """The interpreter of a virtual environment that has the libraries of this one, without the project itself."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for library in (entry for place in site.getsitepackages() for entry in Path(place).iterdir()):
        if "unityai" not in library.name:
            (packages / library.name).symlink_to(library)
    return folder / "bin" / "python"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, env={}, capture_output=True, text=True, check=False)


def test_installed_project_has_its_version_and_its_command(tmp_path: Path) -> None:
    """As ``make install`` and the image do it: ``unityai-worker`` beside ``python -m engine``, from any folder."""
    project = copy_project(tmp_path / "project")
    python = make_environment(tmp_path / "venv")
    pip = run(sys.executable, "-m", "pip", "--python", python, *INSTALL, *AS_A_PATH, cwd=project)
    assert 0 == pip.returncode, pip.stderr
    (project / "pyproject.toml").unlink()  # as in the image: the installed package knows it
    for command in ([python.with_name("unityai-worker")], [python, "-m", "engine"]):
        done = run(*command, "--version", cwd=tmp_path)
        assert (0, f"unityai-worker {VERSION}\n") == (done.returncode, done.stdout), done.stderr
    assert "policies" in run(python.with_name("unityai-worker"), "--help", cwd=tmp_path).stdout


def test_checkout_has_the_same_version_and_says_whence(tmp_path: Path) -> None:
    """Without installation the version is read from pyproject.toml, and ``--version`` says so."""
    project, python = copy_project(tmp_path / "project"), make_environment(tmp_path / "venv")
    found = run(python, "-m", "engine", "--version", cwd=project).stdout
    assert f"unityai-worker {VERSION} (from pyproject.toml: the package is not installed)\n" == found


def test_version_stands_in_pyproject_alone() -> None:
    """Nothing in the engine repeats it, and this process knows it."""
    assert VERSION == engine_version()
    found = [path for path in (ROOT / "engine").rglob("*.py") if f'"{VERSION}"' in path.read_text()]
    assert [] == found


@pytest.mark.parametrize("command", ["up", "demo", "bench"])
def test_image_says_that_a_command_is_for_development(tmp_path: Path, command: str) -> None:
    """``engine/dev`` is not in the image: one sentence on stderr, which says what to do instead."""
    project = copy_project(tmp_path, "engine/dev")
    done = run(sys.executable, "-m", "engine", command, cwd=project)
    assert (1, "") == (done.returncode, done.stdout)
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: `{command}` is for development, and this installation leaves that part out: ")


def test_api_and_worker_do_without_what_is_for_development(tmp_path: Path) -> None:
    """Everything that they import is there without ``engine/dev``."""
    project = copy_project(tmp_path, "engine/dev")
    imports = "import engine.__main__, engine.api.server.serve, engine.worker.worker, engine.cli.once, sys"
    done = run(sys.executable, "-c", f"{imports}; print('engine.dev' in sys.modules)", cwd=project)
    assert (0, "False\n") == (done.returncode, done.stdout), done.stderr
