"""The exceptions of the engine. Each knows what a client is told of it: status, title, and when to try again.

The message of an exception is a sentence for the log and for the command line. What a client is told is ``detail``,
which is the same sentence unless the message says more of the service's inside than a client should learn.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from handlers.parameters.faults import Fault


class EngineError(Exception):
    """The root of all that the engine raises on purpose. As it stands it is our own fault, and answered with 500."""

    status: int = 500
    """The HTTP status that it is answered with."""
    title: ClassVar[str] = ""
    """Title of the problem document; empty for the phrase that HTTP has for the status."""
    retry_after_s: float | None = None
    """When the same request may succeed; ``None`` when nobody can say."""

    @property
    def detail(self) -> str:
        """The sentences that the client reads."""
        return str(self)

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The parts of the request that are invalid."""
        return ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The lines that the command line prints."""
        return (str(self),)


class InvalidRequestError(EngineError):
    """A request that cannot become a task."""

    status = 400
    title = "Invalid request"

    def __init__(self, *faults: Fault) -> None:
        """
        Args:
            faults: every part of the request that is invalid; at least one.
        """
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults))
        self._faults = faults

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The parts that are invalid."""
        return self._faults

    @property
    def sentences(self) -> tuple[str, ...]:
        """A line for each part that is invalid."""
        return tuple(f"{fault.path}: {fault.message}" for fault in self._faults)


class PolicyForbiddenError(InvalidRequestError):
    """A policy that exists, and that the API key does not allow."""

    status = 403
    title = ""


class KeyTakenError(EngineError):
    """An idempotency key under which the tenant has a task that another request made."""

    status = 409

    def __init__(self) -> None:
        super().__init__("Another request of yours used this Idempotency-Key. Send a new request with a new key.")


class NoReceiptsError(EngineError):
    """This service signs no receipts."""

    status = 404

    def __init__(self) -> None:
        super().__init__(
            "This service signs no receipts: RECEIPT_KEY is not set (`python -m engine keys receipt-key` makes one)."
        )


class NotEndedError(EngineError):
    """A task of which something is asked that only a final one has."""

    status = 409

    def __init__(self) -> None:
        super().__init__("The task has not ended: there is a receipt once it has.")


_QUOTAS = MappingProxyType(
    {
        "tasks_per_minute": ("tasks a minute", "Try again after Retry-After seconds"),
        "queued_tasks": ("tasks that wait at the same time", "Try again after Retry-After seconds"),
        "files_per_minute": ("files a minute", "Try again after Retry-After seconds"),
        "stored_mib": (
            "MiB of files, artifacts and tasks",
            "It is full: delete files or artifacts (DELETE /files/…, /task/…/artifacts), or wait until some expire",
        ),
    }
)
"""Quota → what it counts, and what helps."""


class QuotaError(EngineError):
    """A tenant asks for more than its quota. Nothing was stored."""

    status = 429

    def __init__(self, quota: str, limit: int, retry_after_s: float) -> None:
        """
        Args:
            quota: the name of a field of ``Quotas``.
            limit: what the quota allows.
            retry_after_s: when there is room again, seconds.
        """
        what, fix = _QUOTAS[quota]
        super().__init__(f"Your quota is {limit} {what} ({quota}). {fix}.")
        self.quota = quota
        self.limit = limit
        self.retry_after_s = retry_after_s


class StoreUnavailableError(EngineError):
    """PostgreSQL is unreachable now. Nothing was decided; the same call may succeed later."""

    status = 503
    retry_after_s = 2.0

    @property
    def detail(self) -> str:
        """Not the reason, which may name hosts of ours."""
        return "PostgreSQL is unreachable: this request has no confirmed effect. Try again after Retry-After seconds."


class StoreReadOnlyError(StoreUnavailableError):
    """PostgreSQL answers and takes no writes, as a replica does after a failover."""

    @property
    def detail(self) -> str:
        """Not the reason, as above."""
        return "PostgreSQL is read-only: this request has no effect. Try again after Retry-After seconds."


class StoreFullError(EngineError):
    """PostgreSQL is almost full. What is left is for the results of tasks that were accepted."""

    status = 507
    title = "Storage is full"
    retry_after_s = 60.0

    def __init__(self) -> None:
        super().__init__("The service's storage is almost full: it accepts no tasks and no files until there is room.")


class QueueUnavailableError(EngineError):
    """Redis is unreachable now. Tasks are safe in PostgreSQL and are queued when it answers again."""

    status = 503
    retry_after_s = 2.0

    @property
    def detail(self) -> str:
        """Not the reason, which may name hosts of ours."""
        return "Redis is unreachable. Try again after Retry-After seconds."


class SchemaError(EngineError):
    """The database has a schema that this engine must not touch."""


class OldServerError(SchemaError):
    """PostgreSQL is older than this engine can use."""
