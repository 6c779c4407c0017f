"""``engine.client`` against a real service; each scenario by the plain client and by the one for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import httpx_sse
import pytest
from standardwebhooks import Webhook

from engine.client import (
    AsyncClient,
    CallbackError,
    Client,
    ClientError,
    RequestRefusedError,
    ServiceUnreachableError,
    TaskFailedError,
    TaskInfo,
    TaskNotEndedError,
    TaskRequest,
    read_callback,
    script_request,
)
from tests.support.held import Held
from tests.support.stack import ROOT, free_port

SLEEPS = script_request("import time\nprint('up', flush=True)\ntime.sleep(50)")
PLOT = script_request(
    "import os\nos.mkdir('artifacts/sub')\nopen('artifacts/a.txt', 'w').write('one')\n"
    "open('artifacts/sub/b.bin', 'wb').write(bytes(range(256)))"
)


class Both:
    """Either client, by the methods of the plain one: what has to be awaited is."""

    def __init__(self, kind: type[Client | AsyncClient], url: str, key: str | None = None, **more: Any) -> None:
        self._client: Any = kind(url, key, **more)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self._client, name)(*args, **kwargs)
            if inspect.isasyncgen(found):
                return self._all(found)
            return self._loop.run_until_complete(found) if inspect.iscoroutine(found) else found

        return call

    def _all(self, found: AsyncIterator[Any]) -> Iterator[Any]:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield self._loop.run_until_complete(anext(found))

    def end(self) -> None:
        self.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@pytest.fixture(params=[Client, AsyncClient])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Both]]:
    """Makes clients of one kind, and closes them."""
    made: list[Both] = []

    def build(*args: Any, **kwargs: Any) -> Both:
        made.append(Both(request.param, *args, **kwargs))
        return made[-1]

    yield build
    for one in made:
        one.end()


@pytest.fixture
def service(make: Callable[..., Both], url: str) -> Both:
    return make(url)


def test_run_returns_the_result(service: Both) -> None:
    """Whatever task type it is."""
    assert 6 == service.run(script_request("result = sum(args)", [1, 2, 3]))
    answer = service.run(TaskRequest("data_processing", {"operation": "sum", "data": [1, 2, 3]}))
    assert 6 == answer["sum"]


def test_a_failure_is_an_exception_that_says_why(service: Both) -> None:
    """With the reason, the message, the traceback and the whole task."""
    with pytest.raises(TaskFailedError, match="error: ZeroDivisionError: division by zero") as caught:
        service.run(script_request("print('here')\nresult = 1 / 0"))
    failure = caught.value
    assert ("error", "ZeroDivisionError: division by zero") == (failure.exit_reason, failure.message)
    assert "line 2" in (failure.traceback or "")
    assert ("failed", "here\n") == (failure.task.status, failure.task.stdout)


def test_a_limit_is_an_exception_too(service: Both) -> None:
    """Without a traceback, which nobody wrote."""
    with pytest.raises(TaskFailedError) as caught:
        service.run(script_request("while True: pass", timeout_s=0.3))
    assert ("wall_limit", None) == (caught.value.exit_reason, caught.value.traceback)


def test_a_fault_in_a_request_names_its_place(service: Both) -> None:
    """And is not tried again."""
    with pytest.raises(RequestRefusedError) as caught:
        service.submit(TaskRequest("custom_script", {"script": ""}, timeout_s=-1))
    assert 400 == caught.value.status
    assert {"$.timeout_s", "$.parameters.script"} == {fault["path"] for fault in caught.value.errors}
    assert caught.value.request_id


def test_what_json_has_no_word_for_is_not_sent(service: Both) -> None:
    """No NaN, no set: nothing becomes something else on the way."""
    with pytest.raises(ValueError, match="JSON"):
        service.submit(script_request("result = 1", float("nan")))
    with pytest.raises(TypeError, match="JSON has no set"):
        service.submit(script_request("result = 1", {1, 2}))


def test_submit_get_and_wait(service: Both) -> None:
    """A task that was submitted is awaited by its id or as it was answered."""
    task = service.submit(script_request("result = args", "x", labels={"who": "client"}))
    assert isinstance(task, TaskInfo)
    ended = service.wait(task)
    assert ("succeeded", "x", {"who": "client"}) == (ended.status, ended.result, ended.labels)
    assert ended.answer == service.wait(task.task_id).answer == service.get(task.task_id).answer
    assert ended.is_final


def test_waiting_for_a_failed_task_raises_nothing(service: Both) -> None:
    """``wait`` tells how it ended; only ``run`` wants a result."""
    assert "error" == service.wait(service.submit(script_request("1 / 0"))).exit_reason


def test_waiting_ends_when_its_time_is_over(service: Both) -> None:
    """The task goes on, and can be cancelled."""
    with pytest.raises(TaskNotEndedError, match="goes on") as caught:
        service.run(SLEEPS, wait_s=0.2)
    task_id = caught.value.task.task_id
    assert "cancelled" == service.cancel(task_id).status
    with pytest.raises(TaskNotEndedError):
        service.wait(service.submit(SLEEPS), wait_s=0)


def test_cancel_leaves_a_task_that_has_ended(service: Both) -> None:
    """As it was."""
    task = service.wait(service.submit(script_request("result = 1")))
    assert "succeeded" == service.cancel(task.task_id).status


def test_one_key_is_one_task(service: Both) -> None:
    """A key of the caller's own finds the task again; without one each call is a task of its own."""
    request = TaskRequest("custom_script", {"script": "result = 1"}, idempotency_key=f"key-{os.urandom(8).hex()}")
    assert service.submit(request).task_id == service.submit(request).task_id
    plain = script_request("result = 1")
    assert service.submit(plain).task_id != service.submit(plain).task_id


