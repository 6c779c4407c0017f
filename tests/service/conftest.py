"""One whole service for the tests that only use it, with a second API in production, and one that tests may break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from engine.config.keys import add_key, make_key
from engine.dev.embedded import Embedded
from engine.model.principal import Scope
from tests.support.stack import Part, Stack, answers, free_port, until, whole_service


@pytest.fixture(scope="session")
def url(servers: Embedded) -> Iterator[str]:
    """The URL of ``python -m engine up``, on the servers that tests have."""
    with whole_service(servers=servers) as (address, process):
        yield address
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    """Asks that service."""
    with httpx.Client(base_url=url, timeout=90) as found:
        yield found


@pytest.fixture(scope="session")
def production(url: str, servers: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL and key of an API in production, which asks for keys: beside the one above, before the same worker."""
    assert url
    folder, port, key = tmp_path_factory.mktemp("production"), free_port(), make_key("reader", tuple(Scope))
    add_key(folder / "keys.toml", key)
    environ = {
        "DATABASE_URL": str(servers.urls.database),
        "REDIS_URL": str(servers.urls.redis),
        "ENVIRONMENT": "production",
        "PORT": str(port),
        "API_KEYS_FILE": str(folder / "keys.toml"),
        "N8N_WEBHOOK_URL": "http://n8n.example/",
        "FASTAPI_URL": "http://app.example/",
        "CALLBACK_SECRET": f"whsec_{'0' * 40}",
    }
    api = Part(["api"], environ, folder / "log")
    address = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=address) as client:
            until(lambda: answers(client, "/health/ready"), f"the API in production is ready; see {api.log}")
        yield address, key.text
    finally:
        api.stop()


@pytest.fixture(scope="session")
def reader(production: tuple[str, str]) -> Iterator[httpx.Client]:
    """Asks that API with its key, as whoever follows the documents does."""
    address, key = production
    with httpx.Client(base_url=address, timeout=90, headers={"authorization": f"Bearer {key}"}) as found:
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
