"""Decides whether a checked request becomes a task: the one acceptance of ``POST /execute``, of a batch and of
``python -m engine run``.

It asks neither PostgreSQL nor Redis: what is known of uploaded files is handed in, and the scripts are looked up in
their folder. So a field of a request means the same, and is refused by the same words, wherever it comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from uuid import UUID

import msgspec

from engine.config.destinations import CallbackUrlError, Destinations
from engine.config.scripts import list_scripts
from engine.config.settings import Settings
from engine.model.errors import InvalidRequestError, PolicyForbiddenError
from engine.model.principal import Principal
from engine.model.request import SubmitRequest
from engine.model.task import NewTask
from engine.policies.policies import Policies, allowed_attempts
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
        InvalidRequestError: the task cannot be accepted; it names the part of the request that is at fault, and why.
    """
    if request.task_type not in policies.task_types:
        available = ", ".join(policies.task_types)
        raise InvalidRequestError("$.task_type", f"{request.task_type} is not available here; available: {available}")
    _check_ceilings(settings, request)
    _check_script(settings, request)
    policy = _choose_policy(policies, request, principal)
    _check_files(request, known_files)
    return NewTask(
        task_id=task_id,
        tenant=principal.tenant,
        request=request,
        policy=policy.name,
        max_attempts=allowed_attempts(policy, settings),
        callback_url=_checked_callback_url(settings, request),
        request_sha256=None if request.idempotency_key is None else _fingerprint(request),
        quotas=principal.quotas,
        traceparent=traceparent,
    )


def _check_ceilings(settings: Settings, request: SubmitRequest) -> None:
    most_s, most_mib = settings.max_task_timeout_s, settings.max_task_memory_mib
    if request.timeout_s is not None and request.timeout_s > most_s:
        raise InvalidRequestError("$.timeout_s", f"must be at most {most_s:g} s (MAX_TASK_TIMEOUT)")
    if request.memory_mib is not None and most_mib is not None and request.memory_mib > most_mib:
        raise InvalidRequestError("$.memory_mib", f"must be at most {most_mib} MiB (MAX_TASK_MEMORY_MIB)")


def _check_script(settings: Settings, request: SubmitRequest) -> None:
    name = request.script_name
    if name is None:
        return
    known = list_scripts(settings.scripts_dir)
    if name not in known:
        raise InvalidRequestError(
            "$.parameters.script",
            f"there is no script {name}; available: {', '.join(known) or 'none'}. (Source text must not look like a "
            "file's name: add a line break.)",
        )


def _choose_policy(policies: Policies, request: SubmitRequest, principal: Principal) -> Policy:
    policy = policies.default(request.task_type) if request.policy is None else policies.named(request.policy)
    if policy is None or policy.task_type != request.task_type:
        there_are = sorted(policy.name for policy in policies.all if policy.task_type == request.task_type)
        raise InvalidRequestError(
            "$.policy", f"no such policy for {request.task_type}; there are: {', '.join(there_are)}"
        )
    if principal.policies is not None and policy.name not in principal.policies:
        allowed = ", ".join(sorted(principal.policies))
        raise PolicyForbiddenError(
            "$.policy", f"the key {principal.key_id} may not use the policy {policy.name}; it may use: {allowed}"
        )
    return policy


def _check_files(request: SubmitRequest, known_files: Collection[str]) -> None:
    if missing := sorted(set(request.file_ids) - set(known_files)):
        raise InvalidRequestError(
            "$.parameters", f"there is no file {', '.join(missing)}: it was never uploaded here, or has expired"
        )


def _checked_callback_url(settings: Settings, request: SubmitRequest) -> str | None:
    if request.callback_url is None:
        return None
    if not settings.callback_secrets:
        raise InvalidRequestError("$.callback_url", "there are no callbacks here: CALLBACK_SECRET is not set")
    try:
        return Destinations(settings.callback_urls).check(request.callback_url)
    except CallbackUrlError as error:
        raise InvalidRequestError("$.callback_url", str(error)) from None


def _fingerprint(request: SubmitRequest) -> bytes:
    """SHA-256 of all that was asked, the parameters as they were written.

    A field that has its default is left out: a request means the same to an engine that knows more fields.
    """
    asked = {
        field.name: value
        for field in msgspec.structs.fields(SubmitRequest)
        if field.name != "parameters" and (value := getattr(request, field.name)) != _default(field)
    }
    text = msgspec.json.encode(asked, order="deterministic")
    return hashlib.sha256(text + b"\n" + bytes(request.parameters)).digest()


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
