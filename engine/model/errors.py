"""The errors of the engine that a caller can meet."""

from __future__ import annotations


class TaskError(Exception):
    """A task that cannot be accepted. ``path`` names the part of the request that is at fault."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class PolicyForbiddenError(TaskError):
    """A policy that is there, and not for this key."""


class KeyTakenError(Exception):
    """An idempotency key under which the tenant has a task that was made by another request."""


class StoreUnavailableError(Exception):
    """PostgreSQL cannot be asked just now. Nothing was decided; the same call may succeed later."""


class QuotaError(Exception):
    """A tenant asks for more than its quota. Nothing was stored."""

    def __init__(self, quota: str, limit: int, retry_after_s: float) -> None:
        super().__init__(f"{quota}: {limit}")
        self.quota = quota
        """``tasks_per_minute`` or ``queued_tasks``."""
        self.limit = limit
        self.retry_after_s = retry_after_s


class SchemaError(Exception):
    """The database holds a schema that this engine must not touch."""


class QueueUnavailableError(Exception):
    """Redis cannot be asked just now. Tasks are safe in PostgreSQL and are queued when it is back."""
