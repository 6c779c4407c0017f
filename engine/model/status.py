"""Where a task stands, how urgent it is, and the six task types."""

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
    """Where a task stands."""

    QUEUED = "queued"
    """Accepted and stored; waits for a worker."""
    RUNNING = "running"
    """An attempt is under way on a worker that renews its lease."""
    SUCCEEDED = "succeeded"
    """Final: ``exit_reason`` is ``ok`` and ``result`` holds the answer."""
    FAILED = "failed"
    """Final: ``exit_reason`` says why."""
    CANCELLED = "cancelled"
    """Final: somebody asked for it."""

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (Status.QUEUED, Status.RUNNING)


class Priority(enum.StrEnum):
    """How urgent a task is among its tenant's own."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
