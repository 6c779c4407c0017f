"""The two ways to start a run, warm and cold; the change of zygotes; and zygotes that cannot be."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from sandbox import ExitReason, Host, Policy, SandboxError, Template
from sandbox.pool.make_plan import compile_filters, make_plan
from sandbox.pool.zygote_client import ZygoteClient
from tests.support.synchronous import HOLD, PATIENCE_S, Sandbox, as_before, eventually, inventory, status_of, value_of

MakeBox = Callable[..., Sandbox]

LAYOUT = """
import ctypes, mmap
libc = ctypes.CDLL(None)
page = mmap.mmap(-1, 4096)
result = {
    "hash of a text": hash("text"),
    "hash of bytes": hash(b"bytes"),
    "library": ctypes.cast(libc.getpid, ctypes.c_void_p).value,
    "mapping": ctypes.addressof(ctypes.c_char.from_buffer(page)),
    "stack": ctypes.c_void_p.in_dll(libc, "__libc_stack_end").value or ctypes.c_void_p.in_dll(libc, "environ").value,
}
"""
UNKNOWN = ["hash of a text", "hash of bytes", "library", "mapping", "stack"]

SELF = """
import os, resource, stat, sys
def fails(act, *arguments):
    try:
        act(*arguments)
        return "done"
    except OSError as error:
        return error.errno
kinds = [name for name in dir(resource) if name.startswith("RLIMIT_") and name not in ("RLIMIT_DATA", "RLIMIT_AS")]
result = {
    "environment": dict(os.environ), "folder": os.getcwd(), "root": sorted(os.listdir("/app/handlers")),
    "workspace": sorted(os.listdir(".")), "mask": os.umask(0), "session": os.getsid(0), "pid": os.getpid(),
    "uid": os.getuid(), "host": os.uname().nodename, "limits": {name: resource.getrlimit(getattr(resource, name))
    for name in kinds}, "descriptors": [fd for fd in range(300) if fails(os.fstat, fd) == "done"],
    "fork": fails(os.fork), "write": fails(os.open, "/python/x", os.O_CREAT | os.O_WRONLY),
    "execute": fails(os.execv, sys.executable, ["python"]), "signal": fails(os.kill, 1, 0),
    "flags": [list(sys.flags)[:-1], sys.dont_write_bytecode, sys.path],
    "loaded beforehand": "handlers.custom_script" in sys.modules,
}
"""


@pytest.fixture(scope="module")
def cold_pool(light_policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool that executes a new interpreter for each run."""
    box = Sandbox(msgspec.structs.replace(light_policy, start="cold"), host, template, ready=2)
    yield box
    box.close()


