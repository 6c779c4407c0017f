"""How an attempt fails: a handler's own refusal or a script's exception, and either as JSON for the sandbox."""

from __future__ import annotations

import contextlib
import errno
import io
import linecache
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any

from handlers.text import clean_text, encode_json, type_name

MAX_MESSAGE_CHARACTERS = 16 << 10
MAX_TRACEBACK_CHARACTERS = 64 << 10
_KEPT_HEAD = MAX_TRACEBACK_CHARACTERS // 4

NO_MEMORY = b'{"type":"MemoryError","message":"The memory ran out.","traceback":null,"code":"memory_limit"}'
"""Made beforehand: when it is needed there may be no memory to make it."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FOLDER = os.path.dirname(__file__)
_OUR_FILES = frozenset(
    os.path.join(_FOLDER, name) for name in ("entry.py", "custom_script.py", "calling.py", "streams.py")
)
_TracebackException = traceback.TracebackException
_clear_frames = traceback.clear_frames
_print_exception = sys.excepthook
_HINT = re.compile(r"\. Did you mean: '[^'\n]*'\?$", re.MULTILINE)
_MOST_HINTS = 16
"""Exceptions of one chain or group that are looked at."""
_PYTHON_HINTS = sys.version_info >= (3, 12)
"""Since then the traceback module knows them; before, only what prints an exception does."""


class Refusal(Exception):  # noqa: N818 what it is called everywhere
    """A handler will not do what was asked. The message says what to do instead.

    Args:
        code: a stable word for programs, e.g. ``objects_required``.
        message: one sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScriptFailed(Exception):  # noqa: N818 no error of ours
    """A script raised ``error``; its frames are those from ``filename`` on."""

    def __init__(self, error: BaseException, filename: str) -> None:
        super().__init__()
        self.error = error
        self.filename = filename


def describe(failure: BaseException) -> bytes:
    """A failure as JSON: ``type``, ``message``, ``traceback``, ``code``. Never raises, whatever the exception does."""
    try:
        if isinstance(failure, Refusal):
            return _encode("Refusal", str(failure), None, failure.code)
        error = failure.error if isinstance(failure, ScriptFailed) else failure
        if isinstance(error, MemoryError):
            _clear_frames(error.__traceback__)
        # the supervisor knows it by this name, so numpy's subclass must not hide it
        type_ = "MemoryError" if isinstance(error, MemoryError) else type_name(error)
        first_file = failure.filename if isinstance(failure, ScriptFailed) else None
        return _encode(type_, _message(error) + _help(error), _format_traceback(error, first_file), _limit_met(error))
    except MemoryError:
        return NO_MEMORY


def _limit_met(error: BaseException) -> str | None:
    """Which limit stands behind an error that is the kernel's refusal; the supervisor reads it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException":  # the latter is DuckDB's
        return "memory_limit"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "memory_limit"
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        _show_workspace()
        return "workspace_limit"
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return "process_limit"
    return None


def _show_workspace() -> None:
    """Have the supervisor measure the workspace now, while what fills it is still open: the files of a script that have
    no name are gone when it has ended. It does so at each signal that a run sends to itself; this one has no number.
    """
    with contextlib.suppress(OSError):
        os.kill(os.getpid(), 0)


def _encode(type_: str, message: str, traceback_: str | None, code: str | None) -> bytes:
    return encode_json({"type": type_, "message": message, "traceback": traceback_, "code": code})


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except MemoryError:
        raise
    except BaseException:
        return "(the exception's own __str__ failed)"
    if len(text) > MAX_MESSAGE_CHARACTERS:
        text = text[:MAX_MESSAGE_CHARACTERS] + f"… ({len(text) - MAX_MESSAGE_CHARACTERS} characters left out)"
    return clean_text(text)


def _help(error: BaseException) -> str:
    """What to do about it, where that can be said."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    try:
        from handlers import missing  # noqa: PLC0415 few runs end so

        return missing.explain(error)
    except MemoryError:
        raise
    except BaseException:  # the script may have taken apart what this needs
        return ""


def _format_traceback(error: BaseException, first_file: str | None) -> str | None:
    try:
        _show_line(error)
        text = print_as_python(error, own_frames(error.__traceback__, first_file))
        if len(text) > MAX_TRACEBACK_CHARACTERS:
            rest = len(text) - MAX_TRACEBACK_CHARACTERS
            text = f"{text[:_KEPT_HEAD]}\n… {rest} characters left out …\n{text[_KEPT_HEAD + rest :]}"
        return clean_text(text)
    except BaseException:
        return None


def print_as_python(error: BaseException, frames: TracebackType | None) -> str:
    """What the interpreter prints of an uncaught exception, with these frames."""
    if isinstance(error, SyntaxError) and frames is None and error.__cause__ is None and error.__context__ is None:
        # before Python 3.13 the traceback module draws some carets otherwise
        return _capture_print(error.with_traceback(None))
    most = getattr(sys, "tracebacklimit", None)
    limit = -max(most, 0) if isinstance(most, int) else None  # the interpreter's is of the last frames
    summary = _TracebackException(type(error), error, frames, compact=True, limit=limit)
    if limit == 0:
        summary.stack = None  # type: ignore[assignment]
    if not _PYTHON_HINTS:
        _add_hints(summary, error)
    return "".join(summary.format())


def _show_line(error: BaseException) -> None:
    """Give a syntax error its line of source where the compiler has looked for it in a file that there is not."""
    if isinstance(error, SyntaxError) and error.text is None and error.filename and error.lineno:
        error.text = linecache.getline(error.filename, error.lineno) or None


def _add_hints(summary: Any, error: BaseException) -> None:
    """Add what the interpreter suggests for a misspelt name to the last line of each exception."""
    waiting, left = [(summary, error)], _MOST_HINTS
    while waiting and left:
        shown, one = waiting.pop()
        left -= 1
        if type(one) in (NameError, AttributeError):
            shown._str += _hint(one)  # noqa: SLF001 it has no public name
        for inner, cause in ((shown.__cause__, one.__cause__), (shown.__context__, one.__context__)):
            if inner is not None and cause is not None:
                waiting.append((inner, cause))
        if isinstance(one, BaseExceptionGroup):
            waiting += zip(shown.exceptions or (), one.exceptions, strict=False)


def _hint(error: BaseException) -> str:
    """``. Did you mean: 'NAME'?``, or nothing."""
    hints = _HINT.findall(_capture_print(error))
    return hints[-1] if hints else ""


def _capture_print(error: BaseException) -> str:
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        _print_exception(type(error), error, error.__traceback__)
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stderr


def own_frames(frames: TracebackType | None, first_file: str | None) -> TracebackType | None:
    """The frames from the script's first on, or else without those that only led to the handler."""
    start = frames
    while start is not None:
        if start.tb_frame.f_code.co_filename == first_file:
            return start
        start = start.tb_next
    while frames is not None and frames.tb_frame.f_code.co_filename in _OUR_FILES:
        frames = frames.tb_next
    return frames
