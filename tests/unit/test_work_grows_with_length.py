"""Untrusted bytes never cost more than their length: four times as much takes about four times as long.

The measure is this process's CPU time, of the best of several tries, so that a busy machine changes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.api.body.check import check
from engine.api.body.checker import INLINE_BYTES, is_quick
from engine.api.routes.listing import parse_filter, parse_trail_filter
from engine.api.session import session_id_of
from engine.model.errors import InvalidRequestError
from engine.model.redact import redact
from engine.queue.events import parse_event_id
from engine.queue.queue import decode_entry
from engine.store.results import decode_result
from engine.telemetry.logs import escape_controls
from sandbox.egress.chunks import ChunkDecoder
from sandbox.egress.greeting import check as check_greeting
from sandbox.egress.heads import is_hopeless, parse_request, parse_response
from sandbox.egress.hosts import parse_host, parse_port
from sandbox.run.harvest import _name_fault
from sandbox.run.json_rule import _rule_fault, json_fault
from sandbox.run.response import HEADER_BYTES, ProgressReader, parse
from tests.support.sources import ROOT, modules

BYTES = 1 << 20
"""Of each shape: a MiB, compared with a quarter of it."""
GROWTH = 11.0
"""Of the time, for four times the length. Quadratic work shows 16; caches and the allocator make linear work 4 to 6."""
NOTHING_S = 0.02
"""Below this the time says nothing, and harms nobody."""

TEXTS: dict[str, Callable[[int], str]] = {
    "one letter": lambda n: "a" * n,
    "one word and its mark": lambda n: "a" * (n - 1) + "=",
    "a scheme that never ends": lambda n: "a+" * (n // 2) + "://",
    "schemes without a host": lambda n: "a://" * (n // 4),
    "a url without an at": lambda n: "a://" + "b" * (n - 4),
    "nearly passwords": lambda n: "password" * (n // 8) + ":",
    "passwords and blanks": lambda n: ("password" + " " * 8) * (n // 16) + "=",
    "blanks behind a name": lambda n: "token:" + " " * (n - 6),
    "bearers": lambda n: "bearer " * (n // 7),
    "blanks behind a bearer": lambda n: "token: bearer" + " " * n,
    "nearly tokens": lambda n: "uak_0123456789ab_" * (n // 17),
    "quotes": lambda n: "'\":" * (n // 3),
    "line ends": lambda n: "\n\r=" * (n // 3),
    "controls": lambda n: "\x00=\x1b" * (n // 3),
    "surrogate pairs": lambda n: "😀=" * (n // 2),
}

JSON: dict[str, Callable[[int], bytes]] = {
    "empty arrays": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "towers": lambda n: b"[" + (b"[" * 62 + b"]" * 62 + b",") * (n // 125) + b"[]]",
    "openings": lambda n: b"[" * n,
    "closings": lambda n: b"]" * n,
    "braces": lambda n: b'{"a":' * (n // 5),
    "escapes": lambda n: b'["' + b"\\\\" * (n // 2) + b'"]',
    "escaped quotes": lambda n: b'["' + b'\\"' * (n // 2) + b'"]',
    "empty texts": lambda n: b"[" + b'"",' * (n // 3) + b"1]",
    "an unclosed text": lambda n: b'["' + b"a" * n,
    "brackets in a text": lambda n: b'["' + b"[{" * (n // 2) + b'"]',
    "one long number": lambda n: b"1" * n,
    "bytes that are no UTF-8": lambda n: b"[" * (n - 1) + b"\xff",
    "zeros": bytes,
}


def _body_of(items: bytes) -> bytes:
    return b'{"task_type":"custom_script","parameters":{"script":"x","args":[' + items + b"1]}}"


BYTES_SHAPES: dict[str, Callable[[int], bytes]] = {
    "chunks of one byte": lambda n: b"1\r\na\r\n" * (n // 6),
    "chunk extensions": lambda n: (b"1;" + b"a" * 500 + b"\r\na\r\n") * (n // 507),
    "header fields": lambda n: b"a: b\r\n" * (n // 6),
    "line ends alone": lambda n: b"\r\n" * (n // 2),
    "labels of a host": lambda n: b"a." * (n // 2),
    "digits of a port": lambda n: b"a:" + b"1" * n,
    "lone surrogates' neighbours": lambda n: b'"' + rb"\ud83d\ude00" * (n // 12) + b'"',
    "large exponents": lambda n: b"[" + b"1e300," * (n // 6) + b"1]",
    "numbers that msgspec reads slowly": lambda n: _body_of(b"1e308," * (n // 6)),
    "doubles that are almost infinite": lambda n: (
        b"[" + b",".join(b"1.797693134862315%06de308" % at for at in range(n // 28)) + b"]"
    ),
    "doubles that are almost too large": lambda n: b"[" + b",".join(b"1.%06de308" % at for at in range(n // 14)) + b"]",
    "integers that are almost too large": lambda n: (
        b"[" + b",".join(b"900719925474%04d" % (at % 1000) for at in range(n // 17)) + b"]"
    ),
    "numbers of many shapes": lambda n: b"[" + b",".join(b"0." + b"0" * (at % 997) for at in range(1, n // 500)) + b"]",
    "words with an e": lambda n: b"[" + b"true,false,1e308," * (n // 17) + b"1]",
    "long integers": lambda n: b"[" + b"1234567890123456," * (n // 17) + b"1]",
    "names that mislead": lambda n: "a\u200b".encode() * (n // 4),
    "greetings": lambda n: b"\x16\x03\x01\x00\x01\x01" * (n // 6),
}


def _names(n: int, last: str) -> bytes:
    fields = ",".join(f'"n{number}":0' for number in range(n // 10))
    return f'{{"task_type":"custom_script","parameters":{{"script":"x","args":{{{fields},"{last}":0}}}}}}'.encode()


BODIES: dict[str, Callable[[int], bytes]] = {
    "all names different": lambda n: _names(n, "last"),
    "all names different but the last": lambda n: _names(n, f"n{n // 10 - 1}"),
    "all names different but the first": lambda n: _names(n, "n0"),
    "colons in a text": lambda n: b'{"task_type":"custom_script","parameters":{"script":"' + b":" * n + b'"}}',
    "a name that is long": lambda n: b'{"' + b"a" * n + b'":1}',
    "a label that is long": lambda n: b'{"task_type":"custom_script","labels":{"a":"' + b"b" * n + b'"}}',
    "brackets": lambda n: b'{"task_type":"custom_script","parameters":{"script":"x","args":' + b"[" * n,
    "an unknown task type": lambda n: b'{"task_type":"' + b"a" * n + b'","parameters":{}}',
}


def _cpu_s(work: Callable[[Any], object], given: Any, *, tries: int) -> float:
    """The least of several tries, without the garbage collector, which looks at all that other tests have made, too."""
    best = float("inf")
    gc.disable()
    try:
        for _ in range(tries):
            start = time.process_time()
            work(given)
            best = min(best, time.process_time() - start)
    finally:
        gc.enable()
    return best


def _refuse_growth(work: Callable[[Any], object], make: Callable[[int], Any], size: int = BYTES) -> None:
    large = make(size)
    four_times = _cpu_s(work, large, tries=1)
    if four_times < NOTHING_S:
        return
    quarter = make(size // 4)
    once = max(_cpu_s(work, quarter, tries=1), NOTHING_S / 4)
    if four_times >= GROWTH * once:  # something else may have taken the time: look again, more closely
        once = max(_cpu_s(work, quarter, tries=3), NOTHING_S / 4)
        four_times = _cpu_s(work, large, tries=3)
    assert four_times < GROWTH * once, f"{once:.3f} s became {four_times:.3f} s"


def _check(body: bytes) -> None:
    try:
        check(body)
    except InvalidRequestError:
        return


@pytest.mark.parametrize("shape", TEXTS)
def test_secrets_are_looked_for_in_linear_time(shape: str) -> None:
    """The worker redacts a script's error on its event loop, beside every other task."""
    _refuse_growth(redact, TEXTS[shape])


