"""The commands that need no server: run one task, and check the host."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec

from engine.api.body.check import check as check_body
from engine.config import libraries, model_files
from engine.config.settings import Settings
from engine.model.answers import Task, task_answer
from engine.model.principal import ANYONE
from engine.model.status import Priority
from engine.model.task import Claim, NewTask, StoredTask
from engine.policies.policies import Policies
from engine.service.accept import accept
from engine.worker.execute import execute
from engine.worker.pools import open_pools, probe
from sandbox import ExitReason, Host, HostError, Policy, PolicyError, SandboxError


class PolicyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this host has what a policy requires."""

    policy: str
    met: bool
    missing: tuple[str, ...]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How a real run went: a zygote, a child, and ``result = 1``."""

    profile: str
    works: bool
    detail: str


class HostCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Show which layers this host offers, and which policies they satisfy."""

    host: Host
    policies: tuple[PolicyCheck, ...]
    trials: tuple[Trial, ...] = ()
    """A run in each profile whose layers this host has."""
    fault: str | None = None
    """Find the faults besides the layers: unreadable policies, missing libraries or models."""
    receipts: bool = False
    """Whether RECEIPT_KEY is set, so that tasks have receipts."""

    @property
    def met(self) -> bool:
        """Whether a worker would start here."""
        works = all(trial.works for trial in self.trials if trial.profile == self.host.profile)
        return self.fault is None and works and all(policy.met for policy in self.policies)


async def run_once(settings: Settings, body: bytes) -> Task:
    """Run one task, given as the body of ``POST /execute``, in its sandbox.

    Returns:
        The task as ``GET /task/{task_id}`` would answer it.
    Raises:
        InvalidRequestError: the body is not a task, or not one that the API would accept.
        PolicyError: the policy files cannot be used.
        SandboxError: the sandbox itself failed.
    """
    request, policies, accepted_at = check_body(body), Policies.load(settings), datetime.now(UTC)
    task = accept(settings, policies, request, task_id=uuid4(), principal=ANYONE)
    (policy,) = (policy for policy in policies.all if policy.name == task.policy)
    async with open_pools(settings, probe(settings), (policy,), ready=0) as pools:
        started_at = datetime.now(UTC)
        result = await execute(settings, policies, pools, _claim(task))
    return task_answer(
        StoredTask(
            task_id=task.task_id,
            tenant=task.tenant,
            task_type=request.task_type,
            status=result.status,
            exit_reason=result.exit_reason,
            policy=task.policy,
            priority=request.priority,
            labels=request.labels,
            attempts=1,
            created_at=accepted_at,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            result=result,
        )
    )


def not_applied(body: bytes) -> list[str]:
    """The fields of a request that were checked and have no effect without a service, a sentence each."""
    request = check_body(body)
    without = {
        "callback_url": ("no callback is sent", request.callback_url is not None),
        "priority": ("there is no queue", request.priority is not Priority.NORMAL),
    }
    return [f"{name} has no effect here: {why}" for name, (why, is_given) in without.items() if is_given]


def _claim(task: NewTask) -> Claim:
    """The one attempt at a task that no other worker can take."""
    return Claim(
        task_id=task.task_id,
        worker_id=UUID(int=0),
        attempt=1,
        tenant=task.tenant,
        policy=task.policy,
        request=task.request,
        queue_s=0.0,
        age_s=0.0,
    )


def check_host(settings: Settings) -> HostCheck:
    """Probe the host and hold every policy against it."""
    host = probe(settings)
    try:
        policies = Policies.load(settings).all
    except PolicyError as error:
        return HostCheck(host=host, policies=(), fault=str(error))
    try:
        libraries.require(settings.libraries_dir, policies)
        model_files.require(settings.models_dir, policies)
        fault = None
    except HostError as error:
        fault = error.message
    return HostCheck(
        host=host,
        policies=tuple(_check_policy(host, policy) for policy in policies),
        trials=() if fault else asyncio.run(_try_profiles(settings, host, policies)),
        fault=fault,
        receipts=bool(settings.receipt_keys),
    )


async def _try_profiles(settings: Settings, host: Host, policies: tuple[Policy, ...]) -> tuple[Trial, ...]:
    """Run ``result = 1`` in each profile whose layers are there, under the first policy of scripts."""
    found = next((policy for policy in policies if policy.task_type == "custom_script"), None)
    if found is None:
        return ()
    layers = {layer.name for layer in host.layers if layer.available}
    light = msgspec.structs.replace(found, preload=("handlers.custom_script",), preload_if_named=())
    needed = {"full": {"namespaces", "landlock", "seccomp"}, "unprivileged": {"landlock", "seccomp"}}
    return tuple(
        [
            await _try_profile(settings, msgspec.structs.replace(host, profile=profile), light)
            for profile, names in needed.items()
            if names <= layers
        ]
    )


async def _try_profile(settings: Settings, host: Host, policy: Policy) -> Trial:
    request = msgspec.json.encode({"task_type": "custom_script", "parameters": {"script": "result = 1"}})
    try:
        async with open_pools(settings, host, (policy,), ready=0) as pools:
            result = await pools[policy.name].run(request)
    except SandboxError as error:
        return Trial(profile=host.profile, works=False, detail=str(error))
    return Trial(profile=host.profile, works=result.exit_reason is ExitReason.OK, detail=result.message)


def _check_policy(host: Host, policy: Policy) -> PolicyCheck:
    missing = tuple(layer.name for layer in host.missing(policy))
    if host.profile != "full" and (policy.network.allow or policy.limits.processes):
        missing = tuple(dict.fromkeys(("namespaces", *missing)))  # whether or not the file requires them by name
    return PolicyCheck(policy=policy.name, met=not missing, missing=missing)
