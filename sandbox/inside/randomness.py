"""Randomness that would repeat in every child, because it is a copy of its zygote's."""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
from typing import Any

from sandbox.isolation.prepared import Calls

_GENERATOR, _STATE_WORDS = "MT19937", 624
"""numpy's global generator, and how many words of 32 bits are its state; after the last it makes new ones."""
_Words = ctypes.c_uint32 * _STATE_WORDS


def renew() -> None:
    """Take another seed for ``random`` and OpenSSL, and other names for temporary files."""
    random.seed()
    if (ssl := sys.modules.get("ssl")) is not None:
        # OpenSSL notices a fork by the process id, and zygote and child are both pid 1 of their namespaces
        ssl.RAND_add(os.urandom(48), 48.0)
    tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 there is no public way
    tempfile.tempdir = None


def prepare_numpy() -> Calls | None:
    """The call that gives numpy's global generator another state, all of it from the kernel: getrandom(2).

    The kernel writes it where it is needed. ``seed()`` takes a millisecond to stretch a short seed to that length, and
    copies half a megabyte of pages.

    Returns:
        ``None`` where numpy is not loaded.

    Raises:
        RuntimeError: this numpy keeps the state elsewhere.
    """
    if (numpy := sys.modules.get("numpy")) is None:
        return None
    calls = Calls()
    size = ctypes.sizeof(_Words)
    calls.call("getrandom", "getrandom", _state_of(numpy.random), size, 0, least=size)
    return calls


def _state_of(generators: Any) -> ctypes.Array[ctypes.c_uint32]:
    """Where the state is, of which all words are then used up: struct s_mt19937_state of numpy, with ``key`` first."""
    generators.set_state((_GENERATOR, [*range(_STATE_WORDS)], _STATE_WORDS, 0, 0.0))
    state = _Words.from_address(generators.get_bit_generator().ctypes.state_address)
    if list(state) != [*range(_STATE_WORDS)]:
        raise RuntimeError("numpy's global generator does not keep its state where it says")
    return state