@pytest.fixture(scope="module")
def warm_pool(light_policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool that forks, of the same policy otherwise."""
    box = Sandbox(light_policy, host, template, ready=2)
    yield box
    box.close()


@pytest.fixture
def cold(cold_pool: Sandbox) -> Iterator[Sandbox]:
    """That pool, full and at rest, before and after."""
    assert full_and_idle(cold_pool)
    yield cold_pool
    assert full_and_idle(cold_pool)


@pytest.fixture
def warm(warm_pool: Sandbox) -> Iterator[Sandbox]:
    """Likewise."""
    assert full_and_idle(warm_pool)
    yield warm_pool
    assert full_and_idle(warm_pool)


@pytest.fixture
def code(template: Template, tmp_path: Path) -> Iterator[Template]:
    """A template whose code a test may change."""
    folder = Path("/tmp", f"own-code-{os.getpid()}-{tmp_path.name}")
    shutil.copytree(template.code, folder)
    folder.chmod(0o755)
    yield msgspec.structs.replace(template, code=folder, places={"scripts": folder / "scripts"})
    shutil.rmtree(folder)


def full_and_idle(box: Sandbox, within_s: float = 20.0) -> bool:
    """Whether the pool comes to rest; an old zygote may still wait for its last child to be used."""
    return eventually(lambda: box.at_rest() or bool(box.pool._zygotes.retiring), within_s)


def use_up_old_children(box: Sandbox) -> bool:
    """Whether every retired zygote goes when its children have been used."""

    def use_one() -> bool:
        box.run("result = 1")
        return not box.pool._zygotes.retiring and not box.pool._zygotes.rotating

    return eventually(use_one, within_s=PATIENCE_S) and full_and_idle(box)


def status_while_running(box: Sandbox) -> dict[str, str]:
    """The host kernel's view of a run's process."""
    status, _ = box.while_running(
        "import ctypes, time; ctypes.CDLL(None).prctl(15, b'busy', 0, 0, 0)\ntime.sleep(0.5)", status_of
    )
    return status


# -- cold


def test_every_cold_run_has_secrets_of_its_own(cold: Sandbox) -> None:
    """Hash seed and address layout: in four runs four values of each."""
    seen = [value_of(cold.run(LAYOUT)) for _ in range(4)]
    assert dict.fromkeys(UNKNOWN, 4) == {name: len({one[name] for one in seen}) for name in UNKNOWN}


def test_warm_runs_of_one_zygote_share_them(warm: Sandbox) -> None:
    """README.md describes them so; otherwise the test above would prove nothing."""
    seen = [value_of(warm.run(LAYOUT)) for _ in range(4)]
    shared = ["hash of a text", "hash of bytes", "library", "stack"]
    assert dict.fromkeys(shared, 1) == {name: len({one[name] for one in seen}) for name in shared}


@pytest.mark.privilege("a cold run gives up root where there is root")
def test_a_cold_run_is_locked_like_a_warm_one(cold: Sandbox, warm: Sandbox) -> None:
    """The same surroundings, the same limits, the same refusals, as it sees itself."""
    assert value_of(warm.run(SELF)) == value_of(cold.run(SELF))


@pytest.mark.privilege("a cold run gives up root where there is root")
def test_the_kernel_says_the_same_of_both(cold: Sandbox, warm: Sandbox) -> None:
    """Capabilities, privileges, filter, ids."""
    names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid", "Gid"]
    one, other = status_while_running(cold), status_while_running(warm)
    assert {name: other[name] for name in names} == {name: one[name] for name in names}


def test_denied_calls_of_a_cold_run_are_named(cold: Sandbox) -> None:
    """The listener is there from the first instruction of the script."""
    result = cold.run("import os\nfor _ in range(3):\n    try: os.fork()\n    except OSError: pass")
    assert [("clone", 3)] == [(one.syscall, one.count) for one in result.violations]


def test_a_cold_result_says_so(cold: Sandbox) -> None:
    """In ``isolation``, beside the layers."""
    isolation = cold.run("result = 1").isolation
    assert ("full", "cold") == (isolation.profile, isolation.start)
    assert {"namespaces", "landlock", "seccomp", "rlimits"} == set(isolation.layers)


@pytest.mark.parametrize(
    ("script", "limits", "reason"),
    [
        ("result = 1", {}, ExitReason.OK),
        ("1 / 0", {}, ExitReason.ERROR),
        ("raise SystemExit(4)", {}, ExitReason.NONZERO_EXIT),
        ("import os; os._exit(0)", {}, ExitReason.NO_RESULT),
        ("import ctypes; ctypes.string_at(0)", {}, ExitReason.SIGNALED),
        ("while True: pass", {"wall_s": 0.5}, ExitReason.WALL_LIMIT),
        ("while True: pass", {"cpu_s": 0.5}, ExitReason.CPU_LIMIT),
        ("x = bytearray(b'x' * (600 << 20))", {}, ExitReason.MEMORY_LIMIT),
        ("while True: print('x' * 4096)", {}, ExitReason.OUTPUT_LIMIT),
        ("open('f', 'wb').write(bytes(65 << 20))", {}, ExitReason.WORKSPACE_LIMIT),
        ("result = 'x' * (9 << 20)", {}, ExitReason.INVALID_RESULT),
    ],
    ids=lambda value: str(value) if isinstance(value, ExitReason) else "",
)
def test_cold_runs_end_for_the_same_reasons(
    cold: Sandbox, script: str, limits: dict[str, Any], reason: ExitReason
) -> None:
    """Each limit holds without a zygote's heap, too."""
    assert reason == cold.run(script, **limits).exit_reason


@pytest.mark.privilege("the worker ends what it started by the rights of one user")
def test_cold_runs_leave_nothing(light_policy: Policy, host: Host, template: Template) -> None:
    """Neither process nor descriptor, and each served one request."""
    before = inventory()
    box = Sandbox(msgspec.structs.replace(light_policy, start="cold"), host, template, ready=2)
    try:
        script = "import os\nresult = sorted(os.listdir('.'))\nopen('left', 'w')"
        assert [["artifacts", "tmp"]] * 12 == [value_of(result) for result in box.run_many([(script, None)] * 12)]
        assert box.settle()
        assert 14 == box.pool.stats().spawned
    finally:
        box.close()
    assert {} == as_before(before)


# -- the change of zygotes


def run_until_rotated(box: Sandbox, times: int) -> list[Any]:
    """One run after the other until so many zygotes have been replaced; what each run saw of its layout."""
    seen = []

    def run_one() -> bool:
        seen.append(value_of(box.run(LAYOUT)))
        return box.pool.stats().zygote_rotations >= times

    assert eventually(run_one, within_s=PATIENCE_S)
    return seen


@pytest.mark.privilege("the worker ends old zygotes by the rights of one user")
def test_rotation_goes_on_unseen(light_policy: Policy, host: Host, template: Template) -> None:
    """Every request is served; the hash seed changes from generation to generation; the old zygotes are gone."""
    before = inventory()
    box = Sandbox(light_policy, host, template, ready=2, rotate_after=5)
    try:
        first = box.zygote_pids()
        layouts = run_until_rotated(box, 3)
        assert len(layouts) >= 15
        for name in ("hash of a text", "library"):
            assert 3 <= len({layout[name] for layout in layouts}) <= 4
        assert 0 == box.pool.stats().zygote_restarts
        assert use_up_old_children(box)
        assert not any(Path(f"/proc/{pid}").exists() for pid in first)
    finally:
        box.close()
    assert {} == as_before(before)


def test_rotation_under_load_loses_no_request(make_box: MakeBox) -> None:
    """Four at a time while zygotes come and go: each gets its own answer, and nothing is left."""
    box = make_box(ready=4, rotate_after=200)
    assert box.settle()
    before, number = inventory(), 0
    while box.pool.stats().zygote_rotations < 2 and number < 10_000:
        wanted = list(range(number, number + 20))
        results = box.run_many([("result = args", one) for one in wanted])
        assert wanted == [value_of(result) for result in results]
        number += 20
    assert use_up_old_children(box)
    assert {} == as_before(before)


def test_a_zygote_serves_as_often_as_it_should(make_box: MakeBox) -> None:
    """None is replaced before it has forked ``rotate_after`` children, whatever is under way at the change."""
    box = make_box(ready=4, rotate_after=100)
    while box.pool.stats().zygote_rotations < 4:
        box.run_many([("result = 1", None)] * 10)
    stats = box.pool.stats()
    assert stats.zygote_rotations <= stats.spawned // 100


def test_a_run_outlives_the_rotation_that_began_meanwhile(make_box: MakeBox) -> None:
    """An old zygote lives as long as the last of its children, and no longer."""
    box = make_box(ready=1, rotate_after=100)

    def rotate(_pid: int) -> set[object]:
        run_until_rotated(box, 1)
        for _ in range(3):
            box.run("result = 1")
        return set(box.pool._zygotes.retiring)

    retiring, result = box.while_running(HOLD + "hold()\nresult = 'whole'", rotate, then="release")
    assert "whole" == value_of(result)
    assert len(retiring) >= 1
    assert use_up_old_children(box)


def test_a_new_zygote_that_cannot_start_is_done_without(light_policy: Policy, host: Host, code: Template) -> None:
    """The old one serves on, and each failed attempt leaves neither process nor descriptor."""
    box = Sandbox(light_policy, host, code, ready=1, rotate_after=3)
    try:
        assert box.settle()
        before, zygote = inventory(), box.zygote_pids()
        (code.code / "handlers/custom_script.py").write_text("raise ImportError('broken since')", encoding="utf-8")
        assert [1] * 8 == [value_of(box.run("result = 1")) for _ in range(8)]
        assert full_and_idle(box)
        assert (0, zygote) == (box.pool.stats().zygote_rotations, box.zygote_pids())
        assert {} == as_before(before)
    finally:
        box.close()


def test_rotation_is_tried_again_when_the_cause_is_gone(light_policy: Policy, host: Host, code: Template) -> None:
    """A granted place that was away for a while stops no later rotation."""
    box = Sandbox(light_policy, host, code, ready=1, rotate_after=3)
    scripts = code.code / "scripts"
    try:
        scripts.rename(code.code / "away")
        assert [1] * 8 == [value_of(box.run("result = 1")) for _ in range(8)]
        assert full_and_idle(box)
        assert 0 == box.pool.stats().zygote_rotations
        (code.code / "away").rename(scripts)
        run_until_rotated(box, 1)
    finally:
        box.close()


# -- the rehearsal


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_the_rehearsal_leaves_nothing_to_see(warm: Sandbox, cold: Sandbox, start: str) -> None:
    """It ran in this very process: no name, no file, no thread, no print, no line of it is left to the script."""
    script = """
import gc, linecache, os, sys, threading
main = sys.modules["__main__"]
first = sys._getframe()
while first.f_back is not None:
    first = first.f_back
gc.unfreeze()
mains = [one for one in gc.get_objects() if isinstance(one, type(sys)) and one.__name__ == "__main__"]
result = {
    "names": sorted(name for name in globals() if not name.startswith("__")),
    "main is me": vars(main) is globals(),
    # without the module that the interpreter itself was started with: Python 3.13 keeps it as long as it lives, and
    # every version shows its names in the outermost frame
    "mains": len([one for one in mains if vars(one) is not first.f_globals]),
    "files": sorted(os.listdir(".")) + sorted(os.listdir("tmp")) + sorted(os.listdir("artifacts")),
    "threads": threading.active_count(),
    "arguments": sys.argv,
    "lines": [one for one in linecache.cache if "script" in one],
    "source": linecache.getline("script.py", 2),
    "last": [hasattr(sys, name) for name in ("last_type", "last_value", "last_traceback")],
    "stdin": sys.stdin.read()[:30],
    "doing": repr(sys.exc_info()),
}
"""
    result = {"warm": warm, "cold": cold}[start].run(script)
    expected = {
        "names": ["args", "first", "gc", "linecache", "main", "mains", "os", "report_progress", "sys", "threading"],
        "main is me": True, "mains": 1, "files": ["artifacts", "script.py", "tmp"], "threads": 1,
            "arguments": ["script.py"], "lines": ["script.py", "/work/script.py"],
            "source": "import gc, linecache, os, sys, threading\n", "last": [False] * 3,
            "stdin": '{"task_type":"custom_script","', "doing": "(None, None, None)",
    }  # fmt: skip
    assert expected == value_of(result)
    assert ("", "") == (result.logs.stdout, result.logs.stderr)
    assert () == result.violations


# -- zygotes that cannot be

FAULTY = {
    "starts a thread": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
        "2 threads after importing ['handlers.faulty']",
    ),
    "raises": ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
    "leaves": ("import os\nos._exit(0)\n", ""),
    "is killed": ("import os\nos.kill(os.getpid(), 9)\nimport ctypes; ctypes.string_at(0)\n", ""),
    "is not Python": ("this is no Python\n", "SyntaxError"),
}


