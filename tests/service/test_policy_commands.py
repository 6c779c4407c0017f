"""``python -m engine policies``: what it prints, and the exit code that a pipeline acts on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.config.load import load_settings
from engine.policies.check import Finding
from engine.policies.lock import write_lock
from sandbox import load_policies
from tests.support.command_line import engine
from tests.support.stack import ROOT

SHIPPED = ROOT / "policies" / "custom_script.toml"
STRICT = SHIPPED.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one policy file, for a test to change."""
    (tmp_path / "custom_script.toml").write_text(STRICT)
    return tmp_path


def change(folder: Path, old: str, new: str) -> Path:
    """Change the file's text; the file."""
    path = folder / "custom_script.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return path


def test_check_prints_errors_and_ends_with_1(folder: Path) -> None:
    """As JSON too."""
    change(folder, "wall_s", "wall")
    shown = engine("policies", "check", str(folder))
    assert (1, True) == (shown.returncode, b"limits.wall_s: missing" in shown.stdout)
    found = msgspec.json.decode(engine("policies", "check", "--json", str(folder)).stdout, type=list[Finding])
    assert "error" in [finding.level for finding in found]


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_a_warning_is_an_error_to_those_who_are_strict(folder: Path, options: tuple[str, ...], code: int) -> None:
    """A loose grant passes ``check`` and fails ``check --strict``."""
    change(folder, "\nwall_s = 60\n", "\nwall_s = 7200\n")
    shown = engine("policies", "check", *options, str(folder))
    assert (code, True) == (shown.returncode, b"a long time" in shown.stdout)


@pytest.mark.parametrize(("required", "code"), [("required", 1), ("off", 0)])
def test_what_differs_from_the_lock_fails_check_where_it_would_stop_the_start(
    folder: Path, required: str, code: int
) -> None:
    """With POLICY_LOCK=required, and not without."""
    write_lock(folder, load_policies(folder).values())
    change(folder, "\nwall_s = 60\n", "\nwall_s = 59\n")
    shown = engine("policies", "check", str(folder), POLICY_LOCK=required)
    assert (code, True) == (shown.returncode, b"custom_script: was changed" in shown.stdout)


def test_show_names_what_there_is_when_there_is_no_such_policy() -> None:
    """With exit code 1."""
    shown = engine("policies", "show", "no_such")
    assert (1, True) == (shown.returncode, b"custom_script" in shown.stderr)


@pytest.mark.parametrize(
    ("old", "new", "says", "code"),
    [
        ("\nwall_s = 60\n", "\nwall_s = 61\n", b"looser", 1),
        ("\nwall_s = 60\n", "\nwall_s = 59\n", b"tighter", 0),
        ("\nwall_s = 60\n", "\nwall_s = 60.0\n", b"no difference", 0),
    ],
)
def test_diff_ends_with_1_exactly_when_something_became_looser(
    folder: Path, old: str, new: str, says: bytes, code: int
) -> None:
    """So that a pipeline can ask for a second pair of eyes."""
    shown = engine("policies", "diff", str(SHIPPED), str(change(folder, old, new)))
    assert (code, True) == (shown.returncode, says in shown.stdout), shown.stdout


def test_lock_signs_off_what_is_there(folder: Path) -> None:
    """Afterwards a worker that requires the lock has nothing against these files."""
    assert 0 == engine("policies", "lock", POLICIES_DIR=str(folder)).returncode
    assert 0 == engine("policies", "check", POLICIES_DIR=str(folder), POLICY_LOCK="required").returncode
    assert load_settings({"POLICIES_DIR": str(folder)}).policies_dir == folder
