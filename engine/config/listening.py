"""The socket that the API listens on."""

from __future__ import annotations

import socket

from engine.model.errors import EngineError

BACKLOG = 2048


class ListenError(EngineError):
    """The address cannot be listened on; the message says why."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ListenError: the address is taken, not ours, or no address.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host} port {port}: {error.strerror} (see HOST and PORT)") from error
    listener.setblocking(False)
    return listener
