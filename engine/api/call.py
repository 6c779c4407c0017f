"""The description of a call, written on its route: its scope, its parameters, its answers.

The guard reads the scope from here, and the OpenAPI document is made from here: a call lies in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from litestar.handlers import BaseRouteHandler

from engine.model.principal import Scope

PUBLIC = "public"
"""Opens a call to anybody."""
ANY_KEY = "any key"
"""Opens a call to every key, whatever its scopes."""
OPT = "call"
"""Where a route has its ``Call`` among Litestar's ``opt``."""

Parameter = dict[str, Any]
"""As OpenAPI has it."""
Body = Callable[[Sequence[str]], dict[str, Any]]
"""(available task types) → a request body as OpenAPI has it."""


class Answer(msgspec.Struct, frozen=True):
    """One answer of a call that succeeds, or that reports a state."""

    description: str
    type: Any = None
    """The Struct that is sent as JSON; ``None`` for an answer of another media type, or without a body."""
    media_type: str | None = None
    """Of an answer that is no Struct; ``None`` for an answer without a body."""
    schema: dict[str, Any] = {}
    """Of an answer that is no Struct."""
    headers: dict[str, Any] = {}


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the HTTP interface, beside its path, method, name and summary, which its route has."""

    scope: Scope | str
    """The scope that a key needs for it, or ``PUBLIC`` or ``ANY_KEY``."""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: dict[int, Answer]
    problems: tuple[int, ...] = ()
    """The statuses that it is refused with, beside those that every call has."""


def call(
    scope: Scope | str,
    *,
    answers: Mapping[int, Answer],
    parameters: Sequence[Parameter] = (),
    body: Body | None = None,
    problems: Sequence[int] = (),
) -> dict[str, Any]:
    """``opt`` of a route. See ``Call`` for the arguments."""
    described = Call(
        scope=scope, parameters=tuple(parameters), body=body, answers=dict(answers), problems=tuple(problems)
    )
    return {OPT: described}


def call_of(route: BaseRouteHandler) -> Call | None:
    """Read a route's description; ``None`` if it has none, and then nobody may make the call."""
    found: Call | None = route.opt.get(OPT)
    return found


def in_path(name: str, description: str, **schema: str) -> Parameter:
    """A part of the path."""
    return {"name": name, "in": "path", "required": True, "description": description, "schema": _text(schema)}


def in_query(name: str, description: str, *, repeats: bool = False, **schema: Any) -> Parameter:
    """A part of the query; one that ``repeats`` may be given several times."""
    schema = {"type": "array", "items": schema} if repeats else schema
    return {"name": name, "in": "query", "description": description, "schema": schema}


def in_header(name: str, description: str, **schema: str) -> Parameter:
    """A header of the request."""
    return {"name": name, "in": "header", "description": description, "schema": _text(schema)}


def _text(schema: dict[str, str]) -> dict[str, str]:
    return {"type": "string", **schema}
