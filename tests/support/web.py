"""Local servers that tests let a sandbox reach, or must not let it reach."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any


class Server:
    """A TCP server on the loopback that counts connections and leaves what to say to a function."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(20)
            self._talk(sock)

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


def read_head(sock: socket.socket) -> bytes:
    """Everything up to the empty line."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(65536)
        if not part:
            break
        head += part
    return head


@contextlib.contextmanager
def raw_server(answer: bytes | Callable[[socket.socket, bytes], None] = b"") -> Iterator[Server]:
    """A server that reads one head, keeps it, and sends ``answer`` or lets it talk."""

    def talk(sock: socket.socket) -> None:
        head = read_head(sock)
        server.received.append(head)
        if callable(answer):
            answer(sock, head)
        else:
            sock.sendall(answer)

    server = Server(talk)
    try:
        yield server
    finally:
        server.close()


def ok(body: bytes = b"hello", *headers: str) -> bytes:
    """A whole response."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.contextmanager
def tls_server(certificate: Any, body: bytes = b"secret hello") -> Iterator[Server]:
    """An HTTPS server; ``certificate`` is trustme's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            server.received.append(read_head(secure))
            secure.sendall(ok(body))

    server = Server(talk)
    try:
        yield server
    finally:
        server.close()


class Names:
    """A resolver of a test's own: name → what it answers, each time the next one, the last for ever."""

    def __init__(self, **names: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        if name not in self.answers:
            raise OSError("no such name")
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]
