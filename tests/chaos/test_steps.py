"""kill -9 at every step between the queue and the answer: no task is lost, and none is answered twice (JOB-01, JOB-02).

Every doomed worker has one slot, so that each takes one task and dies with it; then a healthy one comes.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.chaos import doomed
from tests.chaos.record import Record, faults, read, watch
from tests.support.stack import Part, Stack, ask, free_port, task, until

LEASE_S = 6.0
MAX_ATTEMPTS = 2
NONCE = "import time\ntime.sleep({})\nresult = args"
HOLD_BACK = "UPDATE tasks SET due_at = now() + interval '{}' WHERE status = 'queued'"

LOST_WITH_THE_WORKER = ("claimed", "running", "ran")
UNCLAIMED = ("taken from the queue", "entry fetched")
KEPT = ("result stored", "told")
EITHER = ("result sent", "lease renewed")
"""Steps at which the result may or may not be stored already: the keeper renews beside the worker, not before it."""
AT_SIGTERM = ("given back",)


class Aftermath(NamedTuple):
    """The outcome of all tasks that the doomed process had held."""

    stack: Stack
    records: dict[str, Record]
    accepted: dict[str, str]
    deaths: dict[str, dict[str, Any]]
    """Step → who died there: ``task_id`` and ``time``."""


def deaths(*parts: Part) -> list[dict[str, Any]]:
    """The last output of the doomed process."""
    lines = [line for part in parts for line in part.log.read_text().splitlines() if line.startswith('{"died_at"')]
    return [json.loads(line) for line in lines]


def start_doomed(stack: Stack, step: str, command: str = "worker", **environ: str) -> Part:
    """A part that will die at a step."""
    return stack.start(step, command, module="tests.chaos.doomed", **environ)


def submit(stack: Stack, nonce: str, lasts_s: float = 1.2) -> str:
    """A task whose result must be its nonce."""
    body = task(NONCE.format(lasts_s))
    body["parameters"]["args"] = nonce
    return str(stack.client.post("/execute", json=body).json()["task_id"])


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """One that dies giving back, all other doomed workers at once, one that dies sweeping, then a healthy one."""
    folder = Path(tmp_path_factory.mktemp("steps"))
    folder.chmod(0o755)
    stack = Stack(folder, LEASE_S=str(LEASE_S), MAX_ATTEMPTS=str(MAX_ATTEMPTS), DRAIN_S="0.3")
    try:
        dsn = stack.environ["DATABASE_URL"]
        watch(dsn)
        steps = (*LOST_WITH_THE_WORKER, *UNCLAIMED, *KEPT, *EITHER)
        released = start_doomed(stack, *AT_SIGTERM)
        first = submit(stack, "nonce", lasts_s=3)
        accepted = {first: "nonce"}
        until(lambda: stack.get(first)["status"] == "running", "the first runs")
        assert -signal.SIGKILL == released.stop(signal.SIGTERM)
        ask(dsn, HOLD_BACK.format("1 hour"))  # the others are to take one fresh task each
        parts = {step: start_doomed(stack, step, MAX_CONCURRENT_TASKS="1") for step in steps}
        until(lambda: {part.pid for part in parts.values()} <= set(stack.worker_pids()), "the doomed are at work")
        accepted |= {submit(stack, f"nonce-{number}"): f"nonce-{number}" for number in range(len(steps))}
        until(lambda: all(part.process.poll() is not None for part in parts.values()), "the doomed are dead")
        sweeper = start_doomed(stack, "swept")
        assert -signal.SIGKILL == sweeper.process.wait(40)
        stack.worker()
        ask(dsn, HOLD_BACK.format("0 s"))
        accepted |= {doomed_api(stack, step): "" for step in ("task stored", "task queued")}
        ended = {task_id: stack.get(task_id, wait_s=40)["status"] for task_id in accepted}
        assert set(ended.values()) == {"succeeded"}, ended
        said = {death["died_at"]: death for death in deaths(*parts.values(), released, sweeper)}
        yield Aftermath(stack, read(dsn), accepted, said)
    finally:
        stack.close()


def doomed_api(stack: Stack, step: str) -> str:
    """Ask an API that dies before it can answer; the id of the task that it had in hand."""
    port = str(free_port())
    api = start_doomed(stack, step, "api", PORT=port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        until(lambda: reachable(client), "the doomed API is up")
        with pytest.raises(httpx.TransportError):
            client.post("/execute", json=task("result = args"))
    assert -signal.SIGKILL == api.process.wait(40)
    return str(deaths(api)[0]["task_id"])


def reachable(client: httpx.Client) -> bool:
    """Whether somebody answers there and has PostgreSQL."""
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_every_step_is_one_at_which_somebody_died(aftermath: Aftermath) -> None:
    """Otherwise the other tests would prove nothing."""
    assert {step for step in doomed.STEPS if not step.startswith("task ")} == set(aftermath.deaths)


def test_no_promise_is_broken(aftermath: Aftermath) -> None:
    """Every accepted task has one final state, its own nonce, and attempts without a gap; only the newest wrote."""
    accepted = {task_id: nonce or None for task_id, nonce in aftermath.accepted.items()}
    assert [] == faults(aftermath.records, accepted, max_attempts=MAX_ATTEMPTS)


@pytest.mark.parametrize("step", LOST_WITH_THE_WORKER)
def test_a_task_that_was_claimed_runs_again(aftermath: Aftermath, step: str) -> None:
    """JOB-01: the lease runs out, a sweeper notes the loss, the next attempt is the one that counts."""
    record = aftermath.records[aftermath.deaths[step]["task_id"]]
    assert ["worker_lost", "finished"] == [attempt.ended for attempt in record.history]


@pytest.mark.parametrize("step", UNCLAIMED)
def test_a_task_that_was_not_yet_claimed_is_queued_again(aftermath: Aftermath, step: str) -> None:
    """JOB-02: it runs once to its end. Before that another of the doomed may have got it, and died with it."""
    record = aftermath.records[aftermath.deaths[step]["task_id"]]
    assert [attempt.ended for attempt in record.history] in (["finished"], ["worker_lost", "finished"])


@pytest.mark.parametrize("step", KEPT)
def test_a_task_that_was_already_stored_runs_once(aftermath: Aftermath, step: str) -> None:
    """JOB-02: between the result and the last word nothing is run twice, and nothing shows twice."""
    record = aftermath.records[aftermath.deaths[step]["task_id"]]
    assert ["finished"] == [attempt.ended for attempt in record.history]


@pytest.mark.parametrize("step", EITHER)
def test_a_result_that_was_on_its_way_is_stored_whole_or_not_at_all(aftermath: Aftermath, step: str) -> None:
    """JOB-02: killed with the statement on the wire, PostgreSQL alone decides."""
    record = aftermath.records[aftermath.deaths[step]["task_id"]]
    assert [attempt.ended for attempt in record.history] in (["finished"], ["worker_lost", "finished"])


def test_a_task_that_was_given_back_is_not_lost_with_its_giver(aftermath: Aftermath) -> None:
    """Killed after it gave a task back and before it could stop: no attempt is spent."""
    record = aftermath.records[aftermath.deaths["given back"]["task_id"]]
    assert ["released", "finished"] == [attempt.ended for attempt in record.history]
    assert record.max_attempts == MAX_ATTEMPTS + 1


def test_the_tasks_of_a_killed_worker_are_noticed_by_their_lease(aftermath: Aftermath) -> None:
    """JOB-01: not before the worker has died. How soon is measured by ``make chaos``, which has a bar for it."""
    for step in LOST_WITH_THE_WORKER:
        death = aftermath.deaths[step]
        lost, again = aftermath.records[death["task_id"]].history
        assert death["time"] < lost.ended_at.timestamp() <= again.started_at.timestamp()


@pytest.mark.parametrize("step", ["task stored", "task queued"])
def test_a_task_whose_api_was_killed_runs_all_the_same(aftermath: Aftermath, step: str) -> None:
    """JOB-11: between insert and enqueue, and between enqueue and answer; PostgreSQL has it, so it is run, once."""
    ours = [task_id for task_id, nonce in aftermath.accepted.items() if not nonce]
    record = aftermath.records[ours[("task stored", "task queued").index(step)]]
    assert ["finished"] == [attempt.ended for attempt in record.history]
