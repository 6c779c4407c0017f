"""Holds a client's history against what the service promises. It knows the documentation, and none of the code.

A history is a list of facts, as ``client.py`` writes them and as the storm adds them:

- ``want``: a task that the client wants done, by its nonce, and the one status that it may end with;
- ``ask`` and ``answer``: a request and what came of it, joined by ``number``: a status, or the error of a connection;
- ``heard``: an event of a stream that the request of this ``number`` follows;
- ``callback``: a message at the client's receiver, and how it was answered;
- ``calm`` and ``end``: the storm was over; the client has seen everything through;
- ``death``: a process of the service has ended, ``ours`` if the storm ended it.

Times are seconds of one clock. Each promise is a function below, and a line of ``PROMISES``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Fact = Mapping[str, Any]

RETRY_S = 0.1
"""The pause after the first delivery that failed; each later one is three times as long, give or take a fifth."""
REASONS = {"succeeded": "ok", "failed": "error", "cancelled": "cancelled"}
"""Final status of a task of the client → the reason that it must have: none of them breaks a limit or dies."""
FORESEEN = {
    "execute": (200, 202, 503),
    "batch": (200, 503),
    "get": (200, 503),
    "cancel": (200, 202, 503),
    "follow": (200, 204, 503),
    "list": (200, 503),
    "callbacks": (200, 503),
    "health": (200, 503),
    "live": (200, 503),
    "check": (200, 503),
}
CONTROL_S = 0.2
"""A control request that takes longer was held up."""
CONTROLS = ("live", "check")
STATES = (*CONTROLS, "health")
"""Calls whose 503 is what was asked for, and no refusal."""


class Broken(NamedTuple):
    """A promise that was broken."""

    promise: str
    what: str


class Seen(NamedTuple):
    """A task as the client was told that it stands."""

    asked_at: float
    heard_at: float
    task: Fact
    by: str

    @property
    def is_final(self) -> bool:
        """Whether nothing may change about it any more."""
        return self.task.get("status") in REASONS


class Exchange(NamedTuple):
    """A request and its answer."""

    ask: Fact
    answer: Fact

    @property
    def lasted_s(self) -> float:
        """Seconds from the request to its answer."""
        return float(self.answer["at"] - self.ask["at"])


class History:
    """Facts in the order of their times, and what follows from them."""

    def __init__(self, facts: Iterable[Fact], *, secret: str = "", refused_within_s: float | None = None) -> None:
        """
        Args:
            facts: see the module.
            secret: the one that signs callbacks; empty where no signature is looked at.
            refused_within_s: how soon a 503 must come, beyond what a request asked to wait for; ``None``: whenever.
        """
        self.facts = sorted(facts, key=lambda fact: float(fact["at"]))
        self.secret, self.refused_within_s = secret, refused_within_s
        self.wants = {fact["nonce"]: fact for fact in self.of("want")}
        asks = {fact["number"]: fact for fact in self.of("ask")}
        self.exchanges = [Exchange(asks[fact["number"]], fact) for fact in self.of("answer")]
        self.unanswered = [asks[number] for number in asks.keys() - {fact["number"] for fact in self.of("answer")}]

    def of(self, event: str) -> list[Fact]:
        """All facts of one sort."""
        return [fact for fact in self.facts if fact["event"] == event]

    @functools.cached_property
    def accepted(self) -> dict[str, str]:
        """Task → the nonce of the request for which its id was given out."""
        return {task_id: nonce for nonce, ids in self.ids.items() for task_id in ids}

    @functools.cached_property
    def ids(self) -> dict[str, set[str]]:
        """Nonce → the ids that were given out for it. A nonce is its own idempotency key."""
        found: dict[str, set[str]] = defaultdict(set)
        for ask, answer in self.exchanges:
            for nonce, task in zip(ask.get("nonces", ()), answer.get("tasks", ()), strict=False):
                if "task_id" in task:
                    found[nonce].add(task["task_id"])
        return dict(found)

    @functools.cached_property
    def seen(self) -> dict[str, list[Seen]]:
        """Task → all that was said of it, in the order in which it was heard."""
        found: dict[str, list[Seen]] = defaultdict(list)
        for ask, answer in self.exchanges:
            for task in answer.get("tasks", ()):
                found[task.get("task_id", "")].append(Seen(ask["at"], answer["at"], task, ask["call"]))
        for fact in self.of("heard"):
            if fact["name"] == "result":
                found[fact["task_id"]].append(Seen(fact["at"], fact["at"], fact["data"], "follow"))
        for fact in self.of("callback"):
            found[fact["task"].get("task_id", "")].append(Seen(fact["at"], fact["at"], fact["task"], "callback"))
        found.pop("", None)
        return {task_id: sorted(all_, key=lambda seen: seen.heard_at) for task_id, all_ in found.items()}

    @functools.cached_property
    def ends(self) -> dict[str, Fact]:
        """Accepted task → the fullest that was said of its end."""
        found = {}
        for task_id in self.accepted:
            finals = [seen.task for seen in self.seen.get(task_id, ()) if seen.is_final]
            if finals:
                found[task_id] = max(finals, key=len)
        return found


def _lost(history: History) -> Iterator[str]:
    """Each task whose id was given out is there, and ends."""
    for ask, answer in history.exchanges:
        if answer.get("status") == 404 and ask.get("task_id") in history.accepted:
            yield f"{ask['task_id']}: accepted, and then 404 for {ask['call']}"
    yield from (f"{task_id}: accepted, and has no end" for task_id in history.accepted.keys() - history.ends.keys())
    yield from (f"{nonce}: was never accepted" for nonce in history.wants.keys() - history.ids.keys())


def _wrong_end(history: History) -> Iterator[str]:
    """Each task ends as its script does: no fault of the service is called the script's."""
    for task_id, end in history.ends.items():
        wanted = history.wants[history.accepted[task_id]]["ends"]
        if wanted != "cancelled" and (end["status"], end.get("exit_reason")) != (wanted, REASONS[wanted]):
            yield f"{task_id}: {end['status']}, {end.get('exit_reason')} ({end.get('message')}) instead of {wanted}"