@pytest.mark.privilege("the worker ends what it started by the rights of one user")
@pytest.mark.parametrize("start", ["warm", "cold"])
@pytest.mark.parametrize("fault", FAULTY)
def test_a_preload_that_cannot_be_stops_the_start(
    light_policy: Policy, host: Host, code: Template, capfd: pytest.CaptureFixture[str], *, fault: str, start: str
) -> None:
    """With an error that names the policy, the zygote's own words for the operator, and nothing left alive or open."""
    text, words = FAULTY[fault]
    (code.code / "handlers/faulty.py").write_text(text, encoding="utf-8")
    policy = msgspec.structs.replace(light_policy, preload=("handlers.faulty",), start=start)
    before = inventory()
    with pytest.raises(SandboxError) as caught:
        Sandbox(policy, host, code)
    assert policy.name in caught.value.message or "handlers.faulty" in caught.value.message
    assert words in capfd.readouterr().err + caught.value.message
    assert {} == as_before(before)


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_a_preload_that_is_not_there_stops_the_start(
    light_policy: Policy, host: Host, template: Template, capfd: pytest.CaptureFixture[str], start: str
) -> None:
    """The module is named."""
    policy = msgspec.structs.replace(light_policy, preload=("no_such_module",), start=start)
    before = inventory()
    with pytest.raises(SandboxError) as caught:
        Sandbox(policy, host, template)
    missing = "No module named 'no_such_module'"
    assert missing in capfd.readouterr().err
    if start == "warm":
        assert ("start_zygote", f"custom_script: ModuleNotFoundError: {missing}") == (
            caught.value.stage,
            caught.value.message,
        )
    assert {} == as_before(before)


