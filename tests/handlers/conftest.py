"""The process that answers the requests of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.entry_process import Entry


@pytest.fixture(scope="session")
def entry() -> Iterator[Entry]:
    server = Entry()
    yield server
    server.close()
