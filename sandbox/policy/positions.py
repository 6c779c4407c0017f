"""Where in a policy file a key stands: for messages that point at a line, and for the comments beside a value.

The TOML parser of the standard library keeps no positions. It does say of any beginning of a file whether that is TOML,
and which keys it has: the lines after which it first knows a key are those that give it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

_COMMENT = re.compile(r"""(?:[^#"']|"(?:[^"\\]|\\.)*"|'[^']*')*\#(?P<comment>.*)""")


class Position(NamedTuple):
    """Line and column, both counted from 1; the column in characters."""

    line: int
    column: int


class PolicyText:
    """The text of a file that is TOML."""

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._statements = _statements(self._lines)

    def position(self, key: str, item: str | None = None) -> Position | None:
        """Where a key stands, or the nearest table around it; ``None`` when neither is there.

        Args:
            key: dotted, e.g. ``limits.wall_s``.
            item: a text in the key's value, to be pointed at instead.
        """
        if key not in self._statements:
            table = key.rpartition(".")[0]
            return self.position(table) if table else None
        first, last = self._statements[key]
        for line in range(first, last + 1) if item is not None else ():
            for written in (f'"{item}"', f"'{item}'"):
                if (at := self._lines[line - 1].find(written)) >= 0:
                    return Position(line, at + 1)
        name = re.escape(key.rpartition(".")[2])
        found = re.search(rf"(?<![\w-]){name}(?![\w-])", self._lines[first - 1])
        return Position(first, found.start() + 1 if found else 1)

    def comment(self, key: str, item: str) -> str:
        """The comment on the line where a text of a key's value stands; empty when there is none."""
        position = self.position(key, item)
        found = _COMMENT.match(self._lines[position.line - 1]) if position else None
        return found["comment"].strip() if found else ""


def _statements(lines: list[str]) -> dict[str, tuple[int, int]]:
    """Dotted key → first and last line of the statement that gives it."""
    found: dict[str, tuple[int, int]] = {}
    first = 1
    for last in range(1, len(lines) + 1):
        try:
            known = tomllib.loads("\n".join(lines[:last]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value that goes over several lines
        for key in _keys(known):
            found.setdefault(key, (first, last))
        first = last + 1
    return found


def _keys(table: dict[str, Any], above: str = "") -> list[str]:
    keys = []
    for name, value in table.items():
        keys.append(above + name)
        if isinstance(value, dict):
            keys += _keys(value, f"{above}{name}.")
    return keys
