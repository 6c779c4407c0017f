"""One whole service for the tests that only use it, and one that tests may break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from engine.dev.embedded import Embedded
from tests.support.stack import Stack, whole_service


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The URL of ``python -m engine up`` on embedded servers."""
    with whole_service() as (address, process):
        yield address
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    """Asks that service."""
    with httpx.Client(base_url=url, timeout=90) as found:
        yield found


@pytest.fixture(scope="session")
def servers() -> Iterator[Embedded]:
    """PostgreSQL and Valkey for tests of the parts that talk to them."""
    with Embedded(None) as found:
        yield found


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers and an API, without a worker, with short leases. A test may break all of it."""
    found = Stack(tmp_path, LEASE_S="3", MAX_ATTEMPTS="2", DRAIN_S="0.3")
    yield found
    found.close()


@pytest.fixture
def dsn(servers: Embedded) -> str:
    """A database of its own for each test."""
    name = f"test_{uuid4().hex}"
    url = str(servers.urls.database)

    async def create() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return url.replace("/postgres?", f"/{name}?")
