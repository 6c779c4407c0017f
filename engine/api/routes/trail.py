"""The calls of auditors and operators: who ran what, what was denied, the last hour, the tenants. All of them read."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get
from msgspec import Meta

from engine.api.call import Answer, call, in_path, in_query
from engine.api.problems import RequestError
from engine.api.routes.listing import TRAIL_PARAMETERS, cursor_at, parse_trail_filter
from engine.api.routes.requests import (
    TASK_ID,
    ApiRequest,
    State,
    answer_json,
    found_policy,
    found_task,
    principal_of,
    task_id_of,
)
from engine.config.keys import Keys
from engine.model.principal import Principal, Scope
from engine.model.request import ExecuteRequest
from engine.model.task import ListedTask
from engine.model.trail import AttemptFacts, AttemptRecord, Denied, Submitter, TenantLoad, TrailItem, TrailPage
from engine.policies.diff import Change, compare
from engine.service.auditor import Auditor
from engine.telemetry.audit import AuditLog
from sandbox import Policy, PolicyError

MOST_DENIALS = 50
MOST_LINES = 200
MOST_CHARACTERS = 128
POLICY_NAME = in_path("name", "Name of the policy.")


HasAllTenants = Annotated[
    bool,
    Meta(
        description="false: there are more than 1,000 tenants, and the first 1,000 by name were looked at. "
        "`GET /audit?tenant=` asks for another one."
    ),
]


class DeniedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a task, or one attempt at it, was denied."""

    calls: Annotated[dict[str, int], Meta(description="System call → how often it was denied.")]
    hosts: Annotated[
        dict[str, tuple[str, ...]],
        Meta(description="Host and port → why the egress proxy refused it, each reason once."),
    ]
    words: Annotated[tuple[str, ...], Meta(description="The same in words, with the policy's key that denies it.")]


class AttemptAnswer(AttemptFacts, frozen=True, kw_only=True):
    """One attempt at a task that has ended."""

    denied: Annotated[DeniedAnswer | None, Meta(description="null where nothing was.")]


class AttemptsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Who submitted a task, and each attempt at it that has ended, the first one first."""

    submitted: Submitter
    attempts: tuple[AttemptAnswer, ...]


class SubmittedRequest(ExecuteRequest, frozen=True, kw_only=True):
    """A task's request, for `POST /execute` to take again; its policy is the one that it runs under, named or not."""


class AuditItem(msgspec.Struct, frozen=True, kw_only=True):
    """A task for an auditor: who submitted what, under which grant it ran, and what was denied."""

    task: ListedTask
    tenant: str
    key_id: Annotated[str | None, Meta(description="The API key that submitted it; null where there are no keys.")]
    request_id: str | None
    client_address: Annotated[str | None, Meta(description="Where the request came from, as the API saw it.")]
    script_name: str | None
    source_sha256: Annotated[str | None, Meta(description="SHA-256 of its script; a named one's once it has run.")]
    parameters_sha256: str | None
    policy_digest: Annotated[str | None, Meta(description="Of the policy file in force in the last attempt that ran.")]
    denied: Annotated[DeniedAnswer | None, Meta(description="null where nothing was.")]


class AuditAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the record, the newest first."""

    tasks: tuple[AuditItem, ...]
    next_cursor: Annotated[
        str | None,
        Meta(
            description="Give it as `cursor` for the next page; null when there is none. A page is short, or empty, "
            "and has a next one where the filter lets through few of the tasks that it looked at: 2,000 of one tenant, "
            "fewer of several together."
        ),
    ] = None
    has_all_tenants: HasAllTenants


class AuditLogAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of the audit log that this API can read, the last one first."""

    is_kept: Annotated[bool, Meta(description="false where AUDIT_LOG names no file: then the log is elsewhere.")]
    lines: Annotated[tuple[dict[str, Any], ...], Meta(description="Each with `event`, `timestamp`, `number`.")]
    next_cursor: Annotated[str | None, Meta(description="For the lines before; null when there are none.")] = None


class PolicyDiffAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes looser, and what tighter, from one policy to another."""

    changes: tuple[Change, ...]


class KeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A key that may submit tasks under a policy."""

    key_id: str
    tenant: str
    names_it: Annotated[bool, Meta(description="Whether the key names its policies; else it may use all.")]
    expires_at: datetime | None


class DenialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt under a policy was denied."""

    task_id: UUID
    attempt: int
    tenant: str
    denied_at: datetime
    denied: DeniedAnswer


class PolicyUseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use a policy, and what it denied lately; of other tenants only for a key with the scope `admin`."""

    keys: Annotated[
        tuple[KeyAnswer, ...] | None, Meta(description="null where the service has no keys: anyone may use it.")
    ]
    denials: Annotated[tuple[DenialAnswer, ...], Meta(description="At most 50 attempts, the last one first.")]
    has_all_tenants: HasAllTenants


