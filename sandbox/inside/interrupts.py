"""SIGINT as Python minds it, in a child; its zygote dies of it, as a new process does."""

from __future__ import annotations

import ctypes
import signal

from sandbox.isolation import libc
from sandbox.isolation.prepared import Calls


def mind_in_children() -> Calls:
    """Have the interpreter mind it, and the kernel not yet: the call that a child makes to have it so.

    What the interpreter then does is in its own tables, and a child inherits these.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    default, minded = (ctypes.create_string_buffer(libc.SIGACTION_BYTES) for _ in range(2))
    libc.syscall("rt_sigaction", signal.SIGINT, default, minded, libc.SIGSET_BYTES)
    calls = Calls()
    calls.call("rt_sigaction", "rt_sigaction", signal.SIGINT, minded, None, libc.SIGSET_BYTES)
    return calls
