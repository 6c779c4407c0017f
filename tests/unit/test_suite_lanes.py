"""make test leaves no test out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs.suite import LANES, ROOT, files_of

TESTS = Path(__file__).resolve().parents[1]


def test_every_file_of_tests_is_in_one_lane() -> None:
    """A file that no lane names would be run by nobody; one in two lanes would be run twice."""
    named = [place for lane in LANES for parts in lane for place in parts if place.startswith("tests/")]
    given = [ROOT / file for place in named for file in files_of(place)]
    files = [file for path in given for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])]
    assert sorted(TESTS.glob("*/test_*.py")) == sorted(files)


def test_pattern_that_means_no_file_is_refused() -> None:
    """pytest without a path would run everything."""
    with pytest.raises(ValueError, match="no such file"):
        files_of("tests/service/test_nothing_[0-9]*.py")