@pytest.mark.parametrize("profile", ["full", "unprivileged"])
def test_interpreter_that_cannot_be_started_stops_the_start(
    light_policy: Policy, host: Host, template: Template, profile: Literal["full", "unprivileged"]
) -> None:
    """The error itself says so, by which health and ``check`` name it, not standard error alone."""
    of_profile = msgspec.structs.replace(host, profile=profile)
    plan = make_plan(light_policy, of_profile, template, compile_filters(light_policy, of_profile))

    async def start() -> None:
        await ZygoteClient(dataclasses.replace(plan, interpreter="/none/python3"), template.code).start()

    before = inventory()
    with pytest.raises(SandboxError, match="cannot start the interpreter /none/python3: No such file or directory"):
        asyncio.run(start())
    assert {} == as_before(before)


def test_child_has_as_long_as_its_zygote_until_it_is_ready(
    light_policy: Policy, host: Host, template: Template
) -> None:
    """The one setting for slow machines holds for both."""
    box = Sandbox(light_policy, host, template, ready=0)
    try:
        zygote = box.pool._zygotes.current
        assert zygote is not None
        zygote._start_s = 1e-6
        with pytest.raises(SandboxError, match="no ready child: it took too long"):
            box.run("result = 1")
        zygote._start_s = 60.0
        assert 1 == value_of(box.run("result = 1"))
    finally:
        box.close()


