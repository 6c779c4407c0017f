"""Traces, as a real OTLP receiver gets them: one from the request over the queue to the attempt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.otlp import Collector
from tests.support.stack import ROOT, Stack, answers, free_port, task, until
from tests.support.web import raw_server

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SECRET = "whsec_" + 32 * "A"
SPANS = {"POST /execute", "store", "enqueue", "queue wait", "attempt", "claim", "sandbox run", "store result"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Takes the spans of the service below."""
    found = Collector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An API and a worker that send their traces there."""
    found = Stack(
        tmp_path_factory.mktemp("traced"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    found.worker()
    yield found
    found.close()


def test_one_trace_from_request_to_attempt(traced: Stack, collector: Collector) -> None:
    """The client's trace goes on in the API and, over PostgreSQL, in the worker; the order is that of what happens."""
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    script = "marked_source = 'only-in-the-script'\nprint('only-in-the-output')\nresult = 'only-in-the-result'"
    answer = traced.client.post("/execute", params={"wait": 30}, json=task(script), headers=headers).json()
    assert "succeeded" == answer["status"]
    until(lambda: SPANS <= collector.trace(TRACE_ID).keys(), f"all spans: {collector.spans}")
    spans = collector.trace(TRACE_ID)
    parents = {name: next((at for at in spans if spans[at].span_id == spans[name].parent_id), None) for name in SPANS}
    request = "POST /execute"
    assert PARENT_ID == spans[request].parent_id
    assert {
        request: None,
        "store": request,
        "enqueue": request,
        "queue wait": request,
        "attempt": request,
        "claim": "attempt",
        "sandbox run": "attempt",
        "store result": "attempt",
    } == parents
    assert {"unityai-api", "unityai-worker"} == {span.service for span in spans.values()}
    starts = [spans[name].start_ns for name in (request, "store", "claim", "sandbox run", "store result")]
    assert sorted(starts) == starts
    assert all(span.start_ns <= span.end_ns for span in spans.values())


def test_spans_have_the_names_of_the_conventions(traced: Stack, collector: Collector) -> None:
    """HTTP and messaging attributes as OpenTelemetry names them; only the attempt that failed is marked as failed."""
    trace_id, mark = (
        TRACE_ID.replace("0af7", "1af7"),
        {"traceparent": f"00-{TRACE_ID.replace('0af7', '1af7')}-{PARENT_ID}-01"},
    )
    answer = traced.client.post("/execute", params={"wait": 30}, json=task("1 / 0"), headers=mark).json()
    until(lambda: SPANS <= collector.trace(trace_id).keys(), "all spans")
    spans = collector.trace(trace_id)
    assert {
        "http.request.method": "POST",
        "http.route": "/execute",
        "url.path": "/execute",
        "url.scheme": "http",
        "http.response.status_code": 200,
    }.items() <= spans["POST /execute"].attributes.items()
    about = {
        "messaging.system": "arq",
        "messaging.destination.name": "unityai:tasks",
        "messaging.message.id": answer["task_id"],
    }
    for name, kind, operation in (("enqueue", "PRODUCER", "send"), ("attempt", "CONSUMER", "process")):
        assert (about | {"messaging.operation.type": operation}).items() <= spans[name].attributes.items()
        assert kind == spans[name].kind
    assert {"attempt"} == {name for name, span in spans.items() if span.failed}
    assert "error" == spans["attempt"].attributes["error.type"]


