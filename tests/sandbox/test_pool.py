"""The pool: single use, refill, and what happens when something of ours dies."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from sandbox import ExitReason, Host, Policy, SandboxError, Template
from sandbox.inside.orders import FORKED
from sandbox.isolation import seccomp
from sandbox.isolation.passing import receive_descriptors
from sandbox.pool import zygote_client
from sandbox.run import child_handle, pipes
from tests.support.code import copy_of_code
from tests.support.synchronous import (
    BUSY,
    Sandbox,
    as_before,
    children_of,
    descendants,
    eventually,
    inventory,
    request,
    status_of,
    value_of,
)

pytestmark = pytest.mark.privilege(
    "an ordinary worker ends zygotes and runs, and takes away what they leave, by the rights of one user"
)

MakeBox = Callable[..., Sandbox]
SLEEP = BUSY + "import time\ntime.sleep(args)\nresult = 1"


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies not counted."""
    try:
        return not status_of(pid)["State"].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_each_child_serves_one_request(make_box: MakeBox) -> None:
    """As many were forked as requests were served and children are ready; the used ones are gone."""
    box = make_box(ready=2)
    first = set(box.pool.ready_pids())
    for _ in range(6):
        assert 1 == value_of(box.run("result = 1"))
    assert box.settle()
    assert 8 == box.pool.stats().spawned
    assert set() == first & set(box.pool.ready_pids())
    assert eventually(lambda: not any(map(alive, first)))


def test_two_hundred_at_once_get_their_own_answers(make_box: MakeBox) -> None:
    """No answer, no print and no file goes to another's result."""
    box = make_box(ready=4)
    nonces = [secrets.token_hex(16) for _ in range(200)]
    script = (
        "import sys\nprint(args)\nprint(args, file=sys.stderr)\nopen('artifacts/n', 'w').write(args)\nresult = args"
    )
    results = box.run_many([(script, nonce) for nonce in nonces])
    assert nonces == [value_of(result) for result in results]
    assert [f"{nonce}\n" for nonce in nonces] == [result.logs.stdout for result in results]
    assert [f"{nonce}\n" for nonce in nonces] == [result.logs.stderr for result in results]
    assert [nonce.encode() for nonce in nonces] == [result.artifacts[0].content for result in results]
    assert box.settle()


def test_two_ready_children_rehearse_and_are_taken_first(make_box: MakeBox) -> None:
    """The others stay small."""
    box = make_box(ready=5)
    assert box.settle()
    assert [True, True, False, False, False] == [child.rehearsed for child in box.pool._ready]


def test_no_child_rehearses_while_requests_wait_for_one(make_box: MakeBox) -> None:
    """Neither the one that a request waits for, nor those made right after: the next request will not wait longer."""
    box = make_box(ready=1)
    results = box.run_many([("result = 1", None)] * 4)
    assert [1] * 4 == [value_of(result) for result in results]
    assert box.settle()
    assert [False] == [child.rehearsed for child in box.pool._ready]


def test_a_pool_without_ready_children_forks_when_asked(make_box: MakeBox) -> None:
    """Ready 0 is slower, not different."""
    box = make_box(ready=0)
    assert [1, 2, 3] == [value_of(box.run("result = args", number)) for number in (1, 2, 3)]
    assert 3 == box.pool.stats().spawned


def test_a_killed_ready_child_is_replaced(make_box: MakeBox) -> None:
    """Death before use is no request's failure."""
    box = make_box(ready=2)
    for pid in box.pool.ready_pids():
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, box.pool.ready_pids())))
    assert [1, 1, 1] == [value_of(box.run("result = 1")) for _ in range(3)]
    assert box.settle()
    assert all(map(alive, box.pool.ready_pids()))


def test_a_child_whose_death_is_not_reported_yet_serves_no_request(make_box: MakeBox) -> None:
    """A zygote that is busy reports deaths late: meanwhile its dead children are passed over."""
    box = make_box(ready=2)
    assert box.settle()
    dead = box.pool.ready_pids()
    _, zygote = box.zygote_pids()
    os.kill(zygote, signal.SIGSTOP)
    try:
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(alive, dead)))
        assert box.pool._ready.take() is None
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert [1, 1, 1] == [value_of(box.run("result = 1")) for _ in range(3)]


def test_a_child_killed_by_another_while_it_runs_is_our_failure(make_box: MakeBox) -> None:
    """SIGKILL that neither we nor the run sent says nothing of the run, which may be tried again."""
    box = make_box()
    _, ended = box.while_running(SLEEP, lambda pid: os.kill(pid, signal.SIGKILL), 30)
    assert isinstance(ended, SandboxError)
    assert ("killed", True) == (ended.stage, "neither this worker nor itself" in ended.message)


