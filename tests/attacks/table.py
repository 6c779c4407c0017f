"""The whole table: every case that concerns the sandbox is a row, a test elsewhere, or named as not yet to be had."""

from __future__ import annotations

import rows_files
import rows_kernel
import rows_limits
import rows_network
import rows_output
import rows_processes
import rows_tenants
from attack import Attack

ROWS: tuple[Attack, ...] = (
    *rows_files.ROWS, *rows_processes.ROWS, *rows_limits.ROWS, *rows_output.ROWS, *rows_kernel.ROWS, *rows_network.ROWS,
    *rows_tenants.ROWS,
)  # fmt: skip

CATALOGUE = {
    "FS": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26",
    "FD": "01 02 04 05 07 08 10",
    "PROC": "01 02 04 05 07 08 10 11 13 14 16",
    "MEM": "01 02 04 05 07 08 10 11 13 14",
    "CPU": "01 02 04 05 07 08 10",
    "DISK": "01 02 04 05 07 08",
    "OUT": "01 02 04 05 07 08 10 11 13 14 16 17",
    "KERN": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26",
    "NET": "01 02 04 05 07 08 10 11 13 14 16 17 19 20",
    "NAME": "01 02 04 05 07 08 10",
    "XT": "01 02 04 05 07 08",
    "ZYG": "01 02 04 05 07 08 10 11 13 14",
}
"""Category → the numbers of its cases. Those from 90 on are our own additions."""

MUST_HAVE_CONTROL = {
    "FS": "01 02 04 05 20", "FD": "04", "PROC": "01 02 04 05 07 08 16", "MEM": "01 02 04 05 07 08 11 13 14",
    "CPU": "01 02 04 05 08", "DISK": "01 02 04 07", "OUT": "01 02 04 05 07 08 10 11 13 14 16",
    "KERN": "01 04 07 10 11 13 16 19 20 25", "NET": "01 02 04 05 08 10 13 14",
}  # fmt: skip
"""Cases that are known to succeed without a sandbox: each has at least one row whose control shows it."""

ELSEWHERE = {
    "PROC-14": "sandbox/test_pool.py::test_killed_zygote_is_our_failure_and_the_pool_heals",
    "XT-05": "sandbox/test_pool.py::test_two_hundred_at_once_get_their_own_answers",
    "ZYG-01": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-02": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-04": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-05": "sandbox/test_randomness.py::test_no_two_runs_draw_the_same",
    "ZYG-08": "sandbox/test_pool.py::test_a_thousand_runs_leave_nothing",
    "ZYG-10": "sandbox/test_pool.py::test_killed_zygote_is_our_failure_and_the_pool_heals",
    "ZYG-11": "sandbox/test_pool.py::test_a_thousand_runs_leave_nothing",
}
"""Case → the test that has it: it is about the pool, not about one program."""

LATER = {
    "NAME-05": "a named script is read by the engine, once; the sandbox gets its text",
    "NAME-07": "names of scripts are the engine's to refuse",
    "NAME-08": "inputs do not exist yet",
    "NET-16": "the egress proxy does not exist yet; no policy can open the network",
    "NET-17": "the egress proxy does not exist yet",
    "NET-20": "the egress proxy does not exist yet",
    "XT-08": "artifacts are stored by the engine; the sandbox only reads them",
}
"""Case → why there is nothing to test in the sandbox as it is."""
