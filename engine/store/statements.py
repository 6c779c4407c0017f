"""The SQL of ``queries.sql``: each statement has a name and a sentence, and takes its parameters by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.store.columns import Columns

_PART = re.compile(r"^-- (name|fragment): ", re.MULTILINE)
_PLACE = re.compile(r"\{(:|\w+\.|)(\w+)\}")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]\w*)")


class Statement(NamedTuple):
    """A statement with its parameters numbered, as PostgreSQL wants them, and their names in that order."""

    sql: str
    parameters: tuple[str, ...]

    def bind(self, arguments: Mapping[str, Any]) -> list[Any]:
        """The arguments in the order of their numbers.

        Raises:
            TypeError: one is missing, or is no parameter of this statement.
        """
        if arguments.keys() != set(self.parameters):
            raise TypeError(f"the statement takes {self.parameters}, not {tuple(arguments)}")
        return [arguments[name] for name in self.parameters]


def load_statements(path: Path, columns: Iterable[Columns[Any]]) -> dict[str, Statement]:
    """Name → statement of a file in which each follows ``-- name: NAME`` and a comment that describes it.

    A part that begins with ``-- fragment: NAME`` is no statement; ``{NAME}`` stands for its text. ``{Struct}``,
    ``{table.Struct}`` and ``{:Struct}`` stand for the columns of a Struct, the same of one table, and as parameters.

    Raises:
        ValueError: a part without a description, or two of one name.
        KeyError: a place that stands for nothing known.
    """
    parts: dict[str, dict[str, str]] = {"name": {}, "fragment": {}}
    _, *found = _PART.split(path.read_text())
    for kind, part in zip(found[::2], found[1::2], strict=True):
        name, _, body = part.partition("\n")
        if name in parts[kind] or not body.startswith("-- "):
            raise ValueError(f"{path}: {name}: given twice, or without a description")
        parts[kind][name] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    names = {one.name: one.names for one in columns}
    return {name: _number(_fill(text, parts["fragment"], names)) for name, text in parts["name"].items()}


def _fill(text: str, fragments: Mapping[str, str], columns: Mapping[str, tuple[str, ...]]) -> str:
    def fill(place: re.Match[str]) -> str:
        prefix, name = place.groups()
        if name in fragments:
            return _fill(fragments[name], fragments, columns)
        return ", ".join(prefix + column for column in columns[name])

    return _PLACE.sub(fill, text)


def _number(text: str) -> Statement:
    parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    return Statement(_PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", text), parameters)
