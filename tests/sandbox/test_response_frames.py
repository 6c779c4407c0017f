"""The only parser of untrusted bytes in the worker: it never raises, and takes nothing that is not JSON."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox.run import json_rule, response
from tests.support.synchronous import growth

RESULT_BYTES = 1 << 16
QUICK = settings(max_examples=200, deadline=None)


def frame(payload: bytes, kind: bytes = b"R") -> bytes:
    """As ``sandbox.inside.child`` writes it."""
    return kind + struct.pack(">Q", len(payload)) + payload


def parse(text: bytes) -> response.Response | None:
    """With one limit for all tests."""
    return response.parse(text, result_bytes=RESULT_BYTES)


ODD = re.compile(r"-?(?:[0-9]{2,}(?:\.[0-9]+)?[eE]\+?[0-9]{3,}|[0-9.]+[eE]\+?(?:[0-9]{4,}|309|3[1-9].|[4-9]..))")
"""Large numbers in a form that no writer gives them: more than one digit before the point, or an exponent that is no
double's. All readers read them alike; the rule refuses them all the same, so that it need not read each."""


def is_strict_json(payload: bytes) -> bool:
    """The reference: Python's own parser, made as strict as RFC 8259 and the JSON rule of the handlers."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def integer(digits: str) -> int:
        if abs(int(digits)) > 2**53 - 1:
            raise ValueError(digits)
        return int(digits)

    def number(text: str) -> float:
        if not math.isfinite(float(text)) or ODD.fullmatch(text):
            raise ValueError(text)
        return float(text)

    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=refuse, parse_int=integer, parse_float=number)
        json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
    except (ValueError, RecursionError):
        return False
    return not payload.startswith(b"\xef\xbb\xbf")


def depth(value: Any) -> int:
    """Levels of arrays and objects."""
    if isinstance(value, dict):
        return 1 + max((depth(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(one) for one in value), default=0)
    return 0


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)

NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?\Z").map(str.encode)
ESCAPES = st.lists(
    st.sampled_from([r"\ud83d", r"\ude00", r"\uDBFF", r"\uDFFF", r"\\", r"\"", r"\u0041", "a", "ud800"]), max_size=8
).map(lambda parts: f'"{"".join(parts)}"'.encode())
ALMOST_JSON = st.text('[]{}",:\\ \n01eE.-tfnul', max_size=40).map(str.encode)


def test_nothing_is_none() -> None:
    """No byte, no response."""
    assert parse(b"") is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (frame(b'{"a":1}'), "result"),
        (frame(b'{"type":"T","message":"m"}', b"E"), "error"),
        (frame(b'{"type":"T","message":"m"}', b"I"), "invalid"),
    ],
)
def test_each_sort_is_read(text: bytes, kind: str) -> None:
    """Result, error, and a result without a JSON form."""
    parsed = parse(text)
    assert parsed is not None
    assert kind == parsed.kind


@pytest.mark.parametrize(
    "text",
    [
b"R", b"X" + bytes(8), frame(b"1") + b"x", frame(b"1")[:-1], frame(b"1") * 2, frame(b""), frame(b"NaN"),
        frame(b"Infinity"), frame(b"01"), frame(b"1."), frame(b"'a'"), frame(b'"\x00"'), frame(b'"\\x"'),
        frame(b"[1,]"), frame(b"{1:2}"), frame(b'{"a":1,}'), frame(b"tru"), frame(b"\xef\xbb\xbf1"),
        frame(b'"\xed\xa0\x80"'), frame(b"[" * 100), frame(b"1 // x"), frame(b"\xff"), frame(b"[}"), frame(b'"'),
        frame(b"-"), frame(b"1e"), frame(b"1" * (RESULT_BYTES + 1)), frame(b"{}", b"E"), frame(b"[]", b"E"),
        b"R" + b"\xff" * 8 + b"1", frame(b'{"type":1,"message":"m"}', b"E"), frame(b" " * (300 << 10), b"E"),
        frame(b"1e999"), frame(b"[-1E+400]"), frame(b"-1.7976931348623159e+308"), frame(b"15e300"), frame(b"1e0010"),
        frame(b"0.1e309"), frame(b"2" * 309 + b".0"), frame(b"[1" + b"0" * 210 + b"e99]"),
        frame(b"1" * 5000), frame(b"0." + b"1" * 5000),
        frame(b"9007199254740992"), frame(rb'"\ud800"'), frame(rb'{"\udc00\ud800":1}'),
        frame(rb'{"type":"T","message":"\ud800"}', b"E"),
    ],
    ids=lambda text: ascii(text[:1] + text[9:24]),
)  # fmt: skip
def test_what_is_not_right_is_invalid_with_a_reason(text: bytes) -> None:
    """Never an exception, never a result."""
    parsed = parse(text)
    assert parsed is not None
    assert ("invalid", None) == (parsed.kind, parsed.value)
    assert parsed.fault


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_raising(text: bytes) -> None:
    """Whatever a child writes."""
    parsed = parse(text)
    assert parsed is None or parsed.kind in ("result", "error", "invalid")


@QUICK
@given(st.sampled_from([b"R", b"E", b"I"]), st.binary(max_size=200) | ALMOST_JSON)
def test_any_payload_that_is_taken_is_json(kind: bytes, payload: bytes) -> None:
    """Python's own strict parser accepts every result that passes."""
    parsed = parse(frame(payload, kind))
    assert parsed is not None
    if parsed.kind == "result":
        assert is_strict_json(payload)
        assert payload == bytes(parsed.value or b"")


