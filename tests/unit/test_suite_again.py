"""A test that fails beside the others runs again alone, and only a few do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.programs.suite import AGAIN_MOST, Ended, Suite, run_again

FIRST = ("pytest", "tests/service")


class Recorded(Suite):
    """Runs nothing: answers what it was given, and keeps what it was asked for."""

    def __init__(self, answer: Callable[[tuple[str, ...]], Ended]) -> None:
        super().__init__([])
        self.asked: list[tuple[str, ...]] = []
        self._answer = answer

    def run_part(self, part: tuple[str, ...]) -> Ended:
        """Keep the part, answer."""
        self.asked.append(part)
        return self._answer(part)


def ended(part: tuple[str, ...], *failed: str, code: int | None = None) -> Ended:
    """A part that ended with these failures."""
    return Ended(part, bool(failed) if code is None else code, 1.0, "", failed)


def test_test_that_passes_alone_is_unsteady_and_fails_nothing() -> None:
    """It runs by itself, by its id."""
    suite = Recorded(ended)
    assert ([], ["t::a[x y]"]) == run_again(suite, [ended(FIRST, "t::a[x y]"), ended(("tests.programs.as_user",))])
    assert [("pytest", "t::a[x y]")] == suite.asked


def test_test_that_fails_again_fails_the_suite() -> None:
    """The other one of the same part is unsteady."""
    suite = Recorded(lambda part: ended(part, "t::b"))
    failed, unsteady = run_again(suite, [ended(FIRST, "t::a", "t::b")])
    assert ([("pytest", "t::a", "t::b")], ["t::a"]) == ([part.part for part in failed], unsteady)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(ended(FIRST, *(f"t::{n}" for n in range(AGAIN_MOST + 1))), id="too many"),
        pytest.param(ended(FIRST, code=2), id="stopped"),
        pytest.param(ended(FIRST, code=-9), id="killed"),
        pytest.param(ended(FIRST, code=1), id="nothing named"),
    ],
)
def test_what_is_no_coincidence_does_not_run_again(broken: Ended) -> None:
    """Many failures, a lane that was stopped or killed, and one that could not name its tests."""
    suite = Recorded(ended)
    assert ([broken], []) == run_again(suite, [broken])
    assert [] == suite.asked
