"""Reads which tasks a list is to show, and where its next page begins."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from engine.api.call import Parameter, in_query
from engine.api.problems import RequestError
from engine.model.status import TASK_TYPES, Status
from engine.model.task import ListedTask
from engine.model.trail import TrailFilter
from sandbox import ExitReason

MAX_LIMIT = 500
MAX_LABELS = 32


def parse_filter(given: Sequence[tuple[str, str]]) -> TrailFilter:
    """Read the query of ``GET /tasks`` as a filter. Raises as ``parse_trail_filter``."""
    return _parse(given, _PARAMETERS)


def parse_trail_filter(given: Sequence[tuple[str, str]]) -> TrailFilter:
    """Read the query of ``GET /audit`` as a filter.

    Raises:
        RequestError: 400, which names the invalid parameter.
    """
    return _parse(given, _TRAIL_PARAMETERS)


def _parse(given: Sequence[tuple[str, str]], known: Mapping[str, ListParameter]) -> TrailFilter:
    wanted: dict[str, Any] = {}
    for name, text in given:
        if name not in known:
            raise RequestError(400, f"no such parameter; there are: {', '.join(known)}", path=name)
        field, read, _, may_repeat = known[name]
        if field in wanted and not may_repeat:
            raise RequestError(400, "given twice", path=name)
        try:
            value = read(text)
        except (ValueError, OverflowError) as error:
            raise RequestError(400, str(error), path=name) from None
        wanted[field] = wanted.get(field, type(value)()) | value if may_repeat else value
        if len(wanted.get("labels", {})) > MAX_LABELS:  # at once: each further one would copy all before it
            raise RequestError(400, f"at most {MAX_LABELS}", path="label")
    return msgspec.convert(wanted, TrailFilter)


def next_cursor(found: Sequence[ListedTask], wanted: TrailFilter) -> str | None:
    """Where the page after ``found`` begins; ``None`` when this one was not full."""
    if len(found) < wanted.limit:
        return None
    return cursor_at((found[-1].created_at, found[-1].task_id))


def cursor_at(place: tuple[datetime, UUID] | None) -> str | None:
    """The cursor of the page after a task that was made then and has this id."""
    if place is None:
        return None
    time, task_id = place
    return base64.urlsafe_b64encode(f"{time.isoformat()} {task_id}".encode()).decode().rstrip("=")


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


def _hashes(text: str) -> tuple[str, str]:
    """The lowest and the highest hash that begin so."""
    if not re.fullmatch("[0-9a-fA-F]{8,64}", text):
        raise ValueError("must be the beginning of a SHA-256 in hex, eight characters or more")
    return text.lower().ljust(64, "0"), text.lower().ljust(64, "f")


def _plain(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise ValueError("must be a name, or an id, as the service gives it")
    return text


def _yes(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


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


_PLAIN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
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
    "key_id": ListParameter(
        "key_id",
        _plain,
        _texts("key_id", "Only tasks that this API key submitted.", pattern=_PLAIN),
    ),
    "source_sha256": ListParameter(
        "source",
        _hashes,
        _texts(
            "source_sha256",
            "Only tasks whose script has a SHA-256 that begins so. A named script's is known once it has run.",
            pattern="^[0-9a-fA-F]{8,64}$",
        ),
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
_TRAIL_PARAMETERS: dict[str, ListParameter] = {
    name: parameter for name, parameter in _PARAMETERS.items() if name != "task_id"
} | {
    "tenant": ListParameter(
        "tenant",
        _plain,
        _texts("tenant", "Only this tenant's; another one than the key's needs the scope `admin`.", pattern=_PLAIN),
    ),
    "policy": ListParameter(
        "policy", _plain, _texts("policy", "Only tasks that run under this policy.", pattern=_PLAIN)
    ),
    "denied": ListParameter(
        "only_denied",
        _yes,
        in_query("denied", "Only tasks whose attempts were denied something.", type="boolean", default=False),
    ),
}
LIST_PARAMETERS = tuple(parameter.described for parameter in _PARAMETERS.values())
"""As the OpenAPI document has them."""
TRAIL_PARAMETERS = tuple(parameter.described for parameter in _TRAIL_PARAMETERS.values())
"""The same of ``GET /audit``."""
