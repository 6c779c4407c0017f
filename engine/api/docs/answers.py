"""Examples of answers: what a real service answered, as ``python -m tests.programs.renew_examples`` wrote it down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AnswerExamples = dict[str, dict[str, Any]]
"""Operation id and status, or ``problem`` and status, → name of the example → the JSON that was answered."""
PATH = Path(__file__).with_suffix(".json")


def read_examples() -> AnswerExamples:
    """The examples."""
    found: AnswerExamples = json.loads(PATH.read_text(encoding="utf-8"))
    return found