class TenantAnswer(TenantLoad, frozen=True, kw_only=True):
    """What a tenant has that waits, runs and is stored."""

    stored_mib: Annotated[
        int | None, Meta(description="The default of how many MiB a tenant may store; null for no limit.")
    ]


class TenantsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The tenants: the key's own, and all others for a key with the scope `admin`."""

    tenants: tuple[TenantAnswer, ...]
    has_all_tenants: HasAllTenants


class MinuteAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks that ended within one minute. Times are null where none did."""

    minute: Annotated[datetime, Meta(description="When it began.")]
    ended: Annotated[int, Meta(description="Of the key's own tenant; of all for a key with the scope `admin`.")]
    failed: int
    cancelled: int
    took_p50_s: Annotated[float | None, Meta(description="From being accepted to the end: half took no longer.")]
    took_p95_s: float | None
    waited_p50_s: Annotated[float | None, Meta(description="From being accepted to the start.")]
    waited_p95_s: float | None


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The last hour by the minute, the oldest first. Minutes that are not worked out yet are missing."""

    minutes: tuple[MinuteAnswer, ...]
    is_whole: Annotated[bool, Meta(description="false: ask again in a moment for the minutes that are missing.")]


@get(
    "/task/{task_id:str}/attempts",
    operation_id="listAttempts",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID,),
        answers={200: Answer("Who submitted it, and its attempts.", AttemptsAnswer)},
        problems=(404, 503),
    ),
)
async def list_attempts(request: ApiRequest, task_id: str) -> Response[bytes]:
    """List the attempts at a task that have ended, and say who submitted it."""
    auditor, principal, key = _auditor(request), principal_of(request), task_id_of(task_id)
    submitted = found_task(await auditor.submitter(principal, key) if key else None)
    records = await auditor.attempts(principal, key) if key else []
    attempts = tuple(_attempt(auditor, submitted.policy, record) for record in records)
    return answer_json(AttemptsAnswer(submitted=submitted, attempts=attempts))


@get(
    "/task/{task_id:str}/request",
    operation_id="getTaskRequest",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID,),
        answers={200: Answer("The request.", SubmittedRequest)},
        problems=(404, 503),
    ),
)
async def get_task_request(request: ApiRequest, task_id: str) -> Response[bytes]:
    """Get what was submitted, to look at it or to submit it again.

    Uploaded files that it names may have been deleted since.
    """
    key = task_id_of(task_id)
    found = found_task(await _auditor(request).request(principal_of(request), key) if key else None)
    names = SubmittedRequest.__struct_fields__
    return answer_json(SubmittedRequest(**{name: getattr(found.request, name) for name in names}))


@get(
    "/audit",
    operation_id="listAudit",
    opt=call(
        Scope.AUDIT,
        parameters=TRAIL_PARAMETERS,
        answers={200: Answer("A page of the record.", AuditAnswer)},
        problems=(400, 503),
    ),
)
async def list_audit(request: ApiRequest) -> Response[bytes]:
    """List who ran what: each task with its key, the hash of its script, its grant, and what was denied.

    The tasks are the tenant's own, or those of all tenants for a key with the scope `admin`. They are on record as
    long as the service keeps them; the audit log keeps them for longer.
    """
    auditor = _auditor(request)
    wanted = parse_trail_filter(list(request.query_params.multi_items()))
    page = await auditor.page(principal_of(request), wanted)
    items = tuple(_audit_item(auditor, item) for item in page.items)
    return answer_json(AuditAnswer(tasks=items, next_cursor=cursor_at(page.end), has_all_tenants=page.has_all_tenants))