def test_a_thread_that_has_ended_is_no_obstacle(light_policy: Policy, host: Host, code: Template) -> None:
    """Only threads that run when the import is over count."""
    text = "import threading\nthread = threading.Thread(target=int)\nthread.start()\nthread.join()\n"
    (code.code / "handlers/joined.py").write_text(text, encoding="utf-8")
    policy = msgspec.structs.replace(light_policy, preload=("handlers.custom_script", "handlers.joined"))
    box = Sandbox(policy, host, code)
    try:
        assert 1 == value_of(box.run("import sys\nresult = 'handlers.joined' in sys.modules and 1"))
    finally:
        box.close()


def test_an_entry_that_is_not_there_stops_the_start(
    light_policy: Policy, host: Host, template: Template, capfd: pytest.CaptureFixture[str]
) -> None:
    """The function is named."""
    with pytest.raises(SandboxError):
        Sandbox(light_policy, host, msgspec.structs.replace(template, entry="handlers.entry:no_such_function"))
    assert "no_such_function" in capfd.readouterr().err


def test_signals_that_the_worker_was_started_with_blocked_are_not(make_box: Callable[..., Sandbox]) -> None:
    """Some programs that start services leave signals blocked, such as containers' inits: runs never see that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP, signal.SIGUSR1})
    try:
        box = make_box(ready=1)  # its thread, and all that it starts, has them blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    result = box.run("import signal\nresult = [str(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())]")
    assert [] == value_of(result)