@pytest.mark.parametrize("shape", TEXTS)
def test_controls_are_escaped_in_linear_time(shape: str) -> None:
    """A terminal is spared what a script wrote, whatever it wrote."""
    _refuse_growth(escape_controls, TEXTS[shape])


@pytest.mark.parametrize("shape", JSON)
def test_a_result_is_checked_in_linear_time(shape: str) -> None:
    """The supervisor scans what a child answers, and builds nothing of it."""
    _refuse_growth(json_fault, JSON[shape])


@pytest.mark.parametrize("kind", [b"R", b"E", b"I", b"P"])
@pytest.mark.parametrize("shape", JSON)
def test_a_frame_is_read_in_linear_time(shape: str, kind: bytes) -> None:
    """Results, errors and reports of progress alike."""

    def make(n: int) -> bytes:
        payload = JSON[shape](n)
        return kind + len(payload).to_bytes(HEADER_BYTES - 1, "big") + payload

    _refuse_growth(lambda frame: parse(frame, result_bytes=1 << 30), make)


@pytest.mark.parametrize("shape", BODIES)
def test_a_body_is_checked_in_linear_time(shape: str) -> None:
    """Small bodies are checked on the API's event loop."""
    _refuse_growth(_check, BODIES[shape])


SLOW_NUMBERS = (b"1e308", b"9E+307", b"1e-308", b"4e-324", b"1.5e300", b"-2.2250738585072011e-308", b"1e-0310")


