"""Runs one request under a policy. Knows nothing of tasks, HTTP or SQL.

Theory of operation, threat model and limitations: README.md beside this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.errors import HostError, PolicyError, SandboxError
    from sandbox.policy import Filesystem, Limits, Network, Policy, Syscalls, load_policies, load_policy
    from sandbox.pool import Pool, PoolStats
    from sandbox.probe import Host, Layer, probe_host
    from sandbox.result import (
        Artifact,
        ExitReason,
        Isolation,
        Logs,
        RefusedArtifact,
        Result,
        RunError,
        Usage,
        Violation,
    )
    from sandbox.template import Template

_HOME = {
    "errors": ("HostError", "PolicyError", "SandboxError"),
    "policy": ("Filesystem", "Limits", "Network", "Policy", "Syscalls", "load_policies", "load_policy"),
    "pool": ("Pool", "PoolStats"),
    "probe": ("Host", "Layer", "probe_host"),
    "result": (
        "Artifact", "ExitReason", "Isolation", "Logs", "RefusedArtifact", "Result", "RunError", "Usage", "Violation",
    ),
    "template": ("Template",),
}  # fmt: skip

__all__ = [
    "Artifact", "ExitReason", "Filesystem", "Host", "HostError", "Isolation", "Layer", "Limits", "Logs", "Network",
    "Policy", "PolicyError", "Pool", "PoolStats", "RefusedArtifact", "Result", "RunError", "SandboxError", "Syscalls",
    "Template", "Usage", "Violation", "load_policies", "load_policy", "probe_host",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for.

    The zygote imports ``sandbox.child`` and nothing else from here: without this it would load asyncio and all of
    the supervisor's side, and every child would carry that.
    """
    for module, public in _HOME.items():
        if name in public:
            return getattr(importlib.import_module(f"sandbox.{module}"), name)
    raise AttributeError(f"module 'sandbox' has no attribute {name!r}")
