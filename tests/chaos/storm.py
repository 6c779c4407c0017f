"""A storm: a client outside asks the service for all it can do, while one fault after the other befalls each part.

Afterwards two things are judged: the client's history, by what the documentation promises (``outside/promises.py``),
and PostgreSQL's record of every task (``record.py``).
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.faults import FAULTS, PREPARE, Fault, NotNowError
from tests.chaos.outside.promises import Broken, History, judge
from tests.chaos.record import faults, read, watch
from tests.chaos.scene import MAX_ATTEMPTS, SECRET, Scene

CLIENT = Path(__file__).resolve().parent / "outside" / "client.py"
SETTLE_S = 420.0
TICK_S = 0.02
LONGER = (1.0, 1.0, 1.5, 2.5)
"""In a long storm a fault lasts so many times as long as its line says."""
SHOWN = 20


class Plan(NamedTuple):
    """The parts of a storm."""

    seconds: float = 0.0
    """How long it blows at least; each fault comes once in any case, and then again."""
    workers: int = 2
    at_once: int = 3
    """Faults at the same time, each of another part."""
    pause_s: float = 0.1
    """Between the end of one and the next."""
    rate: float = 4.0
    """The client's requests each second."""
    longest_s: float = 1.0
    """Of the client's tasks."""
    seed: int = 1


class Outcome(NamedTuple):
    """The outcome of a storm."""

    history: History
    broken: list[Broken]
    blown: Counter[str]
    complaints: list[str]
    """What the parts logged that nobody foresaw."""


Tell = Callable[[str], None]


class Weather:
    """Blows faults over a scene, each of another part, until the plan is done; leaves everything whole."""

    def __init__(self, scene: Scene, plan: Plan, tell: Tell) -> None:
        self._scene, self._plan, self._tell = scene, plan, tell
        self._random = random.Random(plan.seed)
        self._active: dict[str, tuple[float, Fault, contextlib.ExitStack]] = {}
        """Part → when its fault ends, and what undoes it."""
        self._coming: list[Fault] = []
        self.blown: Counter[str] = Counter()

    def blow(self) -> None:
        """Each fault once, and then again and again until the time is over."""
        until = time.monotonic() + self._plan.seconds
        next_at = time.monotonic()
        self._coming = self._round()
        try:
            while self._coming or time.monotonic() < until or self._active:
                now = time.monotonic()
                self._end_those_over(now)
                if not self._coming and now < until:
                    self._coming = self._round()
                if now >= next_at and len(self._active) < self._plan.at_once:
                    fault = next(filter(self._may_come, self._coming), None)
                    if fault is not None:
                        self._coming.remove(fault)
                        self._begin(fault, now)
                        next_at = time.monotonic() + self._plan.pause_s
                time.sleep(TICK_S)
        finally:
            self._end_those_over(float("inf"))

    def _may_come(self, fault: Fault) -> bool:
        return fault.part not in self._active and self._scene.stands(fault.part)

    def _round(self) -> list[Fault]:
        return self._random.sample(list(FAULTS.values()), len(FAULTS))

    def _begin(self, fault: Fault, now: float) -> None:
        lasts_s = fault.lasts_s * (self._random.choice(LONGER) if self.blown[fault.name] else 1.0)
        self._scene.note("fault", name=fault.name, phase="begins")
        undo = contextlib.ExitStack()
        try:
            undo.enter_context(fault.blow(self._scene))
        except NotNowError:
            self._coming.append(fault)
            return
        self._active[fault.part] = (now + lasts_s, fault, undo)
        self.blown[fault.name] += 1
        self._tell(fault.name)

    def _end_those_over(self, now: float) -> None:
        for part, (ends_at, fault, undo) in list(self._active.items()):
            if now >= ends_at:
                del self._active[part]
                undo.close()
                self._scene.note("fault", name=fault.name, phase="ends")


class Outside:
    """The client, a process of its own, which knows of the service what its documentation says."""

    def __init__(self, scene: Scene, plan: Plan) -> None:
        self._path = scene.folder / "history.jsonl"
        command = [
            sys.executable, str(CLIENT), "--url", f"http://127.0.0.1:{scene.to_api.port}",
            "--receiver", str(scene.receiver_port), "--callbacks", f"http://127.0.0.1:{scene.to_receiver.port}",
            "--rate", str(plan.rate), "--longest-s", str(plan.longest_s), "--seed", str(plan.seed),
        ]  # fmt: skip
        with self._path.open("wb") as history, (scene.folder / "client.txt").open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=history, stderr=errors)
        self._errors = scene.folder / "client.txt"

    def finish(self) -> list[dict[str, Any]]:
        """Let it see everything through; its history."""
        self._process.communicate(timeout=SETTLE_S)
        if self._process.returncode:
            raise AssertionError(f"the client failed: {self._errors.read_text()[-2000:]}")
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        """End it, should it still run."""
        self._process.kill()
        self._process.communicate()


def blow(folder: Path, plan: Plan, *, refused_within_s: float | None = None, tell: Tell = lambda _: None) -> Outcome:
    """A storm over a service of its own.

    Args:
        folder: of logs and the history; other users may enter it.
        plan: of the storm.
        refused_within_s: how soon a 503 must come; see ``History``.
        tell: is told each fault as it begins.
    """
    with Scene(folder, workers=plan.workers, seed=plan.seed) as scene:
        watch(scene.dsn)
        scene.ask(PREPARE)
        weather = Weather(scene, plan, tell)
        with contextlib.closing(Outside(scene, plan)) as client:
            broken = _blow_all(weather)
            facts = client.finish()
        facts += scene.facts
        (folder / "facts.jsonl").write_text("".join(f"{json.dumps(fact)}\n" for fact in facts))
        history = History(facts, secret=SECRET, refused_within_s=refused_within_s)
        broken += [*judge(history), *_recorded(scene, history)]
        return Outcome(history, broken, weather.blown, scene.complaints())


def _blow_all(weather: Weather) -> list[Broken]:
    """Blow. A storm that ends by its own fault has shown nothing, but what it has seen is worth a look."""
    try:
        weather.blow()
    except Exception:
        return [Broken("the storm blows to its end", traceback.format_exc())]
    return []


def _recorded(scene: Scene, history: History) -> Iterator[Broken]:
    """What PostgreSQL remembers of the same tasks."""
    records = read(scene.dsn)
    expected = {
        task_id: nonce for task_id, nonce in history.accepted.items() if history.wants[nonce]["ends"] == "succeeded"
    }
    for what in faults(records, expected, max_attempts=MAX_ATTEMPTS):
        yield Broken("PostgreSQL's record agrees", what)
    for task_id in records.keys() - history.accepted.keys():
        yield Broken("one key is one task", f"{task_id}: is stored, and its id was never given out")


def sentences(broken: Sequence[Broken]) -> str:
    """The first of what was broken, a line each."""
    more = f"\nand {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return "\n".join(f"{one.promise}: {one.what}" for one in broken[:SHOWN]) + more
