"""Reads which tasks a list is to show, and where its next page begins."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from engine.api.call import Parameter, in_query
from engine.api.problems import RequestError
from engine.model.status import TASK_TYPES, Status
from engine.model.task import ListedTask, TaskFilter
from sandbox import ExitReason

MAX_LIMIT = 500
MAX_LABELS = 32


def parse_filter(given: Sequence[tuple[str, str]]) -> TaskFilter:
    """Read the query of ``GET /tasks`` as a filter.

    Raises:
        RequestError: 400, which names the invalid parameter.
    """
    wanted: dict[str, Any] = {}
    for name, text in given:
        if name not in _PARAMETERS:
            raise RequestError(400, f"no such parameter; there are: {', '.join(_PARAMETERS)}", path=name)
        field, read, _, may_repeat = _PARAMETERS[name]
        if field in wanted and not may_repeat:
            raise RequestError(400, "given twice", path=name)
        try:
            value = read(text)
        except (ValueError, OverflowError) as error:
            raise RequestError(400, str(error), path=name) from None
        wanted[field] = wanted.get(field, type(value)()) | value if may_repeat else value
        if len(wanted.get("labels", {})) > MAX_LABELS:  # at once: each further one would copy all before it
            raise RequestError(400, f"at most {MAX_LABELS}", path="label")
    return msgspec.convert(wanted, TaskFilter)


def next_cursor(found: Sequence[ListedTask], wanted: TaskFilter) -> str | None:
    """Where the page after ``found`` begins; ``None`` when this one was not full."""
    if len(found) < wanted.limit:
        return None
    last = found[-1]
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.task_id}".encode()).decode().rstrip("=")


def _cursor(text: str) -> tuple[datetime, UUID]:
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        time, _, task_id = plain.partition(" ")
        return _time(time), UUID(task_id)
    except (ValueError, binascii.Error):
        raise ValueError("must be a next_cursor that was given out") from None


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.replace(" ", "+"))  # an unquoted + of a URL
    except ValueError:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise ValueError("must have an offset from UTC, such as Z")
    try:
        return time.astimezone(UTC)  # as PostgreSQL keeps it, which knows no year before 1 or after 9999 either
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999 in UTC") from None


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= MAX_LIMIT and len(text) < 4):
        raise ValueError(f"must be a whole number, 1 to {MAX_LIMIT}")
    return int(text)


def _ids(text: str) -> tuple[UUID, UUID]:
    """The lowest and the highest id that begin so."""
    digits = text.replace("-", "").lower()
    whole = str(UUID(digits.ljust(32, "0"))) if re.fullmatch("[0-9a-f]{4,32}", digits) else ""
    if not whole.startswith(text.lower()) or not text:
        raise ValueError("must be the beginning of a task's id, four characters or more, such as 6b690294")
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _label(text: str) -> dict[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name or "\0" in text:
        raise ValueError("must be NAME:VALUE")
    return {name: value}


def _one_of(choices: Sequence[str]) -> Callable[[str], frozenset[str]]:
    def read(text: str) -> frozenset[str]:
        if text not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return frozenset((text,))

    return read


def _task_type(text: str) -> str:
    (found,) = _one_of(TASK_TYPES)(text)
    return found


class ListParameter(NamedTuple):
    """A parameter of ``GET /tasks``."""

    field: str
    """Of ``TaskFilter``."""
    read: Callable[[str], Any]
    described: Parameter
    may_repeat: bool = False


def _texts(name: str, description: str, **schema: Any) -> Parameter:
    return in_query(name, description, type="string", **schema)


_STATUSES = [status.value for status in Status]
_EXIT_REASONS = [reason.value for reason in ExitReason]
_PARAMETERS: dict[str, ListParameter] = {
    "status": ListParameter(
        "statuses",
        _one_of(_STATUSES),
        _texts("status", "Only tasks with one of these statuses.", repeats=True, enum=_STATUSES),
        may_repeat=True,
    ),
    "task_type": ListParameter(
        "task_type", _task_type, _texts("task_type", "Only tasks of this type.", enum=list(TASK_TYPES))
    ),
    "exit_reason": ListParameter(
        "exit_reasons",
        _one_of(_EXIT_REASONS),
        _texts("exit_reason", "Only tasks with one of these exit reasons.", repeats=True, enum=_EXIT_REASONS),
        may_repeat=True,
    ),
    "label": ListParameter(
        "labels",
        _label,
        _texts(
            "label", "Only tasks that have all of these labels, each as NAME:VALUE.", repeats=True, pattern="^[^:]+:"
        ),
        may_repeat=True,
    ),
    "created_after": ListParameter(
        "created_after",
        _time,
        _texts("created_after", "Only tasks accepted at this time or later.", format="date-time"),
    ),
    "created_before": ListParameter(
        "created_before", _time, _texts("created_before", "Only tasks accepted before this time.", format="date-time")
    ),
    "task_id": ListParameter(
        "ids", _ids, _texts("task_id", "Only tasks whose id begins so.", pattern="^[0-9a-fA-F]{4}[0-9a-fA-F-]{0,32}$")
    ),
    "limit": ListParameter(
        "limit",
        _limit,
        in_query("limit", "Most tasks on a page.", type="integer", minimum=1, maximum=MAX_LIMIT, default=50),
    ),
    "cursor": ListParameter(
        "before",
        _cursor,
        _texts("cursor", "`next_cursor` of the page before: this page begins after it.", pattern="^[A-Za-z0-9_-]+$"),
    ),
}
LIST_PARAMETERS = tuple(parameter.described for parameter in _PARAMETERS.values())
"""As the OpenAPI document has them."""
