"""Reads what a child writes, as untrusted bytes: their framing, size and JSON (``json_rule``), never their meaning.

Reports of progress may come first, each a frame of its own; then one response.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sandbox.inside.child import MAX_PROGRESS_BYTES, PROGRESS
from sandbox.result import OnProgress, Progress, RunError
from sandbox.run.json_rule import json_fault
from sandbox.untrusted import meets_untrusted

MAX_ERROR_BYTES = 256 << 10
MAX_NAME_CHARACTERS = 200
"""Of an error's type and code."""
HEADER_BYTES = 9
MAX_REPORTS = 1000
"""Of progress, of one run; further ones are dropped."""
REPORTS_S = 10.0
"""Reports that are taken in a second; faster ones are dropped."""
REPORTS_AT_ONCE = 20

_KINDS: dict[bytes, Literal["result", "error", "invalid"]] = {b"R": "result", b"E": "error", b"I": "invalid"}


class Response(msgspec.Struct, frozen=True):
    """One whole frame. ``fault`` says why it is invalid."""

    kind: Literal["result", "error", "invalid"]
    value: msgspec.Raw | None = None
    error: RunError | None = None
    fault: str | None = None


class EndReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A report that the work is over, and what its end still waits for. Its own words, like progress."""

    waits_for: Annotated[tuple[Annotated[str, Meta(max_length=40)], ...], Meta(min_length=1, max_length=8)]


class ProgressReader:
    """Takes reports of progress off the front of what one child writes, until its response begins.

    Attributes:
        waits_for: what the end of the run still waited for when it last said so.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._left = MAX_REPORTS
        self._allowance = float(REPORTS_AT_ONCE)
        self._last_s = 0.0
        self.waits_for: tuple[str, ...] = ()

    @meets_untrusted
    def take(self, written: bytearray, now_s: float) -> bool:
        """Take off all whole reports, and pass on those that are within the limits.

        What is no report stays at the front, for ``parse`` to refuse as a response.

        Args:
            written: what has come so far and was not taken off; begins with a frame.
            now_s: of a clock that never goes back.
        Returns:
            Whether some were dropped, because the child writes them faster than it may.
        """
        start, dropped = 0, False
        while (end := _end_of_report(written, start)) is not None:
            if self._take_report_allowance(now_s):
                report = _parse_progress(bytes(written[start + HEADER_BYTES : end]))
                if report is None:
                    break
                if isinstance(report, EndReport):
                    self.waits_for = report.waits_for
                else:
                    self._on_progress(report)
            else:
                dropped = True
            start = end
        del written[:start]
        return dropped

    def _take_report_allowance(self, now_s: float) -> bool:
        """Take one report off what the run may still send; ``False`` if nothing is left of it at this moment."""
        self._allowance = min(self._allowance + (now_s - self._last_s) * REPORTS_S, REPORTS_AT_ONCE)
        self._last_s = now_s
        if self._left == 0 or self._allowance < 1:
            return False
        self._left -= 1
        self._allowance -= 1
        return True


def _end_of_report(written: bytearray, start: int) -> int | None:
    """Where the report ends that begins at ``start``, ``None`` when no whole one is there."""
    if len(written) - start < HEADER_BYTES or written[start : start + 1] != PROGRESS:
        return None
    (length,) = struct.unpack_from(">Q", written, start + 1)
    end: int = start + HEADER_BYTES + length
    return end if length <= MAX_PROGRESS_BYTES and end <= len(written) else None


def _parse_progress(payload: bytes) -> Progress | EndReport | None:
    kind: type[Progress | EndReport] = EndReport if payload.startswith(b'{"waits_for":') else Progress
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


@meets_untrusted
def parse(frame: bytes, *, result_bytes: int) -> Response | None:
    """Read what a child wrote to its response pipe.

    Args:
        frame: all of it but the reports of progress; see ``sandbox.inside.child.KINDS`` for the form.
        result_bytes: the largest result that the policy accepts.
    Returns:
        ``None`` when nothing was written.
    """
    if not frame:
        return None
    kind = _KINDS.get(frame[:1])
    if kind is None or len(frame) < HEADER_BYTES:
        name = "a report of progress" if frame[:1] == PROGRESS else "the response"
        return Response("invalid", fault=f"{name} is not one valid frame")
    (length,) = struct.unpack_from(">Q", frame, 1)
    payload = frame[HEADER_BYTES:]
    if length > result_bytes and kind == "result":
        return Response("invalid", fault=f"the result has {length} bytes, more than result_kib allows ({result_bytes})")
    if len(payload) != length:
        return Response("invalid", fault=f"the response announced {length} bytes and brought {len(payload)}")
    if kind == "result":
        fault = json_fault(payload)
        return Response("invalid", fault=fault) if fault else Response(kind, value=msgspec.Raw(payload))
    return _parse_error(kind, payload)


def _parse_error(kind: Literal["error", "invalid"], payload: bytes) -> Response:
    if len(payload) > MAX_ERROR_BYTES:
        return Response("invalid", fault=f"the error has {len(payload)} bytes, more than {MAX_ERROR_BYTES}")
    try:
        error = msgspec.json.decode(payload, type=RunError)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        return Response("invalid", fault=f"the error is invalid: {fault}")
    error = msgspec.structs.replace(error, type=_cut(error.type), code=error.code and _cut(error.code))
    return Response(kind, error=error, fault=error.message if kind == "invalid" else None)


def _cut(name: str) -> str:
    """A name that a child gives, cut where it enters: it goes into log lines, metrics and messages."""
    return name if len(name) <= MAX_NAME_CHARACTERS else f"{name[:MAX_NAME_CHARACTERS]}… ({len(name)} characters)"