def test_trace_goes_on_in_the_receiver_of_a_callback(collector: Collector, traced: Stack) -> None:
    """Each attempt to deliver is a span of the task's trace, and the request names that span as its parent."""
    trace_id = TRACE_ID.replace("0af7", "2af7")
    with raw_server(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n") as receiver:
        environ = {"CALLBACK_ALLOW": f"http://127.0.0.1:{receiver.port}", "CALLBACK_SECRET": SECRET}
        api = traced.start("api", PORT=str(port := free_port()), **environ)
        sender = traced.start("worker", **environ)
        url = f"http://127.0.0.1:{port}/execute"
        headers = {"traceparent": f"00-{trace_id}-{PARENT_ID}-01"}
        body = task("result = 1", callback_url=f"http://127.0.0.1:{receiver.port}/x?secret=only-in-the-url")
        until(lambda: answers(traced.client, f"http://127.0.0.1:{port}/health"), "the API answers")
        httpx.post(url, json=body, headers=headers, timeout=60).raise_for_status()
        until(lambda: "POST callback" in collector.trace(trace_id), "the span of the callback")
        api.stop()
        sender.stop()
    span = collector.trace(trace_id)["POST callback"]
    facts = {
        "server.address": "127.0.0.1",
        "server.port": receiver.port,
        "http.response.status_code": 500,
        "error.type": "500",
    }
    assert ("CLIENT", True) == (span.kind, span.failed)
    assert facts.items() <= span.attributes.items()
    assert f"traceparent: 00-{trace_id}-{span.span_id}-01".encode() in receiver.received[0].lower()
    assert not any(b"only-in-the-url" in body for body in collector.bodies)


def test_attributes_say_which_task_and_nothing_of_its_content(traced: Stack, collector: Collector) -> None:
    """Ids, policy and exit reason; no source, no output, no result, no label, no address of a server."""
    marks = [f"only-in-the-{place}" for place in ("script", "output", "result", "args", "label", "error")]
    script = f"print({marks[1]!r})\nmarked = {marks[0]!r}\nraise ValueError({marks[5]!r})"
    body = task(script, labels={"a": marks[4]})
    body["parameters"]["args"] = marks[3]
    answer = traced.client.post("/execute", params={"wait": 30}, json=body, headers={"X-Request-ID": "request-0001"})
    task_id = answer.json()["task_id"]

    def named() -> dict[str, dict[str, object]]:
        trace = {span.trace_id for span in collector.spans if span.attributes.get("unityai.task_id") == task_id}
        return {span.name: span.attributes for span in collector.spans if span.trace_id in trace}

    until(lambda: SPANS <= named().keys(), "all spans")
    found = named()
    assert ("custom_script", "custom_script", 1) == tuple(
        found["attempt"][f"unityai.{name}"] for name in ("task_type", "policy", "attempt")
    )
    assert "error" == found["sandbox run"]["unityai.exit_reason"]
    assert "request-0001" == found["POST /execute"]["unityai.request_id"]
    sent = b"".join(collector.bodies)
    addresses = [traced.environ["DATABASE_URL"], traced.environ["REDIS_URL"]]
    assert [] == [mark for mark in [*marks, *addresses] if mark.encode() in sent]


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "no trace",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID[:-1]}-{PARENT_ID}-01",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01" * 100,
        f"00-{TRACE_ID}\t-{PARENT_ID}-01",
    ],
)
def test_malformed_trace_header_begins_a_new_trace(traced: Stack, collector: Collector, traceparent: str) -> None:
    """An invalid traceparent is not continued, and the request is answered."""
    before = len(collector.spans)
    response = traced.client.get("/scripts", headers={"traceparent": traceparent})
    assert 200 == response.status_code
    until(lambda: len(collector.spans) > before, "the span of the request")
    [span] = collector.spans[before:]
    assert ("GET /scripts", "") == (span.name, span.parent_id)
    assert span.trace_id not in (TRACE_ID, "0" * 32)


def test_log_lines_name_the_trace(traced: Stack) -> None:
    """A log line names its trace, and a trace its task."""
    headers = {"traceparent": f"00-{TRACE_ID[::-1]}-{PARENT_ID}-01"}
    traced.client.post("/execute", params={"wait": 30}, json=task("result = 1"), headers=headers)

    def named(part: str) -> bool:
        lines = (traced.folder / f"{part}.log").read_text().splitlines()
        return any(json.loads(line).get("trace_id") == TRACE_ID[::-1] for line in lines)

    until(lambda: named("api") and named("worker"), "a line of each part")


def test_collector_that_is_away_costs_no_task(stack: Stack) -> None:
    """Tasks run although traces cannot be sent anywhere, and the worker stops in time."""
    worker = stack.worker(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="100")
    answer = stack.client.post("/execute", params={"wait": 30}, json=task("result = 1")).json()
    assert "succeeded" == answer["status"]
    assert 0 == worker.stop()


def test_nothing_of_it_is_loaded_unless_asked_for() -> None:
    """Without an endpoint the library costs no import: neither API nor worker loads it."""
    program = (
        "import sys, engine.api.server.serve, engine.worker.worker\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
