"""A pool of sandboxes for tests that are not asynchronous: an event loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import msgspec

from sandbox import Host, Policy, Pool, Result, Template

_PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""On an emulated machine all waits are so many times longer (``make kernel-test``)."""
_ANSWER_WITHIN_S = 280.0 * _PATIENCE
PATIENCE_S = 120.0 * _PATIENCE
"""How long a state is waited for that must come. No test passes or fails by how soon it comes."""


class Sandbox:
    """Runs scripts under one policy, one call after the other or many at once."""

    def __init__(self, policy: Policy, host: Host, template: Template, *, ready: int = 2, **options: Any) -> None:
        self.policy = policy
        self.ready = ready
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox loop")
        self._thread.start()
        try:
            self.pool: Pool = self.do(_make_pool(policy, host, template, ready=ready, **options))
        except BaseException:
            self._stop()
            raise

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the pool's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_WITHIN_S)

    def run(
        self,
        script: str,
        args: Any = None,
        *,
        cancel_after_s: float | None = None,
        inputs: dict[str, bytes] | None = None,
        **limits: Any,
    ) -> Result:
        """Run one script.

        Args:
            inputs: files that it finds in ``inputs/``.
            cancel_after_s: ask for its end after so many seconds.
            limits: fields of ``Limits``, lower than the policy's.
        """
        return self.do(self._run(script, args, cancel_after_s, limits, inputs))

    def run_many(self, scripts: list[tuple[str, Any]], **limits: Any) -> list[Result]:
        """Run (script, args) pairs all at the same time; results in their order."""

        async def together() -> list[Result]:
            runs = [self._run(script, args, None, limits) for script, args in scripts]
            ended = await asyncio.gather(*runs, return_exceptions=True)
            for failure in ended:
                if isinstance(failure, BaseException):
                    raise failure
            return ended  # type: ignore[return-value]

        return self.do(together())

    def while_running(
        self,
        script: str,
        act: Callable[[int], Any],
        args: Any = None,
        *,
        then: Literal["wait", "release", "cancel"] = "wait",
        **limits: Any,
    ) -> tuple[Any, Any]:
        """Start a script that names itself busy (``BUSY``); call ``act`` with its child's pid meanwhile.

        Args:
            script: begins with ``BUSY``, or names itself when something is true that ``act`` needs.
            act: called in a thread of its own.
            args: the script's.
            then: what becomes of the run when ``act`` has returned: it ends by itself, its ``hold()`` returns (see
                ``HOLD``), or it is cancelled.
            limits: fields of ``Limits``, lower than the policy's.
        Returns:
            What ``act`` returned, and the result or the ``SandboxError`` of the run.
        """
        before = {pid for pid in descendants() if name_of(pid) == "busy"}

        async def both() -> tuple[Any, Any]:
            cancel = asyncio.Event()
            in_force = msgspec.structs.replace(self.policy.limits, **limits)
            run = asyncio.ensure_future(self.pool.run(request(script, args), limits=in_force, cancel=cancel))
            try:
                child = await asyncio.to_thread(self._busy_child, before)
                seen = await asyncio.to_thread(act, child)
                if then == "release":
                    os.kill(child, signal.SIGUSR1)
                elif then == "cancel":
                    cancel.set()
            except BaseException:
                cancel.set()
                raise
            finally:
                (ended,) = await asyncio.gather(run, return_exceptions=True)
            return seen, ended

        return self.do(both())

    def settle(self, within_s: float = PATIENCE_S) -> bool:
        """Wait until the pool is full again and nothing runs."""
        return eventually(self.at_rest, within_s)

    def at_rest(self) -> bool:
        """Whether the pool is full and nothing runs."""
        stats = self.pool.stats()
        return stats.ready == stats.wanted and stats.running == 0 and self.pool._background.is_idle

    def zygote_pids(self) -> tuple[int, int]:
        """(first stage, second stage): see ``sandbox.inside.zygote``."""
        zygote = self.pool._zygotes.current
        assert zygote is not None
        launcher = zygote._process.pid
        (inner,) = children_of(launcher)
        return launcher, inner

    def close(self) -> None:
        """End the pool, then the loop, then the thread."""
        try:
            self.do(self.pool.close())
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _busy_child(self, before: set[int]) -> int:
        """The child that runs the request, ready before or forked for it; not one of those that were busy before."""
        _, inner = self.zygote_pids()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for pid in children_of(inner):
                if pid not in before and name_of(pid) == "busy":
                    return pid
            time.sleep(0.005)
        raise AssertionError("no child named itself busy")

    async def _run(
        self,
        script: str,
        args: Any,
        cancel_after_s: float | None,
        limits: dict[str, Any],
        inputs: dict[str, bytes] | None = None,
    ) -> Result:
        cancel = None
        if cancel_after_s is not None:
            cancel = asyncio.Event()
            asyncio.get_running_loop().call_later(cancel_after_s, cancel.set)
        in_force = msgspec.structs.replace(self.policy.limits, **limits)
        return await self.pool.run(request(script, args), limits=in_force, cancel=cancel, inputs=inputs)