def test_a_batch_answers_each_request(service: Both) -> None:
    """In their order, the refused ones among them."""
    found = service.submit_batch(
        [script_request("result = 1"), TaskRequest("custom_script", {}), script_request("result = 3")]
    )
    assert [TaskInfo, RequestRefusedError, TaskInfo] == [type(one) for one in found]
    assert 400 == found[1].status
    assert [1, 3] == [service.wait(one).result for one in found if isinstance(one, TaskInfo)]


def test_the_list_goes_through_its_pages(service: Both) -> None:
    """The newest first, each once."""
    label = f"run:{os.urandom(6).hex()}"
    name, _, value = label.partition(":")
    made = service.submit_batch([script_request("result = 1", labels={name: value}) for _ in range(5)])
    listed = list(service.tasks(label=label, limit=2))
    assert {one.task_id for one in made} == {one.task_id for one in listed}
    assert 5 == len(listed)
    assert sorted((one.created_at for one in listed), reverse=True) == [one.created_at for one in listed]


def test_following_gives_each_event_to_the_result(service: Both) -> None:
    """Status, output, progress, and the task as it ended."""
    rest = "for row in range(3):\n    print('row', row, flush=True)\nhold()\nreport_progress(0.5, 'half')\nresult = 7"
    held, events = Held(rest), []
    for event in service.follow(service.submit(script_request(held.script)).task_id):
        events.append(event)
        if event.name == "log":
            held.tell()
    assert "row 0\nrow 1\nrow 2\n" == "".join(one.data["text"] for one in events if one.name == "log")
    assert {"fraction": 0.5, "message": "half"} in [one.data for one in events if one.name == "progress"]
    assert [None] * (len(events) - 1) == [one.task for one in events[:-1]]
    assert 7 == events[-1].task.result


def test_following_nothing_is_refused(service: Both) -> None:
    """At once."""
    with pytest.raises(RequestRefusedError, match="no task"):
        list(service.follow("00000000-0000-0000-0000-000000000000"))


