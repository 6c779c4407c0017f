"""The calls about tasks, each a line or two: read the request, ask the service, encode the answer."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
from litestar import Response, delete, get, post
from litestar.response import Stream

from engine.api.answers import CALLBACK_STATES, CallbacksAnswer, OwedCallbackAnswer, TasksAnswer
from engine.api.body.check import IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_RULE
from engine.api.call import Answer, call, in_header, in_path, in_query
from engine.api.docs.examples import batch_body, execute_body
from engine.api.problems import RequestError
from engine.api.routes.batch import BatchAnswer, batch_item
from engine.api.routes.listing import LIST_PARAMETERS, cursor_at, next_cursor, parse_filter
from engine.api.routes.requests import (
    TASK_ID,
    WAIT,
    ApiRequest,
    State,
    answer_json,
    answer_task,
    check_content_type,
    found_task,
    principal_of,
    read_body,
    room_for,
    task_id_of,
    wait_s_of,
)
from engine.api.routes.trail import listed
from engine.model.answers import Task
from engine.model.callback import Callback
from engine.model.errors import PolicyForbiddenError, StoreUnavailableError
from engine.model.principal import Principal, Scope
from engine.model.receipt import SignedReceipt
from engine.model.request import SubmitRequest
from engine.model.task import AcceptedTask, StoredTask
from engine.model.turns import taking_turns
from engine.service.service import Service
from engine.service.waiting import Waiter

MAX_CALLBACKS = 500
IDEMPOTENCY_KEY_HEADER = in_header(
    "Idempotency-Key",
    "The same request with the same key gives the same task again, as long as the service keeps that task. Another "
    "request with the same key is refused with 409.",
    pattern="^[!-~]{1,255}$",
)
ARTIFACT_NAME = in_path("name", "Name of the file, as `artifacts` in the task's answer lists it.")
CALLBACK_STATE = in_query("state", "Which callbacks.", type="string", enum=list(CALLBACK_STATES), default="dead")
LOCATION = {"Location": {"description": "Path of the task.", "schema": {"type": "string"}}}


@post(
    "/execute",
    operation_id="execute",
    status_code=202,
    opt=call(
        Scope.SUBMIT,
        parameters=(WAIT, IDEMPOTENCY_KEY_HEADER),
        body=execute_body,
        answers={
            200: Answer("The final task: it ended within `wait`, or before, under the same Idempotency-Key.", Task),
            202: Answer("The service has stored the task and will run it.", Task, headers=LOCATION),
        },
        problems=(400, 408, 409, 413, 415, 503, 507),
    ),
)
async def execute(request: ApiRequest) -> Response[bytes]:
    """Submit a task.

    With `wait` the call answers when the task ends, or after that many seconds. An answer of 202 is a promise: the
    task survives the loss of any process of the service.
    """
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    check_content_type(request)
    with state.service.waiters.waiting(uuid4()) as waiter:
        accepted = await _accept(request, state, waiter.task_id)
        task = await _awaited(request, state, waiter, accepted, wait_s)
    _note_task(request, task.task_id)
    headers = {"Location": f"/task/{task.task_id}"} | ({"Idempotent-Replay": "true"} if accepted.is_replay else {})
    return answer_task(task, status=200 if task.status.final else 202, headers=headers)


@post(
    "/execute/batch",
    operation_id="executeBatch",
    status_code=200,
    opt=call(
        Scope.SUBMIT,
        body=batch_body,
        answers={200: Answer("One answer for each task, in the order of the request.", BatchAnswer)},
        problems=(400, 408, 413, 415, 503, 507),
    ),
)
async def execute_batch(request: ApiRequest) -> Response[bytes]:
    """Submit up to 1,000 tasks.

    The service accepts or refuses each task by itself. `status` in each answer is the status that `POST /execute`
    would have given.
    """
    state: State = request.app.state.parts
    check_content_type(request)
    async with room_for(request, state):
        body = await read_body(request)
        checked = await state.checker.check_batch(body, tenant=principal_of(request).tenant)
        submitted = [item for item in checked if isinstance(item, SubmitRequest)]
        answers = iter(await state.service.submit_many(principal_of(request), submitted))
    items = [next(answers) if isinstance(item, SubmitRequest) else item for item in checked]
    refused = sum(isinstance(item, PolicyForbiddenError) for item in items)
    request.scope["refused_tasks"] = refused  # type: ignore[typeddict-unknown-key]  # for the audit log
    return answer_json(BatchAnswer(tasks=tuple([batch_item(item) async for item in taking_turns(items)])))


@get(
    "/tasks",
    operation_id="listTasks",
    opt=call(
        Scope.READ,
        parameters=LIST_PARAMETERS,
        answers={200: Answer("A page of the list.", TasksAnswer)},
        problems=(400, 503),
    ),
)
async def list_tasks(request: ApiRequest) -> Response[bytes]:
    """List the tenant's tasks, the newest first.

    The list leaves out results, logs and usage; `GET /task/{task_id}` has them.
    """
    service: Service = request.app.state.parts.service
    task_filter = parse_filter(list(request.query_params.multi_items()))
    if task_filter.ids is None and (task_filter.key_id is not None or task_filter.source is not None):
        page = await service.auditor.own_page(principal_of(request), task_filter)
        return answer_json(TasksAnswer(tasks=tuple(listed(page)), next_cursor=cursor_at(page.end)))
    found = await service.list_tasks(principal_of(request), task_filter)
    cursor = next_cursor(found, task_filter)
    return answer_json(TasksAnswer(tasks=tuple(found), next_cursor=cursor))


@get(
    "/task/{task_id:str}",
    operation_id="getTask",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID, WAIT),
        answers={200: Answer("The task.", Task)},
        problems=(400, 404, 503),
    ),
)
async def get_task(request: ApiRequest, task_id: str) -> Response[bytes]:
    """Get a task: its status and, once it has ended, its result.

    With `wait` the call answers when the task ends, or after that many seconds with the task as it is then.
    """
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    key = task_id_of(task_id)
    _note_task(request, key)
    task = found_task(await state.service.get(principal_of(request), key, wait_s=wait_s) if key else None)
    return answer_task(task)


@delete(
    "/task/{task_id:str}",
    operation_id="cancelTask",
    status_code=200,
    opt=call(
        Scope.CANCEL,
        parameters=(TASK_ID, WAIT),
        answers={
            200: Answer("The final task. One that had ended before stays as it was.", Task),
            202: Answer("The task still runs; its worker is stopping it.", Task),
        },
        problems=(400, 404, 503),
    ),
)
async def cancel_task(request: ApiRequest, task_id: str) -> Response[bytes]:
    """Cancel a task.

    A queued task ends at once. The worker of a running task stops it within a second; `wait` waits for that.
    """
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    key = task_id_of(task_id)
    _note_task(request, key)
    task = found_task(await state.service.cancel(principal_of(request), key, wait_s=wait_s) if key else None)
    return answer_task(task, status=200 if task.status.final else 202)


@get(
    "/task/{task_id:str}/artifacts/{name:path}",
    operation_id="getArtifact",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID, ARTIFACT_NAME),
        answers={
            200: Answer("The bytes of the file.", media_type="application/octet-stream"),
            304: Answer("`If-None-Match` names the file that the task has."),
        },
        problems=(400, 404, 410, 503),
    ),
)
async def get_artifact(request: ApiRequest, task_id: str, name: str) -> Response[Any]:
    """Download a file that a task wrote to `artifacts/`."""
    service: Service = request.app.state.parts.service
    key, principal, name = task_id_of(task_id), principal_of(request), name.removeprefix("/")
    artifact = await service.artifact(principal, key, name) if key and "\0" not in name else None
    if key is None or artifact is None:
        raise await _no_artifact(service, principal, key, name)
    etag = f'"{artifact.sha256}"'
    if etag in (given.strip() for given in request.headers.get("if-none-match", "").split(",")):
        return Response(None, status_code=304, headers={"ETag": etag})
    headers = {
        # never shown in place, whatever it is: it comes from code that nobody has read
        "Content-Disposition": _attachment(artifact.name.rpartition("/")[2]),
        "Content-Length": str(artifact.size_bytes),
        "ETag": etag,
    }
    parts = service.artifact_parts(principal, key, artifact)
    return Stream(parts, media_type="application/octet-stream", headers=headers)


@delete(
    "/task/{task_id:str}/artifacts/{name:path}",
    operation_id="deleteArtifact",
    status_code=204,
    opt=call(
        Scope.SUBMIT,
        parameters=(TASK_ID, ARTIFACT_NAME),
        answers={204: Answer("The artifact is deleted.")},
        problems=(400, 404, 410, 503),
    ),
)
async def delete_artifact(request: ApiRequest, task_id: str, name: str) -> None:
    """Delete a file that a task wrote to `artifacts/`, before the task's time is over.

    The task's answer goes on naming it, with its size and hash: that is the record of what the run left.
    """
    service: Service = request.app.state.parts.service
    key, principal, name = task_id_of(task_id), principal_of(request), name.removeprefix("/")
    _note_task(request, key)
    deleted = await service.delete_artifacts(principal, key, name) if key and "\0" not in name else None
    if not deleted:
        raise await _no_artifact(service, principal, key, name)
    _note_deleted(request, artifacts=deleted, name=name)


@delete(
    "/task/{task_id:str}/artifacts",
    operation_id="deleteArtifacts",
    status_code=204,
    opt=call(
        Scope.SUBMIT,
        parameters=(TASK_ID,),
        answers={204: Answer("The task has no artifacts any more.")},
        problems=(404, 503),
    ),
)
async def delete_artifacts(request: ApiRequest, task_id: str) -> None:
    """Delete all files that a task wrote to `artifacts/`, before the task's time is over."""
    service: Service = request.app.state.parts.service
    key = task_id_of(task_id)
    _note_task(request, key)
    deleted = found_task(await service.delete_artifacts(principal_of(request), key) if key else None)
    _note_deleted(request, artifacts=deleted)