KILLS_ITSELF = {
    "kill": "import os\nos.kill(os.getpid(), 9)",
    "raise": "import signal\nsignal.raise_signal(9)",
    "from a thread": "import os, threading, time\n"
    "threading.Thread(target=os.kill, args=(os.getpid(), 9)).start()\ntime.sleep(30)",
    "pthread_kill": "import signal, threading\nsignal.pthread_kill(threading.get_ident(), 9)",
}


@pytest.mark.parametrize("script", KILLS_ITSELF.values(), ids=KILLS_ITSELF)
def test_a_run_that_kills_itself_is_signaled(box: Sandbox, script: str) -> None:
    """The positive control: by whatever call it does so, it is no failure of ours, and costs no second attempt."""
    result = box.run(script)
    assert (ExitReason.SIGNALED, "SIGKILL") == (result.exit_reason, result.signal)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [("result = 1", ExitReason.OK), ("import time\ntime.sleep(60)", ExitReason.WALL_LIMIT)],
    ids=["it has answered", "it goes on"],
)
def test_worker_that_was_away_beyond_the_deadline_blames_nobody_for_it(
    make_box: MakeBox, rest: str, expected: ExitReason
) -> None:
    """The answer that came meanwhile is the answer. A run without one is given the time once more, and not for ever."""
    box = make_box()
    away: list[bytes] = []

    def stand_still(_: object, chunk: bytes) -> None:
        if not away:
            time.sleep(3.5)  # as if stopped: the event loop does nothing meanwhile
        away.append(chunk)

    limits = msgspec.structs.replace(box.policy.limits, wall_s=2)
    run = box.pool.run(request(f"import os\nos.write(1, b'1')\n{rest}", None), limits=limits, on_output=stand_still)
    result = box.do(run)
    assert (expected, [b"1"]) == (result.exit_reason, away)


@pytest.mark.parametrize("stage", [0, 1], ids=["launcher", "inner"])
def test_killed_zygote_is_our_failure_and_the_pool_heals(make_box: MakeBox, stage: int) -> None:
    """The run in flight may be tried again, all below the zygote is dead, the next run is served, nothing leaks."""
    box = make_box(ready=2)
    assert box.settle()
    before, pids = inventory(), box.zygote_pids()
    children = box.pool.ready_pids()
    _, ended = box.while_running(SLEEP, lambda _pid: os.kill(pids[stage], signal.SIGKILL), 30)
    assert isinstance(ended, SandboxError)
    assert ("zygote", True) == (ended.stage, "custom_script" in ended.message)
    assert eventually(lambda: not any(map(alive, (*pids, *children))))
    assert 1 == value_of(box.run("result = 1"))
    assert box.settle()
    assert 1 == box.pool.stats().zygote_restarts
    assert {} == as_before(before)


@pytest.mark.parametrize("after_s", [0.01, 0.03, 0.05, 0.07])
def test_a_burst_during_which_the_zygote_is_killed(make_box: MakeBox, after_s: float) -> None:
    """Each request is either served or our failure; none waits for ever, and afterwards all is well."""
    box = make_box(ready=2)
    assert box.settle()
    before = inventory()

    async def burst() -> tuple[int, list[tuple[int, object]]]:
        runs = {asyncio.ensure_future(box._run("result = args", number, None, {})): number for number in range(40)}
        await asyncio.sleep(after_s)
        os.kill(box.zygote_pids()[1], signal.SIGKILL)
        done, pending = await asyncio.wait(runs, timeout=120)
        return len(pending), [(runs[run], run.exception() or run.result()) for run in done]

    pending, ended = box.do(burst())
    assert 0 == pending
    for number, outcome in ended:
        if not isinstance(outcome, SandboxError):
            assert number == value_of(outcome)
    assert 1 == value_of(box.run("result = 1"))
    assert box.settle()
    assert {} == as_before(before)


BROKEN_STEPS = {
    "restrict_by_landlock": (
        "isolation/landlock.py",
        "def restrict(calls, abi, rules, **_):\n    calls.call('refused', 'close', 9999)\n",
    ),
    "report_ready": (
        "isolation/seccomp.py",
        """
_install = install
def install(calls, program, **where):
    _install(calls, program, **where)
    calls.call('refused', 'close', 9999)
""",
    ),
}
"""Step of the lock-down → file, and what breaks it. The second fails when the filter is already in force."""


@pytest.fixture
def parts(light_policy: Policy, host: Host, template: Template) -> tuple[Policy, Host, Template]:
    """What a pool is made of."""
    return light_policy, host, template