def _not_cancelled(history: History) -> Iterator[str]:
    """A task whose cancel was accepted, long before its script could end, is cancelled."""
    promised = {
        ask["task_id"] for ask, answer in history.exchanges
        if ask["call"] == "cancel" and answer.get("status") in (200, 202)
    }  # fmt: skip
    for task_id in promised & history.ends.keys():
        end = history.ends[task_id]
        if (end["status"], end.get("exit_reason")) != ("cancelled", "cancelled"):
            yield f"{task_id}: its cancel was accepted, and it is {end['status']}, {end.get('exit_reason')}"


def _anothers(history: History) -> Iterator[str]:
    """Each result is the one of its own request."""
    for task_id, nonce in history.accepted.items():
        seen = history.seen[task_id]
        for one in seen:
            if one.task.get("nonce", nonce) != nonce:
                yield f"{task_id}: {one.by} shows the labels of {one.task['nonce']} instead of {nonce}"
            if one.task.get("status") == "succeeded" and one.task.get("result", nonce) != nonce:
                yield f"{task_id}: {one.by} has the result {one.task['result']!r} instead of {nonce!r}"
            if one.task.get("status") == "failed" and nonce not in str(one.task.get("error", nonce)):
                yield f"{task_id}: {one.by} has the error {one.task['error']!r} instead of that of {nonce!r}"
        if history.ends.get(task_id, {}).get("status") == "succeeded" and not _has_result(seen):
            yield f"{task_id}: succeeded, and nobody showed its result"


def _has_result(seen: Sequence[Seen]) -> bool:
    """Whether a result was shown, if only by a list, which shows none, nothing was asked for."""
    return any("result" in one.task for one in seen) or {one.by for one in seen if one.is_final} <= {"list", "batch"}


def _left_again(history: History) -> Iterator[str]:
    """What has ended stays as it ended, whoever asks and however; attempts are never counted back."""
    for task_id, seen in history.seen.items():
        finals = [one for one in seen if one.is_final]
        for name in ("status", "exit_reason", "attempts", "finished_at", "result", "error", "stdout"):
            values = {repr(one.task[name]) for one in finals if name in one.task}
            if len(values) > 1:
                yield f"{task_id}: ended with more than one {name}: {', '.join(sorted(values))}"
        yield from (f"{task_id}: {fault}" for fault in _steps_back(seen))


