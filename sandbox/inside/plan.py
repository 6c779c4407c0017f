"""The plan that the worker sends to a zygote at its start. Standard library only: it is read inside."""

from __future__ import annotations

import base64
import dataclasses
import json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A policy and a host, worked out into what zygote and child need to do."""

    profile: str
    """``full`` or ``unprivileged``."""
    policy: str
    task_type: str
    cold: bool
    """Whether each child is a new interpreter instead of a fork."""
    entry: str
    preload: list[str]
    interpreter: str
    """Path as the zygote sees it, like the two that follow."""
    code: str
    site_packages: str
    caches: list[list[str]]
    """As of ``sandbox.inside.caches``."""
    environment: dict[str, str]
    binds: list[list[str]]
    """[host path, path inside]."""
    links: list[list[str]]
    """[target, path inside] of symbolic links."""
    workspace_base: str
    """Host folder for workspaces, where there are no namespaces; else empty."""
    outer_uid: int
    """User to become when started as root."""
    outer_gid: int
    cpu_s: int
    memory_bytes: int
    threads: int
    processes: int
    may_fork: bool
    """Whether its filter may let a run fork: by its profile, or by a call that the policy adds."""
    processors: float | None
    open_files: int
    workspace_bytes: int
    workspace_files: int
    landlock_abi: int
    proxy_port: int
    """Port of the run's own loopback where its egress proxy listens; 0 where the policy grants no network."""
    lends_network: bool
    """Whether a child has an empty network namespace of its zygote, alone, instead of making one."""
    filter_base64: str
    """Compiled seccomp filter."""
    last_filter_base64: str
    ablated: list[str]
    """Layers left out, for the ablation tests only; empty in every worker."""

    @property
    def filter(self) -> bytes:
        """The seccomp filter as BPF."""
        return base64.b64decode(self.filter_base64)

    @property
    def last_filter(self) -> bytes:
        """The filter that goes on top once the child is ready, as BPF."""
        return base64.b64decode(self.last_filter_base64)

    def without_host_paths(self) -> Plan:
        """For the second stage, whose memory every child inherits. Without a root of our own they are needed there."""
        if self.profile == "unprivileged":
            return self
        return dataclasses.replace(self, binds=[["", target] for _, target in self.binds])

    def encode(self) -> bytes:
        """As one message."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Plan:
        """From one message."""
        return cls(**json.loads(message))
