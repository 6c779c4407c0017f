"""make test leaves no folder of tests out."""

from __future__ import annotations

from pathlib import Path

from tests.programs.suite import LANES

TESTS = Path(__file__).resolve().parents[1]


def test_every_folder_of_tests_is_in_one_lane() -> None:
    """A folder that no lane names would be tested by nobody; one in two lanes would be tested twice."""
    named = [part for lane in LANES for parts in lane for part in parts if part.startswith("tests/")]
    assert sorted(named) == sorted({f"tests/{path.parent.name}" for path in TESTS.glob("*/test_*.py")})
