"""Each attack fails inside, leaves no trace, and would have succeeded outside."""

from __future__ import annotations

import pytest
from attack import PRELUDE, Attack, compare, outside
from field import Field
from table import ROWS

from sandbox import Result, SandboxError
from synchronous import BUSY, value_of

WITH_CONTROL = [row for row in ROWS if row.control is not None]


def run(field: Field, row: Attack) -> Result:
    """The row's program in the sandbox, as often as it says."""
    program = PRELUDE + row.program
    args = row.args(field)
    if row.meanwhile is not None:
        _, result = field.box.while_running(
            BUSY + program, lambda pid: row.meanwhile(field, pid), args, **row.limits
        )
        if isinstance(result, SandboxError):
            raise result
        return result
    for _ in range(row.runs):
        result = field.box.run(program, args, **row.limits)
    return result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_attack_is_stopped(row: Attack, field: Field) -> None:
    """It ends in an expected way, brings no secret out, reaches nothing, and the next task is served."""
    with field.unharmed():
        result = run(field, row)
        field.assert_secret(result)
        assert result.exit_reason in row.reasons, result
        if row.outcomes:
            compare(row.outcomes, value_of(result))
        named = {violation.syscall for violation in result.violations}
        assert set(row.violations) <= named, result.violations
        if row.check is not None:
            row.check(field, result)


@pytest.mark.parametrize("row", WITH_CONTROL, ids=lambda row: row.name)
def test_attack_succeeds_outside(row: Attack, field: Field) -> None:
    """The same program does its work in a plain interpreter: what stopped it inside was the sandbox."""
    control = row.control
    assert control is not None
    folder = field.throw_away("control")
    args = (control.args or row.args)(field)
    for _ in range(control.runs):
        ended = outside(PRELUDE + row.program, args, control, folder)
    assert control.still_running == (ended.exit_code is None), ended
    if not control.still_running:
        assert (control.exit_code or 0) == ended.exit_code, ended
    compare(control.outcomes, ended.value)
    if control.check is not None:
        control.check(field, ended)
    field.contacts()
