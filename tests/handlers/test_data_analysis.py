"""scripts/data_analysis.py, run as custom_script runs it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.entry_process import ROOT, Entry

SOURCE = (ROOT / "scripts" / "data_analysis.py").read_text()
XY = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
SALES = [{"shop": "a", "price": 1}, {"shop": "b", "price": 2}, {"shop": "a", "price": 5}, {"shop": None, "price": 4}]

ANSWERS: dict[str, tuple[Any, Any]] = {
    "the README's example": (
        {"data": XY, "operation": "correlation"},
        {"operation": "correlation", "rows": 2, "method": "pearson",
         "matrix": {"x": {"x": 1.0, "y": 1.0}, "y": {"x": 1.0, "y": 1.0}},
         "pairs": [{"fields": ["x", "y"], "correlation": 1.0}]},
    ),
    "ranks": (
        {"data": [{"x": 1, "y": 1}, {"x": 2, "y": 8}, {"x": 3, "y": 99}],
         "operation": "correlation", "method": "spearman"},
        {"operation": "correlation", "rows": 3, "method": "spearman",
         "matrix": {"x": {"x": 1.0, "y": 1.0}, "y": {"x": 1.0, "y": 1.0}},
         "pairs": [{"fields": ["x", "y"], "correlation": 1.0}]},
    ),
    "a constant": (
        {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 2}], "operation": "correlation"},
        {"operation": "correlation", "rows": 2, "method": "pearson",
         "matrix": {"x": {"x": 1.0, "y": None}, "y": {"x": None, "y": None}},
         "pairs": [{"fields": ["x", "y"], "correlation": None}]},
    ),
    "statistics": (
        {"data": SALES, "operation": "statistics"},
        {"operation": "statistics", "rows": 4, "statistics": {
            "shop": {"count": 3, "distinct": 2, "top": {"a": 2, "b": 1}},
            "price": {"count": 4, "mean": 3.0, "std": pytest.approx(1.8257418), "min": 1.0, "q1": 1.75, "median": 3.0,
                      "q3": 4.25, "max": 5.0, "skewness": 0.0}}},
    ),
    "statistics of numbers": (
        {"data": [1, 1, None], "operation": "statistics"},
        {"operation": "statistics", "rows": 3, "statistics": {
            "value": {"count": 2, "mean": 1.0, "std": 0.0, "min": 1.0, "q1": 1.0, "median": 1.0, "q3": 1.0, "max": 1.0,
                      "skewness": None}}},
    ),
    "groups": (
        {"data": SALES, "operation": "group_by", "by": "shop"},
        {"operation": "group_by", "rows": 4, "by": ["shop"], "groups": [
            {"shop": "a", "rows": 2, "price_mean": 3.0}, {"shop": "b", "rows": 1, "price_mean": 2.0},
            {"shop": None, "rows": 1, "price_mean": 4.0}]},
    ),
    "groups with aggregates": (
        {"data": SALES[:3], "operation": "group_by", "by": ["shop"], "aggregates": {"price": ["sum", "max"]}},
        {"operation": "group_by", "rows": 3, "by": ["shop"], "groups": [
            {"shop": "a", "rows": 2, "price_sum": 6, "price_max": 5},
            {"shop": "b", "rows": 1, "price_sum": 2, "price_max": 2}]},
    ),
    "no data": (
        {"data": [], "operation": "statistics"}, {"operation": "statistics", "rows": 0, "statistics": {}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("args", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answer(entry: Entry, args: Any, expected: Any) -> None:
    """Each operation gives what its docstring says."""
    answer = entry.run("data_analysis.py", args, source=SOURCE, source_name="data_analysis.py")
    assert ("result", expected) == (answer.kind, answer.value)


REFUSED: dict[str, tuple[Any, str]] = {
    "no args": (None, "args must be an object"),
    "no operation": ({"data": []}, "args.operation must be one of statistics, correlation, group_by"),
    "unknown field": ({"data": [], "operation": "statistics", "x": 1}, "unknown fields: x"),
    "mixed data": ({"data": [{}, 1], "operation": "statistics"}, "mixes records with other values"),
    "no by": ({"data": SALES, "operation": "group_by"}, "needs args.by"),
    "no such field": ({"data": SALES, "operation": "group_by", "by": "town"}, "has no field 'town'"),
    "no such aggregate": (
        {"data": SALES, "operation": "group_by", "by": "shop", "aggregates": {"price": "eval"}}, "not eval",
    ),
    "no such method": ({"data": XY, "operation": "correlation", "method": "kendall"}, "must be pearson or spearman"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_refusal(entry: Entry, args: Any, message: str) -> None:
    """Wrong args are a ValueError that says what to do."""
    answer = entry.run("data_analysis.py", args, source=SOURCE, source_name="data_analysis.py")
    expected = ("error", "ValueError")
    assert expected == (answer.kind, answer.value["type"])
    assert message in answer.value["message"]