def test_files_go_in(service: Both, tmp_path: Path) -> None:
    """Uploaded from disk or memory, inline, or as text; then deleted, twice without harm."""
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    on_disk = service.upload(tmp_path / "table.csv")
    in_memory = service.upload(b"\x00\xff", name="raw.bin")
    assert ("table.csv", "text/csv", 8) == (on_disk.name, on_disk.media_type, on_disk.size_bytes)
    request = script_request(
        "result = {name: open(f'inputs/{name}', 'rb').read().hex() for name in args}",
        ["a", "b", "c", "d"],
        inputs={"a": {"file_id": on_disk.file_id}, "b": {"file_id": in_memory.file_id}, "c": "text", "d": b"\x01"},
    )
    expected = {"a": b"x,y\n1,2\n".hex(), "b": "00ff", "c": b"text".hex(), "d": "01"}
    assert expected == service.run(request)
    assert {on_disk.file_id, in_memory.file_id} <= {one.file_id for one in service.files()}
    for _ in range(2):
        service.delete_file(on_disk.file_id)
    assert on_disk.file_id not in {one.file_id for one in service.files()}


def test_artifacts_go_to_disk(service: Both, tmp_path: Path) -> None:
    """Each under its name, byte by byte; no temporary file stays."""
    task = service.wait(service.submit(PLOT))
    saved = service.save_artifacts(task, tmp_path / "out")
    assert {"a.txt", "sub/b.bin"} == {str(path.relative_to(tmp_path / "out")) for path in saved}
    assert bytes(range(256)) == (tmp_path / "out" / "sub" / "b.bin").read_bytes()
    assert saved == service.save_artifacts(task, tmp_path / "out")
    assert {"a.txt", "b.bin"} == {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_an_artifact_does_not_go_through_a_link(service: Both, tmp_path: Path) -> None:
    """A folder of the same name that leads elsewhere is not followed."""
    task = service.wait(service.submit(PLOT))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClientError, match="out of"):
        service.save_artifacts(task, tmp_path / "out")
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_any_other_call(service: Both) -> None:
    """By its method and path."""
    assert "custom_script" in {one["name"] for one in service.ask("GET", "/policies")["policies"]}
    assert "ok" == service.ask("GET", "/health/live")["status"]


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://a:b", "localhost:8001", ""])
def test_what_is_no_url_is_a_sentence(make: Callable[..., Both], url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ClientError, match="is no URL"):
        make(url)


@pytest.mark.parametrize("key", ["uak_x\n", "schlüssel", " uak_x"])
def test_what_is_no_key_is_a_sentence(make: Callable[..., Both], key: str) -> None:
    """Which does not show it."""
    with pytest.raises(ClientError, match="API key") as caught:
        make("http://localhost", key)
    assert key.strip() not in str(caught.value)


def test_a_service_that_is_away_is_a_sentence(make: Callable[..., Both]) -> None:
    """After as much patience as the caller has."""
    with pytest.raises(ServiceUnreachableError, match="does not answer"):
        make(f"http://127.0.0.1:{free_port()}", patience_s=0).get("x")


# ---- a service that fails, which a real one does not on demand


