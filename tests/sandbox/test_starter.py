"""What the starter of the service handed down does not reach a run: it is set, not assumed (row ZYG-13's kind)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.remote_worker import Remote, worker

pytestmark = pytest.mark.privilege(
    "a starter hands down more where it is root: real-time classes, negative nice values"
)
PLAIN_SIGNALS = {13, 25}
"""SIGPIPE and SIGXFSZ, which every Python interpreter ignores from its start."""
LOWERED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
os.execvp(sys.argv[1], sys.argv[1:])
"""
REPORT = """
import signal
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
result = {
    "ignored": sorted(n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN),
    "blocked": sorted(blocked),
}
"""


@pytest.fixture(scope="module", params=["full", "unprivileged"])
def spoiled(request: pytest.FixtureRequest) -> Iterator[Remote]:
    """A worker under a starter that has spoiled everything."""
    with worker(isolation=request.param, starter=["spoil.py"]) as remote:
        assert "started" == remote.start()
        yield remote


def test_the_starter_does_spoil_a_plain_process(spoiled: Remote) -> None:
    """Else nothing below would prove anything."""
    plain = spoiled.plain_state()
    assert int(plain["SigIgn"], 16) & 1  # SIGHUP, as after nohup
    assert int(plain["SigBlk"], 16) & 1
    assert plain["ioprio"] in (1 << 13, 3 << 13)


def test_no_signal_is_ignored_or_blocked_in_a_run(spoiled: Remote) -> None:
    """Every signal does what it does in a plain interpreter."""
    found = spoiled.run(script=REPORT)["value"]
    assert (sorted(PLAIN_SIGNALS), []) == (found["ignored"], found["blocked"])


def test_a_ready_child_has_nothing_of_the_starter(spoiled: Remote) -> None:
    """Its scheduling, its place in the order of the out-of-memory killer, its signals."""
    state = spoiled.child_state()
    assert (0, 0, 1000) == (state["ioprio"], state["policy"], state["oom_score_adj"])
    assert state["nice"] >= 0
    assert (sum(1 << number - 1 for number in PLAIN_SIGNALS), 0) == (int(state["SigIgn"], 16), int(state["SigBlk"], 16))


def test_addresses_differ_between_two_zygotes(spoiled: Remote) -> None:
    """As without `setarch -R`: the layout of each new interpreter is random."""
    script = "import ctypes\nresult = ctypes.cast(ctypes.CDLL(None).printf, ctypes.c_void_p).value"
    found = {spoiled.run(script=script)["value"] for _ in range(2)}
    assert "started" == spoiled.start()
    assert spoiled.run(script=script)["value"] not in found


def test_a_hard_limit_that_is_too_low_is_named_with_its_fix() -> None:
    """The worker does not start with less than its policies say, and says who took it away."""
    with worker(starter=["-c", LOWERED], isolation="full") as remote:
        kind, message = remote.start()
    assert ("SandboxError", True) == (kind, "RLIMIT_DATA: the policy needs" in message), message
    assert "raise it there (ulimit -H" in message


def test_a_starter_without_a_fault_changes_nothing() -> None:
    """The same questions, the same answers."""
    with worker(isolation="full", starter=["-c", "import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])"]) as remote:
        assert "started" == remote.start()
        found = remote.run(script=REPORT)["value"]
        assert (sorted(PLAIN_SIGNALS), []) == (found["ignored"], found["blocked"])
