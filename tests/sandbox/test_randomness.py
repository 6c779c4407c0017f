"""Nothing that is drawn by chance repeats from child to child."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from sandbox import Host, Policy, Template
from tests.support.synchronous import Sandbox, value_of

DRAW = """
import random, secrets, ssl, tempfile, uuid, os
import numpy
result = {
    "random": random.random(), "numpy": float(numpy.random.rand()),
    "numpy generator": float(numpy.random.default_rng().random()), "uuid4": str(uuid.uuid4()),
    "secrets": secrets.token_hex(), "ssl": ssl.RAND_bytes(16).hex(), "urandom": os.urandom(8).hex(),
    "tempfile": tempfile.mktemp(), "shuffled": random.sample(range(10**9), 3),
}
"""


@pytest.fixture(scope="module")
def drawn(policy: Policy, host: Host, template: Template) -> list[dict[str, object]]:
    """The random numbers of eight children of one zygote, which loaded and used all its modules beforehand."""
    loaded = (*policy.preload, "ssl", "tempfile", "uuid", "secrets")
    box = Sandbox(msgspec.structs.replace(policy, preload=loaded), host, template, ready=4)
    try:
        return [value_of(result) for result in box.run_many([(DRAW, None)] * 8)]
    finally:
        box.close()


@pytest.mark.parametrize(
    "source",
    ["random", "numpy", "numpy generator", "uuid4", "secrets", "ssl", "urandom", "tempfile", "shuffled"],
)
def test_no_two_runs_draw_the_same(drawn: list[dict[str, object]], source: str) -> None:
    """Eight children, eight values."""
    assert 8 == len({json.dumps(values[source]) for values in drawn})


def test_plain_forks_do_draw_the_same() -> None:
    """Without the sandbox's care numpy repeats itself in every fork."""
    program = """
import os, numpy
numpy.random.rand()
for _ in range(3):
    if (pid := os.fork()) == 0:
        os.write(1, (str(numpy.random.rand()) + "\\n").encode())
        os._exit(0)
    os.waitpid(pid, 0)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True,
        env={"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = ended.stdout.split()
    assert (3, 1) == (len(lines), len(set(lines)))


def test_the_hash_seed_differs_from_zygote_to_zygote(make_box: Callable[..., Sandbox]) -> None:
    """Hashes of strings cannot be known beforehand."""
    hashes = {value_of(make_box(ready=1).run("result = hash('collision')")) for _ in range(2)}
    assert 2 == len(hashes)