class Failing:
    """A web server that answers each request with the next of its answers, and keeps what it was asked."""

    def __init__(self, *answers: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        left = list(answers)
        failing = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                failing.asked.append((self.path, headers, body))
                (left.pop(0) if len(left) > 1 else left[0])(self)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815  as the base class has it

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def sends(status: int, content: Any, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers so."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def cuts(handler: BaseHTTPRequestHandler) -> None:
    """Hangs up instead of an answer."""
    handler.close_connection = True
    handler.connection.close()


def streams(text: str, *, whole: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    """Sends events, and ends the stream as HTTP says or in its middle."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        length = len(text.encode()) + (0 if whole else 10)
        handler.send_header("content-length", str(length))
        handler.end_headers()
        handler.wfile.write(text.encode())
        handler.close_connection = True

    return answer


NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
TASK = {
    "task_id": "6b690294-6e64-4029-b9e6-31720ce0e84f", "task_type": "custom_script", "status": "succeeded",
    "exit_reason": "ok", "result": 3, "error": None, "message": "done", "logs": None, "usage": None, "artifacts": [],
    "policy": "custom_script", "priority": "normal", "labels": {}, "attempts": 1,
    "created_at": NOW, "started_at": NOW, "finished_at": NOW,
}  # fmt: skip
LATER = sends(503, {"detail": "PostgreSQL is unreachable"}, retry_after="0")
BUSY = sends(429, {"detail": "Your quota is 1 tasks a minute"}, retry_after="0")


def test_what_may_help_is_tried_again_under_one_key(make: Callable[..., Both]) -> None:
    """A cut connection, 503 and 429: the same request each time, and so one task."""
    with Failing(cuts, LATER, BUSY, sends(200, TASK)) as server:
        assert 3 == make(server.url).run(script_request("result = 3"))
    assert 4 == len(server.asked)
    assert 1 == len({(headers["idempotency-key"], body) for _, headers, body in server.asked})


def test_a_batch_is_tried_again_under_the_same_keys(make: Callable[..., Both]) -> None:
    """One for each of its tasks."""
    with Failing(cuts, sends(200, {"tasks": [{"status": 202, "task": TASK}] * 2})) as server:
        make(server.url).submit_batch([script_request("result = 3")] * 2)
    assert server.asked[0][2] == server.asked[1][2]
    assert 2 == len({one["idempotency_key"] for one in json.loads(server.asked[0][2])})


def test_patience_ends_with_the_last_answer(make: Callable[..., Both]) -> None:
    """No longer than the caller said: a Retry-After beyond it is not waited for."""
    with Failing(sends(429, {"detail": "Your quota"}, retry_after="3600")) as server:
        with pytest.raises(RequestRefusedError, match="Your quota") as caught:
            make(server.url).get("x")
        assert (429, 3600.0, 1) == (caught.value.status, caught.value.retry_after_s, len(server.asked))


def test_other_refusals_are_not_tried_again(make: Callable[..., Both]) -> None:
    """Nor is an answer that is none of this service."""
    for answer, words in (
        (sends(500, {"detail": "The service failed."}), "The service failed"),
        (sends(404, b"<html>"), "is not this service"),
        (sends(302, b"", location="http://elsewhere.example"), "is not this service"),
        (sends(200, b"<html>"), "is not this service"),
        (sends(200, {"other": 1}), "is not this service"),
    ):
        with Failing(answer) as server:
            with pytest.raises(ClientError, match=words):
                make(server.url).get("x")
            assert 1 == len(server.asked)


def event(name: str, event_id: str, data: Any) -> str:
    return f"event: {name}\nid: {event_id}\ndata: {json.dumps(data)}\n\n"


def test_following_resumes_where_it_broke(make: Callable[..., Both]) -> None:
    """After a cut, a 503, an end without a word and an ``error`` with a ``retry``: each event once."""
    log = [event("log", f"1-{number}", {"stream": "stdout", "text": str(number)}) for number in range(5)]
    again = 'event: error\nretry: 1\ndata: {"detail": "connect again"}\n\n'
    with Failing(
        streams(log[0], whole=False), LATER, streams(log[1], whole=True), streams(log[2] + again, whole=True), cuts,
        streams(log[3] + event("result", "end", TASK), whole=True),
    ) as server:  # fmt: skip
        events = list(make(server.url).follow("x"))
    assert ["0", "1", "2", "3"] == [one.data["text"] for one in events[:-1]]
    assert 3 == events[-1].task.result
    given = [headers.get("last-event-id") for _, headers, _ in server.asked]
    assert [None, "1-0", "1-0", "1-1", "1-2", "1-2"] == given


def test_following_ends_where_the_service_ends_it(make: Callable[..., Both]) -> None:
    """An ``error`` without a ``retry`` is the end; so is 204, when the caller had seen all."""
    gone = streams('event: error\ndata: {"status": 404, "detail": "gone"}\n\n', whole=True)
    with Failing(gone) as server, pytest.raises(RequestRefusedError, match="404: gone"):
        list(make(server.url).follow("x"))
    with Failing(sends(204, b"")) as server:
        assert [] == list(make(server.url).follow("x", last_event_id="end"))


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../up", "..", "", "a\\b"])
def test_no_artifact_leaves_its_folder(make: Callable[..., Both], tmp_path: Path, name: str) -> None:
    """Should a service ever list such a name."""
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    task = TASK | {"artifacts": [{"name": name, "size_bytes": 0, "sha256": digest}]}
    with Failing(sends(200, task), sends(200, b"")) as server:
        client = make(server.url)
        with pytest.raises(ClientError, match="no path below"):
            client.save_artifacts(client.get("x"), tmp_path / "out")
    assert [tmp_path / "out"] == list(tmp_path.rglob("*"))


def test_an_artifact_that_was_changed_is_not_saved(make: Callable[..., Both], tmp_path: Path) -> None:
    """Its bytes have another digest than the task says."""
    task = TASK | {"artifacts": [{"name": "a", "size_bytes": 1, "sha256": "0" * 64}]}
    with Failing(sends(200, task), sends(200, b"x")) as server:
        client = make(server.url)
        with pytest.raises(ClientError, match="SHA-256"):
            client.save_artifacts(client.get("x"), tmp_path)
    assert [] == list(tmp_path.iterdir())


# ---- callbacks, types and dependencies


def test_a_callback_is_verified() -> None:
    """The right secret gives the task; another one, a changed body or an old one an exception."""
    secret = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy0wMTIzNDU2Nzg5"
    body = json.dumps({"type": "task.succeeded", "timestamp": NOW, "data": TASK})

    def headers(at: datetime) -> dict[str, str]:
        signed = Webhook(secret).sign("msg_1", at, body)
        return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": signed}

    message = read_callback(secret, body.encode(), headers(datetime.now(UTC)))
    assert ("msg_1", "task.succeeded", 3) == (message.message_id, message.type, message.task.result)
    other = "whsec_" + "b2xkLXNlY3JldC1vZi10aGUtdGVzdHMtMDEyMzQ1"
    for wrong_secret, wrong_body, at in (
        (other, body, datetime.now(UTC)),
        (secret, body.replace("ok", "no"), datetime.now(UTC)),
        (secret, body, datetime(2020, 1, 1, tzinfo=UTC)),
    ):
        with pytest.raises(CallbackError):
            read_callback(wrong_secret, wrong_body, headers(at))
    with pytest.raises(CallbackError):
        read_callback(secret, body, {})


def test_it_needs_httpx_and_httpx_sse_only(tmp_path: Path) -> None:
    """A copy of the folder, under another name, in an interpreter that finds those two and what they need."""
    shutil.copytree(ROOT / "engine" / "client", tmp_path / "unityai_worker")
    packages = Path(httpx.__file__).parents[1]
    assert packages == Path(httpx_sse.__file__).parents[1]
    for name in (
        "httpx",
        "httpx_sse",
        "httpcore",
        "h11",
        "anyio",
        "idna",
        "certifi",
        "typing_extensions.py",
        "sniffio",
    ):
        if (packages / name).exists():
            (tmp_path / name).symlink_to(packages / name)
    program = "import sys, unityai_worker as c; c.Client('http://localhost').close(); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = done.stdout.split()
    assert "unityai_worker.steps" in loaded
    assert [] == [name for name in loaded if name.partition(".")[0] in ("engine", "msgspec", "standardwebhooks")]
