"""The answer of ``POST /execute/batch``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from engine.api.problems import Problem, problem_of
from engine.model.answers import Task, task_answer
from engine.model.task import AcceptedTask


class BatchItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a batch's answer: a task or a problem."""

    status: Annotated[int, Meta(description="As the task alone would have been answered: 202, 200, 400, 409 …")]
    task: Task | None = None
    problem: Problem | None = None


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The items of a batch's answer, in the order of its requests."""

    tasks: tuple[BatchItem, ...]


def batch_item(found: AcceptedTask | Exception) -> BatchItem:
    """One task of a batch as its client sees it."""
    if isinstance(found, Exception):
        problem = problem_of(found)[0]
        return BatchItem(status=problem.status, problem=problem)
    return BatchItem(status=status_of(found), task=task_answer(found.task))


def status_of(accepted: AcceptedTask) -> int:
    """200 for a task that has ended, which a repeated request may meet; else 202."""
    return 200 if accepted.task.status.final else 202