def _steps_back(seen: Sequence[Seen]) -> Iterator[str]:
    ended_at, most = float("inf"), (float("-inf"), 0)
    for one in seen:
        if one.asked_at > ended_at and not one.is_final:
            yield f"{one.by} says {one.task.get('status')} after its end was told"
        if one.asked_at > most[0] and one.task.get("attempts", most[1]) < most[1]:
            yield f"{one.by} counts {one.task['attempts']} attempts after {most[1]}"
        if one.is_final:
            ended_at = min(ended_at, one.heard_at)
        if one.task.get("attempts", 0) > most[1]:
            most = (one.heard_at, one.task["attempts"])


def _made_twice(history: History) -> Iterator[str]:
    """One idempotency key stands for one task, however often and however at once it is sent."""
    found = {nonce: set(ids) for nonce, ids in history.ids.items()}
    for task_id, seen in history.seen.items():
        for one in seen:
            if one.task.get("nonce") in found:
                found[one.task["nonce"]].add(task_id)
    yield from (f"{nonce}: the tasks {', '.join(sorted(ids))}" for nonce, ids in found.items() if len(ids) > 1)


def _unforeseen(history: History) -> Iterator[str]:
    """A fault of the service or of its servers is a 503, and nothing else: never 500 or 502."""
    for ask, answer in history.exchanges:
        status = answer.get("status")
        is_lost = status == 404 and ask.get("task_id") in history.accepted
        if status is not None and status not in FORESEEN[ask["call"]] and not is_lost:
            yield f"{ask['call']}: {status} ({answer.get('detail')})"


def _no_retry_after(history: History) -> Iterator[str]:
    """Each 503 says when to come again."""
    for ask, answer in history.exchanges:
        if answer.get("status") == 503 and ask["call"] not in STATES and not answer.get("retry_after"):
            yield f"{ask['call']}: 503 without Retry-After ({answer.get('detail')})"


def _refused_late(history: History) -> Iterator[str]:
    """A 503 comes soon: within so many seconds beyond what the request asked to wait for, if the control did, too."""
    within_s = history.refused_within_s
    if within_s is None:
        return
    for exchange, late_s in lateness(history):
        if late_s > within_s:
            yield f"{exchange.ask['call']}, wait={exchange.ask['wait_s']}: 503 {late_s:.1f} s late"


def lateness(history: History) -> list[tuple[Exchange, float]]:
    """Refusals, and by how many seconds each came later than what was asked to wait for and what held up the controls.

    The controls are requests that need no server, sent all the time. While they are late, the machine, line, client or
    the whole API is, which says nothing of how long the service waits for PostgreSQL. Where a body is checked in
    another process, so is that of a control. While the answers of controls get lost, nothing can be said.
    """
    blind = _merged((control.ask["at"], control.answer["at"]) for control in _controls(history) if _is_lost(control))
    held_up = {calls: _held_up(history, calls) for calls in (CONTROLS[:1], CONTROLS)}
    found = []
    for exchange in history.exchanges:
        ask, ended = exchange.ask, exchange.answer["at"]
        if any(since < ended and until > ask["at"] for since, until in blind):
            continue
        if exchange.answer.get("status") == 503 and ask["call"] not in STATES:
            is_checked_apart = ask["call"] == "batch" or ask.get("is_large")
            spans = held_up[CONTROLS if is_checked_apart else CONTROLS[:1]]
            excused_s = sum(max(0.0, min(until, ended) - max(since, ask["at"])) for since, until in spans)
            found.append((exchange, exchange.lasted_s - ask["wait_s"] - excused_s))
    return found


def _held_up(history: History, calls: tuple[str, ...]) -> list[tuple[float, float]]:
    """When controls of these calls were late."""
    return _merged(
        (control.ask["at"], control.answer["at"])
        for control in _controls(history, calls)
        if control.lasted_s > CONTROL_S and not _is_lost(control)
    )


