"""The calls about tasks, each a line or two: read the request, ask the service, encode the answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
from litestar import Response, delete, get, post
from litestar.response import Stream

from engine.api.answers import CALLBACK_STATES, CallbacksAnswer, OwedCallbackAnswer, TasksAnswer
from engine.api.body.check import IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_RULE
from engine.api.problems import RequestError
from engine.api.routes.batch import BatchAnswer, batch_item
from engine.api.routes.listing import next_cursor, parse_wanted
from engine.api.routes.requests import (
    Connection,
    State,
    answer_json,
    answer_task,
    check_content_type,
    principal_of,
    read_body,
    room_for,
    task_id_of,
    wait_s_of,
)
from engine.model.request import SubmitRequest
from engine.model.task import AcceptedTask, StoredTask
from engine.service.service import Service
from engine.service.waiting import Waiter

MAX_CALLBACKS = 500


@post("/execute", operation_id="execute", status_code=202)
async def execute(request: Connection) -> Response[bytes]:
    """Accept a task."""
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    check_content_type(request)
    with state.service.waiters.waiting(uuid4()) as waiter:
        accepted = await _accept(request, state, waiter.task_id)
        task = await _awaited(request, state, waiter, accepted, wait_s)
    _note_task(request, task.task_id)
    headers = {"Location": f"/task/{task.task_id}"} | ({"Idempotent-Replay": "true"} if accepted.is_replay else {})
    return answer_task(task, status=200 if task.status.final else 202, headers=headers)


@post("/execute/batch", operation_id="executeBatch", status_code=200)
async def execute_batch(request: Connection) -> Response[bytes]:
    """Accept up to 1,000 tasks, each for itself: one answer each, in their order."""
    state: State = request.app.state.parts
    check_content_type(request)
    async with room_for(request, state):
        body = await read_body(request)
        checked = await state.checker.check_batch(body)
        submitted = [item for item in checked if isinstance(item, SubmitRequest)]
        answers = iter(await state.service.submit_many(principal_of(request), submitted))
    items = (next(answers) if isinstance(item, SubmitRequest) else item for item in checked)
    return answer_json(BatchAnswer(tasks=tuple(batch_item(item) for item in items)))


@get("/tasks", operation_id="listTasks")
async def list_tasks(request: Connection) -> Response[bytes]:
    """The tenant's tasks, the newest first, without what they answered."""
    service: Service = request.app.state.parts.service
    wanted = parse_wanted(list(request.query_params.multi_items()))
    found = await service.list_tasks(principal_of(request), wanted)
    cursor = next_cursor(found, wanted)
    return answer_json(TasksAnswer(tasks=tuple(found), next_cursor=cursor))


@get("/task/{task_id:str}", operation_id="getTask")
async def get_task(request: Connection, task_id: str) -> Response[bytes]:
    """A task as it stands."""
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    key = task_id_of(task_id)
    _note_task(request, key)
    task = await state.service.get(principal_of(request), key, wait_s=wait_s) if key else None
    if task is None:
        raise RequestError(404, "There is no task with this id.")
    return answer_task(task)


@delete("/task/{task_id:str}", operation_id="cancelTask", status_code=200)
async def cancel_task(request: Connection, task_id: str) -> Response[bytes]:
    """Cancel a task: 200 and the task as it ended, or 202 while its worker is ending it."""
    state: State = request.app.state.parts
    wait_s = wait_s_of(request)
    key = task_id_of(task_id)
    _note_task(request, key)
    task = await state.service.cancel(principal_of(request), key, wait_s=wait_s) if key else None
    if task is None:
        raise RequestError(404, "There is no task with this id.")
    return answer_task(task, status=200 if task.status.final else 202)


@get("/task/{task_id:str}/artifacts/{name:str}", operation_id="getArtifact")
async def get_artifact(request: Connection, task_id: str, name: str) -> Response[Any]:
    """A file that a task left behind, sent as it is read."""
    service: Service = request.app.state.parts.service
    key, principal = task_id_of(task_id), principal_of(request)
    artifact = await service.artifact(principal, key, name) if key and "\0" not in name else None
    if key is None or artifact is None:
        raise RequestError(404, "There is no such artifact: the task's answer lists those that there are.")
    etag = f'"{artifact.sha256}"'
    if etag in (given.strip() for given in request.headers.get("if-none-match", "").split(",")):
        return Response(None, status_code=304, headers={"ETag": etag})
    headers = {
        # never shown in place, whatever it is: it comes from code that nobody has read
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}",
        "Content-Length": str(artifact.size_bytes),
        "ETag": etag,
    }
    parts = service.artifact_parts(principal, key, artifact)
    return Stream(parts, media_type="application/octet-stream", headers=headers)


@get("/callbacks", operation_id="listCallbacks")
async def list_callbacks(request: Connection) -> Response[bytes]:
    """The newest callbacks in one state: those that are dead, unless another state is asked for."""
    state: State = request.app.state.parts
    wanted = request.query_params.get("state", "dead")
    if wanted not in CALLBACK_STATES:
        raise RequestError(400, f"must be one of: {', '.join(CALLBACK_STATES)}", path="state")
    found = await state.service.callbacks(principal_of(request), wanted, MAX_CALLBACKS)
    owed = tuple(OwedCallbackAnswer(task_id=task_id, callback=callback) for task_id, callback in found)
    return answer_json(CallbacksAnswer(callbacks=owed))


@post("/task/{task_id:str}/callback", operation_id="redeliverCallback", status_code=202)
async def redeliver_callback(request: Connection, task_id: str) -> Response[bytes]:
    """Owe the callback of a final task once more, whether it was delivered or given up."""
    state: State = request.app.state.parts
    key = task_id_of(task_id)
    callback = await state.service.redeliver(principal_of(request), key) if key else None
    if callback is None:
        raise RequestError(404, "There is no final task with this id and a callback.")
    return answer_json(callback, status=202)


TASK_ROUTES = (
    execute,
    execute_batch,
    list_tasks,
    get_task,
    cancel_task,
    get_artifact,
    list_callbacks,
    redeliver_callback,
)


async def _accept(request: Connection, state: State, task_id: UUID) -> AcceptedTask:
    """Read, check and store a task. The body is let go of at the end of this, however long the client then waits."""
    key = _idempotency_key(request)
    async with room_for(request, state):
        body = await read_body(request)
        checked = await state.checker.check(body, has_key=key is not None)
        submitted = msgspec.structs.replace(checked, idempotency_key=key)
        return await state.service.submit(principal_of(request), submitted, task_id)


async def _awaited(
    request: Connection, state: State, waiter: Waiter, accepted: AcceptedTask, wait_s: float
) -> StoredTask:
    """The task as it ended in time, or stands then."""
    task, principal = accepted.task, principal_of(request)
    if wait_s <= 0 or task.status.final:
        return task
    if accepted.is_replay:
        return await state.service.get(principal, task.task_id, wait_s=wait_s) or task
    return await state.service.wait(principal, waiter, wait_s) or task


def _idempotency_key(request: Connection) -> str | None:
    given = request.headers.getall("idempotency-key", [])
    if not given:
        return None
    if len(given) > 1:
        raise RequestError(400, f"must be given once; it is there {len(given)} times", path="Idempotency-Key")
    if not IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise RequestError(400, IDEMPOTENCY_KEY_RULE, path="Idempotency-Key")
    return given[0]


def _note_task(request: Connection, task_id: UUID | None) -> None:
    """For the line of the log."""
    request.scope["task_id"] = str(task_id) if task_id else None  # type: ignore[typeddict-unknown-key]
