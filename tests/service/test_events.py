"""``GET /task/{id}/events``: what happens to a task is told as it happens, and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from uuid import uuid4

import httpx
import psutil
import pytest
import redis

from engine.api.routes import events as event_routes
from engine.config.load import load_settings
from engine.dev.embedded import Embedded
from engine.queue.events import KEPT_EVENTS, MAX_PENDING, AttemptEvents, EventStreams, parse_event_id
from engine.service.follow import Followers, TooManyFollowersError
from engine.service.service import Service
from tests.support.held import Held
from tests.support.stack import Part, Stack, answers, free_port, task, until

FEW = """
import time
for n in range({lines}):
    print("line", n)
    report_progress(n / {lines}, f"line {{n}}")
    time.sleep({pause_s})
result = "done"
"""
ON_AND_ON = """
n = 0
while not told:
    print("line", n)
    report_progress(n / (n + 1), f"line {n}")
    time.sleep(0.1)
    n += 1
result = n
"""
"""For ``Held``: prints until it is told to end; its result is how many lines there were."""


FOREIGN_ENTRIES: list[dict[Any, Any]] = [
    {"log": b"\x80\x04pickle"}, {"log": "[" * 5000}, {"x": "1"}, {"log": "{}", "progress": "{}"}, {"progress": "[1]"},
    {"log": '{"stream":"stdin","text":""}'}, {"log": '{"stream":"stdout","text":"' + "x" * 200_000 + '"}'},
]  # fmt: skip


class Event(NamedTuple):
    name: str
    data: Any
    event_id: str | None
    retry: int | None


class Stream:
    """A client's view of one stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Event]:
        """Events in their order; ends with the stream."""
        fields: dict[str, list[str]] = {}
        for line in self._lines:
            name, _, value = line.partition(":")
            if not line and "data" in fields:
                event_id, retry = fields.get("id"), fields.get("retry")
                yield Event(
                    fields["event"][0],
                    json.loads("\n".join(fields["data"])),
                    event_id[0] if event_id else None,
                    int(retry[0]) if retry else None,
                )
            if not line:
                fields = {}
            elif name:
                fields.setdefault(name, []).append(value.removeprefix(" "))

    def until_comment(self) -> None:
        """Until a line that says nothing but that the stream lives; an event before it is a failure."""
        for line in self._lines:
            assert not line or line.startswith(":")
            if line:
                return
        raise AssertionError("the stream ended")

    def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """Events up to the first that is wanted."""
        seen = []
        for event in self:
            seen.append(event)
            if wanted(event):
                return seen
        raise AssertionError(f"the stream ended before: {seen}")


@contextlib.contextmanager
def follow(client: httpx.Client, task_id: str, last: str | None = None) -> Iterator[Stream]:
    """Follow a task."""
    headers = {"last-event-id": last} if last else {}
    with client.stream("GET", f"/task/{task_id}/events", headers=headers) as response:
        assert 200 == response.status_code, response.read()
        assert "text/event-stream; charset=utf-8" == response.headers["content-type"]
        yield Stream(response)


def submit(client: httpx.Client, script: str, **more: Any) -> str:
    response = client.post("/execute", json=task(script, **more))
    assert response.status_code == 202, response.text
    return str(response.json()["task_id"])


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


def statuses(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.data["status"], event.data["attempt"]) for event in events if event.name == "status"]


def printed(events: list[Event], stream: str = "stdout") -> str:
    return "".join(event.data["text"] for event in events if event.name == "log" and event.data["stream"] == stream)


def is_log(event: Event) -> bool:
    return event.name == "log"


def is_line(least: int) -> Callable[[Event], bool]:
    """Whether it tells of this line of ``ON_AND_ON``, or of a later one."""

    def is_it(event: Event) -> bool:
        words = event.data["text"].split() if is_log(event) else []
        return bool(words) and words[-1].isdigit() and int(words[-1]) >= least  # a text may end within a line

    return is_it


def lines(count: int) -> str:
    """The output of ``ON_AND_ON``."""
    return "".join(f"line {n}\n" for n in range(count))


def get(client: httpx.Client, task_id: str) -> dict[str, Any]:
    return dict(client.get(f"/task/{task_id}").json())


