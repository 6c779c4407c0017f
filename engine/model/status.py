"""The status of a task, its priority, and the six task types."""

from __future__ import annotations

import enum

import msgspec

TASK_TYPES = (
    "data_processing",
    "ml_inference",
    "web_scraping",
    "document_processing",
    "image_processing",
    "custom_script",
)


NULL = msgspec.Raw(b"null")


class Status(enum.StrEnum):
    """Where a task is on its way to an end."""

    QUEUED = "queued"
    """Accepted and stored; waits for a worker."""
    RUNNING = "running"
    """An attempt is under way on a worker that renews its lease."""
    SUCCEEDED = "succeeded"
    """Final: ``exit_reason`` is ``ok`` and ``result`` holds the answer."""
    FAILED = "failed"
    """Final: ``exit_reason`` says why."""
    CANCELLED = "cancelled"
    """Final: its client cancelled it."""

    @property
    def final(self) -> bool:
        """Whether the status will not change any more."""
        return self not in (Status.QUEUED, Status.RUNNING)


class Priority(enum.StrEnum):
    """The order of a task among its tenant's own tasks."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
