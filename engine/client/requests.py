"""The request of a task, as a dataclass."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TaskRequest:
    """One task to run. What is ``None`` is left to the service."""

    task_type: str
    parameters: Mapping[str, Any]
    policy: str | None = field(default=None, kw_only=True)
    timeout_s: float | None = field(default=None, kw_only=True)
    memory_mib: int | None = field(default=None, kw_only=True)
    priority: str | None = field(default=None, kw_only=True)
    """``high``, ``normal`` or ``low``."""
    labels: Mapping[str, str] | None = field(default=None, kw_only=True)
    callback_url: str | None = field(default=None, kw_only=True)
    idempotency_key: str | None = field(default=None, kw_only=True)
    """Two requests under one key are one task. Unless it is given, the client makes a new one for each call, so that
    it can try again."""

    def body(self) -> dict[str, Any]:
        """The JSON of the request, without its key."""
        names = ("policy", "timeout_s", "memory_mib", "priority", "labels", "callback_url")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {"task_type": self.task_type, "parameters": self.parameters, **given}


def script_request(
    script: str,
    args: Any = None,
    *,
    inputs: Mapping[str, bytes | str | Path | Mapping[str, Any]] | None = None,
    policy: str | None = None,
    timeout_s: float | None = None,
    memory_mib: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> TaskRequest:
    """The request that runs a script: its source, or the name of one that the service has.

    Args:
        script: Python source, or ``NAME.py`` of a named script.
        args: any JSON, which the script finds in its global ``args``.
        inputs: name in ``inputs/`` → content (bytes or text), a file of this machine (``Path``), or what the service
            takes itself, such as ``{"file_id": …}``.
        policy: to run under.
        timeout_s: longest wall time in seconds.
        memory_mib: most memory in MiB.
        labels: names with a text each.

    Raises:
        OSError: a file of this machine cannot be read.
    """
    parameters: dict[str, Any] = {"script": script} | ({} if args is None else {"args": args})
    if inputs:
        parameters["inputs"] = {name: _input(content) for name, content in inputs.items()}
    return TaskRequest(
        "custom_script", parameters, policy=policy, timeout_s=timeout_s, memory_mib=memory_mib, labels=labels
    )


def _input(content: bytes | str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(content, str):
        return {"text": content}
    if isinstance(content, Mapping):
        return content
    held = content.read_bytes() if isinstance(content, Path) else content
    return {"base64": base64.b64encode(held).decode("ascii")}
