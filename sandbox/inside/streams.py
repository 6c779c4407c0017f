"""The standard streams of a child, made anew: those that a zygote started with have looked at other files.

They are as the interpreter makes them, but hold nothing back: a run may be killed at any moment, and what it has
printed by then is kept to the last half line.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

_write, _flush = io.BufferedWriter.write, io.BufferedWriter.flush


class PromptWriter(io.BufferedWriter):
    """Writes at once, and still whole: a raw file may write a part only."""

    def write(self, data: Any, /) -> int:
        """Write it all."""
        written = _write(self, data)
        _flush(self)
        return written


def open_streams() -> None:
    """Make ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` anew, over descriptors 0 to 2, which they do not own.

    To be called in the zygote, so that no child has to. A stream asks its file once what sort it is: so these look at
    pipes, which is what each child has there. Encodings and errors are the interpreter's under ``LANG=C.UTF-8``.
    """
    with _pipes_instead():
        _open_streams()


@contextlib.contextmanager
def _pipes_instead() -> Iterator[None]:
    """Have pipes at 0 to 2 for a moment."""
    own = [os.dup(fd) for fd in range(3)]
    read, write = os.pipe()
    try:
        for fd, end in enumerate((read, write, write)):
            os.dup2(end, fd)
        yield
    finally:
        for fd, kept in enumerate(own):
            os.dup2(kept, fd)
        for fd in (*own, read, write):
            os.close(fd)


def _open_streams() -> None:
    stdin: Any = io.TextIOWrapper(
        io.BufferedReader(_raw(0, "r", "<stdin>")), encoding="utf-8", errors="surrogateescape"
    )
    stdin.mode = "r"
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _output(1, "<stdout>", "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _output(2, "<stderr>", "backslashreplace")  # type: ignore[misc]


def _raw(fd: int, mode: str, name: str) -> Any:
    raw: Any = io.FileIO(fd, mode, closefd=False)
    raw.name = name
    return raw


def _output(fd: int, name: str, errors: str) -> Any:
    buffer = PromptWriter(_raw(fd, "w", name))
    stream: Any = io.TextIOWrapper(
        buffer, encoding="utf-8", errors=errors, newline="\n", line_buffering=fd == 2, write_through=True
    )
    stream.mode = "w"
    return stream
