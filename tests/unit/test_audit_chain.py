"""The audit log is a hash chain: whatever is changed, put in or removed shows, also at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.telemetry.audit import PART_BYTES, REFUSALS_OF_ONE, AuditLog, Refusals, verify


def write(path: Path, count: int, who: str = "me") -> None:
    log = AuditLog(path)
    for number in range(count):
        log.note("attempt ended", {"task_id": f"{who}-{number}", "text": "x" * (number * 700 % 40_000)})
    log.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of ten lines, opened three times."""
    path = tmp_path / "audit.log"
    for count in (3, 3, 4):
        write(path, count)
    return path


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_log_is_read_back_whole(tmp_path: Path) -> None:
    """Part by part, from its end: each line once, however the parts cut them."""
    path = tmp_path / "long.log"
    write(path, 120)
    log, found, end = AuditLog(path), [], None
    while part := log.read_back(end):
        found += [line for _, line in part]
        end = part[-1][0]
    log.close()
    assert path.stat().st_size > PART_BYTES
    assert [line.rstrip(b"\n") for line in lines(path)][::-1] == found


SPOILS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "one removed": lambda found: found[:4] + found[5:],
    "the first removed": lambda found: found[1:],
    "the last removed": lambda found: found[:-1],
    "the last five removed": lambda found: found[:5],
    "all removed": lambda _: [],
    "one changed": lambda found: [*found[:4], found[4].replace(b"me-", b"you-"), *found[5:]],
    "the last changed": lambda found: [*found[:-1], found[-1].replace(b"me-", b"you-")],
    "two exchanged": lambda found: [*found[:4], found[5], found[4].replace(b"me-", b"you-"), *found[6:]],
    "one put in": lambda found: [*found[:4], found[4].replace(b"me-", b"you-"), *found[4:]],
    "half of a line removed": lambda found: [*found[:4], found[4][:50] + b"\n", *found[5:]],
}
"""How a log is spoiled → its lines afterwards."""


@pytest.mark.parametrize("spoil", SPOILS)
def test_spoiled_log_shows(log: Path, spoil: str) -> None:
    """AUD-01: before another line is written, and after."""
    assert () == verify([log]).faults
    log.write_bytes(b"".join(SPOILS[spoil](lines(log))))
    assert verify([log]).faults
    write(log, 3)
    assert verify([log]).faults


def test_head_that_was_set_back_shows_by_an_anchor(log: Path) -> None:
    """The limit of the chain: who changes both files is found by a number and digest that were kept elsewhere."""
    last = verify([log]).last
    assert last is not None
    anchor = (last.number, last.digest)
    kept = lines(log)[:6]
    log.unlink()
    log.with_name("audit.log.head").unlink()
    log.write_bytes(b"".join(kept))
    assert len(verify([log]).faults) == 1  # that there is no head
    write(log, 1)
    assert () == verify([log]).faults
    [fault] = verify([log], anchor).faults
    assert "anchor" in fault


def test_line_that_broke_off_is_named_and_the_chain_goes_on(log: Path) -> None:
    """A host that lost its power in the middle of a line: the next writer begins a new one, and covers the torn one."""
    with log.open("ab") as file:
        file.write(b'{"timestamp": "2026')
    write(log, 2)
    [fault] = verify([log]).faults
    assert "audit.log:11: " in fault
    assert "broke off" in fault


def test_rotated_log_is_one_chain(log: Path) -> None:
    """Together the files are whole, and a later one alone says what it lacks."""
    older = log.with_name("audit.log.1")
    log.rename(older)
    write(log, 2)
    found = verify([older, log])
    assert (12, ()) == (found.lines, found.faults)
    [fault] = verify([log]).faults
    assert "begins at number 11" in fault


def test_refusals_do_not_fill_the_log(tmp_path: Path) -> None:
    """A thousand of one address are a few lines and a count, and another address is named all the same."""
    path = tmp_path / "audit.log"
    audit = AuditLog(path)
    refusals = Refusals(audit)
    for _ in range(1000):
        refusals.note({"key_id": None, "client": "10.0.0.1"})
    refusals.note({"key_id": None, "client": "10.0.0.2"})
    refusals.flush()
    audit.close()
    entries = [json.loads(line) for line in lines(path)]
    assert REFUSALS_OF_ONE + 2 == len(entries)
    assert "10.0.0.2" == entries[-2]["client"]
    assert ("requests refused", 1000 - REFUSALS_OF_ONE) == (entries[-1]["event"], entries[-1]["count"])
