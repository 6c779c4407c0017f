"""The audit log: one JSON line for each attempt, which says under which grant it ran and what it was denied.

It holds no parameters, no results and nothing that a run printed. Names of system calls and hosts are all that comes
from a run, and JSON in pure ASCII lets none of it forge a line. LOG_LEVEL and LOG_FORMAT have no effect on it.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from engine.model.errors import EngineError
from engine.model.result import TaskResult
from engine.telemetry.logs import get_logger
from sandbox import Result

LOGGER = "audit"


class AuditError(EngineError):
    """The audit log cannot be written; the message says why, and the fix."""


class AuditLog:
    """Where the audit lines of a process go."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: file to append to; ``None`` puts the lines among the other log lines.

        Raises:
            AuditError: the file cannot be opened for appending.
        """
        self._fd: int | None = None
        if path is not None:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            except OSError as error:
                raise AuditError(
                    f"AUDIT_LOG {path}: cannot be appended to: {error.strerror}; name a file in a folder that this "
                    "user may write to"
                ) from error

    def attempt_failed(self, facts: dict[str, Any], stage: str) -> None:
        """Note one attempt that ended by our own failure, before or after the task's code ran.

        Args:
            facts: as of ``attempt_ended``.
            stage: the named step that failed.
        """
        self._write("attempt failed", facts | {"exit_reason": None, "failed_at": stage})

    def attempt_ended(self, facts: dict[str, Any], result: TaskResult) -> None:
        """Note one attempt.

        Args:
            facts: which task, attempt, tenant and policy; each a plain value.
            result: how it ended.
        """
        run = result.run if isinstance(result.run, Result) else None
        entry = facts | {
            "exit_reason": result.exit_reason.value,
            "policy_digest": run.policy_digest if run else None,
            "isolation": run.isolation.profile if run else None,
            "layers": run.isolation.layers if run else {},
            "limits": msgspec.to_builtins(run.limits) if run else None,
            "violations": msgspec.to_builtins(run.violations) if run else [],
            "egress": msgspec.to_builtins(run.usage.egress) if run else [],
            "artifacts": [{"name": one.name, "sha256": one.sha256} for one in result.artifacts],
        }
        self._write("attempt ended", entry)

    def _write(self, event: str, entry: dict[str, Any]) -> None:
        head = {"timestamp": datetime.now(UTC).isoformat(timespec="microseconds"), "logger": LOGGER, "event": event}
        line = json.dumps(head | entry, ensure_ascii=True) + "\n"
        if self._fd is None:
            self._say(line)
            return
        try:
            # one write: lines of several workers never mix, write(2) on O_APPEND
            written = os.write(self._fd, line.encode("ascii"))
        except OSError as error:
            written, reason = 0, error.strerror
        else:
            reason = "it took a part of the line only"
        if written < len(line):  # the run is over: its result is not lost for that, and the line is not either
            get_logger().error("audit line not written", reason=reason)
            self._say(line)

    def _say(self, line: str) -> None:
        sys.stderr.write(line)
        sys.stderr.flush()

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
