"""A zygote that the kernel refuses something says so to the worker, loses no child that runs, and goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox import ExitReason, SandboxError
from tests.support.synchronous import HOLD, Sandbox, children_of, eventually, value_of

MakeBox = Callable[..., Sandbox]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not take from another's process")


def inside(zygote: int, *command: str) -> str:
    """What a command says that runs in the zygote's user namespace, as its user."""
    enter = ["nsenter", "-t", str(zygote), "-U", "-S", "0", "-G", "0"]
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def one_namespace(zygote: int, kind: str) -> Iterator[None]:
    """No more than one in the zygote's user namespace: namespaces(7), /proc/sys/user."""
    path = f"/proc/sys/user/max_{kind}_namespaces"
    before = inside(zygote, "sh", "-c", f"cat {path} && echo 1 > {path}")
    try:
        yield
    finally:
        inside(zygote, "sh", "-c", f"echo {before} > {path}")


@contextlib.contextmanager
def two_descriptors(zygote: int, _: str) -> Iterator[None]:
    """Two free numbers of descriptors, and no more: of what an order takes there is no room for all."""
    taken = {int(fd) for fd in os.listdir(f"/proc/{zygote}/fd")}
    third_free = next(itertools.islice((fd for fd in itertools.count() if fd not in taken), 2, None))
    limit = ("prlimit", f"--pid={zygote}")
    before = inside(zygote, *limit, "--nofile", "--output=SOFT", "--noheadings")
    inside(zygote, *limit, f"--nofile={third_free}:")
    try:
        yield
    finally:
        inside(zygote, *limit, f"--nofile={before}:")


@pytest.mark.parametrize("ablated", [(), ("in_c",)], ids=["in C", "in Python"])
@pytest.mark.parametrize(
    ("shorten", "kind", "words"),
    [
        pytest.param(one_namespace, "net", "No space left on device", id="network namespaces"),
        pytest.param(one_namespace, "pid", "No space left on device", id="pid namespaces"),
        pytest.param(two_descriptors, "", "Too many open files|came without its descriptors", id="descriptors"),
    ],
)
def test_it_says_so_and_goes_on(
    make_box: MakeBox, shorten: Any, kind: str, words: str, ablated: tuple[str, ...]
) -> None:
    """A run that is there goes on; each order that cannot be met is our failure; afterwards all is as before."""
    box = make_box(ready=0, ablated=ablated)
    assert 1 == value_of(box.run("result = 1"))
    _, zygote = box.zygote_pids()
    assert eventually(lambda: not children_of(zygote))  # of what that run had, the held one gets its network namespace
    open_before = len(os.listdir(f"/proc/{zygote}/fd"))

    def refused(_: int) -> list[str]:
        said = []
        with shorten(zygote, kind):
            for _ in range(3):
                with pytest.raises(SandboxError) as caught:
                    box.run("result = 1")
                said.append(str(caught.value))
        return said

    said, held = box.while_running(HOLD + "hold()\nresult = 1", refused, then="release")
    assert all(re.search(words, one) for one in said), said
    assert ExitReason.OK is held.exit_reason
    assert [1] * 4 == [value_of(one) for one in box.run_many([("result = 1", None)] * 4)]
    assert zygote == box.zygote_pids()[1]
    assert eventually(lambda: not children_of(zygote))
    # a network namespace may be kept for each of the four
    assert eventually(lambda: len(os.listdir(f"/proc/{zygote}/fd")) <= open_before + 4)
