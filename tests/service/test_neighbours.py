"""One tenant's work never costs another's: leases, attempts and checks of bodies under each attack that was found."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest

from engine.model.cancel import end_tasks
from engine.model.result import LOST
from engine.model.status import Status
from engine.model.task import Claim, ClaimRefused
from engine.store.store import Store
from engine.worker.keeper import ALIVE_S, Report, tell_that_it_lives
from engine.worker.leases import SILENT_S
from sandbox import ExitReason
from tests.programs.neighbours import ATTACKS, Hostile, Two, upload
from tests.service.test_store import expire, with_store
from tests.support.held import Held
from tests.support.new_task import new_task
from tests.support.stack import Stack, ask, until

STALL_S = 20
LEASE_S = 3.0


@pytest.mark.slow("a worker's event loop stands still for 20 s, many leases long")
def test_run_that_stalls_the_loop_costs_its_neighbours_no_attempt(tmp_path: Path) -> None:
    """ENG-01: while a worker's loop and every thread of it stand still, its process beside it keeps the leases."""
    stack = Stack(tmp_path, LEASE_S=f"{LEASE_S}", DRAIN_S="0.3", DEBUG_STALL_S=f"{STALL_S}")
    try:
        worker = stack.worker()
        held = Held("hold()\nresult = 'mine'")
        task_id = stack.submit(held.script)["task_id"]
        held.wait()
        other = stack.worker(MAX_CONCURRENT_TASKS="1")  # sweeps, and would take what is lost
        os.kill(worker.pid, signal.SIGUSR2)
        held.tell()
        late = f"pid {worker.pid}) is slow"
        until(lambda: any(late in one for one in stack.client.get("/health").json()["reasons"]), "it is called slow")
        assert "running" == stack.get(task_id)["status"]
        answer = stack.get(task_id, wait_s=60)
        assert ("succeeded", "mine", 1) == (answer["status"], answer["result"], answer["attempts"])
        assert "worker lost" not in other.log.read_text() + worker.log.read_text()
    finally:
        stack.close()


def test_stalled_worker_loses_its_tasks_in_the_end(tmp_path: Path) -> None:
    """A loop that never answers again is a lost worker: WORKER_STALL_S bounds the keeping."""
    stack = Stack(tmp_path, LEASE_S="2", DRAIN_S="0.3", DEBUG_STALL_S="300", WORKER_STALL_S="5")
    try:
        worker = stack.worker()
        held = Held("hold()\nresult = 1")
        task_id = stack.submit(held.script)["task_id"]
        held.wait()
        os.kill(worker.pid, signal.SIGUSR2)
        stack.start("worker", MAX_CONCURRENT_TASKS="1")
        until(lambda: stack.get(task_id)["attempts"] == 2, "another worker has it")
    finally:
        stack.close()


def test_keeper_that_dies_is_started_again(stack: Stack) -> None:
    """The process that keeps the leases is killed: the worker starts another, and no lease is lost."""
    worker = stack.worker()
    held = Held("hold()\nresult = 1")
    task_id = stack.submit(held.script)["task_id"]
    held.wait()
    keeper = find_keeper(worker.pid)
    keeper.kill()
    until(lambda: find_keeper(worker.pid).pid != keeper.pid, "there is a new one")
    time.sleep(LEASE_S)  # a lease long: whoever does not renew has lost by the end of it
    held.tell()
    answer = stack.get(task_id, wait_s=30)
    assert ("succeeded", 1) == (answer["status"], answer["attempts"])


def find_keeper(pid: int) -> psutil.Process:
    found: list[psutil.Process] = []

    def look() -> bool:
        children = psutil.Process(pid).children()
        found.clear()
        for one in children:
            with contextlib.suppress(psutil.ZombieProcess):  # one that was killed a moment ago
                found.extend([one] if "engine.worker.keeper" in one.cmdline() else [])
        return bool(found)

    until(look, "the worker has a keeper")
    return found[0]


def test_keeper_that_waits_for_postgres_is_not_stuck() -> None:
    """It says something all the while, whatever it waits for: for an answer, or for another engine's migration."""

    async def hear() -> list[Report]:
        said: asyncio.Queue[Report] = asyncio.Queue()
        telling = asyncio.create_task(tell_that_it_lives(said.put_nowait))
        heard = [await said.get() for _ in range(3)]
        await end_tasks(telling)
        return heard

    assert [Report()] * 3 == asyncio.run(hear())
    assert 2 * ALIVE_S < SILENT_S


def test_keeper_that_is_stuck_is_replaced(stack: Stack) -> None:
    """It lives and says nothing, as one would that never comes back from a library: the worker does not wait for it."""
    worker = stack.worker()
    keeper = find_keeper(worker.pid)
    keeper.suspend()
    until(lambda: find_keeper(worker.pid).pid != keeper.pid, "there is a new one")
    assert "says nothing, and is killed" in worker.log.read_text()
    assert "succeeded" == stack.get(stack.submit("result = 1")["task_id"], wait_s=30)["status"]


def test_keeper_holds_no_descriptor_of_a_run(stack: Stack) -> None:
    """DISK: a program that the worker starts gets none: a workspace that it held would stay in memory as long as it."""
    stack.submit("result = 1")
    keeper = find_keeper(stack.worker().pid)
    names = [os.readlink(one.path) for one in os.scandir(f"/proc/{keeper.pid}/fd")]
    assert [] == [name for name in names if name == "/" or "pidfd" in name or "seccomp" in name]


