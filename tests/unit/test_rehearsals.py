"""How often a zygote rehearses: until the interpreter has seen the code often, and no longer than it may compute."""

from __future__ import annotations

import time

from sandbox.inside import zygote


def test_what_is_quick_is_rehearsed_thirty_times() -> None:
    """More often than CPython 3.11 to 3.13 need to specialize a function: eight calls, and as many of each loop."""
    done: list[int] = []
    zygote.rehearse_often(lambda: done.append(1))
    assert 30 == len(done)


def test_what_computes_for_long_is_rehearsed_once() -> None:
    """By processor time: on a busy machine as often as on a quiet one."""
    done: list[int] = []

    def compute() -> None:
        done.append(1)
        until_s = time.process_time() + 0.2
        while time.process_time() < until_s:
            pass

    zygote.rehearse_often(compute)
    assert 1 == len(done)
