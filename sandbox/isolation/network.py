"""The one way out of a run with egress: a listening socket on the loopback of its own network namespace.

Nothing else is there: no interface but ``lo``, no route. A connection to it reaches the egress proxy, which accepts
outside: a socket belongs to the network namespace in which it was made, wherever its descriptor goes.
Sources: network_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import socket
import struct

ADDRESS, PORT = "127.0.0.1", 3128
"""Where a run finds its proxy. The port is the customary one of forward proxies."""
_BACKLOG = 64
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 1  # include/uapi/linux/if.h
_IFREQ = struct.Struct("16sh14x")
"""struct ifreq as far as flags go: name, flags; 32 bytes at least."""


def listen_for_proxy() -> int:
    """Bring the loopback up and return the descriptor of a socket that listens on it.

    To be called with CAP_NET_ADMIN over the namespace, so before capabilities are dropped.

    Raises:
        OSError: the kernel refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _, flags = _IFREQ.unpack_from(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0).ljust(40, b"\0")))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP).ljust(40, b"\0"))
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind((ADDRESS, PORT))
    listening.listen(_BACKLOG)
    return listening.detach()
