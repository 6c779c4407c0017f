"""Structured logs: one event a line on stderr, JSON by default.

A value can never forge a line or drive a terminal: JSON is written in pure ASCII, and the console form shows control
characters as escapes. Passwords in URLs, and what else looks like a secret, are cut out of every value, tracebacks
included. Local variables never reach a traceback, for they may hold what a client sent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import msgspec
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import FilteringBoundLogger, Processor

from engine.model.redact import redact, redact_beginning

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MAX_FIELD_CHARACTERS = 2048
"""Of one text in a log line. What a script or a client wrote is cut to this before anything else looks at it."""
MAX_FIELD_ITEMS = 100
"""Of one array or object in a log line."""
_QUIET_LIBRARIES = ("arq", "asyncio", "httpx", "httpcore", "litestar", "uvicorn", "uvicorn.error", "redis")


def configure_logs(*, level: str, log_format: str) -> None:
    """Send every log line of this process, those of libraries included, to stderr.

    Args:
        level: lines below it are dropped, e.g. ``"INFO"``.
        log_format: ``"json"`` or ``"console"``.
    """
    number = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Processor] = [_structured_traceback, _redacted]
    ending += [_console_line] if log_format == "console" else [_json_line]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def log_uncaught() -> None:
    """Make lines of what would otherwise go to stderr as it is: warnings, and exceptions that nobody catches."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda raised: _log_uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _log_uncaught(kind: type[BaseException], raised: BaseException | None, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, raised or kind(), traceback)
    else:
        get_logger().critical("exception that nobody caught", exc_info=raised or kind())


def get_logger(**bound: Any) -> FilteringBoundLogger:
    """A logger with ``bound`` on each of its lines. Use it after ``configure_logs``."""
    logger: FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


def lines_with(**ids: str | int | None) -> contextlib.AbstractContextManager[Any]:
    """Each line of this task's log, those of libraries included, says these ids, as far as there are any."""
    return structlog.contextvars.bound_contextvars(**{name: value for name, value in ids.items() if value is not None})


def escape_controls(text: str) -> str:
    """The text on one line, safe for a terminal: control and bidirectional characters as ``\\x..`` escapes."""
    return _CONTROL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def _structured_traceback(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    if given:
        raised = given if isinstance(given, BaseException) else sys.exc_info()[1] if given is True else given[1]
        if raised is not None:
            shape = ExceptionDictTransformer(show_locals=False, max_frames=20)
            event["exception"] = shape((type(raised), raised, raised.__traceback__))
    return event


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {str(key): _plain(value) for key, value in event.items()}


def _plain(value: Any) -> Any:
    """The value as JSON types; every text in it is cut, then redacted; each cut is marked where it was made."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        kept = itertools.islice(value.items(), MAX_FIELD_ITEMS)
        plain = {_plain_text(str(key)): _plain(item) for key, item in kept}
        return plain | ({"items_total": len(value)} if len(value) > MAX_FIELD_ITEMS else {})
    if isinstance(value, (list, tuple, set, frozenset)):
        plain_items = [_plain(item) for item in itertools.islice(value, MAX_FIELD_ITEMS)]
        left_out = len(value) - len(plain_items)
        return [*plain_items, f"… and {left_out} more"] if left_out else plain_items
    return _plain_text(value if isinstance(value, str) else str(value))


def _plain_text(text: str) -> str:
    """At most ``MAX_FIELD_CHARACTERS`` of a text, redacted.

    The cut comes first: a pattern never sees more than that, whatever a script has written. A secret that the cut goes
    through is redacted, too.
    """
    if len(text) <= MAX_FIELD_CHARACTERS:
        return redact(text)
    return f"{redact_beginning(text[:MAX_FIELD_CHARACTERS])}… ({len(text)} characters in all)"


def _json_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    line = msgspec.json.encode(head | dict(event))
    return line.decode("ascii") if line.isascii() else json.dumps(msgspec.json.decode(line), ensure_ascii=True)


def _console_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    head = [str(event.pop("timestamp", ""))[11:23], f"{event.pop('level', ''):<8}", str(event.pop("event", ""))]
    exception = event.pop("exception", None)
    rest = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in event.items()]
    lines = [escape_controls(" ".join([*head, *rest]))]
    for raised in exception or ():
        lines.append(escape_controls(f"    {raised['exc_type']}: {raised['exc_value']}"))
        lines += [escape_controls(f"      {at['filename']}:{at['lineno']} {at['name']}") for at in raised["frames"]]
    return "\n".join(lines)
