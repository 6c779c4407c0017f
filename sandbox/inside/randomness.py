"""Randomness that would repeat in every child, because it is a copy of its zygote's."""

from __future__ import annotations

import _random
import ctypes
import os
import random
import sys
import tempfile
from typing import Any

from sandbox.isolation.prepared import Calls

_WORDS = 624
"""Of 32 bits, which are the state of a Mersenne Twister; after the last it makes new ones."""
_State = ctypes.c_uint32 * _WORDS
_KNOWN = tuple(range(_WORDS))
_BEFORE_THE_STATE = object.__basicsize__ + ctypes.sizeof(ctypes.c_int)
"""Bytes of struct RandomObject, Modules/_randommodule.c of CPython: its head, and how many words are used up."""


class Renewal:
    """What gives a child randomness that no other has. To be made in its zygote."""

    def __init__(self) -> None:
        """
        Raises:
            RuntimeError: this numpy does not keep its generator's state where it says.
        """
        states = [_state_of_random(), _state_of_numpy()]
        self._seeds_random = states[0] is None
        self.calls = Calls()
        """For the global generators of ``random`` and numpy: the kernel writes a new state where it is needed,
        getrandom(2). Their ``seed()`` stretches a short seed to that length, and copies many pages for it."""
        for state in states:
            if state is not None:
                size = ctypes.sizeof(state)
                self.calls.call("getrandom", "getrandom", state, size, 0, least=size)

    def finish(self) -> None:
        """Renew what no call can: OpenSSL's pool, and names of temporary files."""
        if self._seeds_random:
            random.seed()
        if (ssl := sys.modules.get("ssl")) is not None:
            # OpenSSL notices a fork by the process id, and zygote and child are both pid 1 of their namespaces
            ssl.RAND_add(os.urandom(48), 48.0)
        tempfile._name_sequence = None  # type: ignore[attr-defined]  # noqa: SLF001 there is no public way
        tempfile.tempdir = None


def _state_of_random() -> ctypes.Array[ctypes.c_uint32] | None:
    """Where ``random`` has its state, of which all words are then used up; ``None`` where this interpreter has it
    elsewhere than CPython 3.11 to 3.13."""
    generator = random._inst  # noqa: SLF001 the one behind ``random.random``
    if _random.Random.__basicsize__ < _BEFORE_THE_STATE + ctypes.sizeof(_State):
        return None
    generator.setstate((generator.VERSION, (*_KNOWN, _WORDS), None))
    state = _State.from_address(id(generator) + _BEFORE_THE_STATE)
    return state if tuple(state) == _KNOWN else None


def _state_of_numpy() -> ctypes.Array[ctypes.c_uint32] | None:
    """Where numpy has its state, of which all words are then used up; ``None`` where numpy is not loaded.

    It is struct s_mt19937_state of numpy, with ``key`` first.
    """
    if (numpy := sys.modules.get("numpy")) is None:
        return None
    generators: Any = numpy.random
    generators.set_state(("MT19937", _KNOWN, _WORDS, 0, 0.0))
    state = _State.from_address(generators.get_bit_generator().ctypes.state_address)
    if tuple(state) != _KNOWN:
        raise RuntimeError("numpy's global generator does not keep its state where it says")
    return state
