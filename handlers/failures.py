"""How an attempt fails: a handler's own refusal or a script's exception, and either as JSON for the sandbox."""

from __future__ import annotations

import errno
import os
import traceback
from types import TracebackType

from handlers.text import clean_text, encode_json, type_name

MAX_MESSAGE_CHARACTERS = 16 << 10
MAX_TRACEBACK_CHARACTERS = 64 << 10
_KEPT_HEAD = MAX_TRACEBACK_CHARACTERS // 4

NO_MEMORY = b'{"type":"MemoryError","message":"The memory ran out.","traceback":null,"code":"memory_limit"}'
"""Made beforehand: when it is needed there may be no memory to make it."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FOLDER = os.path.dirname(__file__)
_OUR_FILES = frozenset(os.path.join(_FOLDER, name) for name in ("entry.py", "custom_script.py"))
_TracebackException = traceback.TracebackException
_clear_frames = traceback.clear_frames


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
        return _encode(type_, _message(error), _format_traceback(error, first_file), _limit_met(error))
    except MemoryError:
        return NO_MEMORY


def _limit_met(error: BaseException) -> str | None:
    """Which limit stands behind an error that is the kernel's refusal; the supervisor reads it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException":  # the latter is DuckDB's
        return "memory_limit"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "memory_limit"
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return "workspace_limit"
    if isinstance(error, RuntimeError) and error.args == ("can't start new thread",):
        return "process_limit"
    return None


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


def _format_traceback(error: BaseException, first_file: str | None) -> str | None:
    try:
        summary = _TracebackException(type(error), error, _own_frames(error.__traceback__, first_file), compact=True)
        text = "".join(summary.format())
        if len(text) > MAX_TRACEBACK_CHARACTERS:
            rest = len(text) - MAX_TRACEBACK_CHARACTERS
            text = f"{text[:_KEPT_HEAD]}\n… {rest} characters left out …\n{text[_KEPT_HEAD + rest :]}"
        return clean_text(text)
    except BaseException:
        return None


def _own_frames(frames: TracebackType | None, first_file: str | None) -> TracebackType | None:
    """The frames from the script's first on, or else without those that only led to the handler."""
    start = frames
    while start is not None:
        if start.tb_frame.f_code.co_filename == first_file:
            return start
        start = start.tb_next
    while frames is not None and frames.tb_frame.f_code.co_filename in _OUR_FILES:
        frames = frames.tb_next
    return frames
