"""The calls, each a line or two: read the request, ask the service, encode the answer."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
from litestar import MediaType, Request, Response, delete, get, post
from litestar.datastructures import UploadFile
from litestar.exceptions import InternalServerException

from engine.api.answers import (
    CALLBACK_STATES,
    CallbacksAnswer,
    Live,
    OwedCallbackAnswer,
    PoliciesAnswer,
    ScriptsAnswer,
    file_answer,
    health_answer,
    policy_answer,
    ready_answer,
    targets_answer,
    task_answer,
)
from engine.api.checker import INLINE_BYTES, Checker
from engine.api.problems import RequestError
from engine.auth import Principal
from engine.follow import Followers
from engine.metrics import expose
from engine.scripts import describe_scripts
from engine.service import MAX_WAIT_S, Ask, Service
from engine.task import StoredTask

BODY_TIMEOUT_S = 120.0
BIG_BODIES = 4
MAX_CALLBACKS = 500
_BYTES = "application/octet-stream"
_MAX_FILE_NAME = 255

Connection = Request[Any, Any, Any]
Answer = msgspec.Struct | tuple[msgspec.Struct, ...]


class State(msgspec.Struct, frozen=True):
    """What the calls need."""

    service: Service
    checker: Checker
    followers: Followers
    big_bodies: asyncio.Semaphore
    """Bodies beyond ``INLINE_BYTES``, or of unknown length, that may be in memory at the same time."""
    openapi: bytes
    docs: bytes


@post("/execute", operation_id="execute", status_code=202)
async def execute(request: Connection) -> Response[bytes]:
    """Accept a task."""
    state: State = request.app.state.parts
    wait_s = _wait_s(request)
    _check_content_type(request)
    with state.service.waiters.waiting(uuid4()) as waiter:
        task = await _accept(request, state, waiter.task_id)
        if wait_s > 0:
            task = await state.service.wait(principal_of(request), waiter, wait_s) or task
    request.scope["task_id"] = str(task.task_id)  # type: ignore[typeddict-unknown-key]  # for the log line
    headers = {"Location": f"/task/{task.task_id}"}
    return _task(task, status=200 if task.status.final else 202, headers=headers)


@get("/task/{task_id:str}", operation_id="getTask")
async def get_task(request: Connection, task_id: str) -> Response[bytes]:
    """A task as it stands."""
    state: State = request.app.state.parts
    wait_s = _wait_s(request)
    key = task_id_of(task_id)
    request.scope["task_id"] = str(key) if key else None  # type: ignore[typeddict-unknown-key]  # for the log line
    task = await state.service.get(principal_of(request), key, wait_s=wait_s) if key else None
    if task is None:
        raise RequestError(404, "There is no task with this id.")
    return _task(task)


@delete("/task/{task_id:str}", operation_id="cancelTask", status_code=200)
async def cancel_task(request: Connection, task_id: str) -> Response[bytes]:
    """Cancel a task: 200 and the task as it ended, or 202 while its worker is ending it."""
    state: State = request.app.state.parts
    wait_s = _wait_s(request)
    key = task_id_of(task_id)
    request.scope["task_id"] = str(key) if key else None  # type: ignore[typeddict-unknown-key]  # for the log line
    task = await state.service.cancel(principal_of(request), key, wait_s=wait_s) if key else None
    if task is None:
        raise RequestError(404, "There is no task with this id.")
    return _task(task, status=200 if task.status.final else 202)


@get("/task/{task_id:str}/artifacts/{name:str}", operation_id="getArtifact")
async def get_artifact(request: Connection, task_id: str, name: str) -> Response[bytes]:
    """A file that a task left behind."""
    state: State = request.app.state.parts
    key = task_id_of(task_id)
    artifact = await state.service.artifact(principal_of(request), key, name) if key and "\0" not in name else None
    if artifact is None:
        raise RequestError(404, "There is no such artifact: the task's answer lists those that there are.")
    headers = {
        # never shown in place, whatever it is: it comes from code that nobody has read
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}",
        "ETag": f'"{artifact.sha256}"',
    }
    return Response(artifact.content, media_type="application/octet-stream", headers=headers)


@get("/callbacks", operation_id="listCallbacks")
async def list_callbacks(request: Connection) -> Response[bytes]:
    """The newest callbacks in one state: those that are dead, unless another state is asked for."""
    state: State = request.app.state.parts
    wanted = request.query_params.get("state", "dead")
    if wanted not in CALLBACK_STATES:
        raise RequestError(400, f"must be one of: {', '.join(CALLBACK_STATES)}", path="state")
    found = await state.service.callbacks(principal_of(request), wanted, MAX_CALLBACKS)
    owed = tuple(OwedCallbackAnswer(task_id=task_id, callback=callback) for task_id, callback in found)
    return _json(CallbacksAnswer(callbacks=owed))


@post("/task/{task_id:str}/callback", operation_id="redeliverCallback", status_code=202)
async def redeliver_callback(request: Connection, task_id: str) -> Response[bytes]:
    """Owe the callback of a final task once more, whether it was delivered or given up."""
    state: State = request.app.state.parts
    key = task_id_of(task_id)
    callback = await state.service.redeliver(principal_of(request), key) if key else None
    if callback is None:
        raise RequestError(404, "There is no final task with this id and a callback.")
    return _json(callback, status=202)


@post("/files", operation_id="uploadFile", status_code=201)
async def upload_file(request: Connection) -> Response[bytes]:
    """Keep a file, which tasks then name by its id: the body as it is, or a multipart form with one file."""
    state: State = request.app.state.parts
    async with _room(request, state):
        name, media_type, content = await _uploaded(request)
        kept = await state.service.keep_file(principal_of(request), name, media_type, content)
    return _json(file_answer(kept), status=201)


@get("/scripts", operation_id="listScripts")
async def list_scripts(request: Connection) -> Response[bytes]:
    """The named scripts: what each does, what its args may be, and its hash."""
    service: Service = request.app.state.parts.service
    return _json(ScriptsAnswer(scripts=tuple(describe_scripts(service.settings.scripts_dir))))


@get("/policies", operation_id="listPolicies")
async def list_policies(request: Connection) -> Response[bytes]:
    """Every policy that tasks can run under."""
    service: Service = request.app.state.parts.service
    files = [file for policy in service.policies.all if (file := service.policies.file(policy.name))]
    return _json(PoliciesAnswer(policies=tuple(policy_answer(file, service.settings) for file in files)))


@get("/policies/{name:str}", operation_id="getPolicy")
async def get_policy(request: Connection, name: str) -> Response[bytes]:
    """One policy, with its digest, what is in force of it here, and the grant in plain words."""
    service: Service = request.app.state.parts.service
    file = service.policies.file(name)
    if file is None:
        raise RequestError(404, "There is no policy of this name here; GET /policies lists them.")
    return _json(policy_answer(file, service.settings))


@get("/health", operation_id="getHealth")
async def get_health(request: Connection) -> Response[bytes]:
    """How the service and everything that it needs is; 503 when tasks are not accepted."""
    health = await request.app.state.parts.service.health()
    return _json(health_answer(health), status=200 if health.accepts else 503)


@get("/health/live", operation_id="getLiveness")
async def get_live() -> Response[bytes]:
    """This process answers."""
    return _json(Live())


@get("/health/ready", operation_id="getReadiness")
async def get_ready(request: Connection) -> Response[bytes]:
    """Tasks are accepted here and at least one worker runs them; else 503 and why."""
    health = await request.app.state.parts.service.health()
    return _json(ready_answer(health), status=200 if health.serves else 503)


@get("/metrics", operation_id="getMetrics")
async def get_metrics(request: Connection) -> Response[bytes]:
    """What this process counts, and the queue, for Prometheus."""
    service: Service = request.app.state.parts.service
    await service.health()  # its gauges tell of now
    exposition = expose(service.metrics.registry, request.headers.get("accept", ""))
    return Response(exposition.text, headers={"Content-Type": exposition.media_type})


@get("/metrics/targets", operation_id="getMetricsTargets")
async def get_metrics_targets(request: Connection) -> Response[bytes]:
    """Where the workers serve theirs, for Prometheus' `http_sd_configs`."""
    health = await request.app.state.parts.service.health()
    return _json(targets_answer(health))


