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


def test_a_page_reads_what_it_must_know(named: Stack) -> None:
    """API-14: where its task is, when to come again, and the id that support asks for; of an error, too."""
    for sent in (task("result = 1"), {"task_type": "none"}):
        answer = named.client.post("/execute", json=sent, headers={"Origin": ORIGIN})
        readable = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"location", "idempotent-replay", "retry-after", "x-request-id"} <= readable
        assert ORIGIN == answer.headers["access-control-allow-origin"]


def test_a_page_follows_its_task(named: Stack) -> None:
    """The stream of events, which a page reads by ``fetch``, is its own to read, and so is why there is none."""
    task_id = named.client.post("/execute", json=task("print('line')"), headers={"Origin": ORIGIN}).json()["task_id"]
    for target, status in ((task_id, 200), ("0" * 8 + task_id[8:], 404)):
        with named.client.stream("GET", f"/task/{target}/events", headers={"Origin": ORIGIN}) as answer:
            assert (status, ORIGIN) == (answer.status_code, answer.headers["access-control-allow-origin"])
