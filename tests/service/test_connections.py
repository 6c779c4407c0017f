"""Connections: what is no HTTP, what takes too long, and what takes too much, before anybody has shown a key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import httpx
import psutil
import pytest
import uvicorn

from engine.api.problems import RequestError
from engine.api.routes import requests
from engine.api.server.connections import HEAD_BYTES, PIPELINED, TAKEN_BYTES, Connections, Patience
from tests.support.stack import until

HOST = b"Host: localhost\r\n"
GET = b"GET /health/live HTTP/1.1\r\n" + HOST
POST = b"POST /execute HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"


class Answer(NamedTuple):
    """One answer of a raw connection."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """A connection that sends what it likes."""

    def __init__(self, port: int, *, buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(30)
        self._file = self.socket.makefile("rb")

    def send(self, text: bytes) -> None:
        self.socket.sendall(text)

    def read(self) -> Answer | None:
        """The next answer; ``None`` when the connection ends instead."""
        try:
            status, headers = self.read_head()
            return Answer(status, headers, self.read_bytes(int(headers["content-length"])))
        except (ConnectionError, EOFError):
            return None

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers; ``EOFError`` when the connection ends instead."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := self._file.readline()):
                raise EOFError
            head += line
        first, *lines = head.decode().rstrip().split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines)

    def read_bytes(self, count: int) -> bytes:
        """So many, or what there is until the end."""
        return self._file.read(count)

    def read_all(self) -> list[Answer]:
        """Every answer until the connection ends."""
        return list(iter(self.read, None))

    def drip(self, text: bytes) -> None:
        """Send it again and again, until the connection ends."""
        with contextlib.suppress(ConnectionError):
            for _ in range(600):
                self.send(text)
                time.sleep(0.05)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def is_open(self) -> bool:
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(30)


Connect = Callable[..., Raw]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens them, and closes them at the end."""
    with contextlib.ExitStack() as opened:
        yield lambda port, **more: opened.enter_context(contextlib.closing(Raw(port, **more)))


# ---- the whole service ------------------------------------------------------------------------------------------


NO_HTTP = {
    "CL.TE": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE.CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}" + HIDDEN,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}" + HIDDEN,
    "a coding that is not chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked, and then not": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n" + HIDDEN,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a vertical tab before the value": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded header": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a lone line feed": POST.replace(b"\r\n", b"\n") + b"\n",
    "a lone carriage return": GET + b"X: a\rY: b\r\n\r\n",
    "a NUL": GET + b"X: a\0b\r\n\r\n",
    "a chunk's length in C": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's length beyond 64 bits": CHUNKED + b"1" * 17 + b"\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    "a chunk that ends in a line feed": CHUNKED + b"2\n{}\n0\n\n" + HIDDEN,
    "no Host": b"GET /health/live HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: evil.example\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT localhost:22 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303"),
    "nonsense": b"\xff" * 100,
}


@pytest.fixture(scope="module")
def port(url: str) -> int:
    """Of the whole service."""
    return int(httpx.URL(url).port or 0)


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_can_be_read_in_two_ways_is_400(connect: Connect, port: int, name: str) -> None:
    """API-16: one problem document, the end of the connection, and nothing of what stood behind it is answered."""
    raw = connect(port)
    raw.send(NO_HTTP[name])
    (answer,) = raw.read_all()
    assert (400, "application/problem+json") == (answer.status, answer.headers["content-type"])
    assert 400 == json.loads(answer.body)["status"]
    assert "close" == answer.headers["connection"]
    assert "nosniff" == answer.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "head",
    [GET + b"X: " + b"a" * (1 << 20), GET + b"X: a\r\n" * 100_000, b"GET /" + b"a" * (1 << 20)],
    ids=["one long header", "many headers", "a long path"],
)
def test_long_head_is_refused_before_it_is_whole(connect: Connect, port: int, head: bytes) -> None:
    """API-07: whatever it is long of."""
    raw = connect(port)
    with contextlib.suppress(ConnectionError):
        raw.send(head)
    (answer,) = raw.read_all()
    assert (431, "application/problem+json") == (answer.status, answer.headers["content-type"])


def test_head_that_is_just_not_too_long_is_answered(connect: Connect, port: int) -> None:
    """The same without the excess."""
    raw = connect(port)
    raw.send(GET + b"X: " + b"a" * (HEAD_BYTES - 100) + b"\r\n\r\n")
    answer = raw.read()
    assert answer is not None
    assert 200 == answer.status


def test_request_before_nonsense_is_answered(connect: Connect, port: int) -> None:
    """And the nonsense ends the connection."""
    raw = connect(port)
    raw.send(GET + b"\r\n" + b"\xff" * 100)
    assert [200] == [answer.status for answer in raw.read_all()]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.3"])