@get(
    "/task/{task_id:str}/receipt",
    operation_id="getReceipt",
    opt=call(
        Scope.READ,
        parameters=(TASK_ID,),
        answers={200: Answer("The receipt.", SignedReceipt)},
        problems=(404, 409, 503),
    ),
)
async def get_receipt(request: ApiRequest, task_id: str) -> Response[bytes]:
    """Get the signed receipt of a final task: who submitted what, under which grant it ran, and how it ended."""
    service: Service = request.app.state.parts.service
    key = task_id_of(task_id)
    _note_task(request, key)
    signed = found_task(await service.receipt(principal_of(request), key) if key else None)
    return answer_json(signed)


@get(
    "/callbacks",
    operation_id="listCallbacks",
    opt=call(
        Scope.READ,
        parameters=(CALLBACK_STATE,),
        answers={200: Answer("At most 500 callbacks, the newest first.", CallbacksAnswer)},
        problems=(400, 503),
    ),
)
async def list_callbacks(request: ApiRequest) -> Response[bytes]:
    """List the tenant's callbacks in one state: `dead` unless `state` names another."""
    state: State = request.app.state.parts
    wanted = request.query_params.get("state", "dead")
    if wanted not in CALLBACK_STATES:
        raise RequestError(400, f"must be one of: {', '.join(CALLBACK_STATES)}", path="state")
    found = await state.service.callbacks(principal_of(request), wanted, MAX_CALLBACKS)
    owed = tuple(OwedCallbackAnswer(task_id=task_id, callback=callback) for task_id, callback in found)
    return answer_json(CallbacksAnswer(callbacks=owed))