@get("/openapi.json", operation_id="getOpenAPI")
async def get_openapi(request: Connection) -> Response[bytes]:
    """This interface as an OpenAPI document."""
    return Response(request.app.state.parts.openapi, media_type=MediaType.JSON)


@get("/docs", operation_id="getDocs")
async def get_docs(request: Connection) -> Response[bytes]:
    """This interface as a page."""
    return Response(request.app.state.parts.docs, media_type=MediaType.HTML)


ROUTES = (
    execute,
    get_task,
    cancel_task,
    get_artifact,
    list_callbacks,
    redeliver_callback,
    upload_file,
    list_scripts,
    list_policies,
    get_policy,
    get_health,
    get_live,
    get_ready,
    get_metrics,
    get_metrics_targets,
    get_openapi,
    get_docs,
)


async def _accept(request: Connection, state: State, task_id: UUID) -> StoredTask:
    """Read, check and store a task. The body is let go of at the end of this, however long the client then waits."""
    async with _room(request, state):
        body = await _body(request)
        checked = await state.checker.check(body)
        ask = Ask(
            task_type=checked.task_type,
            parameters=memoryview(body)[checked.start : checked.end],
            timeout_s=checked.timeout_s,
            labels=checked.labels,
            priority=checked.priority,
            script_name=checked.script_name,
            policy=checked.policy,
            memory_mib=checked.memory_mib,
            callback_url=checked.callback_url,
            file_ids=checked.file_ids,
        )
        return await state.service.submit(principal_of(request), ask, task_id)


