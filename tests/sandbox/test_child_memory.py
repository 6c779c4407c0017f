"""What a run can read of the host in its own memory: nothing but where its interpreter was installed."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import Host
from tests.support.libraries import library_sets
from tests.support.synchronous import Sandbox

MakeBox = Callable[..., Sandbox]


def written_memory(pid: int) -> bytes:
    """All that a process has in memory of its own: heap, stack, anonymous mappings, and changed pages of files."""
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, mode = line.split()[:2]
            if mode.startswith("rw"):
                start, end = (int(text, 16) for text in span.split("-"))
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"\0".join(parts)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read the memory of a child that is locked down")
def test_no_path_of_the_host_is_in_a_childs_memory(make_box: MakeBox, host: Host) -> None:
    """KERN-94: neither the checkout, nor the service's environment, nor the libraries' folder; the paths inside are."""
    if host.profile != "full":
        pytest.skip("without namespaces a run sees the host's paths: sandbox/README.md says so")
    box = make_box()
    memory = written_memory(box.pool.ready_pids()[0])
    assert b"/app/handlers" in memory
    folders = {Path(__file__).parents[2], Path(sys.prefix), *(one.folder for one in library_sets().values())}
    installed = sysconfig.get_config_var("prefix")
    hidden = {str(real) for folder in folders for real in (folder, folder.resolve())}
    found = {path for path in hidden if re.search(re.escape(path.encode()) + rb"[/\0]", memory)}
    assert set() == {path for path in found - known_to_remain() if not installed.startswith(path)}


def known_to_remain() -> set[str]:
    """From CPython 3.12 on interned strings stay for ever, and a compiled module names the file it was made from."""
    checkout = Path(__file__).parents[2]
    return {str(checkout), str(checkout.resolve())} if sys.version_info >= (3, 12) else set()
