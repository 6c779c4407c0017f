"""Each attack fails inside, leaves no trace, and would have succeeded outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from sandbox import Result, SandboxError
from tests.attacks.attack import PRELUDE, Attack, compare, outside
from tests.attacks.field import Field
from tests.attacks.table import BY_USER, CATALOGUE, ELSEWHERE, MUST_HAVE_CONTROL, ROWS
from tests.support.container_seccomp import is_refused_by_container
from tests.support.synchronous import BUSY, value_of

WITH_CONTROL = [row for row in ROWS if row.control is not None]


def marked(rows: Iterable[Attack]) -> list[object]:
    """The rows as parameters, each by its name; those that can depend on the user say why."""
    found: list[object] = []
    for row in rows:
        reason = BY_USER.get(row.id) or BY_USER.get(row.id.partition("-")[0])
        found.append(pytest.param(row, id=row.name, marks=[pytest.mark.privilege(reason)] if reason else []))
    return found


def run(field: Field, row: Attack) -> Result:
    """The row's program in the sandbox, as often as it says."""
    program = row.program if row.bare else PRELUDE + row.program
    args = row.args(field)
    assert field.box.settle()
    if (meanwhile := row.meanwhile) is not None:
        _, result = field.box.while_running(BUSY + program, lambda pid: meanwhile(field, pid), args, **row.limits)
        if isinstance(result, SandboxError):
            raise result
        return result
    for _ in range(row.runs):
        result = field.box.run(program, args, **row.limits)
    return result


@pytest.mark.parametrize("row", marked(ROWS))
def test_attack_is_stopped(row: Attack, field: Field) -> None:
    """It ends in an expected way, brings no secret out, reaches nothing, and the next task is served."""
    row.args(field)  # what it plants is there before the count
    with field.unharmed():
        result = run(field, row)
        field.assert_secret(result)
        assert result.exit_reason in row.reasons, result
        if row.outcomes:
            compare(row.outcomes, value_of(result))
        named = {violation.syscall for violation in result.violations}
        assert {name for name in row.violations if not is_refused_by_container(name)} <= named, result.violations
        if row.check is not None:
            row.check(field, result)


@pytest.mark.parametrize("row", marked(WITH_CONTROL))
def test_attack_succeeds_outside(row: Attack, field: Field) -> None:
    """The same program does its work in a plain interpreter: what stopped it inside was the sandbox."""
    control = row.control
    assert control is not None
    folder = field.throw_away("control")
    args = (control.args or row.args)(field)
    for _ in range(control.runs):
        ended = outside(PRELUDE + (control.program or row.program), args, control, folder)
    assert control.still_running == (ended.exit_code is None), ended
    if not control.still_running:
        assert (control.exit_code or 0) == ended.exit_code, ended
    compare(control.outcomes, ended.value)
    if control.check is not None:
        control.check(field, ended)
    field.contacts()


def _identities(table: Mapping[str, str]) -> set[str]:
    return {f"{category}-{number}" for category, numbers in table.items() for number in numbers.split()}


def test_no_case_is_passed_over() -> None:
    """Each case of the catalogue is a row, a test elsewhere, or has its reason; none is in two of these."""
    rows = {row.id for row in ROWS if int(row.id.rpartition("-")[2]) < 90}
    assert _identities(CATALOGUE) == rows | set(ELSEWHERE)
    assert set() == rows & set(ELSEWHERE)


def test_every_row_has_a_name_of_its_own() -> None:
    """Two rows with one name would hide each other in a report."""
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)


def test_a_row_without_control_says_why() -> None:
    """A case that is known to succeed outside has a row that shows it; every other row without control has a reason."""
    shown = {row.id for row in ROWS if row.control is not None}
    assert set() == _identities(MUST_HAVE_CONTROL) - shown
    assert [] == [row.name for row in ROWS if (row.control is None) == (row.no_control == "")]


@pytest.mark.parametrize("place", sorted(set(ELSEWHERE.values())))
def test_what_is_tested_elsewhere_is_there(place: str) -> None:
    """The named test exists."""
    path, _, name = place.partition("::")
    assert f"def {name}(" in (Path(__file__).parents[1] / path).read_text(encoding="utf-8")
