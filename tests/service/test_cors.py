"""Pages of other sites: none may ask, unless the operator names their origin."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.stack import Stack, task

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that one site may ask."""
    found = Stack(tmp_path_factory.mktemp("cors"), CORS_ORIGINS=ORIGIN)
    yield found
    found.close()


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return client.options("/execute", headers=headers)


def test_no_site_may_ask_by_default(client: httpx.Client) -> None:
    """API-14: a preflight is 405, and no answer names an origin."""
    assert 405 == preflight(client, ORIGIN).status_code
    answer = client.post("/execute", json=task("result = 1"), headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


def test_the_named_site_may_ask_and_no_other(named: Stack) -> None:
    """API-14: its preflight is answered, another's is not, and neither may send cookies."""
    answer = preflight(named.client, ORIGIN)
    assert answer.is_success
    assert ORIGIN == answer.headers["access-control-allow-origin"]
    assert "access-control-allow-credentials" not in answer.headers
    other = preflight(named.client, "https://evil.example.com")
    assert "access-control-allow-origin" not in other.headers
    plain = named.client.post("/execute", json=task("result = 1"), headers={"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in plain.headers
