"""How long a zygote may take: counted in processor time, and on the wall only where it uses none."""

from __future__ import annotations

import itertools
import os
import time

from sandbox.pool.patience import StartPatience, used_s


def test_a_slow_start_has_its_time() -> None:
    """However long it takes on the wall: what counts is the processor's."""
    used = itertools.count(0.0, 0.01)
    patience = StartPatience(0.05, lambda: next(used))
    faults = []
    for _ in range(5):
        time.sleep(0.03)  # three times as long on the wall as the whole patience, all in all
        faults.append(patience.fault())
    assert [None] * 5 == faults


def test_a_start_that_computes_for_too_long_is_given_up() -> None:
    """With what it has used."""
    used = itertools.count(1.0, 30.0)
    patience = StartPatience(60.0, lambda: next(used))
    assert [None, None] == [patience.fault(), patience.fault()]
    assert "not ready after 61 s of processor time" == patience.fault()


def test_a_start_that_waits_for_nothing_is_given_up() -> None:
    """It uses no processor time for as long."""
    patience = StartPatience(0.05, lambda: 0.0)
    assert patience.fault() is None
    time.sleep(0.06)
    assert "not ready, and without any progress for 0.05 s" == patience.fault()


def test_processor_time_of_a_process_is_read() -> None:
    """Its own and that of what it has waited for; of one that is gone there is none."""
    before = used_s(os.getpid())
    assert before is not None
    while (now := used_s(os.getpid())) is not None and now <= before:
        sum(range(100_000))
    assert now is not None
    assert used_s(2**22 + 1) is None  # beyond the greatest process id, proc(5)
