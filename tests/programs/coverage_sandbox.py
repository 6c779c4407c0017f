"""Branch coverage of ``sandbox/`` on both sides of the trust boundary: ``python -m tests.programs.coverage_sandbox``.

The worker's side is measured by coverage.py as usual. Zygote and child are not to be had that way: they stand in a
root of their own, without a file that they could write, and end by ``os._exit`` or are killed. So the tests' copy of
the code gets one module more, which notes every step from line to line in a memory map. The map is of a file that the
first stage opens, on the host's paths; a mapping outlives ``fork``, needs no system call to be written, and what is in
it is there however the process ends. The rest is arithmetic: what both sides have seen is added up and printed.

Used as a pytest plugin (``-p tests.programs.coverage_sandbox``) it puts that module into the copy that the fixture
``template`` makes. What it cannot see is printed with its reason.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "SANDBOX_COVERAGE_FOLDER"
MAX_LINES = 1024
PLANES = 3
"""From line to line; into a function (its first line, the line); out of one (the line, its first line)."""
MAP_FD = 900

NOT_SEEN = {
    "probe.py, _TRY_NAMESPACES": "a text for an interpreter of its own, not lines of the file",
    "workers that a test itself kills, or starts from a text": "they write no coverage data (test_pool.py)",
    "lines for an older kernel, another architecture, a missing libseccomp": "this host is none of these",
}

_MEASURE = '''\
"""Notes where this process has been. Only in the copies that tests/programs/coverage_sandbox.py makes."""
import mmap, os, sys
NAMES = {names!r}
LINES, PLANES, FD = {lines}, {planes}, {fd}
try:
    os.fstat(FD)
except OSError:  # the first stage: the file can still be reached
    os.dup2(os.open({data!r}, os.O_RDWR | os.O_CLOEXEC), FD, inheritable=True)
seen = mmap.mmap(FD, len(NAMES) * PLANES * LINES * LINES)
known = {{}}


def number_of(path):
    name = path.rpartition("/sandbox/")[2]
    known[path] = NAMES.index(name) if name in NAMES and "/sandbox/" in path else None
    return known[path]


def trace(frame, event, _argument):
    code = frame.f_code
    path = code.co_filename
    number = known[path] if path in known else number_of(path)
    if number is None or event != "call":
        return None
    first, last = code.co_firstlineno, 0
    if frame.f_lasti > 2 * len(code.co_cellvars + code.co_freevars) + 8:
        last = frame.f_lineno  # a generator goes on
    plain, into, out = (((number * PLANES) + plane) * LINES * LINES for plane in range(PLANES))

    def trace_line(frame, event, _argument):
        nonlocal last
        line = frame.f_lineno
        if event == "line":
            seen[plain + last * LINES + line if last else into + first * LINES + line] = 1
            last = line
        elif event == "return":
            seen[out + (last or line) * LINES + first] = 1
        return trace_line

    return trace_line


sys.settrace(trace)
sys.settrace = lambda _function: None  # the handler takes scripts' tracers away, and would take this one with them
'''


def names() -> list[str]:
    """The files that are measured, relative to ``sandbox/``; their place in the list is their place in the map."""
    return sorted(str(path.relative_to(ROOT / "sandbox")) for path in (ROOT / "sandbox").rglob("*.py"))


def instrument(package: Path, folder: Path) -> None:
    """Put the noting module into a copy of ``sandbox/``."""
    text = _MEASURE.format(
        names=names(), lines=MAX_LINES, planes=PLANES, fd=MAP_FD, data=str(folder / "inside.map")
    )  # fmt: skip
    (package / "_measure.py").write_text(text, encoding="utf-8")
    with (package / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("from sandbox import _measure\n")


def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, Any, None]:
    """Hook of pytest: the code that the fixture ``template`` has copied is the code that zygotes run."""
    outcome = yield
    if fixturedef.argname == "template" and FOLDER in os.environ:
        instrument(outcome.get_result().code / "sandbox", Path(os.environ[FOLDER]))


try:
    import pytest

    pytest_fixture_setup = pytest.hookimpl(hookwrapper=True)(pytest_fixture_setup)
except ImportError:
    pass


def measure_this_process() -> None:
    """For ``ordinary_worker.py``: it is a worker as well, in a process of its own."""
    import coverage  # noqa: PLC0415 not loaded unless coverage is measured

    coverage.process_startup()


def arcs_inside(data: bytes) -> dict[str, list[tuple[int, int]]]:
    """File → steps, as coverage.py writes them: a negative number is the outside of the function that begins there."""
    found: dict[str, list[tuple[int, int]]] = {}
    plane_bytes = MAX_LINES * MAX_LINES
    for number, name in enumerate(names()):
        steps = found.setdefault(str(ROOT / "sandbox" / name), [])
        for plane in range(PLANES):
            start = (number * PLANES + plane) * plane_bytes
            for at in _set_bytes(data[start : start + plane_bytes]):
                one, other = divmod(at, MAX_LINES)
                steps.append([(one, other), (-one, other), (one, -other)][plane])
    return found


def _set_bytes(data: bytes) -> Iterator[int]:
    return (match.start() for match in re.finditer(rb"[^\0]", data))


def digest() -> str:
    """Of the code that is measured."""
    whole = hashlib.sha256()
    for name in names():
        whole.update((ROOT / "sandbox" / name).read_bytes())
    return whole.hexdigest()


def run_tests(folder: Path, arguments: list[str]) -> int:
    """pytest under coverage.py, with this module as a plugin."""
    rcfile = folder / "coveragerc"
    rcfile.write_text(
        f"[run]\nbranch = True\nparallel = True\nsource = {ROOT}/sandbox\ndata_file = {folder}/coverage\n",
        encoding="utf-8",
    )
    size = len(names()) * PLANES * MAX_LINES * MAX_LINES
    with (folder / "inside.map").open("wb") as file:
        file.truncate(size)
    (folder / "inside.map").chmod(0o666)
    environment = os.environ | {
        "COVERAGE_PROCESS_START": str(rcfile), FOLDER: str(folder), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={rcfile}", "-m", "pytest", "-q", "-p",
               "tests.programs.coverage_sandbox", "-p", "no:cacheprovider", "--timeout=600", *arguments]  # fmt: skip
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def report(folder: Path) -> None:
    """One table for each side, one for both, and the lines and branches that neither has seen."""
    import coverage  # noqa: PLC0415 a tool of the tests, not needed by the plugin

    rcfile = str(folder / "coveragerc")
    worker = coverage.Coverage(config_file=rcfile, data_file=str(folder / "worker"))
    worker.combine([str(path) for path in folder.glob("coverage.*")], keep=True)
    worker.save()
    inside = coverage.CoverageData(str(folder / "inside"))
    inside.add_arcs(arcs_inside((folder / "inside.map").read_bytes()))
    inside.write()
    both = coverage.Coverage(config_file=rcfile, data_file=str(folder / "both"))
    both.combine([str(folder / "worker"), str(folder / "inside")], keep=True)
    both.save()
    only_inside = coverage.Coverage(config_file=rcfile, data_file=str(folder / "inside"))
    only_inside.load()
    for title, one in (("worker's side", worker), ("zygote and child", only_inside), ("both", both)):
        print(f"\n== {title}", flush=True)
        one.report(file=sys.stdout, show_missing=one is both, skip_empty=True)
    print("\n== not covered, line by line")
    for name in names():
        _, _, _, missing, _ = both.analysis2(str(ROOT / "sandbox" / name))
        lines = (ROOT / "sandbox" / name).read_text(encoding="utf-8").splitlines()
        for line in missing:
            print(f"sandbox/{name}:{line}: {lines[line - 1].strip()}")
    print("\n== what this cannot see")
    for what, why in NOT_SEEN.items():
        print(f"{what}: {why}")


def main() -> int:
    """Run, add up, print. The exit code says whether it could be measured, not how much was covered."""
    # the short soak looks for a trace function, and finds the one that measures
    arguments = sys.argv[1:] or ["tests/sandbox", "--ignore=tests/sandbox/test_soak_short.py"]
    with tempfile.TemporaryDirectory(prefix="coverage-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        before = digest()
        code = run_tests(folder, arguments)
        report(folder)
        if before != digest():
            print("\nsandbox/ was changed while the tests ran: the lines above are not those that were measured")
        print(f"\npytest ended with {code}; under measurement, tests that depend on time may fail")
    return 0


if __name__ == "__main__":
    sys.exit(main())