async def _uploaded(request: Connection) -> tuple[str, str, bytes]:
    """Name, media type and content of the file in a request."""
    media_type, _ = request.content_type
    if media_type != "multipart/form-data":
        return _file_name(request.query_params.get("name", "")), media_type or _BYTES, await _body(request)
    async with _arriving():
        form = await request.form()
    files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    if len(files) != 1:
        raise RequestError(400, f"The form must have exactly one file; it has {len(files)}.")
    (file,) = files
    return _file_name(file.filename or ""), file.content_type or _BYTES, await file.read()


def _file_name(given: str) -> str:
    """A name for people to know the file by. It never becomes a path."""
    if len(given) > _MAX_FILE_NAME or any(character < " " or character == "\x7f" for character in given):
        raise RequestError(400, f"at most {_MAX_FILE_NAME} characters, none of them a control character", path="name")
    return given or "file"


def principal_of(request: Connection) -> Principal:
    found: Principal = request.scope["principal"]  # type: ignore[typeddict-item]  # the Shell puts it there
    return found


def _task(task: StoredTask, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return _json(task_answer(task), status=status, headers=headers)


def _json(answer: Answer, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(answer), status_code=status, media_type=MediaType.JSON, headers=headers)


def task_id_of(text: str) -> UUID | None:
    """The id, when the text is one in exactly the form that we give out."""
    try:
        task_id = UUID(text)
    except ValueError:
        return None
    return task_id if str(task_id) == text else None


def _wait_s(request: Connection) -> float:
    given = request.query_params.getall("wait", [])
    if not given:
        return 0.0
    try:
        wait_s = float(given[0])
    except ValueError:
        wait_s = math.nan
    if len(given) > 1 or not wait_s >= 0:
        raise RequestError(400, "wait must be one number of seconds, 0 or more", path="wait")
    return min(wait_s, MAX_WAIT_S)


def _check_content_type(request: Connection) -> None:
    media, options = request.content_type
    charset = options.get("charset", "utf-8").strip('"').lower()
    if media.lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise RequestError(415, "Send JSON in UTF-8, with the header Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "Send the body as it is, without Content-Encoding.")


def _room(request: Connection, state: State) -> Any:
    length = request.headers.get("content-length", "")
    small = length.isdecimal() and int(length) <= INLINE_BYTES
    return _NO_LIMIT if small else state.big_bodies


async def _body(request: Connection) -> bytes:
    async with _arriving():
        return await request.body()


@contextlib.asynccontextmanager
async def _arriving() -> AsyncIterator[None]:
    """Waits for a body, and not for ever."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            yield
    except InternalServerException:  # Litestar's word for a client that has gone
        raise RequestError(400, "The body broke off.") from None
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from None


class _NoLimit:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


_NO_LIMIT = _NoLimit()
