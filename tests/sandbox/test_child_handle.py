"""The supervisor's handle on a child: whatever becomes of it, no descriptor is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import cast

import pytest

from sandbox.run.child_handle import ChildHandle
from sandbox.run.workspace import Workspace


def test_child_that_dies_while_its_handle_is_made_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status was open, and cannot be read any more: proc_pid_status(5) of a process that has been reaped."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfd, real_open = os.pidfd_open(child.pid), os.open

    def open_and_kill(path: str, flags: int) -> int:
        opened = real_open(path, flags)
        child.kill()
        child.communicate()
        return opened

    async def make() -> tuple[list[str], list[str]]:
        before = os.listdir("/proc/self/fd")
        with monkeypatch.context() as changed:
            changed.setattr(os, "open", open_and_kill)
            with pytest.raises(ProcessLookupError):
                ChildHandle(pidfd, (0, 0, 0, 0), cast(Workspace, None), pidfd)
        return before, os.listdir("/proc/self/fd")

    before, after = asyncio.run(make())
    os.close(pidfd)
    assert len(before) == len(after) + 1  # the child's stdin is closed with the child
