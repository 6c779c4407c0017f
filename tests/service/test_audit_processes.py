"""The audit log of a service is written by several processes at the same time, and is one chain."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from engine.telemetry.audit import verify
from tests.unit.test_audit_chain import lines, write


def test_log_of_many_processes_is_one_chain(tmp_path: Path) -> None:
    """Six that write at the same time: numbers without a hole, and each names the line before it."""
    path = tmp_path / "audit.log"
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=write, args=(path, 40, str(number))) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = verify([path])
    assert (240, ()) == (found.lines, found.faults)
    assert list(range(1, 241)) == [json.loads(line)["number"] for line in lines(path)]
