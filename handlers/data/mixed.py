"""Comparisons in mixed fields, whose values are of several kinds; each is there as its JSON text.

A value compares with values of its own kind only: numbers with numbers, texts with texts. In an order, numbers come
first, then texts, then booleans, each kind in its own order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MAX_INTEGER = 10**38
"""Above what HUGEINT holds in the digits that are read as such."""
_COMPARISONS = {"eq": "=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def mixed_condition(name: str, op: str, value: Any) -> tuple[str, list[Any]]:
    """SQL of a condition, and the values to bind.

    Args:
        name: the column in SQL.
        op: of the condition; not ``is_null`` or ``not_null``.
        value: to compare with; a list for ``in`` and ``not_in``.
    """
    if op in ("ne", "not_in"):
        inner, bound = mixed_condition(name, "eq" if op == "ne" else "in", value)
        return f"({name} IS NOT NULL AND NOT {inner})", bound
    if op == "in":
        return _any_of([mixed_condition(name, "eq", one) for one in value if one is not None])
    if op not in _COMPARISONS:
        return f"coalesce({op}({_text(name)}, ?), false)", [value]
    sign = _COMPARISONS[op]
    if isinstance(value, bool):
        # false before true, as everywhere in SQL
        return (
            f"coalesce(TRY_CAST(CASE WHEN {name} IN ('true', 'false') THEN {name} END AS BOOLEAN) {sign} ?, false)",
            [value],
        )
    if isinstance(value, str):
        return f"coalesce({_text(name)} {sign} ?, false)", [value]
    value = within_reach(value)
    return f"coalesce({_integer(name)} {sign} ?, {_double(name)} {sign} ?, false)", [value, value]


def within_reach(value: Any) -> Any:
    """A value as DuckDB can bind it: an integer beyond its own as a double, which every one of them compares with."""
    if type(value) is not int or -MAX_INTEGER < value < MAX_INTEGER:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def mixed_order(name: str) -> list[str]:
    """The keys by which a mixed column is sorted, the first one first."""
    double, text = _double(name), _text(name)
    rank = f"CASE WHEN {double} IS NOT NULL THEN 0 WHEN {text} IS NOT NULL THEN 1 WHEN {name} IS NOT NULL THEN 2 END"
    return [rank, f"coalesce({double}, 0)", f"coalesce({text}, {name})"]


def _any_of(conditions: Sequence[tuple[str, list[Any]]]) -> tuple[str, list[Any]]:
    if not conditions:
        return "false", []
    return f"({' OR '.join(sql for sql, _ in conditions)})", [value for _, bound in conditions for value in bound]


def _text(name: str) -> str:
    return f"CASE WHEN {name}[1] = '\"' THEN {name} ->> '$' END"


def _integer(name: str) -> str:
    return f"TRY_CAST(CASE WHEN regexp_full_match({name}, '-?[0-9]{{1,38}}') THEN {name} END AS HUGEINT)"


def _double(name: str) -> str:
    return f"TRY_CAST(CASE WHEN regexp_matches({name}, '^-?[0-9]') THEN {name} END AS DOUBLE)"