@get(
    "/audit/log",
    operation_id="readAuditLog",
    opt=call(
        Scope.AUDIT,
        parameters=(
            in_query(
                "event",
                "Only lines of this event, such as `request refused`.",
                type="string",
                maxLength=MOST_CHARACTERS,
            ),
            in_query(
                "text",
                "Only lines of which a name or a value holds this text, such as a key's id. Upper and lower case "
                "differ.",
                type="string",
                maxLength=MOST_CHARACTERS,
            ),
            in_query("cursor", "`next_cursor` of the answer before.", type="string", pattern="^[0-9]{1,18}$"),
        ),
        answers={200: Answer("Lines of the log.", AuditLogAnswer)},
        problems=(400, 503),
    ),
)
async def read_audit_log(request: ApiRequest) -> Response[bytes]:
    """Read the audit log backwards: attempts, refusals, and keys and policies that changed.

    Without the scope `admin` only the lines that name the key's own tenant are shown. An answer looks through a MiB of
    the log, so it may be short, or empty, and have a `next_cursor`.
    """
    state: State = request.app.state.parts
    query, principal = request.query_params, principal_of(request)
    cursor = query.get("cursor")
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise RequestError(400, "must be a next_cursor that was given out", path="cursor")
    for name in ("event", "text"):
        if len(query.get(name, "")) > MOST_CHARACTERS:
            raise RequestError(400, f"at most {MOST_CHARACTERS} characters", path=name)
    end = None if cursor is None else int(cursor)
    found = await asyncio.to_thread(log_lines, state.audit, principal, end, query.get("event"), query.get("text"))
    return answer_json(found)


@get(
    "/policies/{name:str}/diff",
    operation_id="diffPolicies",
    opt=call(
        Scope.AUDIT,
        parameters=(
            POLICY_NAME,
            in_query("to", "Name of another policy: the changes from this one to that.", type="string"),
            in_query("since", "Digest that this policy had before: the changes from then to now.", type="string"),
        ),
        answers={200: Answer("The differences, looser ones first.", PolicyDiffAnswer)},
        problems=(400, 404, 503),
    ),
)
async def diff_policies(request: ApiRequest, name: str) -> Response[bytes]:
    """Say what becomes looser, and what tighter: from this policy to another, or from an older file of it to now's."""
    state: State = request.app.state.parts
    other, since = request.query_params.get("to"), request.query_params.get("since")
    if bool(other) == bool(since):
        raise RequestError(400, "give one of `to` and `since`", path="since" if other else "to")
    old, new = (found_policy(state.service.policies.named(one)) for one in (name, other or name))
    if since:
        old = await _old_policy(state.service.auditor, name, since)
    return answer_json(PolicyDiffAnswer(changes=tuple(compare(old, new))))


@get(
    "/policies/{name:str}/use",
    operation_id="getPolicyUse",
    opt=call(
        Scope.AUDIT,
        parameters=(POLICY_NAME,),
        answers={200: Answer("Its keys and denials.", PolicyUseAnswer)},
        problems=(404, 503),
    ),
)
async def get_policy_use(request: ApiRequest, name: str) -> Response[bytes]:
    """Say which keys may submit tasks under a policy, and what it denied lately."""
    state: State = request.app.state.parts
    auditor, principal = state.service.auditor, principal_of(request)
    found_policy(state.service.policies.named(name))
    found, has_all = await auditor.denials(principal, name, MOST_DENIALS)
    denials = tuple(
        DenialAnswer(
            task_id=one.task_id,
            attempt=one.attempt,
            tenant=one.tenant,
            denied_at=one.denied_at,
            denied=denied_answer(auditor, name, [one.denied]),
        )
        for one in found
    )
    keys = _keys(state.access.keys, principal, name)
    return answer_json(PolicyUseAnswer(keys=keys, denials=denials, has_all_tenants=has_all))


@get(
    "/tenants",
    operation_id="listTenants",
    opt=call(Scope.AUDIT, answers={200: Answer("The tenants.", TenantsAnswer)}, problems=(503,)),
)
async def list_tenants(request: ApiRequest) -> Response[bytes]:
    """List what each tenant has in the queue, running and stored."""
    state: State = request.app.state.parts
    loads, has_all = await state.service.auditor.loads(principal_of(request))
    limit = state.service.settings.stored_mib or None
    found = tuple(TenantAnswer(**msgspec.structs.asdict(load), stored_mib=limit) for load in loads)
    return answer_json(TenantsAnswer(tenants=found, has_all_tenants=has_all))


@get(
    "/history",
    operation_id="getHistory",
    opt=call(Scope.AUDIT, answers={200: Answer("The last hour.", HistoryAnswer)}, problems=(503,)),
)
async def get_history(request: ApiRequest) -> Response[bytes]:
    """Get how many tasks ended in each minute of the last hour, and how long they took.

    The tasks are the tenant's own, or those of all tenants for a key with the scope `admin`.
    """
    found = await _auditor(request).last_hour(principal_of(request))
    minutes = tuple(
        MinuteAnswer(
            minute=one.minute,
            ended=one.ended,
            failed=one.failed,
            cancelled=one.cancelled,
            took_p50_s=one.took_s[0] if one.took_s else None,
            took_p95_s=one.took_s[1] if one.took_s else None,
            waited_p50_s=one.waited_s[0] if one.waited_s else None,
            waited_p95_s=one.waited_s[1] if one.waited_s else None,
        )
        for one in found
        if one is not None
    )
    return answer_json(HistoryAnswer(minutes=minutes, is_whole=len(minutes) == len(found)))


