"""A million rows of statistics, through the whole service and within one process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.config.settings import PROJECT_DIR
from engine.dev.bench import service as bench_service
from engine.dev.demo import own_service

ROWS = 1_000_000
SAMPLES = 5
_OUR_HANDLER = """
import sys, time, msgspec
from handlers.data import data_processing
from handlers.parameters.registry import Request
data_processing.rehearse()
text = open(sys.argv[1], "rb").read()
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    data_processing.run(Request(task_type="data_processing", parameters=msgspec.Raw(text)))
    print(time.perf_counter() - started)
"""
_BY_HAND = """
import json, sys, time, duckdb, pandas
text = open(sys.argv[1], "rb").read()
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    data = pandas.DataFrame(json.loads(text)["data"])
    duckdb.sql("SUMMARIZE data").fetchall()
    print(time.perf_counter() - started)
"""


class MillionRowTimes(NamedTuple):
    """Seconds of each sample."""

    service: list[float]
    handler: list[float]
    """The same handler on the same text, in a process of its own without a sandbox."""
    by_hand: list[float]
    """``json.loads``, a DataFrame, DuckDB's SUMMARIZE: what somebody would write."""


async def measure(say: Callable[[str], None]) -> MillionRowTimes:
    """All three.

    Raises:
        RuntimeError: a task did not end well.
    """
    rows = [{"value": number * 0.5, "group": number % 10, "flag": number % 7} for number in range(ROWS)]
    parameters = msgspec.json.encode({"operation": "statistics", "data": rows})
    del rows
    with tempfile.NamedTemporaryFile() as file:
        file.write(parameters)
        file.flush()
        say(f"statistics over {ROWS:,} rows, in process")
        handler, by_hand = (_in_process(program, file.name) for program in (_OUR_HANDLER, _BY_HAND))
    say(f"statistics over {ROWS:,} rows, through the service")
    body = b'{"task_type":"data_processing","parameters":' + parameters + b"}"
    with own_service() as url:
        await bench_service.post(url, body, 1, 1)  # what is slow only once
        load = await bench_service.post(url, body, 1, SAMPLES)
    return MillionRowTimes(load.seconds, handler, by_hand)


def _in_process(program: str, path: str) -> list[float]:
    command = [sys.executable, "-c", program, path, str(SAMPLES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(PROJECT_DIR))  # noqa: S603 ours
    return list(map(float, done.stdout.split()))
