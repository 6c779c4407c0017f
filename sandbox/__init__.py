"""Runs one request under a policy. Knows nothing of tasks, HTTP or SQL.

Theory of operation, threat model and limitations: README.md beside this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox.egress.address import parse_exceptions
    from sandbox.egress.hosts import is_wide, parse_entry
    from sandbox.errors import HostError, PolicyError, PolicyFault, SandboxError
    from sandbox.policy.grant import CallGroup, GrantedCalls, granted_calls
    from sandbox.policy.policy import (
        LAYERS,
        Filesystem,
        Limits,
        Network,
        Policy,
        PolicyFile,
        Syscalls,
        load_policies,
        load_policy,
        parse_policy,
        policy_paths,
        read_policies,
        read_policy,
    )
    from sandbox.pool.pool import Pool, PoolStats
    from sandbox.pool.split_pool import SplitPool, make_pool
    from sandbox.pool.template import CACHES, LibrarySet, Template
    from sandbox.probe import Host, Layer, probe_host
    from sandbox.result import (
        Artifact,
        ExitReason,
        Isolation,
        Logs,
        OnOutput,
        OnProgress,
        Progress,
        RefusedArtifact,
        Result,
        RunError,
        Stream,
        Usage,
        Violation,
    )
    from sandbox.untrusted import meets_untrusted

_HOME = {
    "egress.address": ("parse_exceptions",),
    "egress.hosts": ("is_wide", "parse_entry"),
    "errors": ("HostError", "PolicyError", "PolicyFault", "SandboxError"),
    "policy.grant": ("CallGroup", "GrantedCalls", "granted_calls"),
    "policy.policy": (
        "LAYERS", "Filesystem", "Limits", "Network", "Policy", "PolicyFile", "Syscalls", "load_policies", "load_policy",
        "parse_policy", "policy_paths", "read_policies", "read_policy",
    ),
    "pool.pool": ("Pool", "PoolStats"),
    "pool.split_pool": ("SplitPool", "make_pool"),
    "probe": ("Host", "Layer", "probe_host"),
    "result": (
        "Artifact", "ExitReason", "Isolation", "Logs", "OnOutput", "OnProgress", "Progress", "RefusedArtifact",
        "Result", "RunError", "Stream", "Usage", "Violation",
    ),
    "pool.template": ("CACHES", "LibrarySet", "Template"),
    "untrusted": ("meets_untrusted",),
}  # fmt: skip

__all__ = [
    "CACHES",
    "LAYERS",
    "Artifact",
    "CallGroup",
    "ExitReason",
    "Filesystem",
    "GrantedCalls",
    "Host",
    "HostError",
    "Isolation",
    "Layer",
    "LibrarySet",
    "Limits",
    "Logs",
    "Network",
    "OnOutput",
    "OnProgress",
    "Policy",
    "PolicyError",
    "PolicyFault",
    "PolicyFile",
    "Pool",
    "PoolStats",
    "Progress",
    "RefusedArtifact",
    "Result",
    "RunError",
    "SandboxError",
    "SplitPool",
    "Stream",
    "Syscalls",
    "Template",
    "Usage",
    "Violation",
    "granted_calls",
    "is_wide",
    "load_policies",
    "load_policy",
    "make_pool",
    "meets_untrusted",
    "parse_entry",
    "parse_exceptions",
    "parse_policy",
    "policy_paths",
    "probe_host",
    "read_policies",
    "read_policy",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for.

    The zygote imports ``sandbox.inside`` and nothing else from here: without this it would load asyncio and all of the
    supervisor's side, and every child would carry that.
    """
    for module, public in _HOME.items():
        if name in public:
            return getattr(importlib.import_module(f"sandbox.{module}"), name)
    raise AttributeError(f"module 'sandbox' has no attribute {name!r}")