async def _make_pool(policy: Policy, host: Host, template: Template, **options: Any) -> Pool:
    pool = Pool(policy, host, template, **options)
    try:
        await pool.start()
    except BaseException:
        await pool.close()
        raise
    return pool


BUSY = "import ctypes; ctypes.CDLL(None).prctl(15, b'busy', 0, 0, 0)\n"
"""First line of a script for ``while_running``: PR_SET_NAME of prctl(2)."""

HOLD = (
    "import signal, time\ntold = []\nsignal.signal(signal.SIGUSR1, lambda *_: told.append(1))\n"
    "def hold():\n    while not told: time.sleep(0.01)\n"
) + BUSY
"""Instead of ``BUSY``: the script's ``hold()`` returns when ``while_running(then="release")`` says so."""


def request(script: str, args: Any = None) -> bytes:
    """A custom_script request as the engine would send it."""
    return json.dumps({"task_type": "custom_script", "parameters": {"script": script, "args": args}}).encode()


def value_of(result: Result) -> Any:
    """Return the script's result; fail with the whole answer if there is none."""
    assert result.value is not None, result
    return json.loads(bytes(result.value))


def eventually(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Whether ``condition`` comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def children_of(pid: int) -> list[int]:
    """Direct children of a process, see proc_pid_task_children(5)."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(number) for number in file.read().split()]
    except FileNotFoundError:
        return []


def parents() -> dict[int, int]:
    """pid → parent's pid, of all processes that can be seen. Asked often, and so by bare calls: proc_pid_stat(5)."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
        except (FileNotFoundError, ProcessLookupError):
            continue
        try:
            found[int(name)] = int(os.read(fd, 4096).rpartition(b")")[2].split(maxsplit=2)[1])
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)
    return found


def descendants(root: int | None = None) -> list[int]:
    """All processes below ``root``, this process unless said otherwise."""
    parent_of = parents()
    found: list[int] = []
    level = {root or os.getpid()}
    while level:
        level = {pid for pid, parent in parent_of.items() if parent in level}
        found += level
    return found


def name_of(pid: int) -> str:
    """The name a process has given itself."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def status_of(pid: int) -> dict[str, str]:
    """Fields of /proc/PID/status, see proc_pid_status(5)."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def descriptors() -> list[str]:
    """Describe each descriptor of this process without its number: comparable between two moments."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        found.append(re.sub(r"\d+", "N", target))
    return sorted(found)


def difference(before: dict[str, Any]) -> dict[str, Any]:
    """List the surplus over an earlier ``inventory``; a deficit means that something was only late to go then."""
    now = inventory()
    sorts = before["descriptors"].keys() | now["descriptors"].keys()
    changes = {sort: now["descriptors"][sort] - before["descriptors"][sort] for sort in sorts}
    changes |= {name: now[name] - before[name] for name in ("processes", "mounts")}
    return {name: change for name, change in changes.items() if change > 0}


def as_before(before: dict[str, Any], within_s: float = PATIENCE_S) -> dict[str, Any]:
    """The difference that is left when all has had time to go."""
    eventually(lambda: not difference(before), within_s)
    return difference(before)


def inventory() -> dict[str, Any]:
    """Count what must be the same before and after a run: descriptors by kind, processes, mounts."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        mounted = len(mounts.readlines())
    return {"descriptors": Counter(descriptors()), "processes": len(descendants()), "mounts": mounted}


def growth(work: Callable[[int], object], *, small: int, large: int) -> float:
    """How many times the processor time of ``work(small)`` is that of ``work(large)``; the least of five of each."""

    def cost_s(size: int) -> float:
        def once() -> float:
            started_s = time.thread_time()
            work(size)
            return time.thread_time() - started_s

        return min(once() for _ in range(5))

    return cost_s(large) / cost_s(small)
