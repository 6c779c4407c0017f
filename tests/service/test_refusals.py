"""Everything that is refused: the status, and the place that the problem document names."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.stack import Stack, until

GOOD = {"task_type": "custom_script", "parameters": {"script": "result = 1"}}


def script(text: bytes) -> bytes:
    """A body around raw parameters."""
    return b'{"task_type":"custom_script","parameters":' + text + b"}"


def numbers(text: bytes) -> bytes:
    return b'{"task_type":"data_processing","parameters":{"operation":"sum","data":' + text + b"}}"


BODIES = {
    "empty": (b"", "$"),
    "not JSON": (b"hello", "$"),
    "cut off": (b'{"task_type":', "$"),
    "an array": (b"[]", "$"),
    "something behind it": (json.dumps(GOOD).encode() + b"x", "$"),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "$"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "$"),
    "not UTF-8": (script(b'{"script":"\xff"}'), "$"),
    "half a surrogate": (script(b'{"script":"\\ud800"}'), "$"),
    "NaN": (script(b'{"script":"x","args":NaN}'), "$"),
    "Infinity": (numbers(b"[1,Infinity]"), "$"),
    "a number beyond floats": (numbers(b"[1e999]"), "$.parameters.data[0]"),
    "a number of a million digits": (script(b'{"script":"x","args":' + b"1" * 1_000_000 + b"}"), "$.parameters.args"),
    "100000 brackets": (script(b'{"script":"x","args":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "$"),
    "a name twice": (script(b'{"script":"x","script":"y"}'), "$..script"),
    "a name twice, deep inside": (script(b'{"script":"x","args":{"a":[{"b":1,"b":2}]}}'), "$..b"),
    "no task type": (b'{"parameters":{}}', "$.task_type"),
    "no parameters": (b'{"task_type":"custom_script"}', "$.parameters"),
    "unknown task type": (b'{"task_type":"dance","parameters":{}}', "$.task_type"),
    "task type of another type": (b'{"task_type":1,"parameters":{}}', "$.task_type"),
    "unknown field": (b'{"task_type":"custom_script","parameters":{"script":"x"},"limit":1}', "$.limit"),
    "unknown parameter": (script(b'{"script":"x","limit":1}'), "$.parameters.limit"),
    "parameters of another type": (script(b"[]"), "$.parameters"),
    "missing parameter": (script(b"{}"), "$.parameters.script"),
    "parameter of another type": (script(b'{"script":1}'), "$.parameters.script"),
    "unknown operation": (
        b'{"task_type":"data_processing","parameters":{"operation":"zap","data":[]}}',
        "$.parameters.operation",
    ),
    "text among numbers": (numbers(b'[1,"x"]'), "$.parameters.data[1]"),
    "nesting among objects": (numbers(b'[{"a":1},{"a":[1]}]'), "$.parameters.data[1].a"),
    "timeout as text": (json.dumps(GOOD | {"timeout_s": "1e3"}).encode(), "$.timeout_s"),
    "timeout as a truth": (json.dumps(GOOD | {"timeout_s": True}).encode(), "$.timeout_s"),
    "timeout of nothing": (json.dumps(GOOD | {"timeout_s": 0}).encode(), "$.timeout_s"),
    "negative timeout": (json.dumps(GOOD | {"timeout_s": -1}).encode(), "$.timeout_s"),
    "timeout beyond the ceiling": (json.dumps(GOOD | {"timeout_s": 1e9}).encode(), "$.timeout_s"),
    "timeout beyond MAX_TASK_TIMEOUT": (json.dumps(GOOD | {"timeout_s": 301}).encode(), "$.timeout_s"),
    "timeout that is no number": (json.dumps(GOOD | {"timeout_s": float("nan")}).encode(), "$"),
    "memory as text": (json.dumps(GOOD | {"memory_mib": "1e3"}).encode(), "$.memory_mib"),
    "memory as a truth": (json.dumps(GOOD | {"memory_mib": True}).encode(), "$.memory_mib"),
    "negative memory": (json.dumps(GOOD | {"memory_mib": -1}).encode(), "$.memory_mib"),
    "memory beyond every ceiling": (json.dumps(GOOD | {"memory_mib": 10**9}).encode(), "$.memory_mib"),
    "label of another type": (json.dumps(GOOD | {"labels": {"a": 1}}).encode(), "$.labels.a"),
    "label with a control character": (json.dumps(GOOD | {"labels": {"a": "x\0"}}).encode(), "$.labels.a"),
    "label's name with a line break": (json.dumps(GOOD | {"labels": {"a\n": "x"}}).encode(), '$.labels["a\\n"]'),
    "unknown script": (script(b'{"script":"no_such_script.py"}'), "$.parameters.script"),
}


@pytest.mark.parametrize(("body", "path"), BODIES.values(), ids=BODIES.keys())
def test_bad_body_is_400_and_names_the_place(client: httpx.Client, body: bytes, path: str) -> None:
    """A body that cannot be is a problem document that says where, and no task."""
    response = client.post("/execute", content=body, headers={"Content-Type": "application/json"})
    problem = response.json()
    assert (400, "application/problem+json") == (response.status_code, response.headers["content-type"])
    assert (path, 400, "urn:unityai:problem:invalid-request") == (
        problem["errors"][0]["path"],
        problem["status"],
        problem["type"],
    )


def test_unknown_script_is_answered_with_those_that_exist(client: httpx.Client) -> None:
    """A mistyped name is answered with the known names."""
    response = client.post("/execute", json={"task_type": "custom_script", "parameters": {"script": "nope.py"}})
    assert "data_analysis.py" in response.json()["detail"]


@pytest.mark.parametrize("name", ["../data_analysis.py", "/etc/passwd", "..%2fdata_analysis.py", "a/b.py", "~/x.py"])
def test_path_is_source_text_never_a_file(client: httpx.Client, name: str) -> None:
    """Text that is not a plain name is taken as source, and fails in the sandbox as the nonsense that it is."""
    body = {"task_type": "custom_script", "parameters": {"script": name}}
    answer = client.post("/execute", params={"wait": 60}, json=body).json()
    assert ("error", None) == (answer["exit_reason"], answer["script"])
    assert answer["error"]["type"] in ("SyntaxError", "NameError")


@pytest.mark.parametrize("wait", ["-1", "nan", "soon", "", "1&wait=2"])
def test_bad_wait_is_400(client: httpx.Client, wait: str) -> None:
    """``wait`` is one number, 0 or more."""
    response = client.post(f"/execute?wait={wait}", json=GOOD)
    assert (400, "wait") == (response.status_code, response.json()["errors"][0]["path"])


def test_other_content_types_are_415(client: httpx.Client) -> None:
    """Only JSON is taken, so that no form of a foreign page can submit a task."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        response = client.post("/execute", content=json.dumps(GOOD), headers={"Content-Type": kind})
        assert (415, 415) == (response.status_code, response.json()["status"])


