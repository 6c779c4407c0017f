"""The checkers of a storm see each kind of broken promise: what finds nothing must be what could."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.chaos.outside.promises import PROMISES, History, judge
from tests.chaos.record import Attempt, Record, faults

KEY = b"secret-of-the-tests-0123"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
Facts = list[dict[str, Any]]

SUCCEEDED = {
    "task_id": "t1", "nonce": "n1", "status": "succeeded", "exit_reason": "ok", "attempts": 2, "result": "n1",
    "finished_at": "12:00", "stdout": "one\ntwo\n",
}  # fmt: skip
TWIN = SUCCEEDED | {"task_id": "t9"}
TEXT = {"stream": "stdout", "text": "again"}
FAILED = {"task_id": "t2", "nonce": "n2", "status": "failed", "exit_reason": "error", "attempts": 1, "error": "n2"}
CANCELLED = {"task_id": "t3", "nonce": "n3", "status": "cancelled", "exit_reason": "cancelled", "attempts": 1}


def ask(number: int, at: float, call: str, **more: Any) -> dict[str, Any]:
    """A request."""
    return {"event": "ask", "at": at, "number": number, "call": call, "wait_s": 0, **more}


def answer(number: int, at: float, status: int, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Its answer."""
    return {"event": "answer", "at": at, "number": number, "status": status, "tasks": list(tasks), **more}


def heard(at: float, name: str, event_id: str, data: Any, number: int = 10) -> dict[str, Any]:
    """An event of a stream."""
    return {"event": "heard", "at": at, "number": number, "task_id": "t1", "name": name, "id": event_id, "data": data}


def called_back(at: float, **change: Any) -> dict[str, Any]:
    """A callback, signed."""
    signed = "v1," + base64.b64encode(hmac.digest(KEY, b"m1.1.{}", hashlib.sha256)).decode()
    return {
        "event": "callback", "at": at, "message_id": "m1", "stamp": "1", "body": "{}", "signature": signed,
        "type": "task.succeeded", "task": SUCCEEDED, "answered": 204, **change,
    }  # fmt: skip


def good() -> Facts:
    """A history in which every promise was kept: three tasks, one of them lost once with its worker."""
    queued = {"task_id": "t1", "nonce": "n1", "status": "queued", "attempts": 0}
    return [
        {"event": "want", "at": 0.0, "nonce": "n1", "ends": "succeeded", "calls_back": True},
        {"event": "want", "at": 0.0, "nonce": "n2", "ends": "failed", "calls_back": False},
        {"event": "want", "at": 0.0, "nonce": "n3", "ends": "cancelled", "calls_back": False},
        ask(1, 1.0, "live"),
        answer(1, 1.05, 200),
        ask(2, 1.0, "execute", nonces=["n1"], key="n1"),
        answer(2, 2.5, 503, retry_after="2"),
        ask(3, 4.5, "execute", nonces=["n1"], key="n1"),
        {"event": "answer", "at": 4.6, "number": 3, "error": "ReadError"},
        ask(4, 5.0, "execute", nonces=["n1"], key="n1"),
        answer(4, 5.1, 202, queued),
        ask(5, 5.0, "batch", nonces=["n2", "n3"]),
        answer(5, 5.2, 200, FAILED | {"status": "queued"}, CANCELLED | {"status": "queued"}),
        ask(10, 5.3, "follow", task_id="t1", after=""),
        heard(5.4, "status", "1-0", {"status": "running", "attempt": 1}),
        heard(5.5, "log", "1-1", {"stream": "stdout", "text": "one\n"}),
        {"event": "answer", "at": 5.6, "number": 10, "error": "ReadError"},
        ask(11, 5.7, "follow", task_id="t1", after="1-1"),
        heard(6.4, "status", "2-0", {"status": "running", "attempt": 2}, 11),
        heard(6.5, "log", "2-1", {"stream": "stdout", "text": "one\n"}, 11),
        heard(6.6, "log", "2-2", {"stream": "stdout", "text": "two\n"}, 11),
        heard(6.7, "result", "end", SUCCEEDED, 11),
        answer(11, 6.8, 200, last="result"),
        ask(12, 6.0, "cancel", task_id="t3"),
        answer(12, 6.1, 202, CANCELLED | {"status": "running", "exit_reason": None}),
        called_back(6.9),
        {"event": "calm", "at": 7.0},
        ask(20, 8.0, "get", task_id="t1"),
        answer(20, 8.1, 200, SUCCEEDED),
        ask(21, 8.0, "get", task_id="t2"),
        answer(21, 8.1, 200, FAILED),
        ask(22, 8.0, "get", task_id="t3"),
        answer(22, 8.1, 200, CANCELLED),
        ask(23, 9.0, "list", whole=True),
        answer(23, 9.1, 200, CANCELLED, FAILED, SUCCEEDED),
        ask(24, 9.0, "health"),
        answer(24, 9.2, 200, health="ok", reasons=[]),
        {"event": "death", "at": 5.0, "part": "worker 1", "code": -9, "ours": True},
        {"event": "end", "at": 9.5},
    ]


