"""Starts a program as a careless starter would: everything that a process hands down over exec is spoiled.

What needs a privilege that the caller lacks is left out. Usage: ``spoil.py PROGRAM [ARGUMENT…]``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
RT_SIGACTION, PERSONALITY, IOPRIO_SET = (13, 135, 251) if X86 else (134, 92, 30)
ADDR_NO_RANDOMIZE = 0x0040000
IO_REALTIME, IO_IDLE = 1 << 13, 3 << 13
PR_SET_SECUREBITS, PR_SET_TIMERSLACK, PR_SET_THP_DISABLE = 28, 29, 41
SECBIT_KEEP_CAPS = 1 << 4


def spoil() -> None:
    """Do it to this process."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    ignored = (ctypes.c_ulong * 4)(1)  # struct sigaction of the kernel, with SIG_IGN
    for own in (32, 33):  # which the C library keeps for itself
        LIBC.syscall(RT_SIGACTION, own, ignored, None, 8)
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    LIBC.syscall(PERSONALITY, ADDR_NO_RANDOMIZE)
    if LIBC.syscall(IOPRIO_SET, 1, 0, IO_REALTIME) != 0:
        LIBC.syscall(IOPRIO_SET, 1, 0, IO_IDLE)
    LIBC.prctl(PR_SET_TIMERSLACK, 10**9, 0, 0, 0)
    LIBC.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    LIBC.prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-500")


if __name__ == "__main__":
    spoil()
    os.execvp(sys.argv[1], sys.argv[1:])
