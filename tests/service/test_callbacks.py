"""Callbacks: signed, tried again, given up in the open, and never to a place that the operator did not name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import asyncpg
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.stack import Stack, task, until

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy0wMTIzNDU2Nzg5"
OLD_SECRET = "whsec_" + "b2xkLXNlY3JldC1vZi10aGUtdGVzdHMtMDEyMzQ1"
Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Receiver:
    """A web server that keeps what it is told, and answers each path as a test wants."""

    def __init__(self) -> None:
        self.heard: dict[str, list[tuple[dict[str, str], bytes]]] = {}
        self.answers: dict[str, Answer] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                path = self.path.partition("?")[0]
                heard = receiver.heard.setdefault(path, [])
                heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.answers.get(path, status(204))(self, len(heard))

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def status(*codes: int, **headers: str) -> Answer:
    """Answers with these, one after another, the last for ever."""

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        handler.send_response(codes[min(number, len(codes)) - 1])
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Receiver]:
    """The main app, beside n8n."""
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(scope="module")
def calling(receiver: Receiver, other: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service whose callbacks may go to two places; its worker may be killed."""
    folder = tmp_path_factory.mktemp("calling")
    found = Stack(
        folder,
        LEASE_S="3",
        N8N_WEBHOOK_URL=f"{receiver.url}/hooks/",
        FASTAPI_URL=other.url,
        CALLBACK_SECRET=f"{SECRET},{OLD_SECRET}",
        CALLBACK_RETRY_S="0.1",
        CALLBACK_GIVE_UP_S="4",
    )
    found.worker()
    yield found
    found.close()


def settled(stack: Stack, task_id: str) -> dict[str, Any]:
    """A task's callback, once nothing will change about it."""
    until(lambda: stack.get(task_id)["callback"]["state"] in ("delivered", "dead"), "the callback has ended")
    return dict(stack.get(task_id)["callback"])


def test_callback_is_signed_and_holds_the_task(calling: Stack, receiver: Receiver) -> None:
    """One POST, verified by either secret as the Standard Webhooks scheme has it, with what GET /task answers."""
    task_id = calling.submit("print('x'); result = 'é\\x00'", callback_url=f"{receiver.url}/hooks/a?token=1")["task_id"]
    callback = settled(calling, task_id)
    assert ("delivered", 1, 204, None) == tuple(
        callback[key] for key in ("state", "attempts", "last_status", "last_error")
    )
    ((headers, body),) = receiver.heard["/hooks/a"]
    for secret in (SECRET, OLD_SECRET):
        message = Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"succeeded", b"cancelled"), headers)
    answer = calling.get(task_id)
    assert "task.succeeded" == message["type"]
    assert answer["finished_at"] == message["timestamp"]
    assert {name: value for name, value in answer.items() if name != "callback"} == {
        name: value for name, value in message["data"].items() if name != "callback"
    }
    assert f"msg_{task_id.replace('-', '')}" == headers["webhook-id"]


def test_failed_task_is_told_too(calling: Stack, receiver: Receiver) -> None:
    """A callback tells of the end, whatever it is."""
    task_id = calling.submit("raise ValueError('no')", callback_url=f"{receiver.url}/hooks/failed")["task_id"]
    assert "delivered" == settled(calling, task_id)["state"]
    message = json.loads(receiver.heard["/hooks/failed"][0][1])
    assert ("task.failed", "error") == (message["type"], message["data"]["exit_reason"])


def test_delivery_that_fails_is_tried_again_under_the_same_id(calling: Stack, receiver: Receiver) -> None:
    """Two refusals, then an answer: three attempts, one message id."""
    receiver.answers["/hooks/again"] = status(500, 503, 200)
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/again")["task_id"]
    callback = settled(calling, task_id)
    assert ("delivered", 3, 200) == (callback["state"], callback["attempts"], callback["last_status"])
    assert 1 == len({headers["webhook-id"] for headers, _ in receiver.heard["/hooks/again"]})


def test_gone_is_not_tried_again(calling: Stack, receiver: Receiver) -> None:
    """410 says that nobody wants it: dead at once, shown by GET /callbacks, and owed again on demand."""
    receiver.answers["/hooks/gone"] = status(410, 200)
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/gone")["task_id"]
    assert ("dead", 1, 410) == tuple(settled(calling, task_id)[key] for key in ("state", "attempts", "last_status"))
    dead = calling.client.get("/callbacks", params={"state": "dead"}).json()["callbacks"]
    assert task_id in {entry["task_id"] for entry in dead}
    response = calling.client.post(f"/task/{task_id}/callback")
    assert (202, "due") == (response.status_code, response.json()["state"])
    until(lambda: settled(calling, task_id)["state"] == "delivered", "it is delivered on demand")


def finished_already(*before: str) -> Answer:
    """Answers as n8n's Wait node whose execution is over; before that hangs up, or says that it is at work."""

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        said = before[number - 1] if number <= len(before) else 'The execution "17" has finished already.'
        if not said:
            handler.close_connection = True
            return
        body = json.dumps({"code": 409, "message": said}).encode()
        handler.send_response(409)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("before", "state", "attempts"),
    [
        ((), "dead", 1),
        (("",), "delivered", 2),
        (("", 'The execution "17" is running already.'), "delivered", 3),
    ],
    ids=["at once", "after a lost answer", "after a lost answer and some work"],
)
def test_receiver_that_has_finished_already_is_not_asked_again(
    calling: Stack, receiver: Receiver, before: tuple[str, ...], state: str, attempts: int
) -> None:
    """Delivered if an earlier attempt may have arrived; else nobody was told of this task, and asking is pointless."""
    path = f"/hooks/finished-{len(before)}"
    receiver.answers[path] = finished_already(*before)
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}{path}")["task_id"]
    callback = settled(calling, task_id)
    assert (state, attempts, 409) == tuple(callback[key] for key in ("state", "attempts", "last_status"))
    assert "finished already" in callback["last_error"]


