"""The one way out of a run with egress: a listening socket on the loopback of its own network namespace.

Nothing else is there: no interface but ``lo``, no route. A connection to it reaches the egress proxy, which accepts
outside: a socket belongs to the network namespace in which it was made, wherever its descriptor goes.
Sources: network_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import socket
import struct

from sandbox.isolation.prepared import Calls, Later

ADDRESS, PORT = "127.0.0.1", 3128
"""Where a run finds its proxy. The port is the customary one of forward proxies."""
_BACKLOG = 64
_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 1  # include/uapi/linux/if.h
_IFREQ = struct.Struct("16sh14x")
"""struct ifreq as far as flags go: name, flags; 32 bytes at least."""
_SOCKADDR_IN = struct.Struct("=H2s4s8x")
"""struct sockaddr_in: family, port and address, both big-endian."""


def listen_for_proxy(calls: Calls) -> Later:
    """Bring the loopback up; the descriptor of a socket that listens on it.

    With CAP_NET_ADMIN over the namespace, so before capabilities are dropped.
    """
    control = calls.call("socket", "socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    # a new loopback has no flag that can be changed but this one
    calls.call("bring the loopback up", "ioctl", control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFF_UP).ljust(40, b"\0"))
    calls.call("socket", "close", control)
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    listening = calls.call("socket", "socket", socket.AF_INET, kind, 0)
    at = _SOCKADDR_IN.pack(socket.AF_INET, PORT.to_bytes(2, "big"), socket.inet_aton(ADDRESS))
    calls.call("bind", "bind", listening, at, _SOCKADDR_IN.size)
    calls.call("listen", "listen", listening, _BACKLOG)
    return listening
