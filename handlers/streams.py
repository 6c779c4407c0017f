"""What a script finds at descriptor 0, behind the paths ``/dev/stdin`` and its like, and at ``__file__``.

There is no procfs in the sandbox, so ``/dev/stdin`` can be no link into it. Where a request names such a path, ``open``
and ``os.open`` know it; native code that opens it by itself does not find it.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from typing import Any

IN_SANDBOX = bool(sys.flags.no_site)
"""Whether this is the interpreter of a zygote: no other is started so."""
_PIPE_BYTES = 1 << 16
"""What a pipe takes before anybody reads, pipe(7)."""
_READS_DESCRIPTOR = ("stdin", "open(0", "/dev/", "fdopen", "FileIO", "os.read", "dup", "select", "subprocess", "fork")
_DEVICE = re.compile(r"/dev/(?:std(?P<name>in|out|err)|fd/(?P<number>[0-9]{1,4}))")
_NUMBERS = {"in": 0, "out": 1, "err": 2}
_NAMES_ITS_FILE = (
    "__file__",
    "argv[0]",
    "multiprocessing",
    "runpy",
    "__excepthook__",
    "open('script.py",
    'open("script.py',
    "import script",
    "from script",
    "hread",
    "__del__",
    "atexit",
    "weakref",
    "unraisable",
)
"""What reads the script's file, or prints a traceback as the interpreter itself does, which takes lines from there."""
_OUTPUT_OF_ITS_OWN = ("TextIOWrapper", "BufferedWriter", "fdopen", "__del__", "open(1", "open(2", "open(sys.", "/dev/")
_ENDS_OF_A_GENERATOR = ("finally", "except", "with ")


def give_stdin(text: bytes, source: str) -> Callable[[], None]:
    """Make ``text`` what ``sys.stdin`` holds; and descriptor 0, where the script seems to look at that.

    There it is a pipe, or where it is long a file without a name, which takes room in the workspace.

    Returns:
        What gives the room back.
    """
    fd = _fill(text) if _names(_READS_DESCRIPTOR, source) else None
    if fd is None:
        if IN_SANDBOX and _is_empty(sys.stdin):  # the rehearsal's: to make a new one costs a run the copy of 60 pages
            sys.stdin.buffer.write(text)
            sys.stdin.buffer.seek(0)
        else:
            _use_stdin(io.BytesIO(text))
        return lambda: None
    place = os.fstat(fd)
    os.dup2(fd, 0)
    os.close(fd)
    raw: Any = io.FileIO(0, closefd=False)
    raw.name = "<stdin>"
    _use_stdin(io.BufferedReader(raw))
    return functools.partial(_give_back, place) if stat.S_ISREG(place.st_mode) else lambda: None


def _fill(text: bytes) -> int | None:
    """A descriptor from which the text can be read, or ``None`` where there is no room for it."""
    fd = _fill_pipe(text) if len(text) <= _PIPE_BYTES else None
    return _fill_file(text) if fd is None else fd


def _fill_pipe(text: bytes) -> int | None:
    """A pipe that holds it all, or ``None`` where the kernel grants less room than usual."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        if os.write(writer, text) == len(text):
            return reader
    except BlockingIOError:
        pass
    finally:
        os.close(writer)
    os.close(reader)
    return None


def _fill_file(text: bytes) -> int | None:
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            if file.write(text) != len(text):
                return None
            file.seek(0)
            return os.dup(file.fileno())
    except OSError:  # no room is left for it
        return None


def empty_stdin() -> None:
    """Make ``sys.stdin`` one that holds nothing."""
    _use_stdin(io.BytesIO())


def _is_empty(stdin: Any) -> bool:
    """Whether ``empty_stdin`` has made it, and nobody has used it."""
    return type(stdin) is io.TextIOWrapper and type(stdin.buffer) is io.BytesIO and not stdin.buffer.getbuffer().nbytes


def _use_stdin(buffer: Any) -> None:
    stdin: Any = io.TextIOWrapper(buffer, encoding="utf-8", errors="surrogateescape")
    stdin.mode = "r"
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]


def _give_back(place: os.stat_result) -> None:
    try:
        if os.path.samestat(os.fstat(0), place):
            os.ftruncate(0, 0)  # should the script hold it by another descriptor, too
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
    except OSError:
        pass  # the script has closed it


def show_devices(source: str, text: bytes) -> None:
    """Let ``open`` and ``os.open`` know ``/dev/stdin``, ``/dev/stdout``, ``/dev/stderr`` and ``/dev/fd/N`` if need be.

    Args:
        source: the script.
        text: the request. Where neither names such a path, nothing is changed.
    """
    if "/dev/" in source or b"/dev/" in text:
        builtins.open = io.open = _DeviceOpen(io.open, io.open)
        os.open = _DeviceOpen(os.open, lambda fd, *_, **__: fd)


class _DeviceOpen:
    """Stands for ``open``. No function, which would become a method where a class holds it."""

    def __init__(self, original: Callable[..., Any], open_device: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._original = original
        self._open_device = open_device

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        path = arguments[0] if arguments else named.get("file", named.get("path"))
        found = _DEVICE.fullmatch(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else None
        if found is None:
            return self._original(*arguments, **named)
        fd = os.dup(_NUMBERS[found["name"]] if found["name"] else int(found["number"]))
        named = {name: value for name, value in named.items() if name not in ("file", "path")}
        return self._open_device(fd, *arguments[1:], **named)


def lay_down_source(source: str, path: str, code: str) -> None:
    """Write the script where it says that it lies, if it seems to look there. It counts as a file of the workspace.

    Args:
        source: the script.
        path: where.
        code: all that may look there: the script, and its modules.
    """
    if IN_SANDBOX and _names(_NAMES_ITS_FILE, code):
        try:
            with io.FileIO(path, "x") as file:
                file.write(source.encode("utf-8", "surrogatepass"))
        except OSError:
            pass  # no room, or a file of this name is there already


def _names(words: tuple[str, ...], source: str) -> bool:
    return any(word in source for word in words)


def may_open(source: str) -> bool:
    """Whether a script can have opened anything: none does without naming what opens, or importing what does."""
    return _names(("open", "import"), source)


def may_hold_output(source: str) -> bool:
    """Whether a script seems to make writers of its own for a standard stream, or finalizers: they need the end.

    A generator that has not come to its own end is closed then, and may have something to do.
    """
    return _names(_OUTPUT_OF_ITS_OWN, source) or ("yield" in source and _names(_ENDS_OF_A_GENERATOR, source))
