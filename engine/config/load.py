"""Builds ``Settings`` from the environment, and prints the table of all variables."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from engine.config.file_modes import find_wide_mode
from engine.config.settings import (
    Group,
    Settings,
    SettingsError,
    _parse_url,
)


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """One environment variable as the table shows it."""

    env: str
    group: Group
    field: str
    unit: str
    default: str
    allowed: str
    effect: str
    secret: bool
    required: bool
    """Required in production."""
    annotation: Any
    facts: dict[str, Any]

    @property
    def file_env(self) -> str:
        """The variable that may name a file which holds this one's value; empty where it is no secret."""
        return f"{self.env}_FILE" if self.secret else ""


def variables() -> tuple[Variable, ...]:
    """Every environment variable, in the order of ``Settings``."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    return tuple(_variable(field, hints[field.name]) for field in msgspec.structs.fields(Settings))


def describe_variables() -> list[list[str]]:
    """Every variable as a row: name, default, allowed values, effect."""
    return [_row(variable) for variable in variables()]


def markdown_tables() -> str:
    """Every variable as Markdown: a heading and a table for each group, as ``engine/config/README.md`` has them."""
    parts = []
    for group in Group:
        rows = [_row(variable) for variable in variables() if variable.group is group]
        rows = [[f"`{name}`", *facts] for name, *facts in rows]
        table = [["variable", "default", "allowed", "effect"], ["---"] * 4, *rows]
        parts.append(f"### {group}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in table))
    return "\n\n".join(parts)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Build the settings from an environment; an empty value counts as not set.

    A secret may lie in a file instead, which ``NAME_FILE`` names: an environment is inherited, and shown by container
    engines to whoever may ask them.

    Raises:
        SettingsError: at least one variable is missing or cannot be; all of them are named.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for variable in variables():
        try:
            text = _text(variable, environ)
        except ValueError as error:
            faults.append(str(error))
            continue
        if not text:
            continue
        try:
            values[variable.field] = _parse(variable, text)
        except (ValueError, msgspec.ValidationError) as error:
            shown = "(value not shown)" if variable.secret else repr(text)
            note = f" ({variable.facts['note']})" if "note" in variable.facts else ""
            if "parse" in variable.facts:
                note = f" ({error})"
            faults.append(f"{variable.env} {shown}: must be {variable.allowed}{note}")
    if environ.get("ENVIRONMENT", "").strip() == "production":
        faults += [
            f"{variable.env} is not set: production requires it ({variable.allowed}). {variable.effect}"
            for variable in variables()
            if variable.required and not _given(environ, variable.env) and not _given(environ, variable.file_env)
        ]
        faults += [
            f"{variable.env} is set: production refuses it. {variable.effect}"
            for variable in variables()
            if variable.facts.get("development_only") and _given(environ, variable.env)
        ]
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _row(variable: Variable) -> list[str]:
    return [variable.env, variable.default, variable.allowed, variable.effect]


def _given(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip() if name else ""


def _text(variable: Variable, environ: Mapping[str, str]) -> str:
    """Read the value given for a variable, from the environment or a file; empty if none is given.

    Raises:
        ValueError: says what is wrong with the file, and never what is in it.
    """
    text, path = _given(environ, variable.env), _given(environ, variable.file_env)
    if not path:
        return text
    if text:
        raise ValueError(f"{variable.env} and {variable.file_env} are both set: only one of them may be")
    try:
        wide = find_wide_mode(Path(path), secret=True)
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{variable.file_env} {path!r}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{variable.file_env} {path!r}: is not UTF-8") from None
    if wide:
        raise ValueError(f"{variable.file_env} {path!r}: {wide}")
    if not text:
        raise ValueError(f"{variable.file_env} {path!r}: is empty")
    return text


def _variable(field: msgspec.structs.FieldInfo, annotation: Any) -> Variable:
    annotation = _of_a_value(annotation)
    facts: dict[str, Any] = {}
    effect = ""
    for meta in annotation.__metadata__:
        effect = meta.description or effect
        facts |= meta.extra or {}
    return Variable(
        env=facts["env"],
        group=facts["group"],
        field=field.name,
        unit=facts["unit"],
        default=facts["default"] or _plain(field.default),
        allowed=_allowed(annotation, facts),
        effect=effect
        + (f" {facts['env']}_FILE may name a file that contains it instead." if facts.get("secret") else ""),
        secret=facts.get("secret", False),
        required=facts.get("required", False),
        annotation=annotation,
        facts=facts,
    )


def _of_a_value(annotation: Any) -> Any:
    """The annotation without the ``None`` of a variable that is not set."""
    kind, *metas = typing.get_args(annotation)
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    is_optional = len(parts) == 1 and type(None) in typing.get_args(kind)
    return Annotated[(parts[0], *metas)] if is_optional else annotation


def _allowed(annotation: Any, facts: dict[str, Any]) -> str:
    """Describe the allowed values in words, from the same type and range that check them."""
    if "allowed" in facts:
        return str(facts["allowed"])
    if schemes := facts.get("schemes"):
        return "a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes)
    kind = typing.get_args(annotation)[0]
    choices = [choice for part in (kind, *typing.get_args(kind)) for choice in _choices(part)]
    if choices:
        return "one of " + ", ".join(choices)
    lowest, highest, pattern = _range(annotation)
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        unit = f" of {facts['unit']}" if facts["unit"] not in ("", "uid", "gid", "port") else ""
        return f"{noun}{unit}, {lowest} to {highest}"
    if pattern:
        return "1 to 100 letters, digits and : . _ - that start with a letter or digit"
    return f"a path of a {facts['unit']}" if facts["unit"] in ("folder", "file") else "a host name or address"


def _choices(part: Any) -> list[str]:
    return [str(choice) for choice in typing.get_args(part)] if typing.get_origin(part) is Literal else []


def _range(annotation: Any) -> tuple[str, str, str]:
    lowest = highest = pattern = ""
    for meta in annotation.__metadata__:
        if meta.ge is not None:
            lowest = _plain(meta.ge)
        if meta.gt is not None:
            lowest = f"more than {_plain(meta.gt)}"
        if meta.le is not None:
            highest = _plain(meta.le)
        pattern = meta.pattern or pattern
    return lowest, highest, pattern


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parse(variable: Variable, text: str) -> Any:
    if parse := variable.facts.get("parse"):
        return parse(text)
    if schemes := variable.facts.get("schemes"):
        return _parse_url(text, schemes)
    kind = typing.get_args(variable.annotation)[0]
    if kind is Path or Path in typing.get_args(kind):
        return Path(text).expanduser().absolute()
    if kind is str or str in typing.get_args(kind):
        return _checked_text(text, variable)
    if variable.facts.get("upper"):
        text = text.upper()
    value = msgspec.convert(text, variable.annotation, strict=False)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(text)
    return value


def _checked_text(text: str, variable: Variable) -> str:
    if not text.isprintable() or " " in text:
        raise ValueError(text)
    checked: str = msgspec.convert(text, variable.annotation)
    return checked
