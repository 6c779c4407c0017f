"""What the chosen scripts did on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.corpus import Script
from tests.differential.runs import Both, run_both


@pytest.fixture(scope="session")
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    """What a script did on both sides. All that the tests chose are under way before the first test asks."""
    specs = (getattr(item, "callspec", None) for item in request.session.items)
    found = [script for spec in specs if spec is not None and isinstance(script := spec.params.get("script"), Script)]
    with run_both({script.id: script for script in found}.values()) as get:
        yield get
