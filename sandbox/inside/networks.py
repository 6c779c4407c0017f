"""Empty network namespaces that a zygote lends to its children: to one at a time, and to the next when that is dead.

To make one takes a millisecond, and the kernel as much again when it ends. Nothing of a run stays in one: a run never
has CAP_NET_ADMIN over it, for the zygote's user namespace owns it (user_namespaces(7)); so its one interface, the
loopback, is down for ever. What a run could open in it, a socket, ends with the run; and all of a run is dead before
its zygote has reaped it (pid_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import os
from typing import Self

from sandbox.inside.plan import Plan
from sandbox.isolation import libc

KEPT = 16
"""Namespaces that wait to be lent again. Further ones end with their run, as each one of a run's own does."""


class Networks:
    """The network namespaces of one zygote. The zygote stands in the one that it has lent last."""

    def __init__(self, proc_fd: int) -> None:
        """
        Args:
            proc_fd: the host's /proc, as ``namespaces.open_proc`` gives it.
        """
        self._proc_fd = proc_fd
        self._free: list[int] = []
        self._lent: set[int] = set()
        self._standing: int | None = None

    @classmethod
    def of(cls, plan: Plan, proc_fd: int) -> Self | None:
        """Those for the children of a plan, tried once; ``None`` where each child makes its own.

        That is so where the plan says it, and where a container's filter lets nobody enter a network namespace again.
        """
        if not plan.lends_network:
            return None
        networks = cls(proc_fd)
        with contextlib.suppress(PermissionError):
            libc.setns(fd := networks.lend(), libc.CLONE_NEWNET)
            networks.take_back(fd)
            return networks
        return None

    def lend(self) -> int:
        """Enter one that nobody is in, which the next fork then has; its descriptor.

        Raises:
            OSError: the kernel grants no further one, ENOSPC.
        """
        if self._standing in self._free:
            fd = self._standing
            self._free.remove(fd)
        elif self._free:
            libc.setns(self._free[-1], libc.CLONE_NEWNET)
            fd = self._free.pop()
        else:
            libc.unshare(libc.CLONE_NEWNET)
            self._standing = None
            fd = os.open("self/ns/net", os.O_RDONLY, dir_fd=self._proc_fd)
        self._standing = fd
        self._lent.add(fd)
        return fd

    def take_back(self, fd: int) -> None:
        """The child that had it is reaped, or was never forked."""
        self._lent.remove(fd)
        if len(self._free) < KEPT:
            self._free.append(fd)
            return
        os.close(fd)
        if self._standing == fd:
            self._standing = None