def test_encoded_body_is_415(client: httpx.Client) -> None:
    """No body is unpacked: a small one could become a huge one."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert 415 == client.post("/execute", content=b"\x1f\x8b", headers=headers).status_code


def test_long_body_is_413(client: httpx.Client) -> None:
    """A body beyond MAX_BODY_MIB is refused, also when it does not say how long it is."""

    def endless() -> Iterator[bytes]:
        for _ in range(65):
            yield b" " * (1 << 20)

    response = client.post("/execute", content=endless(), headers={"Content-Type": "application/json"})
    assert (413, "application/problem+json") == (response.status_code, response.headers["content-type"])


@pytest.mark.parametrize(
    "path",
    [
        "/task/00000000-0000-4000-8000-000000000000",
        "/task/not-an-id",
        "/task/*",
        "/task/..%2f..%2fhealth",
        "/task/%00",
        "/task/%0a",
        "/task/00000000-0000-4000-8000-000000000000%0d%0aDEL%20x",
        "/task/" + "a" * 5000,
        "/nothing/here",
    ],
)
def test_unknown_is_404(client: httpx.Client, path: str) -> None:
    """An unknown task, and an unknown path, is a problem document with 404."""
    response = client.get(path)
    assert (404, "application/problem+json", 404) == (
        response.status_code,
        response.headers["content-type"],
        response.json()["status"],
    )


def test_id_in_another_form_is_404(client: httpx.Client) -> None:
    """An id has one form, the one that was given out, in small letters or capitals."""
    task_id = client.post("/execute", json=GOOD).json()["task_id"]
    for other in (task_id.replace("-", ""), f"urn:uuid:{task_id}", f"%7B{task_id}%7D"):
        assert 404 == client.get(f"/task/{other}").status_code


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_405(client: httpx.Client, method: str) -> None:
    """A method that a path does not know is a problem document with 405."""
    response = client.request(method, "/execute")
    assert 405 == response.status_code
    if method != "HEAD":
        assert 405 == response.json()["status"]


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_method_is_the_one_of_the_request(client: httpx.Client, header: str) -> None:
    """API-17: no header and no parameter makes another of it."""
    task_id = client.post("/execute", json=GOOD, params={"wait": 30}).json()["task_id"]
    answer = client.get(f"/task/{task_id}", headers={header: "DELETE"})
    assert (200, "succeeded") == (answer.status_code, answer.json()["status"])
    assert 405 == client.post(f"/task/{task_id}", headers={header: "GET"}).status_code
    assert 400 == client.get(f"/task/{task_id}", params={"_method": "DELETE"}).status_code


@pytest.mark.parametrize("forwarded", [{}, {"X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1",
                                            "Forwarded": "for=127.0.0.1;host=localhost"}])  # fmt: skip
def test_foreign_host_name_is_refused_on_loopback(client: httpx.Client, forwarded: dict[str, str]) -> None:
    """API-14: a foreign site that points its name to 127.0.0.1 does not reach a service without keys."""
    response = client.post("/execute", json=GOOD, headers={"Host": "evil.example", **forwarded})
    assert 421 == response.status_code


def test_answers_cannot_be_taken_for_pages(client: httpx.Client) -> None:
    """Each answer says its type and that it must not be guessed; no other origin may read it."""
    for response in (client.get("/health"), client.get("/nothing"), client.post("/execute", content=b"x")):
        assert "nosniff" == response.headers["x-content-type-options"]
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "access-control-allow-origin" not in response.headers
        assert "server" not in response.headers


def test_body_that_breaks_off_is_not_our_failure(stack: Stack) -> None:
    """A client that leaves in the middle of its body is no error in our log."""
    head = b"POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(head)
        time.sleep(0.2)
    until(lambda: '"status":400' in stack.api.log.read_text(), "the request is over")
    assert '"level":"error"' not in stack.api.log.read_text()