def the(facts: Facts, number: int, event: str = "answer") -> dict[str, Any]:
    """The answer of a number, or its request."""
    return next(fact for fact in facts if fact.get("number") == number and fact["event"] == event)


def change(number: int, **to: Any) -> Callable[[Facts], None]:
    """An answer says something else."""
    return lambda facts: the(facts, number).update(to)


def change_task(number: int, **to: Any) -> Callable[[Facts], None]:
    """An answer says something else of its task."""

    def do(facts: Facts) -> None:
        found = the(facts, number)
        found["tasks"] = [found["tasks"][0] | to, *found["tasks"][1:]]

    return do


def drop(event: str, **which: Any) -> Callable[[Facts], None]:
    """Facts of one sort are not there."""

    def do(facts: Facts) -> None:
        facts[:] = [fact for fact in facts if fact["event"] != event or not which.items() <= fact.items()]

    return do


def end_all(task_id: str, **to: Any) -> Callable[[Facts], None]:
    """Whoever shows a task's end shows another one."""

    def do(facts: Facts) -> None:
        for fact in facts:
            for holder in (fact.get("tasks", []), [fact.get("data")], [fact.get("task")]):
                for task in holder:
                    if isinstance(task, dict) and task.get("task_id") == task_id and task.get("exit_reason"):
                        task.update(to)

    return do


def add(*facts: dict[str, Any]) -> Callable[[Facts], None]:
    """Something more happened."""
    return lambda known: known.extend(facts)


BREACHES: list[tuple[str, str, Callable[[Facts], None]]] = [
    ("no accepted task is lost", "404", add(ask(30, 8.2, "get", task_id="t2"), answer(30, 8.3, 404))),
    ("no accepted task is lost", "t2: accepted, and has no end", end_all("t2", status="running")),
    ("no accepted task is lost", "n4: was never", add({"event": "want", "at": 0, "nonce": "n4", "ends": "succeeded"})),
    ("each task ends as its script does", "worker_lost", end_all("t2", exit_reason="worker_lost")),
    ("each task ends as its script does", "signaled", end_all("t1", status="failed", exit_reason="signaled")),
    ("a cancel is honoured", "t3", end_all("t3", status="succeeded", exit_reason="ok", result="n3")),
    ("each result is its own", "'n9'", end_all("t1", result="n9")),
    ("each result is its own", "error", end_all("t2", error="of another")),
    ("each result is its own", "labels", change_task(20, nonce="n9")),
    ("what has ended stays as it ended", "more than one status", change_task(20, status="failed")),
    ("what has ended stays as it ended", "more than one finished_at", change_task(20, finished_at="12:01")),
    ("what has ended stays as it ended", "after its end was told", change_task(20, status="running")),
    ("what has ended stays as it ended", "counts 1 attempts after 2", change_task(20, attempts=1)),
    ("one key is one task", "t1, t9", add(ask(30, 8.2, "execute", nonces=["n1"]), answer(30, 8.3, 200, TWIN))),
    ("a fault is 503 and nothing else", "500", change(2, status=500)),
    ("a fault is 503 and nothing else", "502", change(2, status=502)),
    ("each 503 says when to come again", "without Retry-After", change(2, retry_after=None)),
    ("a 503 comes soon", "execute, wait=0: 503 3.0 s late", change(2, at=4.0)),
    ("followers hear all, or of a gap", "no gap was told", drop("heard", id="2-2")),
    ("followers hear all, or of a gap", "2-2 came after 2-0", drop("heard", id="2-1")),
    ("followers hear all, or of a gap", "came after", add(heard(6.65, "log", "2-2", TEXT, 11))),
    ("followers hear all, or of a gap", "ended with log", change(11, last="log")),
    ("callbacks arrive", "no callback was delivered; 0 came", drop("callback")),
    ("callbacks arrive", "no callback was delivered; 1 came", lambda facts: facts[25].update(answered=500)),
    ("callbacks arrive", "more than one id", add(called_back(7.1, message_id="m2"))),
    ("callbacks arrive", "wrong signature", lambda facts: facts[25].update(body="[]")),
    ("callbacks arrive", "of type", lambda facts: facts[25].update(type="task.failed")),
    ("callbacks arrive", "m1: is the id", add(called_back(7.1, type="task.failed", task=FAILED))),
    ("the list is whole", "t1: is not", change(23, tasks=[{"task_id": "t2"}, {"task_id": "t3"}])),
    ("the list is whole", "2 times", change(23, tasks=[{"task_id": name} for name in ("t1", "t2", "t3", "t2")])),
    ("no process ends by itself", "API", add({"event": "death", "at": 5, "part": "API", "code": 1, "ours": False})),
    ("the service is well again by itself", "degraded", change(24, health="degraded", reasons=["Redis"])),
    ("the service is well again by itself", "did not get", drop("end")),
]  # fmt: skip