def _controls(history: History, calls: tuple[str, ...] = CONTROLS) -> list[Exchange]:
    return [exchange for exchange in history.exchanges if exchange.ask["call"] in calls]


def _is_lost(exchange: Exchange) -> bool:
    """Whether the service may have answered, and nobody heard it. Who cannot connect has heard what there is."""
    return exchange.answer.get("error") not in (None, "ConnectError")


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time without an overlap."""
    merged: list[tuple[float, float]] = []
    for since, until in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], until))
        else:
            merged.append((since, until))
    return merged


def _misheard(history: History) -> Iterator[str]:
    """A follower hears all that a task printed, once and in order, or is told of a gap; no stream ends silently."""
    streams = {ask["number"]: (ask, answer) for ask, answer in history.exchanges if ask["call"] == "follow"}
    heard: dict[str, list[Fact]] = defaultdict(list)
    for fact in history.of("heard"):
        heard[fact["task_id"]].append(fact)
    for ask, answer in streams.values():
        if answer.get("status") == 200 and answer.get("last") not in ("result", "error"):
            yield f"{ask['task_id']}: a stream ended with {answer.get('last') or 'nothing'}"
    begun = {number: ask["after"] for number, (ask, _) in streams.items()}
    begun |= {ask["number"]: ask["after"] for ask in history.unanswered if ask["call"] == "follow"}
    for task_id, facts in heard.items():
        yield from (f"{task_id}: {fault}" for fault in _replay(facts, begun))


def _replay(facts: Sequence[Fact], begun: Mapping[int, str]) -> Iterator[str]:
    """Read the streams of one task as a client does, one after the other."""
    ear, stream = _Ear(), 0
    for fact in facts:
        if fact["number"] != stream:
            stream = fact["number"]
            ear.begin(begun.get(stream, ""))
        yield from ear.hear(fact["name"], fact["id"], fact["data"])


class _Ear:
    """What a follower has of a task."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        """Attempt that was followed → what it printed. One that had ended before that is told by its result alone."""
        self._gaps: set[int] = set()
        self._at = (0, 0)
        """Attempt and number of the last event."""

    def begin(self, after: str) -> None:
        """A stream begins: from the start of the task's attempt, or after an event."""
        self._at = _position(after)
        if not after:
            self._texts.clear()
            self._gaps.clear()

    def hear(self, name: str, event_id: str, data: Any) -> Iterator[str]:
        """An event comes; what is wrong with it."""
        if name == "gap":
            self._gaps.add(self._at[0])
        elif name == "status":
            self._at = _position(event_id) if event_id else (data["attempt"], self._at[1])
            if data["status"] == "running":
                self._texts.setdefault(self._at[0], "")
        elif name == "log":
            yield from self._hear_log(event_id, data)
        elif name == "result":
            yield from self._hear_end(data.get("attempts", 0), data.get("stdout", ""))

    def _hear_log(self, event_id: str, data: Fact) -> Iterator[str]:
        before, self._at = self._at, _position(event_id)
        attempt = self._at[0]
        if self._at <= before:
            yield f"event {event_id} came after {before[0]}-{before[1]}"
        elif attempt not in self._gaps and self._at != (before[0], before[1] + 1):
            yield f"event {event_id} came after {before[0]}-{before[1]}, and no gap was told"
        self._texts[attempt] = self._texts.get(attempt, "") + (data["text"] if data["stream"] == "stdout" else "")

    def _hear_end(self, attempt: int, printed: str) -> Iterator[str]:
        heard = self._texts.get(attempt, printed)
        if attempt not in self._gaps and heard != printed:
            yield f"heard {heard!r} of attempt {attempt}, which printed {printed!r}; no gap was told"


def _position(event_id: str) -> tuple[int, int]:
    attempt, _, number = event_id.partition("-")
    return (int(attempt), int(number)) if attempt.isdecimal() and number.isdecimal() else (0, 0)


