"""Why a run ended: whatever a child does, the supervisor has an answer and never an exception."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from sandbox import ExitReason, RunError, load_policies
from sandbox.run.decide import decide, exit_code_of, signal_name
from sandbox.run.response import Response

ROOT = Path(__file__).resolve().parents[2]
CAUSES = (
    "wall_limit", "cpu_limit", "memory_limit", "output_limit", "workspace_limit", "process_limit", "invalid_result",
    "cancelled",
)  # fmt: skip
"""For which we kill."""
LIMITS = load_policies(ROOT / "policies")["custom_script"].limits


def test_every_wait_status_has_a_reason() -> None:
    """All 65,536 of them, as wait(2) packs them; none raises, and none but a clean exit is a success."""
    for status in range(1 << 16):
        reason, message = decide(exit_code_of(status), None, None, 0.0, LIMITS)
        assert reason in (ExitReason.NO_RESULT, ExitReason.NONZERO_EXIT, ExitReason.SIGNALED)
        assert message


FRAMES = (None, Response("result"), Response("error"), Response("error", error=RunError(type="T", message="m")),
          Response("invalid"), Response("invalid", fault="why"))  # fmt: skip


@pytest.mark.parametrize("ended_by", [None, *(reason for reason in ExitReason if reason.value in CAUSES)])
def test_every_end_has_a_reason(ended_by: ExitReason | None) -> None:
    """Each exit code and signal, beside each sort of response and each limit for which we may have killed it."""
    for exit_code in (*range(-127, 0), *range(256)):
        for answer, full in itertools.product(FRAMES, (False, True)):
            reason, message = decide(exit_code, ended_by, answer, 1e9, LIMITS, workspace_full=full)
            assert message
            assert reason is not ExitReason.OK or (exit_code, answer) == (0, Response("result"))


def test_exit_codes_are_those_of_the_standard_library() -> None:
    """Wherever ``os.waitstatus_to_exitcode`` has an answer, ours is the same."""
    for status in range(1 << 16):
        try:
            expected = os.waitstatus_to_exitcode(status)
        except ValueError:
            continue
        assert expected == exit_code_of(status)


@pytest.mark.parametrize("number", range(1, 65))
def test_every_signal_has_a_name(number: int) -> None:
    """Real-time signals too, which Python's own table does not have: signal(7)."""
    name = signal_name(number)
    if number in set(signal.Signals):
        assert signal.Signals(number).name == name
    elif signal.SIGRTMIN < number < signal.SIGRTMAX:
        assert f"SIGRTMIN+{number - signal.SIGRTMIN}" == name
    else:
        assert f"signal {number}" == name
    assert (ExitReason.SIGNALED, f"ended by {name}") == tuple(
        part.split(" (")[0] if isinstance(part, str) and part is not ExitReason.SIGNALED else part
        for part in decide(-number, None, None, 0.0, LIMITS)
    )
