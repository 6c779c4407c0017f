"""What is registered for a fork: a library's functions run in each child; those without anything to do are left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import sandbox
from tests.support.code import copy_of_code
from tests.support.synchronous import Sandbox, value_of

pytestmark = pytest.mark.privilege(
    "it gives up root where there is root, and has an ordinary user's way into namespaces otherwise"
)
ROOT = Path(__file__).resolve().parents[2]

LIBRARY = """
import json, os
ran = []
os.register_at_fork(after_in_child=lambda: ran.append("library"))

def main(request, report):
    return "result", json.dumps(ran).encode()
"""


def test_a_librarys_function_runs_in_each_child(
    tmp_path_factory: pytest.TempPathFactory,
    light_policy: sandbox.Policy,
    host: sandbox.Host,
    template: sandbox.Template,
) -> None:
    """Once in each, with and without a rehearsal."""
    code = copy_of_code(template, tmp_path_factory)
    (code / "hooked").mkdir()
    (code / "hooked/__init__.py").write_text(LIBRARY, encoding="utf-8")
    policy = msgspec.structs.replace(light_policy, preload=("hooked",))
    box = Sandbox(policy, host, msgspec.structs.replace(template, code=code, entry="hooked:main"), ready=2)
    try:
        results = box.run_many([("", None)] * 6)
    finally:
        box.close()
    assert [["library"]] * 6 == [value_of(one) for one in results]


OPENS = """
import os, socket
opened = []

def open_one():
    opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno())

os.register_at_fork(after_in_child=open_one)

def main(request, report):
    return "result", str(len(opened)).encode()
"""


def test_what_a_library_does_at_a_fork_is_not_the_runs(
    tmp_path_factory: pytest.TempPathFactory,
    light_policy: sandbox.Policy,
    host: sandbox.Host,
    template: sandbox.Template,
) -> None:
    """It runs before the lock-down, in each child: no denied call of its own is counted, whether that has rehearsed or
    not; and what it has opened is closed with all else."""
    code = copy_of_code(template, tmp_path_factory)
    (code / "opens").mkdir()
    (code / "opens/__init__.py").write_text(OPENS, encoding="utf-8")
    policy = msgspec.structs.replace(light_policy, preload=("opens",))
    for ready in (0, 2):
        box = Sandbox(policy, host, msgspec.structs.replace(template, code=code, entry="opens:main"), ready=ready)
        try:
            results = box.run_many([("", None)] * 4)
        finally:
            box.close()
        assert [1] * 4 == [value_of(one) for one in results]
        assert [()] * 4 == [one.violations for one in results]


def test_what_has_nothing_to_do_is_not_registered() -> None:
    """In a fresh interpreter that imports as a zygote does: of the standard library nothing is called in a child."""
    program = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from sandbox.inside import fork_hooks
loaded = set(sys.modules) & {{"threading", "logging", "random", "concurrent.futures.thread"}}
with fork_hooks.left_out():
    import concurrent.futures.thread, logging, random, threading
assert os.register_at_fork.__module__ == "posix"
called = []
def note(frame, event, argument):
    called.append(frame.f_code.co_filename)
sys.setprofile(note)
pid = os.fork()
sys.setprofile(None)
if pid == 0:
    names = ("threading", "logging", "random", "thread")
    os._exit(1 if loaded or any(name in file for file in called for name in names) else 0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    without = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert (0, "") == (without.returncode, without.stderr)
    registered = program.replace("with fork_hooks.left_out():", "if True:")
    ended = subprocess.run([sys.executable, "-I", "-S", "-c", registered], capture_output=True, text=True, check=False)
    assert (1, "") == (ended.returncode, ended.stderr)  # the control: this program sees them where they are


def test_threads_and_logging_of_a_run_are_right_without_them(box: Sandbox) -> None:
    """The main thread is the only one, has its own number, and no lock is held."""
    script = """
import concurrent.futures, logging, os, random, threading
main = threading.main_thread()
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    doubled = list(pool.map(lambda x: x * 2, range(3)))
logging.getLogger("a").warning("said")
result = [main is threading.current_thread(), main.ident == threading.get_ident(),
          main.native_id == threading.get_native_id(), [one.name for one in threading.enumerate()], doubled,
          os.register_at_fork.__module__]
"""
    ended = box.run(script)
    assert [True, True, True, ["MainThread"], [0, 2, 4], "posix"] == value_of(ended)
    assert "said" in ended.logs.stderr
