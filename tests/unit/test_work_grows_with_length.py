"""Untrusted bytes never cost more than their length: four times as much takes about four times as long.

The measure is this process's CPU time, of the best of several tries, so that a busy machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.api.body.check import check
from engine.model.errors import InvalidRequestError
from engine.model.redact import redact
from engine.telemetry.logs import escape_controls
from sandbox.run.json_rule import json_fault
from sandbox.run.response import HEADER_BYTES, parse

BYTES = 1 << 18
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


def _cpu_s(work: Callable[[Any], object], given: Any) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        work(given)
        best = min(best, time.process_time() - start)
    return best


def _refuse_growth(work: Callable[[Any], object], make: Callable[[int], Any]) -> None:
    once = _cpu_s(work, make(BYTES // 4))
    four_times = _cpu_s(work, make(BYTES))
    assert four_times < NOTHING_S or four_times < GROWTH * once, f"{once:.3f} s became {four_times:.3f} s"


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
