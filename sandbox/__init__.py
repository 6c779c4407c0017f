"""Runs one request under a policy. Knows nothing of tasks, HTTP or SQL.

Theory of operation, threat model and limitations: README.md beside this file.
"""

from sandbox.errors import HostError, PolicyError, SandboxError
from sandbox.policy import Filesystem, Limits, Network, Policy, Syscalls, load_policies, load_policy
from sandbox.pool import Pool, PoolStats
from sandbox.probe import Host, Layer, probe
from sandbox.result import (
    Artifact,
    ExitReason,
    Isolation,
    Logs,
    Result,
    RunError,
    Usage,
    Violation,
)
from sandbox.zygote import Template

__all__ = [
    "Artifact", "ExitReason", "Filesystem", "Host", "HostError", "Isolation", "Layer", "Limits", "Logs", "Network",
    "Policy", "PolicyError", "Pool", "PoolStats", "Result", "RunError", "SandboxError", "Syscalls", "Template",
    "Usage", "Violation", "load_policies", "load_policy", "probe",
]
