"""What the README says of the environment is what the engine reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.__main__ import settings

ROOT = Path(__file__).resolve().parents[2]


def test_settings_table_is_the_one_that_the_engine_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """A variable that is added, or whose default changes, must change the README."""
    settings(markdown=True)
    printed = capsys.readouterr().out.strip()
    found = re.search(r"<!-- settings: .*? -->\n(.*?)\n<!-- /settings -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    assert printed == found[1]


def test_every_package_has_a_readme() -> None:
    """A newcomer finds what each folder is."""
    missing = [
        name
        for name in ("engine", "sandbox", "handlers", "scripts", "policies", "tests")
        if not (ROOT / name / "README.md").is_file()
    ]
    assert [] == missing