def test_lines_arrive_while_the_script_runs(client: httpx.Client) -> None:
    """A line is there when the task still runs; the whole is in order, and ends with what GET gives."""
    held = Held(ON_AND_ON)
    task_id = submit(client, held.script)
    with follow(client, task_id) as stream:
        seen = stream.until(is_line(10))
        assert "running" == get(client, task_id)["status"]
        held.tell()
        seen += list(stream)
    assert printed(seen).startswith("line 0\nline 1\n")
    assert [("running", 1), ("succeeded", 1)] == statuses(seen)[-2:]
    assert lines(seen[-1].data["result"]) == printed(seen)
    reports = [event.data for event in seen if event.name == "progress"]
    assert {"fraction": 0.0, "message": "line 0"} == reports[0]
    assert sorted(report["fraction"] for report in reports) == [report["fraction"] for report in reports]
    assert ("result", "end") == (seen[-1].name, seen[-1].event_id)
    assert get(client, task_id) == seen[-1].data
    assert "gap" not in names(seen)


def test_resumed_stream_has_exactly_the_rest(client: httpx.Client) -> None:
    """Broken off anywhere and resumed by the id: together the events are those of an unbroken stream."""
    held = Held(ON_AND_ON)
    task_id = submit(client, held.script)
    with follow(client, task_id) as whole:
        all_of_it = whole.until(is_log)
        first: list[Event] = []
        with follow(client, task_id) as stream:
            first += stream.until(is_line(4))
        with follow(client, task_id, first[-1].event_id) as stream:
            second = stream.until(is_line(9))
        held.tell()
        all_of_it += list(whole)
    with follow(client, task_id, second[-1].event_id) as stream:  # the task is final by now
        third = list(stream)
    assert [event for event in all_of_it if event.data.get("status") != "queued"] == [
        event for event in first + second + third if event.data.get("status") != "queued"
    ]
    assert 204 == client.get(f"/task/{task_id}/events", headers={"last-event-id": "end"}).status_code


def test_whoever_comes_late_gets_what_was_printed_before(client: httpx.Client) -> None:
    """Nobody followed when the script printed; who comes then still sees it, and in few events."""
    text = "".join(f"early {n}\n" for n in range(500)) + "x" * 20_000 + "\n"
    script = "import time\nfor n in range(500):\n    print('early', n)\nprint('x' * 20_000)\nreport_progress(1)\n"
    task_id = submit(client, script + "time.sleep(60)")
    until(lambda: get(client, task_id)["status"] == "running", "the task runs")
    with follow(client, task_id) as stream:
        seen = stream.until(lambda event: event.name == "progress")
        assert client.delete(f"/task/{task_id}").status_code in (200, 202)
        seen += list(stream)
    assert text == printed(seen) == seen[-1].data["logs"]["stdout"]
    assert len([event for event in seen if is_log(event)]) < 50


def test_text_is_whole_and_harmless(client: httpx.Client) -> None:
    """A character in two writes is one; bytes that are none show as in the logs; escapes and line ends stay data."""
    script = r"""
import os, time
for byte in "é€🙂".encode():
    os.write(1, bytes([byte])); time.sleep(0.08)
os.write(1, b"\xff\x1b[2J\r\n\ndata: forged\n\nevent: result\n\n\xe2\x82")
os.write(2, b"to stderr\x00")
time.sleep(60)
"""
    task_id = submit(client, script)
    with follow(client, task_id) as stream:
        seen = stream.until(lambda event: is_log(event) and event.data["stream"] == "stderr")
        client.delete(f"/task/{task_id}")
        seen += list(stream)
    logs = seen[-1].data["logs"]
    assert "é€🙂\\xff\x1b[2J\r\n\ndata: forged\n\nevent: result\n\n\\xe2\\x82" == printed(seen) == logs["stdout"]
    assert "to stderr\x00" == printed(seen, "stderr") == logs["stderr"]
    assert ["result"] == [name for name in names(seen) if name == "result"]


def test_line_ends_within_a_result_are_no_ends_of_events(client: httpx.Client) -> None:
    """JSON may have them between its tokens, and a script may write its own."""
    script = "import os\nos.write(3, b'R' + (11).to_bytes(8, 'big') + b'[\\n\\r\\n\\n\\r\\r1\\n\\n]')\nos._exit(0)"
    task_id = submit(client, script)
    with follow(client, task_id) as stream:
        seen = list(stream)
    assert ("succeeded", [1]) == (seen[-1].data["status"], seen[-1].data["result"])


def test_final_task_answers_at_once(client: httpx.Client) -> None:
    """Status and result, and the stream ends."""
    task_id = submit(client, "print('gone')\nresult = 1")
    client.get(f"/task/{task_id}", params={"wait": 60})
    with follow(client, task_id) as stream:
        seen = list(stream)
    assert (["status", "result"], [("succeeded", 1)]) == (names(seen), statuses(seen))
    assert get(client, task_id) == seen[-1].data


