"""SIGINT as Python minds it, in a child; its zygote dies of it, as a new process does."""

from __future__ import annotations

import ctypes
import signal

from sandbox.isolation.prepared import Calls, at_once

_MASK_BYTES = 8
"""Of the kernel's sigset_t: rt_sigaction(2)."""


def mind_in_children() -> Calls:
    """Have the interpreter mind it, and the kernel not yet: the call that a child makes to have it so.

    What the interpreter then does is in its own tables, and a child inherits these.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    minded = ctypes.create_string_buffer(32)  # struct sigaction of the kernel, as the interpreter has set it
    calls, default = Calls(), ctypes.create_string_buffer(32)  # SIG_DFL, no flags, no mask
    at_once(lambda now: now.call("rt_sigaction", "rt_sigaction", signal.SIGINT, default, minded, _MASK_BYTES))
    calls.call("rt_sigaction", "rt_sigaction", signal.SIGINT, minded, None, _MASK_BYTES)
    return calls
