"""Decides whether a checked request becomes a task: the one acceptance of ``POST /execute``, of a batch and of
``python -m engine run``.

It asks neither PostgreSQL nor Redis: what is known of uploaded files is handed in, and the scripts are looked up in
their folder. So a field of a request means the same, and is refused by the same words, wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from uuid import UUID

from engine.config.destinations import CallbackUrlError, Destinations
from engine.config.scripts import list_scripts
from engine.config.settings import Settings
from engine.model.errors import InvalidRequestError, PolicyForbiddenError
from engine.model.principal import Principal
from engine.model.request import SubmitRequest
from engine.model.task import NewTask
from engine.policies.policies import Policies, allowed_attempts, effective_limits
from handlers.parameters.faults import Fault, nearest
from sandbox import Policy


def accept(
    settings: Settings,
    policies: Policies,
    request: SubmitRequest,
    *,
    task_id: UUID,
    principal: Principal,
    known_files: Collection[str] = (),
    traceparent: str | None = None,
) -> NewTask:
    """Decide whether a request becomes a task, and under which policy.

    Args:
        settings: have the operator's ceilings, the scripts' folder and the places that callbacks may go to.
        policies: those that tasks can run under here.
        request: as the client sent it, checked.
        task_id: made for the task, at random.
        principal: who asks.
        known_files: the uploaded files of the request that the tenant has.
        traceparent: the trace that the task belongs to.
    Raises:
        InvalidRequestError: the task cannot be accepted; it names every part of the request that is at fault, and why.
    """
    policy = _policy_asked_for(policies, request)
    faults = [*_faults(settings, policies, request, policy, known_files)]
    if faults or policy is None:
        raise InvalidRequestError(*faults)
    _check_allowed(principal, policy)
    return NewTask(
        task_id=task_id,
        tenant=principal.tenant,
        request=request,
        policy=policy.name,
        max_attempts=allowed_attempts(policy, settings),
        callback_url=_dialled_url(settings, request.callback_url),
        concurrent_limit=principal.quotas.concurrent_tasks,
        traceparent=traceparent,
        key_id=principal.key_id,
        request_id=principal.request_id,
        client_address=principal.client_address,
        stored_bytes_limit=settings.quotas_of(principal.quotas).stored_bytes,
        memory_limit_mib=effective_limits(policy, settings, memory_mib=request.memory_mib).memory_mib,
    )


def _policy_asked_for(policies: Policies, request: SubmitRequest) -> Policy | None:
    """The policy that a request names, or else its task type's own; ``None`` when there is none such."""
    if request.task_type not in policies.task_types:
        return None
    policy = policies.default(request.task_type) if request.policy is None else policies.named(request.policy)
    return policy if policy is not None and policy.task_type == request.task_type else None


def _faults(
    settings: Settings,
    policies: Policies,
    request: SubmitRequest,
    policy: Policy | None,
    known_files: Collection[str],
) -> Iterator[Fault]:
    """Every reason why a request cannot become a task here."""
    if request.task_type not in policies.task_types:
        available = ", ".join(policies.task_types)
        yield Fault(path="$.task_type", message=f"{request.task_type} is not available here; available: {available}")
    elif policy is None:
        there_are = sorted(policy.name for policy in policies.all if policy.task_type == request.task_type)
        said = f"no such policy for {request.task_type}; {nearest(request.policy or '', there_are)}there are: "
        yield Fault(path="$.policy", message=said + ", ".join(there_are))
    most_s, most_mib = settings.max_task_timeout_s, settings.max_task_memory_mib
    if request.timeout_s is not None and request.timeout_s > most_s:
        yield Fault(path="$.timeout_s", message=f"must be at most {most_s:g} s (MAX_TASK_TIMEOUT)")
    if request.memory_mib is not None and most_mib is not None and request.memory_mib > most_mib:
        yield Fault(path="$.memory_mib", message=f"must be at most {most_mib} MiB (MAX_TASK_MEMORY_MIB)")
    elif policy is not None:
        yield from _worker_memory_faults(settings, policy, request)
    if request.script_name is not None and request.script_name not in (known := list_scripts(settings.scripts_dir)):
        yield Fault(
            path="$.parameters.script",
            message=f"there is no script {request.script_name}; {nearest(request.script_name, known)}available: "
            f"{', '.join(known) or 'none'}. (Source text must not look like a file's name: add a line break.)",
        )
    if missing := sorted(set(request.file_ids) - set(known_files)):
        said = f"there is no file {', '.join(missing)}: it was never uploaded here, or has expired"
        yield Fault(path="$.parameters", message=said)
    if request.callback_url is not None:
        yield from _callback_faults(settings, request.callback_url)


def _worker_memory_faults(settings: Settings, policy: Policy, request: SubmitRequest) -> Iterator[Fault]:
    """A task that no worker could ever run is refused here, for it would wait for ever."""
    whole, wanted = settings.worker_memory_mib, effective_limits(policy, settings, memory_mib=request.memory_mib)
    if whole is not None and wanted.memory_mib > whole:
        said = f"must be given, and at most {whole}" if request.memory_mib is None else f"must be at most {whole}"
        yield Fault(
            path="$.memory_mib",
            message=f"{said}: this task may have {wanted.memory_mib} MiB, and all tasks of a worker together may have "
            f"{whole} MiB (WORKER_MEMORY_MIB)",
        )


def _dialled_url(settings: Settings, url: str | None) -> str | None:
    return None if url is None else Destinations(settings.callback_urls).check(url)


def _callback_faults(settings: Settings, url: str) -> Iterator[Fault]:
    if not settings.callback_secrets:
        yield Fault(path="$.callback_url", message="there are no callbacks here: CALLBACK_SECRET is not set")
        return
    try:
        Destinations(settings.callback_urls).check(url)
    except CallbackUrlError as error:
        yield Fault(path="$.callback_url", message=str(error))


def _check_allowed(principal: Principal, policy: Policy) -> None:
    if principal.policies is not None and policy.name not in principal.policies:
        allowed = ", ".join(sorted(principal.policies))
        said = f"the key {principal.key_id} may not use the policy {policy.name}; it may use: {allowed}"
        raise PolicyForbiddenError(Fault(path="$.policy", message=said))