def test_cancelled_task_ends_the_stream(client: httpx.Client) -> None:
    """Running: what it printed, then the final status and the result that says so, without being asked for."""
    task_id = submit(client, "print('begun\\n', end='')\nimport time\ntime.sleep(60)")  # one write, and so one event
    with follow(client, task_id) as stream:
        seen = stream.until(is_log)
        assert client.delete(f"/task/{task_id}").status_code in (200, 202)
        seen += list(stream)
    assert [("running", 1), ("cancelled", 1)] == statuses(seen)[-2:]
    assert ("result", "cancelled", "begun\n") == (seen[-1].name, seen[-1].data["exit_reason"], printed(seen))


def test_handlers_report_their_progress(client: httpx.Client) -> None:
    """Text by text, at most ten times a second."""
    texts = [f"Text number {number} is about the weather in spring." for number in range(400)]
    body = {"task_type": "ml_inference", "parameters": {"model_type": "classification", "input_data": texts}}
    task_id = client.post("/execute", json=body).json()["task_id"]
    with follow(client, task_id) as stream:
        seen = list(stream)
    reports = [event.data for event in seen if event.name == "progress"]
    assert reports
    assert {f"{round(report['fraction'] * 400)} of 400 texts" for report in reports} == {
        report["message"] for report in reports
    }
    assert len(reports) <= 11 + 10 * seen[-1].data["usage"]["wall_s"]
    assert "succeeded" == seen[-1].data["status"]


def test_no_such_task_is_404(client: httpx.Client) -> None:
    """Also for what is no id."""
    for task_id in ("00000000-0000-4000-8000-000000000000", "x", "*"):
        response = client.get(f"/task/{task_id}/events")
        assert (404, "application/problem+json") == (response.status_code, response.headers["content-type"])


@pytest.mark.parametrize("given", ["x", "1", "-1-1", "1-", "1-1-1", "9999999999-1", "1-1\u00e9".encode(), "$", "+"])
def test_id_that_is_none_is_refused(client: httpx.Client, given: str | bytes) -> None:
    """It never reaches Redis."""
    task_id = submit(client, "result = 1")
    header = given if isinstance(given, bytes) else given.encode()
    response = client.get(f"/task/{task_id}/events", headers=[(b"last-event-id", header)])
    assert (400, "Last-Event-ID") == (response.status_code, response.json()["errors"][0]["path"])