@settings(max_examples=1000, deadline=None)
@given(st.lists(NUMBERS | ESCAPES, min_size=1, max_size=6))
def test_numbers_and_escapes_agree_with_the_reference(items: list[bytes]) -> None:
    """Exactly those are taken that every reader can read and write again: no silent infinity, no half a surrogate."""
    payload = b"[" + b",".join(items) + b"]"
    parsed = parse(frame(payload))
    assert parsed is not None
    assert is_strict_json(payload) == (parsed.kind == "result")


@QUICK
@given(
    st.lists(
        st.builds("{}{}e{}{}".format, st.sampled_from(["", "-"]),
                  st.sampled_from(["1", "2", "9", "1.7", "1.8", "1.79", "1.797693134862315", "1.7976931348623157",
                                   "1.7976931348623158", "1.79769313486231580793", "1.79769313486231580794", "1.0"]),
                  st.sampled_from(["", "+"]), st.integers(290, 310)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_the_largest_numbers_agree_with_the_reference(numbers: list[str]) -> None:
    """What a double holds, to the last bit, is told from what it does not hold."""
    payload = f"[{','.join(numbers)}]".encode()
    parsed = parse(frame(payload))
    assert parsed is not None
    assert is_strict_json(payload) == (parsed.kind == "result")


@pytest.mark.parametrize("inside", [b"9007199254740992", b"1e400", b'"\\ud800"', b"[" * 64 + b"]" * 64])
def test_what_lies_on_a_seam_is_seen(inside: bytes) -> None:
    """A payload is read in slices of ``_SLICE_BYTES``; what is cut by their ends is found wherever it lies."""
    for shift in range(-len(inside) - 1, 2):
        padding = json_rule._SLICE_BYTES + shift - 4
        for filler in (b'["' + b"x" * padding + b'",', b"[" + b"1," * (padding // 2) + b" " * (padding % 2)):
            assert json_rule.json_fault(filler + inside + b"]") is not None
            assert json_rule.json_fault(filler + b"1]") is None


@QUICK
@given(VALUES, st.booleans())
def test_all_json_is_taken_as_it_is(value: Any, ascii_only: bool) -> None:
    """Nothing that is JSON, and not too deep, is refused or changed."""
    payload = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")
    parsed = parse(frame(payload))
    assert parsed is not None
    assert ("result", payload) == (parsed.kind, bytes(parsed.value or b""))


@QUICK
@example({"": []}, 63, False)
@given(VALUES, st.integers(0, 140), st.booleans())
def test_depth_agrees_with_the_reference(value: Any, levels: int, objects: bool) -> None:
    """Taken up to the last level, refused from the next on; brackets within strings do not count."""
    for _ in range(levels):
        value = {'[{"\\': value} if objects else [value, "]]]"]
    payload = json.dumps(value).encode()
    parsed = parse(frame(payload))
    assert parsed is not None
    assert (depth(value) > json_rule.MAX_DEPTH) == (parsed.kind == "invalid")


@pytest.mark.parametrize(
    "payload",
    [
        lambda size: b"[" * 65 + b'"' + b'\\"' * size,
        lambda size: b'"' * (2 * size) + b"[" * 65,
        lambda size: b"[" * 65 + b"\\" * (2 * size),
        lambda size: (b"[" * 64 + b"]" * 64) * (size // 10),
        lambda size: b'["' * size,
        lambda size: b"[" * 65 + b'"\\' * size,
    ],
    ids=["escaped quotes", "quotes", "backslashes", "mountains", "open strings", "quote and backslash"],
)
def test_no_payload_holds_the_worker_up(payload: Callable[[int], bytes]) -> None:
    """It is a few passes long, for all else in the worker waits meanwhile: sixteen times the bytes, about that much
    more work, where a scan for each byte would be 256 times as much."""
    payloads = {size: payload(size) for size in (4_000, 64_000)}
    assert all(json_rule.json_fault(one) is not None for one in payloads.values())
    assert growth(lambda size: json_rule.json_fault(payloads[size]), small=4_000, large=64_000) < 64
