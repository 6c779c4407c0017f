"""HTTP as its RFCs have it, and as browsers, monitors and old clients speak it."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from engine.api.routes.system import ROUTES
from tests.support.stack import task

GETS = sorted(next(iter(route.paths)) for route in ROUTES if "GET" in route.http_methods)


@pytest.fixture(scope="module")
def final(client: httpx.Client) -> dict[str, object]:
    """A task that has ended, with artifacts in folders and under odd names."""
    script = (
        "import os\nos.makedirs('artifacts/charts/may')\nprint('a line')\n"
        "for name in ('a b.txt', 'charts/may/x.csv', 'é.txt', 'quote\\'s.txt'):\n"
        "    with open('artifacts/' + name, 'w') as file:\n        file.write(name)\nresult = 1\n"
    )
    answer = client.post("/execute", params={"wait": 60}, json=task(script)).json()
    assert "succeeded" == answer["status"], answer
    return dict(answer)


def path_of(route: str, final: dict[str, object]) -> str:
    names = {"task_id": str(final["task_id"]), "name": "a b.txt"}
    if "/policies/" in route:
        names["name"] = "custom_script"
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: names[found[1]], route)


@pytest.mark.parametrize("route", GETS)
def test_head_is_wherever_get_is(client: httpx.Client, final: dict[str, object], route: str) -> None:
    """The same status and type, and no body: RFC 9110, section 9.3.2. Monitors ask so."""
    path = path_of(route, final)
    head = client.head(path)
    with client.stream("GET", path) as got:
        assert got.status_code == head.status_code
        for name in ("content-type", "etag", "content-disposition"):
            assert got.headers.get(name) == head.headers.get(name)
    assert b"" == head.content


def test_head_of_events_that_go_on_ends_at_once(client: httpx.Client) -> None:
    """HEAD of a stream does not follow it."""
    running = client.post("/execute", json=task("import time\ntime.sleep(30)")).json()
    head = client.head(f"/task/{running['task_id']}/events")
    assert (200, b"") == (head.status_code, head.content)
    client.delete(f"/task/{running['task_id']}")


def raw(client: httpx.Client, request: str) -> tuple[bytes, bytes]:
    """Head and body of an answer, read to the end of the connection."""
    address = urlsplit(str(client.base_url))
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
        connection.sendall(request.encode())
        received = b""
        while part := connection.recv(1 << 16):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("path", ["/task/{task_id}/events", "/task/{task_id}/artifacts/a%20b.txt", "/health/live"])
def test_old_clients_get_no_chunks(client: httpx.Client, final: dict[str, object], path: str) -> None:
    """RFC 9112, section 6.1; the end of the connection ends an answer whose length nobody knew."""
    path = path.format(task_id=final["task_id"])
    head, body = raw(client, f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert head.startswith(b"http/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    length = re.search(rb"content-length: (\d+)", head)
    assert length is None or int(length[1]) == len(body)
    if "events" in path:
        assert body.startswith(b"event: ") or b"\nevent: " in body
        assert not re.match(rb"[0-9a-f]+\r\n", body)
        assert b"event: result" in body


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"])
def test_every_refused_method_gets_one_list(client: httpx.Client, method: str) -> None:
    """A path's `Allow` is the same for every method, and the sentence agrees in number."""
    refused = client.request(method, "/execute")
    assert (405, "POST") == (refused.status_code, refused.headers["allow"])
    if method != "HEAD":
        assert "; POST is." in refused.json()["detail"] or "here; POST is." in refused.json()["detail"]


def test_a_path_of_several_methods_lists_them(client: httpx.Client, final: dict[str, object]) -> None:
    """In one order, HEAD with them."""
    refused = client.put(f"/task/{final['task_id']}")
    assert (405, "DELETE, GET, HEAD") == (refused.status_code, refused.headers["allow"])
    assert "are." in refused.json()["detail"]


CALLS = ["/execute", "/execute/batch", "/files", "/tasks", "/task/{task_id}", "/health", "/scripts", "/openapi.json",
         "/task/{task_id}/events", "/policies/custom_script"]  # fmt: skip


@pytest.mark.parametrize("path", CALLS)
def test_unknown_parameters_are_refused_everywhere(client: httpx.Client, final: dict[str, object], path: str) -> None:
    """A slip is never passed over."""
    method = "POST" if path in ("/execute", "/execute/batch", "/files") else "GET"
    refused = client.request(method, path.format(task_id=final["task_id"]), params={"wiat": 5}, json={})
    assert 400 == refused.status_code
    [fault] = refused.json()["errors"]
    assert "wiat" == fault["path"]
    assert ("did you mean `wait`?" in fault["message"]) is (path in ("/execute", "/task/{task_id}"))


def test_ids_are_read_in_capitals_too(client: httpx.Client, final: dict[str, object]) -> None:
    """RFC 9562, section 4: a UUID is written in small letters and read in both."""
    assert final["task_id"] == client.get(f"/task/{str(final['task_id']).upper()}").json()["task_id"]
    assert 404 == client.get(f"/task/{{{final['task_id']}}}").status_code


FILES = {
    "a b.txt": "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt",
    "charts/may/x.csv": "attachment; filename=\"x.csv\"; filename*=UTF-8''x.csv",
    "é.txt": "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt",
    "quote's.txt": "attachment; filename=\"quote's.txt\"; filename*=UTF-8''quote%27s.txt",
}


@pytest.mark.parametrize(("name", "disposition"), FILES.items(), ids=FILES)
def test_artifacts_are_saved_under_their_names(
    client: httpx.Client, final: dict[str, object], name: str, disposition: str
) -> None:
    """In folders too; old clients find a plain name beside the true one (RFC 6266, appendix D)."""
    answer = client.get(f"/task/{final['task_id']}/artifacts/{name}")
    assert (200, name) == (answer.status_code, answer.text)
    assert disposition == answer.headers["content-disposition"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "charts", "charts/may/", "/etc/passwd"])
def test_no_other_path_is_an_artifact(client: httpx.Client, final: dict[str, object], name: str) -> None:
    """A name is looked up as it is, and never taken for a path of the service."""
    base = str(client.base_url).rstrip("/")
    url = httpx.URL(base, raw_path=f"/task/{final['task_id']}/artifacts/{name.replace(' ', '%20')}".encode())
    assert 404 == client.get(url).status_code