@pytest.mark.parametrize("is_stuck", [False, True], ids=["", "stuck"])
def test_keeper_ends_with_its_worker(stack: Stack, is_stuck: bool) -> None:
    """Killed or stopped, a worker leaves no process that renews in its name; nor one that does nothing at all."""
    for signum in (signal.SIGKILL,) if is_stuck else (signal.SIGKILL, signal.SIGTERM):
        worker = stack.worker()
        keeper = find_keeper(worker.pid)
        if is_stuck:
            keeper.suspend()
        worker.stop(signum)
        until(lambda keeper=keeper: not keeper.is_running() or keeper.status() == "zombie", "it has ended")  # type: ignore[misc]


async def claim_all(store: Store, task_ids: list[UUID], worker_id: UUID) -> list[UUID]:
    """Those that this worker gets."""
    found = [await store.claims.claim(task_id, worker_id, 10) for task_id in task_ids]
    assert not any(isinstance(one, ClaimRefused) for one in found)
    return [one.task_id for one in found if isinstance(one, Claim)]


def test_poison_ends_and_its_neighbours_pay_nothing(dsn: str) -> None:
    """ENG-02: a task that kills each of its workers ends after one attempt more than its own; the others spend none.

    Nobody knows which task a worker died of. Each that was lost beside others is a suspect, and a worker runs one
    suspect at a time: the next loss shows which of them it is.
    """

    async def do(store: Store) -> tuple[int, Any, Any]:
        tasks = [new_task() for _ in range(4)]
        for task in tasks:
            await store.tasks.insert(task)
        waiting, poison = [task.task_id for task in tasks], tasks[2].task_id
        workers_lost, ended = 0, set()
        while poison in waiting:
            fresh = new_task()  # there is always another tenant that has just come
            await store.tasks.insert(fresh)
            waiting.append(fresh.task_id)
            running = await claim_all(store, waiting, uuid4())
            if poison not in running:
                ended |= set(running)
                waiting = [task_id for task_id in waiting if task_id not in ended]
                continue
            for task_id in running:
                await expire(dsn, task_id)
            lost = {task.task_id: task.status for task in await store.claims.sweep_lost(LOST)}
            assert set(running) == set(lost)
            workers_lost += 1
            assert all(status is Status.QUEUED for task_id, status in lost.items() if task_id != poison)
            waiting = [task_id for task_id in waiting if not lost.get(task_id, Status.QUEUED).final]
        others = [await store.claims.claim(task_id, uuid4(), 10) for task_id in waiting]
        assert all(isinstance(other, Claim) for other in others)
        return workers_lost, await store.tasks.get(poison, "acme"), others

    workers_lost, poison, _ = with_store(dsn, do)
    assert (Status.FAILED, ExitReason.WORKER_LOST) == (poison.status, poison.result.exit_reason)
    assert new_task().max_attempts + 1 == workers_lost == poison.attempts
    spent = "SELECT count(*) FROM attempts WHERE task_id <> $1 AND message = 'the lease ran out'"
    assert 0 == ask(dsn, spent.replace("$1", f"'{poison.task_id}'"))[0]["count"]


def test_worker_runs_one_suspect_at_a_time(dsn: str) -> None:
    """PostgreSQL holds it, also for two claims at the same moment."""

    async def do(store: Store) -> int:
        tasks = [new_task() for _ in range(3)]
        for task in tasks:
            await store.tasks.insert(task)
        task_ids, first, second = [task.task_id for task in tasks], uuid4(), uuid4()
        assert 3 == len(await claim_all(store, task_ids, first))
        for task_id in task_ids:
            await expire(dsn, task_id)
        await store.claims.sweep_lost(LOST)
        claims = await asyncio.gather(*(store.claims.claim(task_id, second, 10) for task_id in task_ids))
        return sum(isinstance(claim, Claim) for claim in claims)

    assert 1 == with_store(dsn, do)


INNOCENT = {"task_type": "custom_script", "parameters": {"script": "result = 1"}}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """An innocent and a hostile tenant of one worker."""
    found = Two(tmp_path_factory.mktemp("two"), STORED_MIB="256")
    yield found
    found.stack.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.name.split()[0]))
def test_innocent_task_ends_well_beside_an_attack(two: Two, attack: Hostile) -> None:
    """NEI-01: while each attack goes on another tenant's tasks end at their first attempt; nobody loses a lease."""
    if attack.name.startswith("6"):
        attack = attack._replace(send=upload(4))  # the disk of a test machine is no victim
    with two.under(attack._replace(at_once=1)) as answered, two.client("innocent") as client:
        ended = []
        for _ in range(2):
            answered.acquire()
            ended.append(client.post("/execute?wait=60", json=INNOCENT).json())
            assert 200 == client.get("/health/live").status_code
    assert [("ok", 1)] * 2 == [(one["exit_reason"], one["attempts"]) for one in ended]
    [worker] = two.stack.client.get("/health").json()["workers"]
    assert ([], "working") == (worker["failing"], worker["state"])
    assert "worker lost" not in (two.stack.folder / "worker.log").read_text()
