"""Where a zygote's objects lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STARTS = 4
"""The kernel chooses other places each time."""
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from sandbox.inside import arenas

def mapped():
    return sum(int(end, 16) - int(start, 16) for start, end in (
        line.split()[0].split("-") for line in open("/proc/self/maps") if line.split()[1].startswith("rw")))

before = mapped()
with arenas.side_by_side():
    objects = [bytes(400) for _ in range(60_000)]  # some 26 arenas
    numbers = sorted({id(one) >> 20 for one in objects})
alone = sum(later - one > 1 for one, later in zip(numbers, numbers[1:]))
print(alone * 2 < len(numbers), mapped() - before < 40 << 20)
"""
LARGEST = """
with arenas.side_by_side():
    largest = [bytes(479) for _ in range(1500)]  # a mebibyte of objects of the size by which arenas are taken
print(mapped() - before < 8 << 20)
"""


def ran(program: str) -> str:
    """What it prints."""
    code = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-I", "-c", program, code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_objects_lie_side_by_side_and_the_rest_goes_back() -> None:
    """Most mebibytes that are used follow each other, and what nobody has used is the kernel's again."""
    assert "True True" == ran(PROGRAM)


def test_no_object_keeps_an_arena_of_its_own() -> None:
    """Objects of any size fill one arena after the other: wherever the kernel has put them, as much memory is used."""
    program = PROGRAM[: PROGRAM.index("with arenas")] + LARGEST
    assert ["True"] * STARTS == [ran(program) for _ in range(STARTS)]