# -- when something breaks


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers and an API of these tests' own, with few places and quick heartbeats.

    Leases are long: a task must keep its own while PostgreSQL starts, however long that takes on a busy machine.
    """
    limits: dict[str, Any] = {"EVENT_FOLLOWERS": "5", "EVENT_HEARTBEAT_S": "0.3", "LEASE_S": "60", "MAX_ATTEMPTS": "2"}
    found = Stack(tmp_path_factory.mktemp("events"), **limits, DRAIN_S="0.3")
    yield found
    found.close()


@pytest.fixture(scope="module")
def worker(own: Stack) -> Part:
    """Of that stack."""
    return own.worker()


@pytest.fixture
def connection(own: Stack) -> Iterator[redis.Redis]:
    """To its Redis."""
    with redis.Redis.from_url(own.environ["REDIS_URL"]) as found:
        yield found


def test_followers_are_capped_and_idle_ones_hear_that_it_lives(own: Stack) -> None:
    """API-23: a queued task that no worker takes; the fourth is refused, and has a place when one has gone."""
    task_id = own.submit("result = 1")["task_id"]
    with contextlib.ExitStack() as places:
        streams = [places.enter_context(follow(own.client, task_id)) for _ in range(3)]
        for stream in streams:
            assert [("queued", 0)] == statuses([next(iter(stream))])
        refused = own.client.get(f"/task/{task_id}/events")
        assert (503, "5") == (refused.status_code, refused.headers["retry-after"])
        assert "application/problem+json" == refused.headers["content-type"]
        streams[0].until_comment()
    until(lambda: can_follow(own, task_id), "the places are free again")


def test_task_that_is_cancelled_in_the_queue_ends_the_stream(own: Stack) -> None:
    """No worker had it."""
    task_id = own.submit("result = 1")["task_id"]
    with follow(own.client, task_id) as stream:
        seen = stream.until(lambda event: event.name == "status")
        assert 200 == own.client.delete(f"/task/{task_id}").status_code
        seen += list(stream)
    assert ["status", "status", "result"] == names(seen)
    assert [("queued", 0), ("cancelled", 0)] == statuses(seen)


def can_follow(own: Stack, task_id: str) -> bool:
    with own.client.stream("GET", f"/task/{task_id}/events") as response:
        return response.status_code == 200


def test_killed_worker_the_stream_goes_on_with_the_next_attempt(own: Stack) -> None:
    """kill -9 in the middle: attempt 1 is seen running, then attempt 2 with its own lines, to the end."""
    first = own.worker()
    task_id = own.submit("import time\nprint('begun\\n', end='')\ntime.sleep(1)\nprint('over')\nresult = 1")["task_id"]
    with follow(own.client, task_id) as stream:
        seen = stream.until(is_log)
        first.stop(signal.SIGKILL)
        own.end_leases()
        own.worker()
        seen += list(stream)
    assert ["1-1", "2-1"] == [event.event_id for event in seen if is_log(event) and event.data["text"] == "begun\n"]
    told = [status for status in statuses(seen) if status[0] != "queued"]  # for a moment only, which may be passed by
    assert [("running", 1), ("running", 2), ("succeeded", 2)] == told
    assert ("begun\nover\n", 2) == (seen[-1].data["logs"]["stdout"], seen[-1].data["attempts"])
    with follow(own.client, task_id, "1-1") as stream:  # all of the second attempt, none of the first
        assert "begun\nover\n" == printed(list(stream))


def test_redis_that_forgets_loses_live_lines_at_most(own: Stack, worker: Part, connection: redis.Redis) -> None:
    """FLUSHALL in the middle: the stream goes on, what is missing is said, and the result has the whole logs."""
    held = Held(ON_AND_ON)
    task_id = own.submit(held.script)["task_id"]
    with follow(own.client, task_id) as stream:
        seen = stream.until(is_line(2))
        connection.flushall()
        seen += stream.until(is_line(12))
        held.tell()
        seen += list(stream)
    assert [("running", 1), ("succeeded", 1)] == statuses(seen)[-2:]
    assert lines(seen[-1].data["result"]) == seen[-1].data["logs"]["stdout"]
    assert seen[-1].data["logs"]["stdout"].splitlines()[-1] == printed(seen).splitlines()[-1]
    numbers = [found.number for event in seen if (found := parse_event_id(event.event_id or "")) and found.number]
    holes = [after - before - 1 for before, after in itertools.pairwise(numbers) if after > before + 1]
    assert holes == [event.data["missing"] for event in seen if event.name == "gap"]


def test_what_others_write_to_redis_is_data_or_nothing(own: Stack, worker: Part, connection: redis.Redis) -> None:
    """Entries that are none of ours are passed by; nothing breaks, and the result is the task's own."""
    held = Held(ON_AND_ON)
    task_id = own.submit(held.script)["task_id"]
    key = f"unityai:tasks:events:{task_id}"
    with follow(own.client, task_id) as stream:
        seen = stream.until(is_log)
        if "progress" not in names(seen):  # both are told before the others write
            seen += stream.until(lambda event: event.name == "progress")
        for number, fields in enumerate(FOREIGN_ENTRIES, 500):
            connection.xadd(key, fields, id=f"1-{number}")
        connection.publish("unityai:tasks:live", b"\xff\x00")
        connection.publish("unityai:tasks:followed", b"+\xff" * 100)
        connection.publish("unityai:tasks:live", task_id)
        seen += stream.until(lambda event: event.name == "gap")
        held.tell()
        seen += list(stream)
    assert {"status", "log", "progress", "gap", "result"} == set(names(seen))
    assert lines(seen[-1].data["result"]) == seen[-1].data["logs"]["stdout"]


def test_redis_away_the_stream_reaches_its_end(own: Stack, worker: Part) -> None:
    """Without Redis there are no live lines, then or later, which is said; status and result come all the same."""
    assert own.servers.redis
    held = Held(ON_AND_ON)
    task_id = own.submit(held.script)["task_id"]
    with follow(own.client, task_id) as stream:
        seen = stream.until(is_log)
        own.servers.redis.stop()
        try:
            time.sleep(0.5)  # in which it prints more
            held.tell()
            seen += list(stream)
        finally:
            own.servers.start_redis()
    logs = seen[-1].data["logs"]["stdout"]
    assert printed(seen) == logs or ["gap", "status", "result"] == names(seen)[-3:]
    assert ("succeeded", lines(seen[-1].data["result"])) == (seen[-1].data["status"], seen[-1].data["logs"]["stdout"])


