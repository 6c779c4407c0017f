"""What the command line does without any server: run one task, and look at the host."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import UUID

import msgspec

from engine.api.body.check import check as check_body
from engine.config import model_files
from engine.config.scripts import list_scripts, read_script
from engine.config.settings import Settings
from engine.model.outcome import Outcome, outcome_of
from engine.model.principal import DEFAULT_TENANT
from engine.model.status import Priority
from engine.model.task import Claim
from engine.policies.policies import Policies, effective_limits
from engine.worker.pools import open_pools, probe
from engine.worker.request import build_request
from sandbox import Host, HostError, Policy, PolicyError


class PolicyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this host has what a policy requires."""

    policy: str
    met: bool
    missing: tuple[str, ...]


class HostCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What this host offers, and which policies that meets."""

    host: Host
    policies: tuple[PolicyCheck, ...]
    fault: str | None = None
    """What is wrong beside the layers: policies that cannot be read, models that are not there."""

    @property
    def met(self) -> bool:
        """Whether a worker would start here."""
        return self.fault is None and all(policy.met for policy in self.policies)


async def run_once(settings: Settings, body: bytes) -> Outcome:
    """Run one task, given as the body of ``POST /execute``, in its sandbox.

    Raises:
        InvalidRequestError: the body is not a task.
        ScriptError: it names a script that cannot be read.
        PolicyError: its task type has no policy.
        SandboxError: the sandbox itself failed.
    """
    checked = check_body(body)
    if checked.file_ids:
        raise PolicyError("a task that names uploaded files needs a service that has them; name files by path here")
    policies = Policies.load(settings)
    if checked.task_type not in policies.task_types:
        raise PolicyError(f"{checked.task_type} has no policy in {settings.policies_dir}")
    policy = policies.default(checked.task_type) if checked.policy is None else policies.named(checked.policy)
    if policy is None or policy.task_type != checked.task_type:
        raise PolicyError(f"there is no policy {checked.policy} for {checked.task_type} in {settings.policies_dir}")
    claim = Claim(
        task_id=UUID(int=0), attempt=1, tenant=DEFAULT_TENANT, priority=Priority.NORMAL,
        task_type=checked.task_type, policy=policy.name,
        parameters=body[checked.start : checked.end], timeout_s=checked.timeout_s, script_name=checked.script_name,
        queue_s=0.0, age_s=0.0,
    )  # fmt: skip
    script = read_script(settings.scripts_dir, claim.script_name) if claim.script_name else None
    host = probe(settings)
    async with open_pools(settings, host, (policy,), ready=0) as pools:
        limits = effective_limits(policy, settings, checked.timeout_s, checked.memory_mib)
        result = await pools[policy.name].run(build_request(claim, script), limits=limits)
    return outcome_of(result, queue_s=0.0, script=script.script if script else None)


def check_host(settings: Settings) -> HostCheck:
    """Probe the host and hold every policy against it."""
    host = probe(settings)
    try:
        policies = Policies.load(settings).all
    except PolicyError as error:
        return HostCheck(host=host, policies=(), fault=str(error))
    try:
        model_files.require(settings.models_dir, policies)
        fault = None
    except HostError as error:
        fault = error.message
    return HostCheck(host=host, policies=tuple(_check_policy(host, policy) for policy in policies), fault=fault)


def known_scripts(folder: Path) -> str:
    """The names of the scripts, for people."""
    return ", ".join(list_scripts(folder)) or "none"


def read_task(path: str) -> bytes:
    """The bytes of a file, or of stdin for ``-``."""
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _check_policy(host: Host, policy: Policy) -> PolicyCheck:
    missing = tuple(layer.name for layer in host.missing(policy))
    if host.profile != "full" and (policy.network.allow or policy.limits.processes):
        missing = tuple(dict.fromkeys(("namespaces", *missing)))  # whether or not the file requires them by name
    return PolicyCheck(policy=policy.name, met=not missing, missing=missing)