@pytest.mark.parametrize(
    ("step", "ablated"),
    [
        pytest.param(step, ablated, id=f"{step} {how}")
        for step in BROKEN_STEPS
        for how, ablated in (("in C", ()), ("in Python", ("in_c",)))
    ],
)
def test_a_child_that_cannot_be_locked_is_our_failure(
    parts: tuple[Policy, Host, Template],
    tmp_path_factory: pytest.TempPathFactory,
    step: str,
    ablated: tuple[str, ...],
) -> None:
    """The step is named, no request reaches the child, and failing again and again leaves nothing, alive or open."""
    policy, host, template = parts
    code = copy_of_code(template, tmp_path_factory)
    path, text = BROKEN_STEPS[step]
    with (code / "sandbox" / path).open("a", encoding="utf-8") as file:
        file.write(f"\n\n{text}")
    box = Sandbox(policy, host, msgspec.structs.replace(template, code=code), ready=0, ablated=ablated)
    try:
        with pytest.raises(SandboxError, match=rf"{step}: .*refused"):
            box.run("result = 1")
        assert eventually(lambda: not children_of(box.zygote_pids()[1]))
        before = inventory()
        for _ in range(10):
            with pytest.raises(SandboxError):
                box.run("result = 1")
        assert {} == as_before(before)
        assert 0 == len(children_of(box.zygote_pids()[1]))
    finally:
        box.close()


def test_a_zygote_with_a_thread_does_not_start(
    template: Template, light_policy: Policy, host: Host, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A fork would copy one thread only, with whatever lock another held."""
    code = copy_of_code(template, tmp_path_factory)
    (code / "threaded").mkdir()
    text = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nmain = print\n"
    )
    (code / "threaded/__init__.py").write_text(text, encoding="utf-8")
    policy = msgspec.structs.replace(light_policy, preload=("threaded",))
    with pytest.raises(SandboxError):
        Sandbox(policy, host, msgspec.structs.replace(template, code=code, entry="threaded:main"))


def test_close_leaves_nothing(light_policy: Policy, host: Host, template: Template) -> None:
    """No process, no descriptor, and a closed pool says so."""
    before = inventory()
    box = Sandbox(light_policy, host, template, ready=3)
    pids = descendants()
    box.run("result = 1")
    box.do(box.pool.close())
    with pytest.raises(SandboxError, match="closed"):
        box.run("result = 1")
    box._stop()
    assert {} == as_before(before)
    assert not any(map(alive, set(pids) - set(descendants())))


def test_close_during_a_run(light_policy: Policy, host: Host, template: Template) -> None:
    """The run in flight ends as our failure, not never."""
    before = inventory()
    box = Sandbox(light_policy, host, template)

    def close(pid: int) -> None:
        box.do(box.pool.close())

    _, ended = box.while_running(SLEEP, close, 30)
    assert isinstance(ended, SandboxError)
    box._stop()
    assert {} == as_before(before)


def test_a_killed_worker_takes_all_with_it(tmp_path: Path, template: Template, light_policy: Policy) -> None:
    """No zygote and no child outlives the process that started them, busy or not."""
    root = Path(__file__).parents[2]
    program = f"""
import sys, threading, time
sys.path.insert(0, {str(root)!r})
from pathlib import Path
import msgspec, sandbox
from tests.support.libraries import library_sets
from tests.support.synchronous import BUSY, Sandbox, as_before, children_of, descendants, name_of
policy = msgspec.json.decode({msgspec.json.encode(light_policy)!r}, type=sandbox.Policy)
template = sandbox.Template(code=Path({str(template.code)!r}), entry="handlers.entry:main",
                            libraries=library_sets(),
                            places={{"scripts": Path({str(template.places["scripts"])!r})}}, uid=60999, gid=60999)
box = Sandbox(policy, sandbox.probe_host(), template, ready=2)
threading.Thread(target=box.run, args=(BUSY + "while True: pass",)).start()
while "busy" not in map(name_of, descendants()):
    time.sleep(0.01)
print(*descendants(), flush=True)
time.sleep(60)
"""
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(number) for number in worker.stdout.readline().split()]
    worker.kill()
    worker.communicate()
    assert len(pids) >= 4
    assert eventually(lambda: not any(map(alive, pids)))


def test_zygote_that_reports_a_death_to_nobody_leaves_in_silence(
    make_box: MakeBox, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a slow machine a worker can be gone when its zygote hears of a child's end; that is no fault of anybody's."""
    box = make_box(ready=2)
    assert box.settle()
    dead = box.pool.ready_pids()
    _, zygote = box.zygote_pids()
    client = box.pool._zygotes.current
    assert client is not None
    os.kill(zygote, signal.SIGSTOP)
    try:
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not any(map(alive, dead)))
        client._control.shutdown(socket.SHUT_RDWR)
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert eventually(lambda: not alive(zygote))
    assert "" == capfd.readouterr().err


