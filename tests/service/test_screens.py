"""What commands print on terminals of 60, 80 and 140 columns, in a pseudo-terminal, as a reviewer has seen it.

``python -m tests.programs.renew_golden`` writes the files again; look at what has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.screens import GOLDEN, SCREENS, WIDTHS, answering, screen, write_keys

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|file_[0-9a-f]{32}")
TABLES = ("tasks list", "files list", "callbacks list", "top", "keys list")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of the service that the commands ask, and a file of keys."""
    keys = tmp_path_factory.mktemp("screens") / "keys.toml"
    write_keys(keys)
    with answering() as url:
        yield url, keys


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_it_was_reviewed(place: tuple[str, Path], name: str, columns: int) -> None:
    """To the letter, but for the clock; a table is no wider than the terminal, and nothing in it is cut."""
    printed = screen(columns, name, *place)
    assert (GOLDEN / f"{name}.{columns}.txt").read_text(encoding="utf-8") == printed
    assert "Traceback (most recent call last)" not in printed or name == "tasks show"
    if name in TABLES:
        assert max(map(len, printed.splitlines())) <= columns
        assert "\u2026" not in printed


@pytest.mark.parametrize("name", ["tasks list", "files list", "callbacks list", "top"])
def test_an_id_is_whole_at_every_width(name: str) -> None:
    """The narrowest screen has the same ids as the widest."""
    found = [set(ID.findall((GOLDEN / f"{name}.{columns}.txt").read_text(encoding="utf-8"))) for columns in WIDTHS]
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_every_file_is_of_a_screen() -> None:
    """None is left over from a command that there was."""
    assert {f"{name}.{columns}.txt" for name in SCREENS for columns in WIDTHS} == {
        path.name for path in GOLDEN.iterdir()
    }
