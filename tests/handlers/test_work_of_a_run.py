"""What ``handlers.entry.main`` adds to a script that leaves nothing open, counted in calls and not by a clock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])
from handlers import custom_script, ending, entry, streams

request = sys.stdin.buffer.read()
streams.IN_SANDBOX = ending.IN_SANDBOX = True  # the heap that is there before is frozen there, and not looked at
entry.find_hook("rehearse", "custom_script")()
calls, before = 0, set(sys.modules)
custom_script._set_profile = lambda _: None  # it would end the counting where the script ends

def count(frame, event, what):
    global calls
    calls += event in ("call", "c_call")

answer = os.dup(1)
sys.setprofile(count)
kind, payload = entry.main(request)
sys.setprofile(None)
report = {"kind": kind, "calls": calls, "imported": sorted(set(sys.modules) - before - {"__main__"})}
os.write(answer, b"\\n" + json.dumps(report).encode())
"""
GUARDED = "def main():\n    print('a', 1)\n\nif __name__ == '__main__':\n    main()\n"
SCRIPTS = {
    "result": ("result = 1", 275),
    "print": ("print('a', 1)", 290),
    "main": ("def main(args):\n    return 1", 290),
    "guarded": (GUARDED, 860),
}
"""Script, and the calls that it may take at most: a fifth more than it took when this was written."""


@pytest.mark.parametrize(("script", "most"), SCRIPTS.values(), ids=SCRIPTS)
def test_an_ordinary_script_costs_few_calls_and_no_import(tmp_path: Path, script: str, most: int) -> None:
    """Who leaves no thread, no exit function and no file open pays for looking, and for nothing else."""
    report = _count(tmp_path, script)
    assert {"kind": "result", "imported": []} == {name: report[name] for name in ("kind", "imported")}
    assert report["calls"] <= most


def test_an_open_file_is_work(tmp_path: Path) -> None:
    """The count sees what it is there to see."""
    idle, busy = (_count(tmp_path, script)["calls"] for script in ("result = 1", "kept = open('a.txt', 'w')"))
    assert busy > 2 * idle


def _count(folder: Path, script: str) -> dict[str, Any]:
    request = json.dumps({"task_type": "custom_script", "parameters": {"script": script}})
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, str(ROOT), packages],
        input=request.encode(), cwd=folder, capture_output=True, check=True,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report