def test_postgresql_away_the_lines_go_on(own: Stack, worker: Part) -> None:
    """A stream that has begun tells what is printed, and reaches its end when PostgreSQL is back."""
    assert own.servers.database
    held = Held(ON_AND_ON)
    task_id = own.submit(held.script)["task_id"]
    with follow(own.client, task_id) as stream:
        seen = stream.until(is_log)
        own.servers.database.stop()
        known = printed(seen).count("\n")
        try:
            seen += stream.until(is_line(known + 10))
        finally:
            own.servers.start_database()
        held.tell()
        seen += list(stream)
    assert ("result", "succeeded") == (seen[-1].name, seen[-1].data["status"])
    assert lines(seen[-1].data["result"]) == printed(seen) == seen[-1].data["logs"]["stdout"]


def test_who_reads_nothing_costs_nothing(own: Stack, worker: Part) -> None:
    """A client that does not read: the API's memory stays as it is while the task prints megabytes, and ends."""
    script = "import time\nfor n in range(400):\n    print('x' * 2500)\n    time.sleep(0.005)\nresult = 1"
    memory_bytes = psutil.Process(own.api.pid).memory_info().rss
    task_ids = [own.submit(script)["task_id"] for _ in range(3)]
    with contextlib.ExitStack() as streams:
        for task_id in task_ids:
            streams.enter_context(follow(own.client, task_id))
        for task_id in task_ids:
            assert "succeeded" == own.get(task_id, wait_s=60)["status"]
        assert psutil.Process(own.api.pid).memory_info().rss - memory_bytes < 32 << 20


def test_nothing_is_written_of_a_task_that_nobody_follows(own: Stack, worker: Part, connection: redis.Redis) -> None:
    """However much it prints and reports."""
    task_id = own.submit(FEW.format(lines=50, pause_s=0.005))["task_id"]
    assert "succeeded" == own.get(task_id, wait_s=30)["status"]
    assert [] == connection.keys(f"*{task_id}*")


def test_api_that_stops_says_so(own: Stack, worker: Part) -> None:
    """SIGTERM of the API: the stream ends with an error event that says when to come again; there it goes on."""
    held = Held(ON_AND_ON)
    task_id = own.submit(held.script)["task_id"]
    api = own.start("api", PORT=str(port := free_port()))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        until(lambda: answers(client, "/health"), "the second API answers")
        with follow(client, task_id) as stream:
            first = stream.until(is_log)
            api.process.send_signal(signal.SIGTERM)
            first += list(stream)
    assert ("error", 503, 1000) == (first[-1].name, first[-1].data["status"], first[-1].retry)
    assert 0 == api.stop()
    last = [event.event_id for event in first if event.event_id][-1]
    with follow(own.client, task_id, last) as stream:
        second = stream.until(is_log)
        held.tell()
        second += list(stream)
    assert lines(second[-1].data["result"]) == printed(first + second)


# -- without a service


