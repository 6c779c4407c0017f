"""The small registries of a worker: which attempts it makes just now, and which policies fail there."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from engine.model.request import SubmitRequest
from engine.model.task import Claim
from engine.queue.events import AttemptEvents, EventWriter
from engine.queue.memory import MemoryShare
from engine.worker.callbacks import delivery_of
from engine.worker.failing import FailingPolicies
from engine.worker.running import RunningAttempts

NO_EVENTS = cast(AttemptEvents, None)
NO_MEMORY = cast(MemoryShare, None)


def claim(task_id: UUID | None = None, **changes: Any) -> Claim:
    fields: dict[str, Any] = {
        "task_id": task_id or uuid4(),
        "worker_id": uuid4(),
        "attempt": 1,
        "tenant": "acme",
        "policy": "custom_script",
        "request": SubmitRequest(task_type="custom_script", parameters=msgspec.Raw(b"{}")),
        "queue_s": 0.0,
        "age_s": 0.0,
    }
    return Claim(**fields | changes)


def test_older_attempt_may_end_after_the_newer_one() -> None:
    """A worker that lost a lease and got the task again: whichever ends first, nothing that keeps them fails."""

    async def do() -> None:
        writer, first = EventWriter("redis://127.0.0.1:1", "unityai:tasks"), claim()
        second = claim(first.task_id, attempt=2)
        with writer.attempt(first), writer.attempt(second):
            pass
        running = RunningAttempts()
        with running.add(first, NO_EVENTS, NO_MEMORY), running.add(second, NO_EVENTS, NO_MEMORY):
            pass
        assert 0 == len(running)

    asyncio.run(do())


def test_later_attempt_at_a_task_stops_the_one_before_and_outlives_it() -> None:
    """A worker that slept past its lease may be given the task again: the older run is killed, the newer is kept."""

    async def do() -> tuple[bool, bool, bool, int]:
        running, first = RunningAttempts(), claim()
        older = running.add(first, NO_EVENTS, NO_MEMORY)
        with older as before:
            newer = running.add(claim(first.task_id, attempt=2), NO_EVENTS, NO_MEMORY)
            after = newer.__enter__()
        is_known = running.get(first.task_id) is after
        newer.__exit__(None, None, None)
        return before.stop.is_set(), after.stop.is_set(), is_known, len(running)

    assert (True, False, True, 0) == asyncio.run(do())


def test_cancel_that_comes_before_the_claim_is_kept_for_it() -> None:
    """Redis may deliver it while the claim is on its way from PostgreSQL; another task is not concerned."""

    async def do() -> tuple[bool, bool]:
        running, cancelled, other = RunningAttempts(), claim(), claim()
        running.cancel(cancelled.task_id)
        with running.add(cancelled, NO_EVENTS, NO_MEMORY) as one, running.add(other, NO_EVENTS, NO_MEMORY) as two:
            return one.cancelled, two.cancelled

    assert (True, False) == asyncio.run(do())


def test_attempt_that_has_ended_is_not_cancelled() -> None:
    """Its result is on its way into PostgreSQL, and holds."""

    async def do() -> tuple[bool, bool]:
        running, one = RunningAttempts(), claim()
        with running.add(one, NO_EVENTS, NO_MEMORY) as attempt:
            attempt.ended = True
            running.cancel(one.task_id)
            return attempt.cancelled, attempt.stop.is_set()

    assert (False, False) == asyncio.run(do())


def test_only_a_run_that_this_worker_stops_is_given_back() -> None:
    """A run that its client cancelled has ended; one that was killed because the worker stops runs again."""

    async def do() -> tuple[bool, bool]:
        running, one, two = RunningAttempts(), claim(), claim()
        with running.add(one, NO_EVENTS, NO_MEMORY) as cancelled, running.add(two, NO_EVENTS, NO_MEMORY) as stopped:
            running.cancel(one.task_id)
            running.stop_all()
            return cancelled.stopped_by_us, stopped.stopped_by_us

    assert (False, True) == asyncio.run(do())


def test_task_with_which_a_policy_began_to_fail_is_the_suspect_until_it_works() -> None:
    """Failures are counted from there; a sandbox that answers clears the policy."""
    failing, first, second = FailingPolicies(["custom_script"]), claim(), claim()
    found = [failing.note_failure(one) for one in (first, second)]
    assert [(first.task_id, 1), (first.task_id, 2)] == [(one.suspect, one.failures) for one in found]
    assert ("custom_script",) == failing.names
    failing.note_success("custom_script")
    assert not failing.names
    assert second.task_id == failing.note_failure(second).suspect


def test_policy_without_sandboxes_here_is_not_reported_as_failing() -> None:
    """A task under a policy that this worker does not have says nothing about its sandboxes."""
    failing = FailingPolicies(["custom_script"])
    failing.note_failure(claim(policy="another"))
    assert () == failing.names


def test_policy_that_is_not_ready_yet_costs_no_task_an_attempt() -> None:
    """No sandbox has stood that the task could have broken; once one has, the suspect pays."""
    not_ready = {"custom_script": "its zygote is being started"}
    failing, one = FailingPolicies(["custom_script"], not_ready), claim()
    assert not failing.costs_an_attempt(one, failing.note_failure(one))
    not_ready.clear()
    assert failing.costs_an_attempt(one, failing.note_failure(one))


@pytest.mark.parametrize(
    ("status", "attempts", "final"),
    [(409, 1, False), (409, 7, False), (409, 8, True), (410, 1, True), (404, 50, False), (500, 50, False)],
)
def test_conflicts_are_tried_a_bounded_number_of_times(status: int, attempts: int, final: bool) -> None:
    """n8n answers 409 while an execution runs, and 404 while it starts; only the first of them ends the attempts."""
    delivery = delivery_of(httpx.Response(status), attempts)
    assert (False, status, final) == (delivery.delivered, delivery.status, delivery.is_final)
