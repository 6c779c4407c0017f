"""The socket that the API listens on."""

from __future__ import annotations

import ipaddress
import socket

from engine.config.settings import Settings, SettingsError
from engine.model.errors import EngineError

BACKLOG = 2048
LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


class ListenError(EngineError):
    """The address cannot be listened on; the message says why."""


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES


def refuse_open(settings: Settings) -> None:
    """Without keys anybody who reaches the API could run scripts, so then only this machine may.

    Raises:
        SettingsError: others could reach it.
    """
    if settings.api_keys_file is None and not is_loopback(settings.listen_host):
        fix = "make a key by `python -m engine keys new --tenant NAME --file FILE`, and set API_KEYS_FILE"
        raise SettingsError(
            [f"HOST {settings.listen_host}: without API_KEYS_FILE the API listens on loopback only; {fix}"]
        )


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
