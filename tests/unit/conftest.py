"""Fixtures of the unit tests, and the rule that they start nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.support.guard import Guard


@pytest.fixture(scope="session")
def one_guard() -> Guard:
    """The only hook of this process."""
    return Guard()


@pytest.fixture(autouse=True)
def guard(one_guard: Guard) -> Iterator[Guard]:
    """Fails every unit test that starts something."""
    one_guard.refused.clear()
    one_guard.is_on = True
    yield one_guard
    one_guard.is_on = False
    assert [] == one_guard.refused, "what starts something belongs into tests/service"


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """The root logger and structlog, afterwards, as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
