"""What the service answers about tasks and files, as frozen dataclasses.

Each has the answer as it came, too (``answer``): a field that a newer service adds is there at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FINAL = ("succeeded", "failed", "cancelled")
"""The statuses that do not change any more."""


@dataclass(frozen=True, kw_only=True)
class ListedTaskInfo:
    """A task as a list has it."""

    task_id: str
    task_type: str
    status: str
    """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
    exit_reason: str | None
    """Why the last attempt ended."""
    policy: str
    priority: str
    labels: Mapping[str, str]
    attempts: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    """Times as RFC 3339 in UTC; ``None`` for what has not happened."""
    answer: Mapping[str, Any] = field(repr=False)
    """All that the service answered."""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.status in FINAL


@dataclass(frozen=True, kw_only=True)
class TaskInfo(ListedTaskInfo):
    """A task as it stands. What is not known yet is ``None``."""

    result: Any
    """The answer of a task that succeeded: any JSON."""
    message: str | None
    """How the last attempt ended, in one sentence."""
    error: Mapping[str, Any] | None = field(repr=False)
    """``type``, ``message``, ``traceback`` and ``code`` of the exception that the handler or script raised."""
    usage: Mapping[str, Any] | None = field(repr=False)
    artifacts: tuple[Mapping[str, Any], ...] = field(repr=False)
    """``name``, ``size_bytes`` and ``sha256`` of each."""
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)

    @property
    def traceback(self) -> str | None:
        """Of the exception that the handler or script raised; ``None`` where there is none."""
        return None if self.error is None else self.error.get("traceback")


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """One event of a task that is followed."""

    name: str
    """``status``, ``log``, ``progress``, ``gap`` or, at the end, ``result``."""
    data: Mapping[str, Any]
    """``status``: status, attempt. ``log``: stream, text. ``progress``: fraction, message. ``gap``: missing, the number
    of events that are lost. ``result``: the whole task."""
    event_id: str | None

    @property
    def task(self) -> TaskInfo | None:
        """The task as it ended, of a ``result``; else ``None``."""
        return read_task(self.data) if self.name == "result" else None


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """A file that the service keeps for tasks, which name it as ``{"file_id": …}``."""

    file_id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    expires_at: str


_LISTED = (
    "task_id", "task_type", "status", "exit_reason", "policy", "priority", "labels", "attempts", "created_at",
    "started_at", "finished_at",
)  # fmt: skip


def read_listed(answer: Mapping[str, Any]) -> ListedTaskInfo:
    """A task of a list.

    Raises:
        KeyError: the answer is none of this service.
    """
    return ListedTaskInfo(**{name: answer[name] for name in _LISTED}, answer=answer)


def read_task(answer: Mapping[str, Any]) -> TaskInfo:
    """A task.

    Raises:
        KeyError: the answer is none of this service.
    """
    logs = answer["logs"] or {}
    return TaskInfo(
        **{name: answer[name] for name in (*_LISTED, "result", "message", "error", "usage")},
        artifacts=tuple(answer["artifacts"]),
        stdout=logs.get("stdout", ""),
        stderr=logs.get("stderr", ""),
        answer=answer,
    )


def read_file(answer: Mapping[str, Any]) -> UploadedFile:
    """An uploaded file.

    Raises:
        KeyError: the answer is none of this service.
    """
    names = ("file_id", "name", "media_type", "size_bytes", "sha256", "expires_at")
    return UploadedFile(**{name: answer[name] for name in names})
