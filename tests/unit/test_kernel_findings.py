"""tests/kernels: what the console of a machine says, and the table that is made of it."""

from __future__ import annotations

import pytest

from tests.kernels.findings import (
    CHECK,
    MARK,
    End,
    Finding,
    Line,
    Progress,
    completed,
    expected,
    has_failed,
    read,
    table,
    written,
)
from tests.kernels.machines import KERNELS

HELD = Finding(promise=CHECK, who="root", verdict="held", detail="Landlock ABI 6")
FAILED = Finding(promise=CHECK, who="user", verdict="failed", detail="no | at all")


@pytest.mark.parametrize("line", [HELD, FAILED, Progress(text="20 attacks"), End()], ids=type)
def test_line_of_the_console_is_read_as_it_was_written(line: Line) -> None:
    """Also where a terminal's control characters stand before it."""
    assert line == read("\x1b[2J" + written(line) + "\r\n")


@pytest.mark.parametrize("line", ["", "[  1.0] random: crng init done", MARK, MARK + "{\"find[  1.0] a kernel's word"])
def test_other_lines_are_passed_over(line: str) -> None:
    """A line into which the kernel has written is lost, so that its finding is missed."""
    assert read(line) is None


def test_finding_that_does_not_come_has_failed() -> None:
    """A machine that stops early has kept no promise."""
    missing = Finding(promise=CHECK, who="user", verdict="failed", detail="no finding")
    assert [HELD, missing] == completed([HELD], expected("check", ()))
    assert [HELD] == completed([HELD], [(CHECK, "root")])


def test_one_failure_or_nothing_at_all_is_a_failure() -> None:
    """Of any kernel."""
    assert not has_failed({"6.1": [HELD]})
    assert has_failed({"6.1": [HELD, FAILED], "6.12": [HELD]})
    assert has_failed({"6.1": []})


def test_table_has_a_row_for_each_promise_and_a_column_for_each_kernel() -> None:
    """Who held it, why it failed, and where nobody tried."""
    other = Finding(promise="another", who="root", verdict="held")
    lines = table({"6.12": [HELD, FAILED], "6.1": [other]}).splitlines()
    assert "| promise | 6.12 | 6.1 |" == lines[0]
    assert f"| {CHECK} | held (root); Landlock ABI 6; **user: FAILED**, no \\| at all | not tried |" == lines[2]
    assert "| another | not tried | held (root) |" == lines[3]


def test_each_part_that_a_kernel_tries_has_findings_that_must_come() -> None:
    """Each task type by both users, in both profiles."""
    for kernel in KERNELS:
        assert set(kernel.parts) <= set(kernel.possible)
        assert all(list(expected(part, ["web_scraping"])) for part in kernel.possible)
    assert 4 + 6 == len(list(expected("tasks", ["web_scraping"])))
