"""Receives descriptors over a socket so that no program which is started later gets them, too."""

from __future__ import annotations

import array
import socket


def receive_descriptors(control: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
    """Take one packet and the descriptors that come with it, each closed on exec: recvmsg(2), unix(7).

    ``socket.recv_fds`` takes flags and passes none of them on (CPython 3.11 to 3.13). What it receives stays open in
    every program that is started without closing all descriptors, as uvloop starts them.

    Args:
        control: a Unix socket.
        most_bytes: of the packet.
        most: of the descriptors.

    Returns:
        The packet, empty at the end of the socket, and the descriptors, which are the caller's to close.

    Raises:
        OSError: as of recvmsg(2); ``BlockingIOError`` when nothing is there.
    """
    fds = array.array("i")
    packet, ancillary, _, _ = control.recvmsg(most_bytes, socket.CMSG_LEN(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return packet, list(fds)
