"""One request's patience with PostgreSQL: all that it asks has the time of one answer."""

from __future__ import annotations

from engine.store.patience import StorePatience, one_patience, renew_patience, spending


class Clock:
    """A clock that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_statements_one_after_the_other_have_one_patience() -> None:
    """Time passes while something is asked, and not while the request does something else."""
    clock = Clock()
    patience = StorePatience(2.0, clock)
    with patience.spending():
        clock.now_s += 1.5
    clock.now_s += 60
    assert 0.5 == patience.left_s
    with patience.spending():
        clock.now_s += 0.25
        assert 0.25 == patience.left_s
        clock.now_s += 1
    assert 0.0 == patience.left_s


def test_statements_at_once_spend_the_same_time_once() -> None:
    """As ``/health`` asks several things at the same moment."""
    clock = Clock()
    patience = StorePatience(2.0, clock)
    with patience.spending():
        clock.now_s += 0.5
        with patience.spending():
            clock.now_s += 0.5
        assert 1.0 == patience.left_s
    assert 1.0 == patience.left_s


def test_patience_begins_anew_after_a_wait() -> None:
    """A client that asked to wait for the end of a task has waited for that, not for PostgreSQL."""
    clock = Clock()
    patience = StorePatience(2.0, clock)
    with patience.spending():
        clock.now_s += 1.5
    patience.renew()
    assert 2.0 == patience.left_s


def test_only_requests_have_one() -> None:
    """A worker, or a loop of the API, has the whole time for each statement; within a request it is what is left."""
    with spending(1.7) as allowed_s:
        assert 1.7 == allowed_s
    with one_patience(0.0), spending(1.7) as allowed_s:
        assert 0.0 == allowed_s
    renew_patience()
    with spending(1.7) as allowed_s:
        assert 1.7 == allowed_s