def found(facts: Facts) -> list[tuple[str, str]]:
    """What the checker says."""
    return [(one.promise, one.what) for one in judge(History(facts, secret=SECRET, refused_within_s=2.0))]


def test_a_history_without_fault_is_without_fault() -> None:
    """Resent requests, lost answers, broken streams and second attempts break no promise."""
    assert [] == found(good())


@pytest.mark.parametrize(("promise", "said", "breach"), BREACHES, ids=[f"{name}: {said}" for name, said, _ in BREACHES])
def test_each_broken_promise_is_seen(promise: str, said: str, breach: Callable[[Facts], None]) -> None:
    """One thing is otherwise in a good history: the promise that it breaks is named, with what was found."""
    facts = copy.deepcopy(good())
    breach(facts)
    assert any(name == promise and said in what for name, what in found(facts)), found(facts)


def test_every_promise_has_a_breach_here() -> None:
    """No line of the table goes untried."""
    assert set(PROMISES) == {promise for promise, _, _ in BREACHES}


def test_late_machine_is_no_late_refusal() -> None:
    """A 503 that was late by as much as the control beside it is the machine's affair."""
    facts = good()
    the(facts, 1)["at"] = 3.9
    the(facts, 2)["at"] = 4.0
    assert [] == found(facts)


@pytest.mark.parametrize(
    ("attempts", "due_in_s", "breaks"),
    [(7, 80.0, []), (7, 90.0, ["callbacks arrive"]), (2, 80.0, ["callbacks arrive"])],
)
def test_callback_may_be_due_as_late_as_its_pause(attempts: int, due_in_s: float, breaks: list[str]) -> None:
    """Pauses grow by three: after seven failures one may come when the client has gone; after two it may not."""
    facts = good()
    next(fact for fact in facts if fact["event"] == "callback")["answered"] = 500
    due = [{"task_id": "t1", "attempts": attempts, "due_in_s": due_in_s}]
    facts += [ask(40, 20.0, "callbacks"), answer(40, 20.1, 200, due=due)]
    assert breaks == [name for name, _ in found(facts)]


def test_nothing_is_late_while_answers_get_lost() -> None:
    """Whether the machine was late cannot be told then."""
    facts = good()
    the(facts, 2)["at"] = 4.0
    lost = [ask(40, 3.0, "live"), {"event": "answer", "at": 3.9, "number": 40, "error": "ReadError"}]
    assert ["a 503 comes soon"] == [name for name, _ in found(facts)]
    assert [] == found([*facts, *lost])


def test_late_check_excuses_what_is_checked_apart() -> None:
    """A batch waits for the process that checks it, and then for PostgreSQL; a small request does not."""
    held_up = [ask(40, 1.0, "check"), answer(40, 4.0, 200), ask(41, 1.0, "batch", nonces=["n2"]), answer(41, 4.5, 503)]
    the(held_up, 41)["retry_after"] = "2"
    assert [] == found([*good(), *held_up])
    the(held_up, 41, "ask").update(call="execute")
    assert ["a 503 comes soon"] == [name for name, _ in found([*good(), *held_up])]


def test_gap_that_was_told_is_no_loss() -> None:
    """Live events that were lost, and said to be."""
    facts = [fact for fact in good() if fact.get("id") != "2-1"]
    assert [] == found([*facts, heard(6.55, "gap", "", {"missing": 1}, 11)])


def test_silent_workers_are_named_for_a_while() -> None:
    """/health goes on naming a worker that was killed."""
    facts = good()
    the(facts, 24).update(health="degraded", reasons=["worker 7 (pid 1) has been silent for 20 s"])
    assert [] == found(facts)


GOOD: dict[str, Any] = {
    "task_id": "t", "status": "succeeded", "exit_reason": "ok", "attempts": 1, "max_attempts": 3, "result": "nonce",
    "changes": [("queued", "running"), ("running", "succeeded")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "running"}, "not final"),
        ({"changes": [*GOOD["changes"], ("succeeded", "queued")]}, "changed after its end"),
        ({"changes": [*GOOD["changes"], ("succeeded", "succeeded")]}, "entered a final state 2 times"),
        ({"attempts": 2}, "has the attempts"),
        ({"result": "another's"}, "another's"),
        ({"max_attempts": 4}, "was given 1 attempts"),
        ({"exit_reason": "worker_lost", "status": "failed"}, "was lost after 1 of 3"),
    ],
)
def test_the_checker_of_the_record_sees_what_is_broken(change: dict[str, object], said: str) -> None:
    """PostgreSQL's own record of a task, with one thing otherwise."""
    now = datetime.now(UTC)
    good = GOOD | {"history": [Attempt(1, "w", now, now, "finished")]}
    assert [] == faults({"t": Record(**good)}, {"t": "nonce"}, max_attempts=3)
    assert said in " ".join(faults({"t": Record(**good | change)}, {"t": "nonce"}, max_attempts=3))
    assert ["t: accepted and gone"] == faults({}, {"t": "nonce"}, max_attempts=3)
