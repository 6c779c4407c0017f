"""What differs between a plain run and a run by the service.

Where each lies, and how each tells its end, is made alike here and nowhere else.
"""

from __future__ import annotations

import difflib
import json
import re
import signal
from typing import Any

import msgspec

from tests.differential.corpus import Aspect, Script
from tests.differential.plain import UNTOLD, PlainRun

_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
_THREAD = re.compile(r"\bstarted (?:daemon )?[0-9]{10,}\b")
_SHOWN_CHARACTERS = 20_000
_TEMPORARY = re.compile(r"\btmp[a-z0-9_]{8}\b")
_FORGOTTEN = re.compile(r"(Did you forget to import '\w+')\?")
"""Python 3.12 itself has the question mark at its end, and its module ``traceback`` has not."""
_TOOK = re.compile(r"(?m)^(Ran \d+ tests? in )\d+\.\d{3}s$")


class ServedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a script did in the service."""

    task: dict[str, Any]
    artifacts: dict[str, bytes]


def find_differences(script: Script, plain: PlainRun, served: ServedRun) -> dict[Aspect, str]:
    """Aspect → both sides, in words; only those that differ."""
    task = served.task
    pairs: dict[Aspect, tuple[object, object]] = {
        "end": (end_of_plain(plain), end_of_task(task)),
        "stdout": (normalise_plain(plain.stdout, plain), normalise_served(task["logs"]["stdout"])),
        "stderr": (normalise_plain(plain.stderr, plain), normalise_served(stderr_of(task))),
        "artifacts": (plain.artifacts, served.artifacts),
        "violations": ([], [violation["syscall"] for violation in task["violations"]]),
    }
    if plain.result != UNTOLD:
        expected_result = None if plain.code else plain.result  # a task that failed has none
        pairs["result"] = (json.dumps(expected_result, sort_keys=True), json.dumps(task["result"], sort_keys=True))
    return {aspect: in_words(expected, got) for aspect, (expected, got) in pairs.items() if expected != got}


def in_words(plain: object, served: object) -> str:
    """Both sides: lines with ``-`` are of the plain run, lines with ``+`` of the service's."""
    expected, got = (str(side)[:_SHOWN_CHARACTERS].splitlines() for side in (plain, served))
    return "\n".join(list(difflib.unified_diff(expected, got, lineterm=""))[2:])


def end_of_plain(plain: PlainRun) -> str:
    """The word that the service has for it."""
    if plain.code < 0:
        return f"signaled {signal.Signals(-plain.code).name}"
    return f"exit code {plain.code}" if plain.code else "ok"


def end_of_task(task: dict[str, Any]) -> str:
    """In the same words. An uncaught exception is exit code 1, as of Python."""
    reason = task["exit_reason"]
    if reason == "signaled":
        return f"signaled {task['signal']}"
    if reason in ("error", "nonzero_exit"):
        return f"exit code {task['exit_code']}"
    return str(reason)


def stderr_of(task: dict[str, Any]) -> str:
    """The logs, and the traceback where it stands only in ``error``: a person reads both."""
    logged, traceback = task["logs"]["stderr"], (task["error"] or {}).get("traceback") or ""
    return logged if traceback.strip() in logged else logged + traceback


def normalise_plain(text: str, plain: PlainRun) -> str:
    """Say of every place what it is called in the service."""
    for place, name in (
        (plain.packages, "/python/site-packages"),
        (plain.library, "/python/lib/python"),
        (plain.executable, "/python/bin/python3"),
        (plain.folder, "/work"),
    ):
        text = text.replace(place, name)
    return _normalise(text)


def normalise_served(text: str) -> str:
    """Of the service's own places, the folder of the standard library has a version in its name."""
    return _normalise(re.sub(r"/python/lib/python3\.\d+", "/python/lib/python", text))


def _normalise(text: str) -> str:
    text = text.replace("/work/script.py", "script.py")
    text = _FORGOTTEN.sub(r"\1", _TOOK.sub(r"\1…s", text))
    return _TEMPORARY.sub("tmp…", _ADDRESS.sub("0x…", _THREAD.sub("started …", text)))


def what_is_wrong(served: ServedRun, right: dict[str, object]) -> list[str]:
    """What of ``right`` does not hold."""
    task = served.task
    places = {
        "stdout": task["logs"]["stdout"],
        "stderr": task["logs"]["stderr"],
        "traceback": (task["error"] or {}).get("traceback"),
        "artifacts": {name: content.decode(errors="replace") for name, content in served.artifacts.items()},
        "artifact_sizes": {name: len(content) for name, content in served.artifacts.items()},
    }
    found = []
    for name, expected in right.items():
        field = name.removesuffix("_contains")
        got = places.get(field, task.get(field))
        holds = (
            json.dumps(got) == json.dumps(expected)
            if field == name
            else all(str(text) in (got or "") for text in _as_list(expected))
        )
        if not holds:
            found.append(f"{name} is {got!r}, not {expected!r}")
    return found


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
