"""Has the interpreter's small objects lie side by side, so that a fork copies little of the page tables.

CPython takes memory for small objects from the kernel by the mebibyte, an arena, whenever it has none left
(Objects/obmalloc.c). Between two arenas the loader maps libraries; so they lie scattered, and none can be moved into a
huge page. Here they are all taken at once, before anything is imported. What is used is not known before the end: what
nobody has used by then goes back to the kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_ARENAS = 64
"""Mebibytes; pandas and matplotlib use some thirty. What is more lies scattered, as without this."""
_OBJECT = 479
"""Bytes whose object is the largest that lies in an arena: 512, with its head."""
_ARENA_BITS = 20


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """Take arenas, and let all objects of the block find their place in the longest row of them.

    One object stays in each arena of that row until the end of the block: the interpreter gives an empty one back at
    once, as it does with those beside the row, which the kernel has put between libraries.
    """
    objects = [bytes(_OBJECT) for _ in range(_ARENAS * 2000)]
    kept = _longest_row({id(one) >> _ARENA_BITS: one for one in objects})
    del objects
    try:
        yield
    finally:
        kept.clear()


def _longest_row(by_number: dict[int, bytes]) -> list[bytes]:
    """The objects at consecutive mebibytes: the longest row."""
    longest: list[bytes] = []
    row: list[bytes] = []
    for number in sorted(by_number):
        row = [*row, by_number[number]] if number - 1 in by_number else [by_number[number]]
        longest = max(longest, row, key=len)
    return longest