@pytest.mark.parametrize("number", SLOW_NUMBERS)
def test_numbers_that_are_slow_to_read_are_not_read_on_the_event_loop(number: bytes) -> None:
    """ENG-05: msgspec reads each by a way that takes a hundred times as long; 128 KB of them kept the API for 0.3 s."""
    unit = number + b","
    body = _body_of(unit * ((INLINE_BYTES - 100) // len(unit)))
    assert not is_quick(body)
    assert is_quick(_body_of(unit * 50))
    assert is_quick(_body_of(b"1.5e10," * ((INLINE_BYTES - 100) // 7)))


# ---- no function that meets untrusted bytes is forgotten --------------------------------------------------------

SEARCHED = (
    "engine/api", "engine/service", "engine/worker", "engine/model", "engine/telemetry", "engine/queue", "engine/store",
    "sandbox/run", "sandbox/egress", "sandbox/pool",
)  # fmt: skip
"""What runs on an event loop or in the supervisor."""
READS = {
    "search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "loads", "urlsplit", "urlparse", "unquote",
    "parse_qsl", "ip_address", "ip_network", "fromisoformat", "b64decode", "unpack", "unpack_from", "normalize",
    "msgspec.json.decode", "msgspec.msgpack.decode", "msgspec.convert",
}  # fmt: skip
"""Calls by which a text is taken apart."""
BODY_READERS = tuple(
    f"engine/api/body/check.py:{name}"
    for name in ("_check", "_decode", "_every_fault", "_refuse_repeated_names", "_count_names")
)

NUMBER_READERS = tuple(
    f"sandbox/run/json_rule.py:{name}"
    for name in ("_NumberRule.fault", "_has_integer_beyond", "_NumberRule._learn", "_fault_of_doubles")
)
RESULT_READERS = ("engine/store/results.py:decode_result", "engine/store/results.py:_without_value")


def _frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(HEADER_BYTES - 1, "big") + payload


def _take_reports(written: bytes) -> None:
    reader, buffer = ProgressReader(lambda _: None), bytearray()
    for at in range(0, len(written), 1 << 16):  # as the pipe hands it over
        buffer += written[at : at + (1 << 16)]
        reader.take(buffer, at / 1e6)


def _rule_fault_of_numbers(data: bytes) -> object:
    return _rule_fault(data.replace(b'"', b""))


FED: dict[str, Callable[[bytes], object]] = {
    **dict.fromkeys(BODY_READERS, _check),
    **dict.fromkeys(NUMBER_READERS, _rule_fault_of_numbers),
    **dict.fromkeys(RESULT_READERS, functools.partial(decode_result, policy="p")),
    "engine/api/body/checker.py:is_quick": is_quick,
    "engine/api/routes/listing.py:_parse": lambda data: parse_filter(
        [("label", f"{number}:{data[:8].hex()}") for number in range(len(data) >> 6)]
    ),
    "engine/api/routes/listing.py:_cursor": lambda data: parse_filter([("cursor", data.decode("latin-1"))]),
    "engine/api/routes/listing.py:_ids": lambda data: parse_filter([("task_id", data.decode("latin-1"))]),
    "engine/api/routes/listing.py:_hashes": lambda data: parse_trail_filter(
        [("source_sha256", data.decode("latin-1"))]
    ),
    "engine/api/routes/listing.py:_plain": lambda data: parse_trail_filter([("key_id", data.decode("latin-1"))]),
    "engine/api/session.py:session_id_of": lambda data: session_id_of({"headers": [(b"cookie", data)]}),
    "engine/api/routes/listing.py:_time": lambda data: parse_filter([("created_after", data.decode("latin-1"))]),
    "engine/model/redact.py:redact": lambda data: redact(data.decode("latin-1")),
    "engine/telemetry/logs.py:escape_controls": lambda data: escape_controls(data.decode("latin-1")),
    "engine/queue/events.py:parse_event_id": lambda data: parse_event_id(data.decode("latin-1")),
    "engine/queue/queue.py:decode_entry": decode_entry,
    "sandbox/run/harvest.py:_name_fault": lambda data: _name_fault("x", data.decode("latin-1", "replace")),
    "sandbox/run/json_rule.py:json_fault": json_fault,
    "sandbox/run/json_rule.py:_has_lone_surrogate": _rule_fault,
    "sandbox/run/response.py:parse": lambda data: parse(_frame(b"R", data), result_bytes=1 << 30),
    "sandbox/run/response.py:_parse_error": lambda data: parse(_frame(b"E", data), result_bytes=1 << 30),
    "sandbox/run/response.py:ProgressReader.take": _take_reports,
    "sandbox/run/response.py:_end_of_report": lambda data: _take_reports(_frame(b"P", data[:100]) * (len(data) // 100)),
    "sandbox/run/response.py:_parse_progress": lambda data: _take_reports(
        b"".join(_frame(b"P", data[at : at + 2048]) for at in range(0, len(data), 2048))
    ),
    "sandbox/egress/chunks.py:ChunkDecoder._read_size": lambda data: ChunkDecoder().feed(memoryview(data)),
    "sandbox/egress/heads.py:is_hopeless": lambda data: is_hopeless(bytearray(data), 0),
    "sandbox/egress/heads.py:_parse_request": lambda data: parse_request(data + b"\r\n\r\n"),
    "sandbox/egress/heads.py:_parse_url": lambda data: parse_request(b"GET http://" + data + b" HTTP/1.1\r\n\r\n"),
    "sandbox/egress/heads.py:_parse_response": lambda data: parse_response(b"HTTP/1.1 200 " + data, "GET"),
    "sandbox/egress/heads.py:_split": lambda data: parse_request(b"GET http://a/ HTTP/1.1\r\n" + data),
    "sandbox/egress/heads.py:_parse_field": lambda data: parse_request(b"GET http://a/ HTTP/1.1\r\na:" + data),
    "sandbox/egress/heads.py:_framing": lambda data: parse_response(
        b"HTTP/1.1 200 OK\r\ncontent-length: " + data + b"\r\n\r\n", "GET"
    ),
    "sandbox/egress/hosts.py:parse_host": lambda data: parse_host(data.decode("latin-1")),
    "sandbox/egress/hosts.py:parse_port": lambda data: parse_port(data.decode("latin-1")),
    "sandbox/egress/greeting.py:check": lambda data: check_greeting(
        b"\x16\x03\x01" + min(len(data), 1 << 14).to_bytes(2, "big") + data, parse_host("a.example")
    ),
}
"""Function → how it is fed."""
CUT = {
    "engine/telemetry/logs.py:escape_controls": 1 << 16,
    "engine/model/redact.py:redact": 1 << 16,
    "sandbox/run/harvest.py:_name_fault": 1 << 15,
    **{
        f"sandbox/egress/heads.py:{name}": 1 << 18
        for name in (
            "is_hopeless",
            "_parse_request",
            "_parse_url",
            "_parse_response",
            "_split",
            "_parse_field",
            "_framing",
        )
    },
}
"""Function → bytes to feed it, more than ever reach it: what it reads is cut where it enters."""
SMALL = {
    "engine/api/routes/trail.py:_log_entry": "a line of our own audit log",
    "engine/api/routes/trail.py:list_tenants": "takes no text apart: the name of a method is that of a JSON reader",
    "engine/service/auditor.py:Auditor.loads": "takes no text apart: the name of a method is that of a JSON reader",
    "engine/store/trail.py:_denied": "what our own worker counted of a run, a few KiB",
    "engine/api/docs/answers.py:read_examples": "a file of our own",
    "engine/model/redact.py:redact_beginning": "what a log line keeps of a text, 2,048 characters",
    "engine/service/room.py:is_local": "the operator's setting",
    "engine/telemetry/audit.py:verify": "the operator's own audit log, in a command of its own",
    "engine/telemetry/audit.py:_head_of": "a line of our own audit log",
    "engine/telemetry/receipts.py:ReceiptSigner.__init__": "the operator's own settings",
    "engine/telemetry/receipts.py:_read": "a file that the operator names, in a command of its own",
    "engine/telemetry/receipts.py:read_public_keys": "a file that the operator names, in a command of its own",
    "engine/telemetry/receipts.py:_decode": "a file that the operator names, in a command of its own",
    "sandbox/run/child_handle.py:is_fatal": "the kernel's text, 4 KiB",
    "engine/api/app.py:_request_id": "one header field of a head, which has 32 KiB at most",
    "engine/api/app.py:_methods_at": "the path of a head, which has 32 KiB at most; patterns without a choice",
    "engine/api/app.py:_path_of": "our own routes, at import",
    "engine/api/body/check.py:_fingerprint": "in the checking process, which has a deadline",
    "engine/api/body/check.py:serve": "17 bytes of our own",
    "engine/api/body/checker.py:Process._exchange": "the answer of our own process",
    "engine/api/body/checker.py:Checker._check_apart": "the answer of our own process",
    "engine/api/routes/tasks.py:_idempotency_key": "one header field of a head; one class of characters",
    "engine/worker/callbacks.py:CallbackSender._traced_attempt": "a URL that was checked, 2,048 characters at most",
    "engine/worker/keeper.py:Keeper._beat": "what our own process says",
    "engine/worker/keeper.py:main": "what our own process says",
    "engine/worker/leases.py:Leases._keep_by_one": "what our own process says",
    "engine/model/versions.py:find_version": "our own file",
    "engine/telemetry/logs.py:_json_line": "a line of our own, whose fields are cut",
    "engine/queue/queue.py:require_version": "the version of the operator's own server",
    "engine/queue/events.py:EventWriter._hear": "36 characters of our own channel",
    "engine/queue/events.py:_read_entry": "an entry that our own worker wrote, of a size that it bounds",
    "engine/store/statements.py:_fill": "our own SQL, at import",
    "engine/store/statements.py:_number": "our own SQL, at import",
    "engine/store/workers.py:Workers.heartbeats": "rows that our own workers wrote",
    "sandbox/run/child_handle.py:ChildHandle.measure": "the kernel's text, 4 KiB",
    "sandbox/run/child_handle.py:measure_tree": "the kernel's text, a few KiB",
    "sandbox/egress/address.py:_rows": "our own table, at import",
    "sandbox/egress/address.py:_parse_exception": "the operator's setting",
    "sandbox/egress/lookup.py:Lookup._checked": "addresses that the resolver has made",
    "sandbox/pool/zygote_client.py:ZygoteClient._read_packet": "packets of our own zygote, 64 KiB at most",
}
"""Function → why nobody can hand it much."""


def _found() -> set[str]:
    """Every function under ``SEARCHED`` that takes a text apart by a call of ``READS``, or has the mark."""
    found: set[str] = set()
    for path, tree in (module for folder in SEARCHED for module in modules(folder)):
        _search(tree, f"{path.relative_to(ROOT)}:", found)
    return found


def _search(node: ast.AST, place: str, found: set[str]) -> None:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ClassDef):
            _search(inner, f"{place}{inner.name}.", found)
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            calls = [ast.unparse(call.func) for call in ast.walk(inner) if isinstance(call, ast.Call)]
            marks = [ast.unparse(mark) for mark in inner.decorator_list]
            if "meets_untrusted" in marks or any(_reads(call) for call in calls):
                found.add(place + inner.name)


def _reads(call: str) -> bool:
    return call in READS or call.rpartition(".")[2] in READS


def test_no_function_that_meets_untrusted_bytes_is_forgotten() -> None:
    """A new one is fed below, or says why nobody can hand it much."""
    assert set(FED) | set(SMALL) == _found()
    assert set() == set(FED) & set(SMALL)


ENTRIES = list({work: name for name, work in reversed(FED.items())}.values())
"""One function for each way in: what is fed by the same call reads the same bytes."""
SHAPES: dict[str, Callable[[int], bytes]] = {
    **{shape: lambda n, make=make: make(n).encode()[:n] for shape, make in TEXTS.items()},  # type: ignore[misc]
    **JSON,
    **BODIES,
    **BYTES_SHAPES,
}


@functools.cache
def _shape(shape: str, n: int) -> bytes:
    """A shape, made once for all functions: some take longer to make than to read."""
    return SHAPES[shape](n)


@pytest.mark.parametrize("name", ENTRIES)
def test_untrusted_bytes_cost_their_length(name: str) -> None:
    """A MiB of each shape, whatever the function is meant for."""
    size = CUT.get(name, BYTES)
    for shape in SHAPES:
        _refuse_growth(functools.partial(_feed, FED[name]), functools.partial(_shape, shape), size)


def _feed(work: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(Exception):  # that nothing else raises is for the tests of each parser
        work(data)