def test_client_that_takes_nothing_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that no byte leaves by is given up after SEND_S; so is the place, and what was followed."""
    monkeypatch.setattr(event_routes, "SEND_S", 0.05)
    ended = []

    @contextlib.contextmanager
    def place() -> Iterator[None]:
        yield
        ended.append("place")

    async def heartbeats() -> AsyncGenerator[None]:
        try:
            while True:
                yield None
        finally:
            ended.append("following")

    async def never(_: Any = None) -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    answer = event_routes.EventStream(place(), heartbeats).to_asgi_response()
    asyncio.run(answer({}, never, send))
    assert ["following", "place"] == ended


def test_our_own_failure_is_the_last_event() -> None:
    """Even then a stream does not end silently."""
    sent: list[bytes] = []

    async def fail() -> AsyncGenerator[None]:
        yield None
        raise RuntimeError("ours")

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message.get("body"))

    answer = event_routes.EventStream(contextlib.nullcontext(), fail).to_asgi_response()
    asyncio.run(answer({}, never, send))
    assert (b"", True) == (sent[-1], sent[-2].startswith(b"event: error\r\n"))
    assert b'"status":500' in sent[-2]


def test_one_tenant_leaves_places_to_others(servers: Embedded) -> None:
    """Half of them are the most that it gets; together they get all and not one more."""
    urls = {"DATABASE_URL": str(servers.urls.database), "REDIS_URL": str(servers.urls.redis)}
    settings = load_settings({**urls, "EVENT_FOLLOWERS": "4"})
    followers = Followers(cast(Service, SimpleNamespace(settings=settings)))
    with contextlib.ExitStack() as places:
        for tenant in ("a", "a", "b"):
            places.enter_context(followers.place(tenant))
        with pytest.raises(TooManyFollowersError):
            places.enter_context(followers.place("a"))
        places.enter_context(followers.place("b"))
        with pytest.raises(TooManyFollowersError):
            places.enter_context(followers.place("c"))
    with followers.place("c"):
        pass


async def hear_to_the_end(port: int, task_id: str, barrier: asyncio.Barrier) -> bytes:
    """What one client hears of a task; no HTTP library, of which a thousand would be the work of the test.

    Args:
        port: of the API.
        task_id: whom it follows.
        barrier: where all wait that have heard something.
    """
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        writer.write(f"GET /task/{task_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 "):
            break
        # a thousand come at once: for whom PostgreSQL has not answered in time, comes again, as it is told
        assert head.startswith(b"HTTP/1.1 503 ")
        writer.close()
        await asyncio.sleep(1)
    heard = head + await reader.readuntil(b"event: status")
    await barrier.wait()
    heard += await reader.readuntil(b"event: result")
    writer.close()
    return heard


def test_a_thousand_clients_follow_one_task(tmp_path: Path) -> None:
    """API-23: where the operator allows it, and each hears every line that was printed."""
    stack = Stack(tmp_path, EVENT_FOLLOWERS="1200", EVENT_FOLLOWERS_PER_TENANT="1000", DRAIN_S="0.3")
    try:
        held = Held("hold()\nprint('first')\nprint('last')\nresult = 1")
        task_id = stack.submit(held.script)["task_id"]
        stack.worker()
        held.wait()

        async def follow_all() -> list[bytes]:
            barrier = asyncio.Barrier(1001)
            async with asyncio.TaskGroup() as group:  # one that fails ends all, and no one waits for it
                clients = [group.create_task(hear_to_the_end(stack.port, task_id, barrier)) for _ in range(1000)]
                await barrier.wait()
                held.tell()
            return [client.result() for client in clients]

        heard = asyncio.run(follow_all())
    finally:
        stack.close()
    assert 1000 == sum(one.startswith(b"HTTP/1.1 200 ") and b"first" in one and b"last" in one for one in heard)


def test_what_an_attempt_keeps_is_bounded(servers: Embedded) -> None:
    """A script that alternates between its streams a byte at a time: pieces are joined, and no byte is lost."""

    async def keep() -> tuple[int, dict[str, str], int]:
        wire = EventStreams(str(servers.urls.redis), "bounded")
        events = AttemptEvents(wire, str(uuid4()), 1, lambda: True)
        for _ in range(20_000):
            events.on_output("stdout", b"o")
            events.on_output("stderr", b"e")
        kept = len(events._pending)
        events.follow()
        await events.end()
        entries = await wire.redis.xrange(wire.stream(events._task_id))
        await wire.close()
        logs = [json.loads(fields[b"log"]) for _, fields in entries]
        texts = {name: "".join(log["text"] for log in logs if log["stream"] == name) for name in ("stdout", "stderr")}
        return kept, texts, len(entries)

    kept, texts, entries = asyncio.run(keep())
    assert {"stdout": "o" * 20_000, "stderr": "e" * 20_000} == texts
    assert kept <= MAX_PENDING + 2
    assert entries <= KEPT_EVENTS


def test_an_older_attempt_adds_nothing_to_a_newer_one(servers: Embedded) -> None:
    """A worker that was frozen past its lease wakes and writes: Redis refuses, and it gives no trouble."""

    async def write() -> list[tuple[bytes, dict[bytes, bytes]]]:
        wire, task_id = EventStreams(str(servers.urls.redis), "older"), str(uuid4())
        older, newer = (AttemptEvents(wire, task_id, attempt, lambda: True) for attempt in (1, 2))
        older.follow()
        for attempt, text in ((newer, b"new"), (older, b"old")):
            attempt.on_output("stdout", text)
            attempt.follow()
            await attempt.end()
        entries: list[tuple[bytes, dict[bytes, bytes]]] = await wire.redis.xrange(wire.stream(task_id))
        await wire.close()
        return entries

    assert [(b"2-1", {b"log": b'{"stream":"stdout","text":"new"}'})] == asyncio.run(write())
