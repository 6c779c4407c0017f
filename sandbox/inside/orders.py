"""What worker and zygote say to each other: single packets, see ``SPAWN`` to ``EXIT``.

The zygote's side is prepared calls. Each fork makes all of its pages shared once more, and it copies those that it then
writes to; so it writes to few.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from typing import NoReturn

from sandbox.isolation import libc
from sandbox.isolation.packet import Packet
from sandbox.isolation.prepared import CallFailedError, Calls, Fork, Later, Prepared

SPAWN = struct.Struct("=?Q")
"""Worker → zygote: whether the child is to rehearse, and its number; its five descriptors are attached."""
READY, FORKED, EXITED, FAILED = b"R", b"P", b"X", b"F"
"""Zygote → worker: ready to fork; forked a child (its pidfd is attached); a child has ended; the fork failed."""
HEAD = struct.Struct("=cQ")
"""One of these, and the child's number (0 where it is about the zygote). A reason in words follows FAILED."""
EXIT = struct.Struct("=cQi4q")
"""EXITED, the child's number, wait status, user seconds and microseconds, system seconds and microseconds: wait4(2)."""

DESCRIPTORS = 5
"""Of a child: stdin, stdout, stderr, response, control."""
_NONE = -1
_USAGE_BYTES = 144
"""Of struct rusage, whose first four numbers are sent: getrusage(2)."""


class Orders:
    """The zygote's end of the socket. It prepares what is done for each order, and for each end.

    Attributes:
        descriptors: where they stand that came with the last order.
    """

    def __init__(self, control: socket.socket, own_pid_ns: int | None) -> None:
        """
        Args:
            control: the socket.
            own_pid_ns: this process's pid namespace, where each child gets one of its own.
        """
        self._control, self._own_pid_ns = control, own_pid_ns
        self._chosen, self._pid, self._pidfd = ctypes.c_ubyte(), ctypes.c_int(), ctypes.c_int()
        self._forked = ctypes.create_string_buffer(FORKED, HEAD.size)
        self._exit = ctypes.create_string_buffer(EXIT.size + _USAGE_BYTES)  # the kernel writes the whole of rusage
        number = ctypes.addressof(self._forked) + len(FORKED)
        # the number goes from the order into the answer
        pieces = [(ctypes.addressof(self._chosen), 1), (number, HEAD.size - len(FORKED))]
        self._order = Packet(pieces, DESCRIPTORS)
        self._told = Packet([(ctypes.addressof(self._forked), HEAD.size)], 1)
        self._told_end = Packet([(ctypes.addressof(self._exit), EXIT.size)])
        self.descriptors = [Later(address) for address in self._order.descriptors]
        for descriptor in self.descriptors:
            descriptor.value = _NONE
        self._take = Prepared([("take", self._take_order())])
        self._end = Prepared([("end", self._take_end())])
        self._back = Prepared([("back", self._go_back())])

    def take(self) -> None:
        """Take an order. What it is about is where ``fork`` finds it.

        Raises:
            OSError: ENODATA, EPIPE or ECONNRESET: the worker has closed its end.
        """
        self._order.expect()
        self._take.make()

    def fork(
        self, children: tuple[Prepared, Prepared], live: Callable[[bool, CallFailedError | None], NoReturn]
    ) -> Fork:
        """What is done for each order that was taken: fork, and tell the worker.

        Invariant: between two orders this process stands in its own pid namespace, and forks into it.

        Args:
            children: without and with a rehearsal.
            live: as of ``Fork``.
        """
        apart = Calls()
        for descriptor in self.descriptors:  # there was no room for them: recvmsg(2), MSG_CTRUNC
            apart.call("an order came without its descriptors", "fcntl", descriptor, fcntl.F_GETFD)
        if self._own_pid_ns is not None:
            # The next fork makes pid 1 of a new pid namespace; with it dies everything inside. The next unshare is
            # refused until setns has brought us back: pid_namespaces(7).
            apart.call("unshare", "unshare", libc.CLONE_NEWPID)
        before = Prepared([("apart", apart)], in_c=children[0].in_c)
        after = Prepared([("back", self._go_back()), ("tell", self._tell_forked())], in_c=children[0].in_c)
        return Fork(before, children, after, chosen=self._chosen, pid=self._pid, live=live)

    @property
    def last(self) -> tuple[int, int]:
        """Number and pidfd of the child that was forked last."""
        return int(HEAD.unpack(self._forked)[1]), Later(self._told.descriptors[0]).value

    def tell_failed(self, error: OSError) -> None:
        """Undo what came before the fork, and tell the worker why there is no such child."""
        self._back.make()
        self._control.send(HEAD.pack(FAILED, self.last[0]) + str(error).encode(), socket.MSG_NOSIGNAL)

    def tell_end(self, number: int, pid: int, pidfd: int) -> None:
        """Take a dead child's status and tell the worker. Its pid is free for another process then: wait4(2)."""
        self._pid.value, self._pidfd.value = pid, pidfd
        HEAD.pack_into(self._exit, 0, EXITED, number)
        self._end.make()

    def _take_order(self) -> Calls:
        calls, flags = Calls(), socket.MSG_CMSG_CLOEXEC
        # 0 bytes: the worker has closed its end
        calls.call("recvmsg", "recvmsg", self._control.fileno(), self._order.header, flags, least=1)
        return calls

    def _go_back(self) -> Calls:
        """Be in the own pid namespace again, and close the descriptors of the child."""
        calls = Calls()
        if self._own_pid_ns is not None:
            calls.call("setns", "setns", self._own_pid_ns, libc.CLONE_NEWPID)
        for descriptor in self.descriptors:
            calls.call("close", "close", descriptor, forgiven=errno.EBADF)
            # what closes none returns -1: no later order has this one
            calls.call("forget", "close", _NONE, forgiven=errno.EBADF, into=descriptor.address)
        return calls

    def _tell_forked(self) -> Calls:
        """Pass the worker a descriptor of the child: pidfd_open(2)."""
        calls, (pidfd,) = Calls(), self._told.descriptors
        calls.call("pidfd_open", "pidfd_open", Later(ctypes.addressof(self._pid)), 0, into=pidfd)
        calls.call("sendmsg", "sendmsg", self._control.fileno(), self._told.header, socket.MSG_NOSIGNAL)
        return calls

    def _take_end(self) -> Calls:
        calls = Calls()
        at, status = ctypes.addressof(self._exit), HEAD.size
        usage = status + ctypes.sizeof(ctypes.c_int)
        calls.call("wait4", "wait4", Later(ctypes.addressof(self._pid)), at + status, 0, at + usage)
        calls.call("close", "close", Later(ctypes.addressof(self._pidfd)))
        calls.call("sendmsg", "sendmsg", self._control.fileno(), self._told_end.header, socket.MSG_NOSIGNAL)
        return calls