def _untold(history: History) -> Iterator[str]:
    """Each callback arrives at least once, signed, and under the same id each time."""
    heard: dict[str, list[Fact]] = defaultdict(list)
    owners: dict[str, set[str]] = defaultdict(set)
    for fact in history.of("callback"):
        task_id = fact["task"].get("task_id")
        heard[task_id].append(fact)
        owners[fact["message_id"]].add(task_id)
        if fact["type"] != f"task.{fact['task'].get('status')}":
            yield f"{task_id}: a callback of type {fact['type']} has the status {fact['task'].get('status')}"
        if history.secret and not _is_signed(fact, history.secret):
            yield f"{task_id}: a callback has a wrong signature"
    for message_id, owned in owners.items():
        if len(owned) > 1:
            yield f"{message_id}: is the id of callbacks of {', '.join(sorted(owned))}"
    for task_id in history.ends:
        if not history.wants[history.accepted[task_id]].get("calls_back"):
            continue
        if len({fact["message_id"] for fact in heard[task_id]}) > 1:
            yield f"{task_id}: its callbacks have more than one id"
        if not any(fact["answered"] == 204 for fact in heard[task_id]) and not _comes_later(history, task_id):
            yield f"{task_id}: no callback was delivered; {len(heard[task_id])} came"


def _comes_later(history: History, task_id: str) -> bool:
    """Whether the service says in the end when it tries again, after no longer a pause than it promises."""
    answers = [
        answer for ask, answer in history.exchanges if ask["call"] == "callbacks" and answer.get("status") == 200
    ]
    due = {one["task_id"]: one for one in answers[-1]["due"]} if answers else {}
    return task_id in due and due[task_id]["due_in_s"] <= RETRY_S * 3 ** (due[task_id]["attempts"] - 1) * 1.2


def _is_signed(fact: Fact, secret: str) -> bool:
    """By the Standard Webhooks scheme: HMAC-SHA256 over ``id.timestamp.body``."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{fact['message_id']}.{fact['stamp']}.{fact['body']}".encode()
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return expected in fact["signature"].split()


def _not_listed(history: History) -> Iterator[str]:
    """In the end the list has each task once."""
    pages = [answer for ask, answer in history.exchanges if ask.get("whole") and answer.get("status") == 200]
    listed = Counter(task["task_id"] for page in pages for task in page.get("tasks", ()))
    yield from (f"{task_id}: is not in the list" for task_id in history.accepted.keys() - listed.keys())
    yield from (f"{task_id}: is in the list {count} times" for task_id, count in listed.items() if count > 1)


def _died(history: History) -> Iterator[str]:
    """No process of the service ends by itself."""
    for fact in history.of("death"):
        if not fact["ours"]:
            yield f"{fact['part']} ended with {fact['code']}: {fact.get('last_words', '')}"


def _not_well(history: History) -> Iterator[str]:
    """When the storm is over the service is well by itself, and the client gets to its end.

    /health goes on naming workers that were killed, for some minutes.
    """
    healths = [answer for ask, answer in history.exchanges if ask["call"] == "health" and "health" in answer]
    reasons = healths[-1].get("reasons", ()) if healths else ()
    is_well = healths and all("has been silent" in reason for reason in reasons)
    if not is_well or (healths[-1]["health"] != "ok" and not reasons):
        yield f"/health: {dict(healths[-1]) if healths else 'no answer'}"
    if not history.of("end"):
        yield "the client did not get to its end"


PROMISES: dict[str, Callable[[History], Iterator[str]]] = {
    "no accepted task is lost": _lost,
    "each task ends as its script does": _wrong_end,
    "a cancel is honoured": _not_cancelled,
    "each result is its own": _anothers,
    "what has ended stays as it ended": _left_again,
    "one key is one task": _made_twice,
    "a fault is 503 and nothing else": _unforeseen,
    "each 503 says when to come again": _no_retry_after,
    "a 503 comes soon": _refused_late,
    "followers hear all, or of a gap": _misheard,
    "callbacks arrive": _untold,
    "the list is whole": _not_listed,
    "no process ends by itself": _died,
    "the service is well again by itself": _not_well,
}
"""Promise → what finds where it was broken."""


def judge(history: History) -> list[Broken]:
    """Everything that was broken."""
    return [Broken(name, what) for name, find in PROMISES.items() for what in find(history)]