def test_hundreds_of_runs_leave_nothing(make_box: MakeBox) -> None:
    """Two tenants in turn: no mark of the other, no hang, nothing more open, running or mounted, a zygote no larger."""
    box = make_box(ready=2, rotate_after=10**6)
    script = """
import os, builtins
seen = sorted(os.listdir(".")) + sorted(os.listdir("/tmp"))
seen += [name for name in vars(builtins) if name.startswith("left")]
open("left-by-" + args, "w").close()
open("/tmp/left-by-" + args, "w").close()
setattr(builtins, "left_by_" + args, 1)
result = seen
"""
    assert box.settle()
    assert ["artifacts", "tmp"] == value_of(box.run(script, "nobody"))
    for _ in range(50):
        box.run("result = 1")
    assert box.settle()
    before, memory_kib = inventory(), _zygote_kib(box)
    for start in range(0, 400, 4):  # `make soak` does ten thousand
        tenants = ["a" if number % 2 else "b" for number in range(start, start + 4)]
        for result in box.run_many([(script, tenant) for tenant in tenants]):
            assert ["artifacts", "tmp"] == value_of(result)
    assert box.settle()
    assert {} == as_before(before)
    assert _zygote_kib(box) - memory_kib < 1024


def _zygote_kib(box: Sandbox) -> int:
    return int(status_of(box.zygote_pids()[1])["RssAnon"].split()[0])


def test_everything_is_dead_soon_after_the_end(make_box: MakeBox) -> None:
    """Killed with threads that hold on, the child is gone when the answer is there, or a moment later."""
    box = make_box()
    script = (
        BUSY
        + "from threading import Thread\nimport time\n"
        + "for _ in range(20): Thread(target=time.sleep, args=(60,)).start()\nwhile True: pass"
    )
    pid, result = box.while_running(script, lambda pid: pid, then="cancel")
    assert ExitReason.CANCELLED == result.exit_reason
    assert eventually(lambda: not alive(pid))


@pytest.mark.parametrize("what", ["read_chunk", "has_call"])
def test_a_watch_that_fails_ends_the_run_as_our_failure(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """JOB-20: out of memory while we listen. The run is not blamed for what we did not hear, and not left unwatched."""
    box = make_box(ready=1)

    def fail(_: object) -> None:
        raise MemoryError

    owner = pipes if what == "read_chunk" else seccomp
    with monkeypatch.context() as patch:
        patch.setattr(owner, what, fail)
        with pytest.raises(SandboxError, match="watch: MemoryError"):
            box.run("import os\nprint(1)\nos.fork()")
    assert 1 == value_of(box.run("result = 1"))
    assert box.settle()


def test_a_tree_that_cannot_be_measured_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """JOB-20: without descriptors the memory of further processes would no longer be limited."""

    def no_descriptor(_: Path) -> bytes:
        raise OSError(errno.EMFILE, "no descriptor left")

    monkeypatch.setattr(Path, "read_bytes", no_descriptor)
    with pytest.raises(OSError, match="no descriptor left"):
        child_handle.measure_tree(os.getpid())


def test_zygote_for_which_no_process_is_left_is_our_own_failure(
    make_box: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAGAIN of fork(2), EMFILE of socketpair(2): a worker counts and retries it, and goes on."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = len(os.listdir("/proc/self/fd"))
    for owner, name in ((subprocess, "Popen"), (socket, "socketpair")):
        with monkeypatch.context() as patch:
            patch.setattr(zygote_client, owner.__name__, SimpleNamespace(**{**vars(owner), name: refuse}))
            with pytest.raises(SandboxError, match="no process can be started"):
                make_box()
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_burst_of_runs_finds_room_at_the_zygote(make_box: MakeBox) -> None:
    """More at once than its socket takes requests: none is refused, and none costs an attempt."""
    box = make_box(ready=0)
    results = box.run_many([("result = args", number) for number in range(500)])
    assert list(range(500)) == [value_of(result) for result in results]


def test_a_child_whose_pidfd_finds_no_room_is_our_failure(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops a descriptor that has no place in our table: the spawn fails at once, and the next one works."""
    box = make_box(ready=0)
    receive = receive_descriptors

    def drop(control: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
        packet, fds = receive(control, most_bytes, most)
        if not packet.startswith(FORKED):
            return packet, fds
        for fd in fds:
            os.close(fd)
        return packet, []

    with monkeypatch.context() as patched:
        patched.setattr(zygote_client, "receive_descriptors", drop)
        with pytest.raises(SandboxError, match="no descriptor is left"):
            box.run("result = 1")
    assert ExitReason.OK is box.run("result = 1").exit_reason
