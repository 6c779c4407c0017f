"""Output and progress are reported while a run lasts, and nobody trusts them."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from typing import Any

import msgspec
import pytest

from handlers import progress
from sandbox import ExitReason, Progress, Result
from sandbox.run import response
from tests.support.synchronous import Sandbox, request, value_of

FRAME = """
import os, struct
def frame(payload, kind=b'P'):
    return kind + struct.pack('>Q', len(payload)) + payload
"""


class Told:
    """The events of a run, in order."""

    def __init__(self) -> None:
        self.output: list[tuple[str, bytes]] = []
        self.progress: list[Progress] = []
        self.first_line = asyncio.Event()

    def on_output(self, stream: str, chunk: bytes) -> None:
        self.output.append((stream, chunk))
        if b"\n" in chunk:  # a line may come in parts
            self.first_line.set()

    def text(self, stream: str) -> bytes:
        return b"".join(chunk for name, chunk in self.output if name == stream)


def run(box: Sandbox, script: str, **limits: Any) -> tuple[Result, Told]:
    """A run with somebody who listens."""
    told = Told()

    async def listen() -> Result:
        in_force = msgspec.structs.replace(box.policy.limits, **limits)
        return await box.pool.run(
            request(script), limits=in_force, on_output=told.on_output, on_progress=told.progress.append
        )

    return box.do(listen()), told


def test_prints_are_told_while_the_run_goes_on(box: Sandbox) -> None:
    """The first line is there long before the run ends, which waits to be cancelled."""
    told, cancel = Told(), asyncio.Event()

    async def cancel_at_first_print() -> Result:
        script = "import time\nprint('begun')\ntime.sleep(60)"
        running = asyncio.ensure_future(box.pool.run(request(script), cancel=cancel, on_output=told.on_output))
        await told.first_line.wait()
        assert not running.done()
        cancel.set()
        return await running

    result = box.do(cancel_at_first_print())
    assert (ExitReason.CANCELLED, b"begun\n") == (result.exit_reason, told.text("stdout"))


def test_what_is_told_is_what_the_logs_keep(box: Sandbox) -> None:
    """Both streams, whole, also what comes at the very end; never more than output_kib."""
    script = "import sys\nfor n in range(2000):\n    print(n)\n    print('error', n, file=sys.stderr)"
    result, told = run(box, script)
    assert result.logs.stdout == told.text("stdout").decode()
    assert result.logs.stderr == told.text("stderr").decode()
    result, told = run(box, "print('x' * 100_000)", output_kib=3)
    assert (ExitReason.OUTPUT_LIMIT, 3072) == (result.exit_reason, len(told.text("stdout")))


def test_progress_of_a_script_is_told(box: Sandbox) -> None:
    """Fractions and messages, in order; odd values are corrected, long messages cut."""
    script = """
report_progress(0.25, "a quarter")
report_progress(message="\\x1b[2J é \\ud83d")
report_progress(7, "x" * 1000)
report_progress(float("nan"))
result = 1
"""
    result, told = run(box, script)
    assert ("ok", 1) == (result.exit_reason, value_of(result))
    assert [
        Progress(0.25, "a quarter"),
        Progress(None, "\x1b[2J é \ufffd"),
        Progress(1.0, "x" * 200),
        Progress(None, None),
    ] == told.progress


def test_progress_beside_other_threads_never_breaks_the_answer(box: Sandbox) -> None:
    """Threads that go on reporting while the answer is written do not get between its bytes."""
    script = """
import threading
def work():
    while True:
        report_progress(0.5, "x" * 200)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
result = "y" * 3_000_000
"""
    result, _ = run(box, script)
    assert (ExitReason.OK, 3_000_000) == (result.exit_reason, len(value_of(result)))


def test_a_flood_of_reports_is_dropped_and_holds_nobody_up(box: Sandbox) -> None:
    """A script that writes frames as fast as it can waits for us; the result is its own as before, and few are told."""
    script = f"""{FRAME}