def test_delivery_is_given_up_in_the_open(calling: Stack, receiver: Receiver) -> None:
    """After CALLBACK_GIVE_UP_S it is dead, with the last answer beside it."""
    receiver.answers["/hooks/never"] = status(500)
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/never")["task_id"]
    callback = settled(calling, task_id)
    assert ("dead", 500, "answered 500") == tuple(callback[key] for key in ("state", "last_status", "last_error"))
    assert callback["attempts"] > 1
    assert callback["attempts"] == len(receiver.heard["/hooks/never"])


def test_redirect_of_a_callback_is_not_followed(calling: Stack, receiver: Receiver, other: Receiver) -> None:
    """SSRF-26: the receiver cannot send us elsewhere; the other server hears nothing."""
    receiver.answers["/hooks/redirect"] = status(307, 410, location=f"{other.url}/stolen")
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/redirect")["task_id"]
    assert "dead" == settled(calling, task_id)["state"]
    assert "/stolen" not in other.heard
    assert 2 == len(receiver.heard["/hooks/redirect"])


REFUSED = {
    "another path": "{n8n}/other",
    "a path that only begins alike": "{n8n}/hooks-of-others",
    "out of the folder": "{n8n}/hooks/../other",
    "out of the folder in disguise": "{n8n}/hooks/%2e%2E/other",
    "a slash in disguise": "{n8n}/hooks/..%2fother",
    "a backslash": "{n8n}/hooks\\..\\other",
    "another port": "http://127.0.0.1:1/hooks/x",
    "another host": "http://169.254.169.254/hooks/x",
    "our own API": "{self}/execute",
    "userinfo": "http://user:pw@{host}/hooks/x",
    "host as userinfo": "http://{host}@169.254.169.254/hooks/x",
    "a fragment": "{n8n}/hooks/x#@169.254.169.254",
    "another scheme": "https://{host}/hooks/x",
    "a file": "file:///etc/passwd",
    "a line break": "{n8n}/hooks/x\r\nHost: other",
    "a host that is not ASCII": "http://127。0。0。1/hooks/x",
    "no URL": "hooks",
    "no port": "http://127.0.0.1:port/hooks",
    "nothing": "",
}


@pytest.mark.parametrize("what", REFUSED)
def test_callback_elsewhere_is_refused(calling: Stack, receiver: Receiver, what: str) -> None:
    """SSRF-26: 400 before anything is stored, naming the field."""
    host = receiver.url.removeprefix("http://")
    url = REFUSED[what].format(n8n=receiver.url, host=host, self=f"http://127.0.0.1:{calling.port}")
    response = calling.client.post("/execute", json=task("result = 1", callback_url=url))
    assert (400, "$.callback_url") == (response.status_code, response.json()["errors"][0]["path"]), response.text


def test_receiver_that_never_answers_delays_no_other(calling: Stack, receiver: Receiver, other: Receiver) -> None:
    """Ten callbacks hang at n8n; one to the main app is delivered meanwhile."""
    let_go = threading.Event()
    receiver.answers["/hooks/hangs"] = lambda _handler, _number: (let_go.wait(30), None)[1]
    hanging = [calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/hangs")["task_id"] for _ in range(10)]
    until(lambda: len(receiver.heard.get("/hooks/hangs", ())) >= 8, "eight hang")
    task_id = calling.submit("result = 1", callback_url=f"{other.url}/told")["task_id"]
    assert "delivered" == settled(calling, task_id)["state"]
    assert "due" == calling.get(hanging[0])["callback"]["state"]
    let_go.set()


def test_callback_of_a_worker_that_dies_in_between_is_delivered(calling: Stack, receiver: Receiver) -> None:
    """kill -9 of the worker while the receiver holds its request: another one delivers it when the lease is over."""
    arrived, let_go = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        arrived.set()
        if number == 1:
            let_go.wait(30)
        with contextlib.suppress(OSError):
            status(200)(handler, number)

    receiver.answers["/hooks/killed"] = answer
    first = calling.worker()
    second = calling.worker_pids()
    for pid in second:
        if pid != first.pid:
            _stop(calling, pid)
    task_id = calling.submit("result = 1", callback_url=f"{receiver.url}/hooks/killed")["task_id"]
    assert arrived.wait(30)
    first.stop(signal.SIGKILL)
    calling.worker()
    _expire_lease(calling, task_id)
    assert ("delivered", 2) == tuple(settled(calling, task_id)[key] for key in ("state", "attempts"))
    let_go.set()


def test_without_a_secret_a_callback_is_refused(client: Any) -> None:
    """A service that cannot sign accepts no task that wants to be told of."""
    response = client.post("/execute", json=task("result = 1", callback_url="http://127.0.0.1/x"))
    assert 400 == response.status_code
    assert "CALLBACK_SECRET" in response.json()["errors"][0]["message"]


def _stop(stack: Stack, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    until(lambda: pid not in stack.worker_pids(), "the worker has left")


def _expire_lease(stack: Stack, task_id: str) -> None:
    """Let the minute of a callback's lease be over."""

    async def expire() -> None:
        connection = await asyncpg.connect(stack.environ["DATABASE_URL"])
        await connection.execute("UPDATE callbacks SET due_at = now() WHERE task_id = $1", task_id)
        await connection.close()

    asyncio.run(expire())
