"""Has the interpreter's small objects lie side by side, so that a fork copies little of the page tables.

CPython takes memory for small objects from the kernel by the mebibyte, an arena, whenever it has none left
(Objects/obmalloc.c). Between two arenas the loader maps libraries; so they lie scattered, and none can be moved into a
huge page. Here they are all taken at once, before anything is imported. What is used is not known before the end: what
nobody has used by then goes back to the kernel.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator

_ARENAS = 64
"""Mebibytes; pandas and matplotlib use some thirty. What is more lies scattered, as without this."""
_OBJECT = 479
"""Bytes whose object is the largest that lies in an arena: 512, with its head."""
_ARENA_BITS, _POOL_BITS = 20, 14
"""An arena is divided into pools of objects of one size."""


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """Take arenas, and let all objects of the block find their place in the longest row of them.

    The objects of one full pool stay in each mebibyte of that row until the end of the block: the interpreter gives an
    empty arena back at once, as it does with those beside the row, which the kernel has put between libraries. Of a
    pool with room it would take places for objects of the block, and each of those would keep a whole arena.
    """
    # a list that grew meanwhile would leave holes between the arenas, of the size that it had
    taken: list[bytes] = [b""] * (_ARENAS * 2000)
    for place in range(len(taken)):
        taken[place] = bytes(_OBJECT)
    pools: defaultdict[int, list[bytes]] = defaultdict(list)
    for one in taken:
        pools[id(one) >> _POOL_BITS].append(one)
    most = max(map(len, pools.values()))
    kept = _longest_row(
        {number >> (_ARENA_BITS - _POOL_BITS): pool for number, pool in pools.items() if len(pool) == most}
    )
    del one, taken, pools
    try:
        yield
    finally:
        kept.clear()


def _longest_row(by_number: dict[int, list[bytes]]) -> list[list[bytes]]:
    """The pools in consecutive mebibytes: the longest row."""
    longest: list[list[bytes]] = []
    row: list[list[bytes]] = []
    for number in sorted(by_number):
        row = [*row, by_number[number]] if number - 1 in by_number else [by_number[number]]
        longest = max(longest, row, key=len)
    return longest