@post(
    "/task/{task_id:str}/callback",
    operation_id="redeliverCallback",
    status_code=202,
    opt=call(
        Scope.SUBMIT,
        parameters=(TASK_ID,),
        answers={202: Answer("The service will send the callback again.", Callback)},
        problems=(404, 503),
    ),
)
async def redeliver_callback(request: ApiRequest, task_id: str) -> Response[bytes]:
    """Send the callback of a final task again, whether it was delivered or is dead."""
    state: State = request.app.state.parts
    key = task_id_of(task_id)
    callback = await state.service.redeliver(principal_of(request), key) if key else None
    if callback is None:
        raise RequestError(
            404,
            "There is no final task with this id and a callback: give a task its `callback_url` when you submit it.",
        )
    return answer_json(callback, status=202)


TASK_ROUTES = (
    execute,
    execute_batch,
    list_tasks,
    get_task,
    cancel_task,
    get_artifact,
    delete_artifact,
    delete_artifacts,
    get_receipt,
    list_callbacks,
    redeliver_callback,
)


async def _accept(request: ApiRequest, state: State, task_id: UUID) -> AcceptedTask:
    """Read, check and store a task. The body is let go of at the end of this, however long the client then waits."""
    key = _idempotency_key(request)
    async with room_for(request, state):
        body = await read_body(request)
        checked = await state.checker.check(body, has_key=key is not None, tenant=principal_of(request).tenant)
        submitted = msgspec.structs.replace(checked, idempotency_key=key)
        return await state.service.submit(principal_of(request), submitted, task_id)


async def _awaited(
    request: ApiRequest, state: State, waiter: Waiter, accepted: AcceptedTask, wait_s: float
) -> StoredTask:
    """The task as it ended in time, or stands then; as it was accepted, if PostgreSQL is unreachable meanwhile."""
    task, principal = accepted.task, principal_of(request)
    if wait_s <= 0 or task.status.final:
        return task
    with contextlib.suppress(StoreUnavailableError):  # the promise of 202 holds all the same
        if accepted.is_replay:
            return await state.service.get(principal, task.task_id, wait_s=wait_s) or task
        return await state.service.wait(principal, waiter, wait_s) or task
    return task


def _attachment(name: str) -> str:
    """A file to save, under a name for old clients beside the true one (RFC 6266, appendix D)."""
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\%' else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _idempotency_key(request: ApiRequest) -> str | None:
    given = request.headers.getall("idempotency-key", [])
    if not given:
        return None
    if len(given) > 1:
        raise RequestError(400, f"must be given once; it is there {len(given)} times", path="Idempotency-Key")
    if not IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise RequestError(400, IDEMPOTENCY_KEY_RULE, path="Idempotency-Key")
    return given[0]


def _note_task(request: ApiRequest, task_id: UUID | None) -> None:
    """Keep the id for the log line of this request."""
    request.scope["task_id"] = str(task_id) if task_id else None  # type: ignore[typeddict-unknown-key]


def _note_deleted(request: ApiRequest, **what: int | str) -> None:
    """Keep what was deleted for the audit log."""
    request.scope["deleted"] = what  # type: ignore[typeddict-unknown-key]


async def _no_artifact(service: Service, principal: Principal, key: UUID | None, name: str) -> RequestError:
    if key is not None and "\0" not in name and await service.artifact_was_deleted(principal, key, name):
        return RequestError(410, "This artifact has been deleted.")
    return RequestError(404, "There is no such artifact: the task's answer lists those that there are.")