import time
until, report = time.monotonic() + 1, frame(b'{{"fraction":0.5}}') * 150
while time.monotonic() < until:
    os.write(3, report)
result = 1
"""
    cpu_s = time.process_time()
    result, told = run(box, script)
    assert ("ok", 1) == (result.exit_reason, value_of(result))
    assert response.REPORTS_AT_ONCE <= len(told.progress) <= 60 * response.REPORTS_S
    assert time.process_time() - cpu_s < result.usage.wall_s / 2


@pytest.mark.parametrize(
    "written",
    [
        "frame(b'x' * 3000)",
        "frame(b'not json')",
        "frame(b'{\"fraction\":2}')",
        'frame(b\'{"fraction":"0.5"}\')',
        'frame(b\'{"message":"\' + b"x" * 201 + b\'"}\')',
        'frame(b\'{"fraction":0.5,"more":1}\')',
        "frame(b'\\xff\\xfe')",
        "b'P' + b'\\xff' * 8",
        "b'P\\0\\0'",
        "frame(b'[' * 2000)",
    ],
)
def test_a_forged_report_is_an_invalid_result(box: Sandbox, written: str) -> None:
    """As every other frame that is not what it must be; nothing of it is told."""
    result, told = run(box, f"{FRAME}\nos.write(3, {written})\nresult = 1")
    assert (ExitReason.INVALID_RESULT, None, []) == (result.exit_reason, result.value, told.progress)


def test_reports_without_a_response_are_no_result(box: Sandbox) -> None:
    """They are not the answer."""
    result, told = run(box, "import os\nreport_progress(0.5)\nos._exit(0)")
    assert (ExitReason.NO_RESULT, [Progress(0.5, None)]) == (result.exit_reason, told.progress)


def test_work_that_is_gone_through_is_reported_until_the_answer() -> None:
    """One report after each thing of a list; none once the answer is to be written."""
    told: list[bytes] = []
    reporter = progress.Reporter(told.append)
    progress.use(reporter)
    assert ["a", "b"] == list(progress.through(["a", "b"], 2, "texts"))
    assert [{"fraction": 0.5, "message": "1 of 2 texts"}, {"fraction": 1.0, "message": "2 of 2 texts"}] == [
        json.loads(report) for report in told
    ]
    reporter.close()
    reporter.report(0.1)
    assert 2 == len(told)


def test_a_million_reports_are_held_back_where_they_are_made(box: Sandbox) -> None:
    """A loop may report after each row: few are written, and it takes about as long as without."""
    result, told = run(box, "for n in range(1_000_000):\n    report_progress(n / 1e6)\nresult = 1")
    assert ("ok", 1) == (result.exit_reason, value_of(result))
    assert 10 <= len(told.progress) <= 10 + result.usage.wall_s * response.REPORTS_S + 1


def reader_and_told() -> tuple[response.ProgressReader, list[Progress]]:
    told: list[Progress] = []
    return response.ProgressReader(told.append), told


def test_frames_that_arrive_in_pieces_are_put_together() -> None:
    """Byte by byte, then the response, of which nothing is taken."""
    reader, told = reader_and_told()
    payload = b'{"fraction":0.5,"message":"half"}'
    whole = b"P" + struct.pack(">Q", len(payload)) + payload
    answer = b"R" + struct.pack(">Q", 1) + b"1" + whole
    written = bytearray()
    for byte in whole * 2 + answer:
        written.append(byte)
        reader.take(written, 1.0)
    assert ([Progress(0.5, "half")] * 2, answer) == (told, bytes(written))


def test_no_more_than_the_limit_is_told_in_all() -> None:
    """However slowly they come."""
    reader, told = reader_and_told()
    report = b"P" + struct.pack(">Q", 2) + b"{}"
    dropped = [reader.take(bytearray(report), second) for second in map(float, range(1, response.MAX_REPORTS + 11))]
    assert ([False] * response.MAX_REPORTS + [True] * 10, response.MAX_REPORTS) == (dropped, len(told))
