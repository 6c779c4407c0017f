"""Statistics, correlations and groups over records, with pandas and numpy.

Example args: ``{"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"}``
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

ARGS: dict[str, Any] = {
    "type": "object",
    "required": ["data", "operation"],
    "additionalProperties": False,
    "properties": {
        "data": {
            "type": "array",
            "description": "Records, or numbers, which then are one column named `value`.",
            "items": {"type": ["object", "number", "null"]},
        },
        "operation": {"enum": ["statistics", "correlation", "group_by"]},
        "method": {
            "enum": ["pearson", "spearman"],
            "default": "pearson",
            "description": "Of `correlation`.",
        },
        "by": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "description": "Of `group_by`: the field or fields that make the groups.",
        },
        "aggregates": {
            "type": "object",
            "description": "Of `group_by`: field → one or more of count, sum, mean, median, min, max, std, nunique. "
            "Default: the mean of every numeric field.",
            "examples": [{"price": ["mean", "max"]}],
        },
    },
}
"""JSON Schema of ``args``."""

AGGREGATES = ("count", "sum", "mean", "median", "min", "max", "std", "nunique")


def main(args: Any) -> dict[str, Any]:
    """Do what ``args`` asks for, see ``ARGS``."""
    check(args)
    frame = to_frame(args["data"])
    operation = args["operation"]
    if operation == "statistics":
        answer = describe(frame)
    elif operation == "correlation":
        answer = correlate(frame, args.get("method", "pearson"))
    else:
        answer = group(frame, args.get("by"), args.get("aggregates"))
    return {"operation": operation, "rows": len(frame), **answer}


def check(args: Any) -> None:
    """Refuse what ``ARGS`` does not describe, in words that say what to do."""
    if not isinstance(args, dict) or not isinstance(args.get("data"), list):
        raise ValueError('args must be an object with an array "data" and an "operation"')  # noqa: TRY004 a wrong value
    operations = ARGS["properties"]["operation"]["enum"]
    if args.get("operation") not in operations:
        raise ValueError(f"args.operation must be one of {', '.join(operations)}, not {args.get('operation')!r}")
    if unknown := sorted(set(args) - set(ARGS["properties"])):
        raise ValueError(f"args has unknown fields: {', '.join(unknown)}")


def to_frame(data: list[Any]) -> pd.DataFrame:
    """Records as they are; numbers as one column named ``value``."""
    if all(isinstance(row, dict) for row in data):
        return pd.DataFrame.from_records(data)
    if any(isinstance(row, dict) for row in data):
        raise ValueError("args.data mixes records with other values; send one sort only")
    return pd.DataFrame({"value": data})


def numeric(frame: pd.DataFrame) -> pd.DataFrame:
    """The numeric columns. Booleans are not numbers."""
    return frame.select_dtypes(include=[np.number])


def describe(frame: pd.DataFrame) -> dict[str, Any]:
    """Numeric fields: count, mean, std, min, quartiles, max, skewness. Others: count, distinct, most common values."""
    numbers = numeric(frame)
    fields: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        if name in numbers.columns:
            summary = column.describe().rename({"25%": "q1", "50%": "median", "75%": "q3"})
            fields[name] = {**summary.to_dict(), "count": int(column.count()), "skewness": column.skew()}
        else:
            texts = column.map(str, na_action="ignore")
            top = texts.value_counts().head(5).to_dict()
            fields[name] = {"count": int(texts.count()), "distinct": int(texts.nunique()), "top": top}
    return {"statistics": fields}


def correlate(frame: pd.DataFrame, method: Any) -> dict[str, Any]:
    """Matrix of the numeric fields, and its pairs, strongest first. null where a field does not vary."""
    if method not in ("pearson", "spearman"):
        raise ValueError(f"args.method must be pearson or spearman, not {method!r}")
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = numeric(frame).corr(method=method).to_dict()
    pairs = [
        {"fields": [first, second], "correlation": float(matrix[first][second])}
        for first, second in itertools.combinations(matrix, 2)
    ]
    pairs.sort(key=_strength, reverse=True)
    return {"method": method, "matrix": matrix, "pairs": pairs}


def _strength(pair: dict[str, Any]) -> float:
    correlation = pair["correlation"]
    return -1.0 if np.isnan(correlation) else abs(correlation)


def group(frame: pd.DataFrame, by: Any, aggregates: Any) -> dict[str, Any]:
    """Aggregates for each group, in order of the groups; rows where a field of ``by`` is null are one group."""
    keys = [by] if isinstance(by, str) else by
    if not keys or not isinstance(keys, list):
        raise ValueError("group_by needs args.by, the field or fields that make the groups")
    wanted = aggregates or {name: ["mean"] for name in numeric(frame).columns if name not in keys}
    wanted = {name: [functions] if isinstance(functions, str) else functions for name, functions in wanted.items()}
    if missing := [name for name in (*keys, *wanted) if name not in frame.columns]:
        raise ValueError(f"args.data has no field {', '.join(map(repr, missing))}")
    if wrong := {name for functions in wanted.values() for name in functions if name not in AGGREGATES}:
        raise ValueError(f"args.aggregates knows {', '.join(AGGREGATES)}, not {', '.join(sorted(wrong))}")
    groups = frame.groupby(keys, dropna=False, sort=True)
    table = groups.size().rename("rows").to_frame()
    for name, functions in wanted.items():
        for function in functions:
            table[f"{name}_{function}"] = groups[name].agg(function)
    return {"by": keys, "groups": table.reset_index().to_dict("records")}
