"""When `make growth-test` says that something grew."""

from __future__ import annotations

import pytest

from tests.growth.memory import Peak, beyond
from tests.growth.run import grew


@pytest.mark.parametrize(
    ("values", "is_more"),
    [
        ([50.0, *[100.0] * 39], False),  # it was still warming up
        ([100.0 + step for step in range(40)], True),
        ([100.0] * 30 + [103.0] * 10, False),  # within its slack
        ([100.0] * 30 + [106.0] * 10, True),
        ([100.0] * 39 + [900.0], False),  # once
    ],
)
def test_what_is_more_in_the_last_quarter_than_in_the_second_grew(values: list[float], is_more: bool) -> None:
    """By more than the slack, here 5, in the median."""
    assert is_more == grew(values, 5)


def test_memory_beyond_what_is_stated_is_said() -> None:
    """Of the API at most 128 + 2 x 4 x 64 MiB, and of a checker what was set."""
    within = Peak("files", {201: 8}, api_mib=640, check_mib=512)
    assert [] == beyond([within], 64, 512)
    for peak in (within._replace(api_mib=641), within._replace(check_mib=513)):
        assert 1 == len(beyond([peak], 64, 512))
