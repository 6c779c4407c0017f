"""A message with descriptors, in the form in which prepared calls pass it: sendmsg(2), recvmsg(2), cmsg(3), unix(7)."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence

_INT = ctypes.sizeof(ctypes.c_int)


class _IoVec(ctypes.Structure):
    # struct iovec
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _CmsgHdr(ctypes.Structure):
    # struct cmsghdr; what it describes follows
    _fields_ = [("length", ctypes.c_size_t), ("level", ctypes.c_int), ("type", ctypes.c_int)]


class _MsgHdr(ctypes.Structure):
    # struct msghdr
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovec", ctypes.c_void_p),
        ("iovecs", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Packet:
    """Bytes, and descriptors that go with them.

    Attributes:
        header: what the calls are given.
        descriptors: addresses of the descriptors, to be filled in or read.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]], descriptors: int = 0) -> None:
        """
        Args:
            pieces: address and length of each part of the bytes.
            descriptors: how many.
        """
        self._iovecs = (_IoVec * len(pieces))(*(_IoVec(address, length) for address, length in pieces))
        self._control = (ctypes.c_char * (ctypes.sizeof(_CmsgHdr) + -(-descriptors * _INT // 8) * 8))()
        head = _CmsgHdr.from_buffer(self._control)
        head.length, head.level = ctypes.sizeof(_CmsgHdr) + descriptors * _INT, socket.SOL_SOCKET
        head.type = socket.SCM_RIGHTS
        self.header = _MsgHdr(iovec=ctypes.addressof(self._iovecs), iovecs=len(pieces))
        self.header.control = ctypes.addressof(self._control) if descriptors else None
        self.expect()
        first = ctypes.addressof(self._control) + ctypes.sizeof(_CmsgHdr)
        self.descriptors = [first + _INT * place for place in range(descriptors)]

    def expect(self) -> None:
        """Be ready to take one more: recvmsg(2) sets the length to what has come."""
        self.header.control_length = ctypes.sizeof(self._control) if self.header.control else 0

    def shorten(self, length: int) -> None:
        """Of the last part only so many bytes are meant."""
        self._iovecs[-1].length = length