TRAIL_ROUTES = (
    list_attempts,
    get_task_request,
    list_audit,
    read_audit_log,
    diff_policies,
    get_policy_use,
    list_tenants,
    get_history,
)


def listed(page: TrailPage) -> list[ListedTask]:
    """The tasks of a page as ``GET /tasks`` lists them."""
    return [listed_task(item.task) for item in page.items]


def listed_task(task: ListedTask) -> ListedTask:
    """No more of a task than a list shows."""
    return ListedTask(**{name: getattr(task, name) for name in ListedTask.__struct_fields__})


def _auditor(request: ApiRequest) -> Auditor:
    state: State = request.app.state.parts
    return state.service.auditor


async def _old_policy(auditor: Auditor, name: str, digest: str) -> Policy:
    try:
        old = await auditor.old_policy(name, digest) if "\0" not in digest else None
    except PolicyError as error:
        raise RequestError(404, f"That file is of an older format, and cannot be compared: {error}") from None
    if old is None:
        raise RequestError(404, "No API of this service has had a file with this digest in force.")
    return old


def denied_answer(auditor: Auditor, policy: str, denied: Iterable[Denied]) -> DeniedAnswer:
    """What one or several attempts under a policy were denied, in numbers and in words."""
    found = tuple(denied)
    calls: Counter[str] = Counter()
    for one in found:
        calls.update({call.syscall: call.count for call in one.calls})
    hosts: dict[str, dict[str, None]] = {}
    for host in (host for one in found for host in one.hosts):
        hosts.setdefault(f"{host.host}:{host.port}", {})[host.decision] = None
    reasons = {name: tuple(decisions) for name, decisions in hosts.items()}
    return DeniedAnswer(calls=dict(calls), hosts=reasons, words=auditor.words(policy, found))


def _attempt(auditor: Auditor, policy: str, record: AttemptRecord) -> AttemptAnswer:
    denied = denied_answer(auditor, policy, [record.denied]) if record.denied else None
    return AttemptAnswer(**msgspec.structs.asdict(record.facts), denied=denied)


def _audit_item(auditor: Auditor, item: TrailItem) -> AuditItem:
    task = item.task
    return AuditItem(
        task=listed_task(task),
        tenant=task.tenant,
        key_id=task.key_id,
        request_id=task.request_id,
        client_address=task.client_address,
        script_name=task.script_name,
        source_sha256=task.source_sha256,
        parameters_sha256=task.parameters_sha256,
        policy_digest=item.policy_digest,
        denied=denied_answer(auditor, task.policy, item.denied) if item.denied else None,
    )


def _keys(keys: Keys | None, principal: Principal, policy: str) -> tuple[KeyAnswer, ...] | None:
    """The keys that may use a policy, as far as the asker may know of them."""
    if keys is None:
        return None
    return tuple(
        KeyAnswer(key_id=key_id, tenant=key.tenant, names_it=key.policies is not None, expires_at=key.expires_at)
        for key_id, key in keys.that_may_use(policy)
        if principal.may_see(key.tenant)
    )


def log_lines(
    audit: AuditLog, principal: Principal, end: int | None, event: str | None, text: str | None
) -> AuditLogAnswer:
    """The lines of a part of the log that the asker may see and asks for. Reads and decodes: not for the event loop."""
    if not audit.is_file:
        return AuditLogAnswer(is_kept=False, lines=())
    found: list[dict[str, Any]] = []
    reached = 0
    written = json.dumps(text or "")[1:-1].encode()  # as a line of the log has it: in ASCII, with escapes
    for start, line in audit.read_back(end):
        reached = start
        entry = _log_entry(line) if written in line else None
        if entry is None or (event and entry.get("event") != event) or not principal.may_see(entry.get("tenant")):
            continue
        if text and not _holds(entry, text):  # half of an escape is like another text
            continue
        found.append(entry)
        if len(found) == MOST_LINES:
            break
    return AuditLogAnswer(is_kept=True, lines=tuple(found), next_cursor=str(reached) if reached else None)


def _holds(value: Any, text: str) -> bool:
    """Whether a name or a value in an entry holds a text."""
    if isinstance(value, dict):
        return any(text in name or _holds(inner, text) for name, inner in value.items())
    if isinstance(value, list):
        return any(_holds(inner, text) for inner in value)
    return text in (value if isinstance(value, str) else json.dumps(value))


def _log_entry(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:  # broken off, or not ours: `audit verify` names it
        return None
