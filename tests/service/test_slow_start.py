"""A worker of which one policy cannot start, or starts slowly: it serves the others, and says which and why."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.stack import Stack

BROKEN = "custom_script_twin"


@pytest.fixture
def lame(tmp_path: Path) -> Iterator[Stack]:
    """A service whose second policy preloads what there is not."""
    found = Stack(tmp_path, twin=BROKEN)
    _break(tmp_path / "policies" / f"{BROKEN}.toml")
    yield found
    found.close()


def test_a_worker_serves_the_policies_that_are_ready(lame: Stack) -> None:
    """The other is named in health and log, with the reason; its tasks cost nobody else anything."""
    part = lame.worker()
    answer = lame.get(lame.submit("result = 1")["task_id"], 60)
    assert ("ok", 1) == (answer["exit_reason"], answer["result"])
    worker = lame.get_worker()
    assert [BROKEN] == list(worker["not_ready"])
    assert "nothing_of_this_name" in worker["not_ready"][BROKEN]
    health = lame.client.get("/health").json()
    assert "degraded" == health["status"]
    assert any(f"is not ready for {BROKEN}: " in reason for reason in health["reasons"])
    assert 200 == lame.client.get("/health/ready").status_code
    assert f'"policy":"{BROKEN}"' in part.log.read_text()
    assert '"event":"policy not ready"' in part.log.read_text()


def test_a_worker_without_any_ready_policy_ends(lame: Stack, tmp_path: Path) -> None:
    """With the reason as its last words."""
    _break(tmp_path / "policies" / "custom_script.toml")
    part = lame.start("worker")
    assert 1 == part.process.wait(120)
    last = part.log.read_text().splitlines()[-1]
    assert last.startswith("error: start_zygote: ")
    assert "nothing_of_this_name" in last


def test_a_start_on_a_fifth_of_a_core_comes_up(tmp_path: Path) -> None:
    """Though it takes longer on the wall than a zygote may compute: it computes for a fifth of the time."""
    stack = Stack(tmp_path)
    try:
        part = stack.start("worker", ZYGOTE_START_S="2")
        at_work = False
        while not at_work:  # stopped four fifths of the time
            assert part.process.poll() is None, part.log.read_text()
            family = [psutil.Process(part.pid)]
            family += family[0].children(recursive=True)
            _signal(family, signal.SIGSTOP)
            time.sleep(0.2)
            _signal(family, signal.SIGCONT)
            time.sleep(0.05)
            at_work = part.pid in stack.worker_pids()
        answer = stack.get(stack.submit("result = 1")["task_id"], 60)
        assert "ok" == answer["exit_reason"]
    finally:
        stack.close()


def _break(policy: Path) -> None:
    text = policy.read_text()
    policy.write_text(re.sub(r"^preload .*$", 'preload = ["nothing_of_this_name"]', text, flags=re.MULTILINE))


def _signal(family: list[psutil.Process], signum: signal.Signals) -> None:
    for process in family:
        try:
            os.kill(process.pid, signum)
        except ProcessLookupError:
            continue
