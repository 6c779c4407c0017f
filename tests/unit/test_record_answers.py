"""What the record's calls make of what is stored: denials by host, and lines of the audit log that hold a text."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.api.routes.trail import denied_answer, log_lines
from engine.model.errors import StoreReadOnlyError, StoreUnavailableError
from engine.model.principal import ANYONE
from engine.model.trail import Denied, DeniedHost
from engine.service.auditor import Auditor
from engine.service.service import Service
from engine.telemetry.audit import AuditLog

ENTRIES: dict[str, dict[str, Any]] = {
    "umlaut": {"artifacts": [{"name": "Zürich.png"}]},
    "emoji": {"path": "a 😀 b"},
    "quote": {"reason": 'it said "no"'},
    "backslash": {"reason": "C:\\"},
    "number": {"attempt": 4711},
    "name": {"layers": {"landlock": "on"}},
}


@pytest.fixture
def audit(tmp_path: Path) -> AuditLog:
    """A log with one line for each entry."""
    found = AuditLog(tmp_path / "audit.log")
    for event, entry in ENTRIES.items():
        found.note(event, {"tenant": ANYONE.tenant} | entry)
    return found


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("Zürich", ["umlaut"]),
        ("zürich", []),
        ("ü", ["umlaut"]),
        ("u00fc", []),
        ("😀", ["emoji"]),
        ('"no"', ["quote"]),
        ('"', ["quote"]),
        ("\\", ["backslash"]),
        ("4711", ["number"]),
        ("landlock", ["name"]),
        ("nobody", []),
    ],
)
def test_line_is_found_by_a_text_that_it_holds(audit: AuditLog, text: str, events: list[str]) -> None:
    """However the log writes its characters; neither its quotes nor its escapes are part of a text."""
    found = log_lines(audit, ANYONE, None, None, text)
    assert events == [line["event"] for line in found.lines]


def test_host_that_was_refused_for_two_reasons_shows_both() -> None:
    """In one attempt or in two, and each reason once."""
    first, again = (
        Denied(hosts=tuple(DeniedHost(host="h", port=443, decision=decision, connections=1) for decision in decisions))
        for decisions in (("host_not_allowed", "bytes_limit"), ("bytes_limit", "not_tls"))
    )
    auditor = Auditor(cast(Any, None), cast(Any, SimpleNamespace(named=lambda _: None)), ())
    answer = denied_answer(auditor, "p", [first, again])
    assert {"h:443": ("host_not_allowed", "bytes_limit", "not_tls")} == answer.hosts
    assert 3 == len(answer.words)


class AwayAtFirst:
    """A store that opens, is away when it is asked for the first time, and then a replica, before it takes writes."""

    database = SimpleNamespace()

    def __init__(self) -> None:
        self.trail, self.facts = self, dict[str, bool]()
        self.faults: list[Exception] = [StoreUnavailableError("away"), StoreReadOnlyError("a replica")]
        self.kept = 0

    async def open(self) -> None: ...

    async def ping(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

    async def keep_policies(self, _files: object) -> None:
        self.kept += 1


def test_policies_are_kept_once_the_store_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage after the store was opened, and a replica, delay them; once they are kept, that was all."""
    store, looks = AwayAtFirst(), 0
    kept: list[int] = []

    async def look(*_: object) -> None:
        nonlocal looks
        looks += 1
        kept.append(store.kept)
        if looks == 5:
            raise asyncio.CancelledError

    monkeypatch.setattr("engine.service.service.find_fullness", look)
    monkeypatch.setattr("engine.service.service.LOOK_S", 0.0)
    policies = SimpleNamespace(all=())
    given: list[Any] = [SimpleNamespace(receipt_keys=None, egress_allow_private=()), store, None, policies]
    service = Service(*given, metrics=cast(Any, SimpleNamespace(loop_failed=None)))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(service._watch_store())
    assert [0, 0, 1, 1, 1] == kept
