"""What can go wrong: the service is unreachable, it refuses a request, or a task ends without a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .tasks import TaskInfo


class ClientError(Exception):
    """The root of all that this client raises on purpose."""


class ServiceUnreachableError(ClientError):
    """No answer, or none of this service, for as long as the client tried."""


class RequestRefusedError(ClientError):
    """The service refused a request: a fault in it, a key that does not allow it, or a limit."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        problem: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        """
        Args:
            status: of HTTP.
            detail: what is wrong, in sentences.
            problem: the whole problem document (RFC 9457), where there is one.
            retry_after_s: when the same request may succeed.
            request_id: under which the service's log has more.
        """
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.problem = problem or {}
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """``path`` and ``message`` of each part of the request that is invalid."""
        found: Sequence[Mapping[str, Any]] = self.problem.get("errors", ())
        return found


class TaskFailedError(ClientError):
    """A task ended as ``failed`` or ``cancelled``."""

    def __init__(self, task: TaskInfo) -> None:
        """
        Args:
            task: as it ended.
        """
        super().__init__(f"{task.exit_reason}: {task.message}")
        self.task = task
        self.exit_reason = task.exit_reason
        self.message = task.message
        self.traceback = task.traceback


class TaskNotEndedError(ClientError):
    """A task has not ended within the time that the caller wanted to wait. It goes on."""

    def __init__(self, task: TaskInfo) -> None:
        """
        Args:
            task: as it stands.
        """
        super().__init__(f"the task {task.task_id} is {task.status}: it did not end in time, and goes on")
        self.task = task


class CallbackError(ClientError):
    """A callback that this service did not sign, or that is too old."""