def test_offer_of_another_protocol_is_passed_over(connect: Connect, port: int, protocol: bytes) -> None:
    """The request is answered as it is, and the connection ends: nothing behind it is read as that protocol."""
    raw = connect(port)
    raw.send(GET + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n" + HIDDEN)
    assert [200] == [answer.status for answer in raw.read_all()]


def test_body_that_does_not_come_is_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """API-07: a client has BODY_TIMEOUT_S for all of it, however it drips."""

    async def read_slowly() -> None:
        async with requests.arriving():
            await asyncio.Event().wait()

    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.05)
    with pytest.raises(RequestError) as caught:
        asyncio.run(read_slowly())
    assert 408 == caught.value.status


# ---- limits that a test can reach -------------------------------------------------------------------------------


class Served:
    """uvicorn with our connections and next to no application, in a thread."""

    def __init__(self, most: int, send_bytes: int | None, patience: Patience) -> None:
        self.go_on = threading.Event()
        self.asked = 0
        listener = socket.create_server(("127.0.0.1", 0))
        if send_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        self.port = listener.getsockname()[1]
        http = cast(Any, Connections(most, patience))
        config = uvicorn.Config(
            self._answer, http=http, ws="none", interface="asgi3", lifespan="off", log_config=None, loop="uvloop"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()
        until(lambda: self.server.started, "uvicorn serves")

    @property
    def open(self) -> int:
        return len(self.server.server_state.connections)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        body = json.dumps(sorted(name.decode() for name, _ in scope["headers"])).encode()
        if scope["path"] == "/reads":
            while (await receive()).get("more_body"):
                pass
        if scope["path"] == "/waits":
            await asyncio.to_thread(self.go_on.wait)
        if scope["path"] == "/long":
            body = bytes(32 << 20)
        if scope["path"] == "/medium":
            body = bytes(50_000)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        self.go_on.set()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts them."""
    started: list[Served] = []

    def start(most: int = 100, send_bytes: int | None = None, **patience: float) -> Served:
        started.append(Served(most, send_bytes, Patience(**patience)))
        return started[-1]

    yield start
    for served in started:
        served.close()


def get(path: str, more: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\n".encode() + HOST + more + b"\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET", GET, b"\r\n"], ids=["nothing", "a word", "a half head", "an empty line"])
def test_head_that_does_not_come_ends_the_connection(connect: Connect, serve: Serve, sent: bytes) -> None:
    """API-07, slowloris: whether it says nothing or begins."""
    raw = connect(serve(head_s=0.3).port)
    raw.send(sent)
    assert [] == raw.read_all()


@pytest.mark.parametrize("sent", [b"a: b\r\n", b"\r\n"], ids=["headers", "empty lines"])
def test_dripped_head_ends_the_connection(connect: Connect, serve: Serve, sent: bytes) -> None:
    """Nothing that comes prolongs the time, be it before the first request or the second."""
    served = serve(head_s=0.3)
    for before in (b"", get("/")):
        raw = connect(served.port)
        raw.send(before)
        assert not before or raw.read() is not None
        raw.send(GET if sent != b"\r\n" else sent)
        raw.drip(sent)
        assert [] == raw.read_all()


def test_rest_of_a_body_that_nobody_reads_ends_the_connection(connect: Connect, serve: Serve) -> None:
    """The answer came long before it; dripping does not hold the connection."""
    raw = connect(serve(linger_s=0.3).port)
    raw.send(get("/", b"Content-Length: 100000\r\n"))
    answer = raw.read()
    assert answer is not None
    assert 200 == answer.status
    raw.drip(b"x")
    assert [] == raw.read_all()


def test_rest_of_a_body_that_comes_keeps_the_connection(connect: Connect, serve: Serve) -> None:
    """It is thrown away, and the next request is answered."""
    raw = connect(serve().port)
    raw.send(get("/", b"Content-Length: 100000\r\n"))
    assert raw.read() is not None
    raw.send(b"x" * 100_000 + get("/"))
    assert raw.read() is not None


@pytest.mark.parametrize(
    "rest",
    [b"0\r\nX: " + b"a" * (1 << 20), b"2;x=" + b"a" * (1 << 20), b"0" * (1 << 20)],
    ids=["a field behind the body", "an extension of a chunk", "a length of zeros"],
)
def test_endless_frame_of_a_body_ends_the_connection(connect: Connect, serve: Serve, rest: bytes) -> None:
    """Bytes outside head and body have a longest length, too; they are kept nowhere."""
    raw = connect(serve().port)
    raw.send(get("/reads", b"Transfer-Encoding: chunked\r\n"))
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(rest), 1000):
            raw.send(rest[start : start + 1000])
            time.sleep(0.0005)
    assert {answer.status for answer in raw.read_all()} <= {431, 400}


def test_field_behind_a_body_is_no_header(connect: Connect, serve: Serve) -> None:
    """A proxy that takes X-API-Key from headers cannot be passed by with one there."""
    raw = connect(serve().port)
    raw.send(get("/", b"Transfer-Encoding: chunked\r\n") + b"0\r\nX-API-Key: k\r\n\r\n")
    answer = raw.read()
    assert answer is not None
    assert ["host", "transfer-encoding"] == json.loads(answer.body)


def test_who_is_refused_may_finish_its_sentence(connect: Connect, serve: Serve) -> None:
    """The server reads what the client still sends: a reset would take the answer from it."""
    raw = connect(serve(refused_s=30).port)
    raw.send(GET + b"X: " + b"a" * (HEAD_BYTES + 1) + b"\r\n")
    for _ in range(20):
        raw.send(b"X: a\r\n" * 100)
        time.sleep(0.01)
    assert [431] == [answer.status for answer in raw.read_all()]


def test_full_house_the_one_that_waited_longest_makes_room(connect: Connect, serve: Serve) -> None:
    """API-07: ten that have begun a head, and an eleventh that asks: it is answered, and the first has gone."""
    served = serve(most=10)
    waiting = [connect(served.port) for _ in range(10)]
    for raw in waiting:
        raw.send(GET)
    until(lambda: served.open == 10, "all are there")
    asks = connect(served.port)
    asks.send(get("/"))
    answer = asks.read()
    assert answer is not None
    assert 200 == answer.status
    assert [False] + [True] * 9 == [raw.is_open() for raw in waiting]


def test_full_house_who_is_known_goes_before_who_comes(connect: Connect, serve: Serve) -> None:
    """Three that are served, and a fourth that says nothing: when one of the three asks again it is answered."""
    served = serve(most=3)
    known = [connect(served.port) for _ in range(3)]
    for raw in known:
        raw.send(get("/waits"))
    until(lambda: len(served.server.server_state.tasks) == 3, "all are served")
    late = connect(served.port)
    until(lambda: served.open == 4, "it is there")
    served.go_on.set()
    assert [200] * 3 == [answer.status for raw in known if (answer := raw.read())]
    known[0].send(get("/"))
    answer = known[0].read()
    assert answer is not None
    assert 200 == answer.status
    assert [True, True, True, False] == [raw.is_open() for raw in (*known, late)]


def test_full_house_of_those_who_are_served_is_503(connect: Connect, serve: Serve) -> None:
    """They are not ended for another; it hears why it is not served, and when one has gone there is room."""
    served = serve(most=3)
    busy = [connect(served.port) for _ in range(3)]
    for raw in busy:
        raw.send(get("/waits", b"Connection: close\r\n"))
    until(lambda: len(served.server.server_state.tasks) == 3, "all are served")
    late = connect(served.port)
    late.send(get("/"))
    (answer,) = late.read_all()
    assert (503, "application/problem+json") == (answer.status, answer.headers["content-type"])
    assert 0 < int(answer.headers["retry-after"])
    served.go_on.set()
    assert [[200]] * 3 == [[answer.status for answer in raw.read_all()] for raw in busy]
    until(lambda: served.open == 0, "all have gone")
    late = connect(served.port)
    late.send(get("/"))
    answer_late = late.read()
    assert answer_late is not None
    assert 200 == answer_late.status


@pytest.mark.parametrize(
    ("path", "more"),
    [("/long", b""), ("/long", b"Connection: close\r\n"), ("/medium", b"Connection: close\r\n")],
    ids=["long, kept", "long, closed", "medium, closed"],
)
def test_client_that_takes_nothing_ends_the_connection(connect: Connect, serve: Serve, path: str, more: bytes) -> None:
    """The server drops an answer that nobody reads, however small, on any connection."""
    served = serve(take_s=0.3, send_bytes=4096)
    raw = connect(served.port, buffer_bytes=4096)
    raw.send(get(path, more))
    until(lambda: served.asked == 1, "it was there")
    until(lambda: served.open == 0, "it was given up")


def test_client_that_takes_slowly_gets_all(connect: Connect, serve: Serve) -> None:
    """As long as it takes something: here in twice the time in which it may take nothing."""
    # a window of a few KiB would be updated by TCP's persist timer now and then, which waits for seconds by itself
    raw = connect(serve(take_s=2.0, send_bytes=4096).port, buffer_bytes=64 * 1024)
    raw.send(get("/long"))
    assert 200 == raw.read_head()[0]
    body_bytes = 0
    for _ in range(4):
        time.sleep(1.0)
        body_bytes += len(raw.read_bytes(2 * TAKEN_BYTES))
    assert 32 << 20 == body_bytes + len(raw.read_bytes((32 << 20) - body_bytes))


def test_requests_that_wait_for_answers_are_few(connect: Connect, serve: Serve) -> None:
    """A thousand in one packet: as many as may wait are answered, the others end the connection."""
    raw = connect(serve().port)
    raw.send(get("/") * 1000)
    assert [200] * (PIPELINED + 1) == [answer.status for answer in raw.read_all()]


def test_connections_that_are_refused_leave_nothing(connect: Connect, serve: Serve) -> None:
    """Ten of each sort, and as many descriptors as before."""
    served = serve(head_s=0.05)
    before = psutil.Process().num_fds()
    for text in (b"", GET, b"\xff", CHUNKED + b"x", GET + b"X: " + b"a" * HEAD_BYTES):
        for _ in range(10):
            raw = connect(served.port)
            raw.send(text)
            raw.read_all()
            raw.close()
    until(lambda: served.open == 0, "all have gone")
    until(lambda: psutil.Process().num_fds() <= before, "so have their descriptors")
