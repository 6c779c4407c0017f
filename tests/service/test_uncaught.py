"""The last lines of a process that dies: logs, too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.stack import ROOT


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        ("raise ValueError('redis://u:hunter2@h\\n{\"forged\": 1}')", "exception that nobody caught"),
        ("threading.Thread(target=lambda: 1 / 0).start()", "exception that nobody caught"),
        ("warnings.warn('one\\ntwo')", "UserWarning"),
        ("loop = asyncio.new_event_loop(); loop.call_soon(lambda: 1 / 0); loop.run_until_complete(asyncio.sleep(0))",
         "Exception in callback"),
    ],
)  # fmt: skip
def test_what_nobody_catches_is_one_line_too(fault: str, event: str) -> None:
    """The log of a process that died is JSON to the end, without its passwords."""
    program = (
        "import asyncio, threading, warnings\n"
        "from engine.telemetry.logs import configure_logs, log_uncaught\n"
        "configure_logs(level='INFO', log_format='json')\n"
        f"log_uncaught()\n{fault}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert event in line["event"]
    assert "hunter2" not in done.stderr
