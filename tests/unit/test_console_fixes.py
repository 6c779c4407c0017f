"""The console names the fix of each reason that health gives, and shows the service's sentences as they are meant."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import pytest

from engine.api.console.files import FOLDER
from engine.model.versions import Versions
from engine.model.worker_state import Heartbeat, WorkerState
from engine.service.health import DependencyCheck, Health, WorkerFound
from sandbox import Isolation

GOOD, BAD = DependencyCheck(fault=None, latency_s=0.0), DependencyCheck(fault="connection refused", latency_s=0.0)
READ_ONLY = DependencyCheck(fault="read-only", latency_s=0.0, is_read_only=True)


def worker(*, age_s: float = 0.0, differ: tuple[str, ...] = (), **state: Any) -> WorkerFound:
    isolation = Isolation(profile="full", start="warm", layers={})
    facts: dict[str, Any] = {
        "worker_id": uuid4(),
        "host": "h",
        "pid": 7,
        "slots": 2,
        "running": 0,
        "ready": {"custom_script": 1},
    }
    at = WorkerState(**facts | {"isolation": isolation, "state": "working"} | state)
    return WorkerFound(heartbeat=Heartbeat(state=at, age_s=age_s), policies_differ=differ)


def health(**more: Any) -> Health:
    facts: dict[str, Any] = {
        "database": GOOD,
        "redis": GOOD,
        "workers": (worker(),),
        "queued": 0,
        "running": 0,
        "oldest_wait_s": 0.0,
    }
    return Health(**facts | {"policies": {}, "versions": Versions()} | more)


HINDERED = {
    "PostgreSQL is away": health(database=BAD, workers=()),
    "PostgreSQL is a replica": health(database=READ_ONLY),
    "the disk is full": health(full="PostgreSQL's disk has 9 MiB left of 512 (DATABASE_FREE_MIB)"),
    "the database is full": health(full="the database has 9 MiB of 9 (DATABASE_MAX_MIB)"),
    "Redis is away": health(redis=BAD),
    "there is no worker": health(workers=()),
    "a worker is silent": health(workers=(worker(), worker(age_s=40.0))),
    "a worker has no Redis": health(workers=(worker(), worker(redis="away"))),
    "a policy fails": health(workers=(worker(failing=("custom_script",)),)),
    "a worker is slow": health(workers=(worker(lag_s=3.0),)),
    "a worker has other policies": health(workers=(worker(differ=("custom_script",)),)),
}


RAW = re.compile(r"h\(\"(?!option)\w+\", \{[^}]*\}, (?:\"[^\"]*\", )*(?:` ?\$\{)?(?:(?:error|one|task)\.message|one\))")
"""An element whose text is a sentence of the service, as it came."""


def test_code_marks_are_rendered() -> None:
    """Names stand in code marks in what the service says: of a limit, of a refusal, of its health."""
    shown = {path.name: RAW.findall(path.read_text()) for path in FOLDER.glob("*.js")}
    assert {name: [] for name in shown} == shown
    assert RAW.search('h("p", {}, error.message)')


@pytest.mark.parametrize("about", HINDERED)
def test_reason_has_its_fix(about: str) -> None:
    """A sentence of its own, and not the one that stands for what nobody has thought of."""
    text = (FOLDER / "operations.js").read_text()
    signs = re.findall(r"\[/([^/]+)/, \"", text[text.index("const FIXES") :])
    found = HINDERED[about]
    reasons = (*found.hindrances, *found.warnings)
    assert reasons
    assert [] == [reason for reason in reasons if not any(re.search(sign, reason) for sign in signs)]


def test_silent_worker_has_one_reason() -> None:
    """What it said before it fell silent is no news: that it is silent is all that is known."""
    silent = worker(age_s=40.0, redis="away", failing=("custom_script",), lag_s=3.0, differ=("custom_script",))
    assert 1 == len(health(workers=(worker(), silent)).warnings)


def test_healthy_service_has_no_reason() -> None:
    """The control."""
    assert () == (*health().hindrances, *health().warnings)
