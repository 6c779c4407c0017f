"""Runs modules of CPython's own tests (``Lib/test``) as scripts: by plain Python, and in the service.

What fails, is skipped or does not run in the service alone is a difference; ``cpython.toml`` has those that are
expected, by test id and by where the test failed. Tests that want more than a computer (the network, a display, hours)
are left out on both sides, as ``python -m test`` leaves them out (``test.support.use_resources``).
"""

from __future__ import annotations

import fnmatch
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from tests.differential.compare import ServedRun
from tests.differential.corpus import Script
from tests.differential.plain import UNTOLD, PlainRun

FOLDER = Path(__file__).resolve().parent
_SCRIPT = """
import io, signal, traceback, unittest
from test import support

LIMIT_S = LIMIT

support.use_resources = ["cpu", "decimal", "subprocess"]

class Told(unittest.TextTestResult):
    def __init__(self, *given):
        super().__init__(*given)
        self.told, self.ran, self.waiting = {}, {}, set()
    def startTest(self, test):
        if LIMIT_S:
            signal.signal(signal.SIGALRM, lambda *_: self.end_waiting(test))
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S / 10 if type(test) in self.waiting else LIMIT_S)
        super().startTest(test)
        name = test.id().rpartition(".")[0]
        self.ran[name] = self.ran.get(name, 0) + 1
    def end_waiting(self, test):
        self.waiting.add(type(test))
        raise TimeoutError("waited without end")
    def stopTest(self, test):
        super().stopTest(test)
        if LIMIT_S:
            signal.setitimer(signal.ITIMER_REAL, 0)
    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.told.setdefault(test.id().split(" (")[0], "skipped: " + reason)

def place(text):
    lines = text.strip().splitlines()
    frames = [n for n, line in enumerate(lines) if line.startswith("  File ")]
    frame = lines[frames[-1]].rpartition(", in ")[2] + ": " + lines[frames[-1] + 1].strip() if frames else ""
    return (lines[-1][:200] + " | " + frame[:200]).replace("\\n", " ")

try:
    suite = unittest.defaultTestLoader.loadTestsFromName("test.test_MODULE")
    end = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0, resultclass=Told).run(suite)
    for test, text in end.failures + end.errors:
        name = test.id() if "setUp" in test.id() or "tearDown" in test.id() else test.id().split(" (")[0]
        end.told.setdefault(name, place(text))
    for test in end.unexpectedSuccesses:
        end.told.setdefault(test.id(), "unexpected success")
    result = {"ran": end.ran, "told": end.told}
except unittest.SkipTest as reason:
    result = {"ran": {}, "told": {"test.test_MODULE": "skipped: " + str(reason)}}
except Exception:
    result = {"ran": {}, "told": {"test.test_MODULE": place(traceback.format_exc())}}
"""

_WAITING = ("logging", "thread", "xmlrpc")
"""Modules of which some tests wait without end for a thread of their own, which does what no policy grants and dies. In
these no test waits longer than ``_LONGEST_WAIT_S``, and a class of which one has waited so long a tenth of it."""
_LONGEST_WAIT_S = 20


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the table: these tests differ, where they fail so."""

    tests: list[str]
    """Patterns of test ids, as of a shell."""
    error: str = "*"
    """A pattern of ``last line of the traceback | function: line where it was raised``."""
    reason: str
    policy: str = ""

    def matches(self, test: str, error: str) -> bool:
        """Whether it speaks of this difference."""
        return fnmatch.fnmatchcase(error, self.error) and any(fnmatch.fnmatchcase(test, one) for one in self.tests)


class CpythonTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which modules, and what is expected to differ."""

    quick: list[str]
    modules: list[str]
    expected: list[Expected]


def load_table() -> CpythonTable:
    """The table as it is written.

    Raises:
        msgspec.ValidationError: a field is unknown or missing.
    """
    return msgspec.convert(tomllib.loads((FOLDER / "cpython.toml").read_text(encoding="utf-8")), CpythonTable)


def has_tests() -> bool:
    """Whether the interpreter brings ``Lib/test``; Debian's needs ``apt-get install libpython3-testsuite``."""
    return Path(sysconfig.get_path("stdlib"), "test", "test_json").is_dir()


def make_script(module: str) -> Script:
    """The script that runs ``test.test_MODULE`` and tells what became of each test."""
    limit_s = _LONGEST_WAIT_S if module in _WAITING else 0
    return Script(
        id=f"cpython-{module}",
        code=_SCRIPT.replace("MODULE", module).replace("LIMIT_S = LIMIT", f"LIMIT_S = {limit_s}"),
    )


def find_differences(module: str, plain: PlainRun, served: ServedRun) -> dict[str, str]:
    """Test id → what became of it in the service alone."""
    whole = f"test.test_{module}"
    if plain.result == UNTOLD or plain.code or "ran" not in (plain.result or {}):
        return {whole: f"plain Python: exit code {plain.code}: {plain.stderr[-300:]}"}
    task = served.task
    if task["exit_reason"] != "ok":
        said = (task["error"] or {}).get("traceback") or ""
        return {whole: f"{task['exit_reason']}: {task['message']} | {said.strip()[-600:]}"}
    outside, inside = plain.result, task["result"]
    found: dict[str, str] = {test: error for test, error in inside["told"].items() if test not in outside["told"]}
    for name, count in outside["ran"].items():
        ran = inside["ran"].get(name, 0)
        if ran != count:
            found[f"{name}: count"] = f"ran {ran} of {count}"
    return found


def judge(differences: dict[str, str], table: CpythonTable) -> dict[str, str]:
    """Those that are not expected."""
    return {
        test: error
        for test, error in differences.items()
        if not any(row.matches(test, error) for row in table.expected)
    }


def idle_rows(differences: dict[str, str], table: CpythonTable, modules: list[str]) -> list[Expected]:
    """Rows that speak of these modules alone and of no difference: what they expect no longer differs."""
    names = tuple(f"test.test_{module}" for module in modules)
    return [
        row
        for row in table.expected
        if all(any(one == name or one.startswith(f"{name}.") for name in names) for one in row.tests)
        and not any(row.matches(test, error) for test, error in differences.items())
    ]


def as_counts(result: Any) -> int:
    """How many tests ran."""
    return sum((result or {}).get("ran", {}).values()) if isinstance(result, dict) else 0
