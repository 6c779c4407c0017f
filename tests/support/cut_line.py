"""A line between the service and a server, which a test cuts: TCP in front of the server's socket."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER on, for 0 seconds: close(2) resets the connection (socket(7))."""


class CutLine:
    """Passes bytes on to a UNIX socket, until it is cut. New connections pass again, unless it is closed."""

    def __init__(self, behind: Path) -> None:
        """
        Args:
            behind: the server's socket.
        """
        self._behind = behind
        self._fronts: dict[socket.socket, threading.Thread] = {}
        self._starting = threading.Lock()
        """Held while a front is noted and its thread started: one that is found has a thread that can be joined."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def cut(self) -> None:
        """Reset every connection."""
        cut = []
        with self._starting:
            fronts = tuple(self._fronts.items())
        for front, thread in fronts:
            with contextlib.suppress(OSError):
                front.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                front.shutdown(socket.SHUT_RD)
            cut.append(thread)
        for thread in cut:
            thread.join()

    def close(self) -> None:
        """Accept nothing more, and cut what there is."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self._listener.accept()
            except OSError:
                return
            with self._starting:
                self._fronts[front] = thread = threading.Thread(target=self._serve, args=(front,))
                thread.start()

    def _serve(self, front: socket.socket) -> None:
        with front, socket.socket(socket.AF_UNIX) as back, contextlib.suppress(OSError):
            back.connect(str(self._behind))
            other = {front: back, back: front}
            with selectors.DefaultSelector() as selector:
                for end in other:
                    selector.register(end, selectors.EVENT_READ)
                while parts := [(other[key.fileobj], key.fileobj.recv(1 << 16)) for key, _ in selector.select()]:  # type: ignore[index, union-attr]
                    if not all(part for _, part in parts):
                        break
                    for end, part in parts:
                        end.sendall(part)
        self._fronts.pop(front, None)


@contextlib.contextmanager
def cut_line(behind: Path) -> Iterator[CutLine]:
    """A line that is closed in the end."""
    with contextlib.closing(CutLine(behind)) as line:
        yield line
