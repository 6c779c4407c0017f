"""Where a zygote's objects lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_objects_lie_side_by_side_and_the_rest_goes_back() -> None:
    """Most mebibytes that are used follow each other, and what nobody has used is the kernel's again."""
    code = str(Path(__file__).parents[2])
    ran = subprocess.run([sys.executable, "-I", "-c", PROGRAM, code], capture_output=True, text=True, check=True)
    assert "True True" == ran.stdout.strip()
