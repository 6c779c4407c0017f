"""Every call. Those about the service and about files stand here, each a line or two; all others in modules beside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import AsyncIterator
from typing import IO, NamedTuple, cast

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.datastructures import UploadFile

from engine.api.answers import (
    FileAnswer,
    FilesAnswer,
    HealthAnswer,
    LibrariesAnswer,
    MetricsTargets,
    PoliciesAnswer,
    PolicyAnswer,
    Ready,
    ScriptsAnswer,
    file_answer,
    health_answer,
    policy_answer,
    ready_answer,
    targets_answer,
)
from engine.api.call import ANY_KEY, PUBLIC, Answer, call, in_path, in_query
from engine.api.docs.examples import file_body
from engine.api.problems import RequestError
from engine.api.routes.events import EVENT_ROUTES
from engine.api.routes.requests import (
    ApiRequest,
    State,
    answer_json,
    arriving,
    found_policy,
    principal_of,
    room_for,
)
from engine.api.routes.session import SESSION_ROUTES
from engine.api.routes.tasks import TASK_ROUTES
from engine.api.routes.trail import TRAIL_ROUTES
from engine.config.libraries import describe_sets, find_sets
from engine.config.scripts import describe_scripts
from engine.model.principal import Scope
from engine.model.receipt import PublicKeys
from engine.policies.lock import stand_against_lock
from engine.service.service import Service
from engine.telemetry.metrics import Liveness, expose

SPOOL_BYTES = 1 << 20
_BYTES = "application/octet-stream"
_MAX_FILE_NAME = 255
_FULL_FOLDER_S = 10
_MAX_FILES = 500
FILE_NAME = in_query(
    "name",
    "A name for people, when the body is the file itself. The service never uses it as a path.",
    type="string",
    maxLength=_MAX_FILE_NAME,
)


@post(
    "/files",
    operation_id="uploadFile",
    status_code=201,
    opt=call(
        Scope.SUBMIT,
        parameters=(FILE_NAME,),
        body=file_body,
        answers={201: Answer("The service keeps the file. Tasks name it by `file_id`.", FileAnswer)},
        problems=(400, 408, 413, 503, 507),
    ),
)
async def upload_file(request: ApiRequest) -> Response[bytes]:
    """Upload a file for tasks to read.

    The body is the file as it is, or a multipart form with exactly one file.
    """
    state: State = request.app.state.parts
    async with _uploaded(request) as upload, room_for(request, state):
        content = await asyncio.to_thread(upload.file.read)
        kept = await state.service.keep_file(principal_of(request), upload.name, upload.media_type, content)
    return answer_json(file_answer(kept), status=201)


@get(
    "/files",
    operation_id="listFiles",
    opt=call(
        Scope.READ,
        answers={200: Answer("At most 500 files, the newest first.", FilesAnswer)},
        problems=(503,),
    ),
)
async def list_files(request: ApiRequest) -> Response[bytes]:
    """List the tenant's uploaded files, and how much the tenant has stored."""
    service: Service = request.app.state.parts.service
    principal = principal_of(request)
    found, stored_bytes = await service.list_files(principal, _MAX_FILES)
    files = tuple(FileAnswer(**msgspec.structs.asdict(file)) for file in found)
    limit = service.settings.quotas_of(principal.quotas).stored_mib
    return answer_json(FilesAnswer(files=files, stored_bytes=stored_bytes, stored_mib=limit))


@delete(
    "/files/{file_id:str}",
    operation_id="deleteFile",
    status_code=204,
    opt=call(
        Scope.SUBMIT,
        parameters=(in_path("file_id", "The file's id, as its upload answered it."),),
        answers={204: Answer("The file is deleted.")},
        problems=(404, 409, 503),
    ),
)
async def delete_file(request: ApiRequest, file_id: str) -> None:
    """Delete an uploaded file before its time is over."""
    service: Service = request.app.state.parts.service
    became = await service.delete_file(principal_of(request), file_id) if "\0" not in file_id else "missing"
    if became == "missing":
        raise RequestError(404, "There is no file with this id: GET /files lists yours, until they expire.")
    if became == "waited for":
        raise RequestError(409, "A task that has not ended names this file. Wait for its end, or cancel it.")
    request.scope["deleted"] = {"file_id": file_id}  # type: ignore[typeddict-unknown-key]  # for the audit log


@get(
    "/scripts",
    operation_id="listScripts",
    opt=call(Scope.SUBMIT, answers={200: Answer("The scripts.", ScriptsAnswer)}),
)
async def list_scripts(request: ApiRequest) -> Response[bytes]:
    """List the named scripts: what each does, its arguments, and the SHA-256 of its file."""
    service: Service = request.app.state.parts.service
    return answer_json(ScriptsAnswer(scripts=tuple(describe_scripts(service.settings.scripts_dir))))


@get(
    "/libraries",
    operation_id="listLibraries",
    opt=call(Scope.SUBMIT, answers={200: Answer("The sets.", LibrariesAnswer)}),
)
async def list_libraries(request: ApiRequest) -> Response[bytes]:
    """List the libraries that scripts and handlers may import: per set, the name, version and summary of each."""
    service: Service = request.app.state.parts.service
    sets = await asyncio.to_thread(describe_sets, service.settings.libraries_dir)
    return answer_json(LibrariesAnswer(sets=sets))


@get(
    "/policies",
    operation_id="listPolicies",
    opt=call(Scope.AUDIT, answers={200: Answer("The policies.", PoliciesAnswer)}),
)
async def list_policies(request: ApiRequest) -> Response[bytes]:
    """List the policies that tasks can run under."""
    service: Service = request.app.state.parts.service
    files = [file for policy in service.policies.all if (file := service.policies.file(policy.name))]
    sets = await asyncio.to_thread(find_sets, service.settings.libraries_dir)
    locked = await asyncio.to_thread(stand_against_lock, service.settings.policies_dir, service.policies.all)
    found = tuple(policy_answer(file, service.settings, sets, locked[file.policy.name]) for file in files)
    return answer_json(PoliciesAnswer(policies=found))


@get(
    "/policies/{name:str}",
    operation_id="getPolicy",
    opt=call(
        Scope.AUDIT,
        parameters=(in_path("name", "Name of the policy."),),
        answers={200: Answer("The policy.", PolicyAnswer)},
        problems=(404,),
    ),
)
async def get_policy(request: ApiRequest, name: str) -> Response[bytes]:
    """Get a policy: the whole file, its digest, the limits in force here, and the grant in plain words."""
    service: Service = request.app.state.parts.service
    file = found_policy(service.policies.file(name))
    sets = await asyncio.to_thread(find_sets, service.settings.libraries_dir)
    locked = await asyncio.to_thread(stand_against_lock, service.settings.policies_dir, service.policies.all)
    return answer_json(policy_answer(file, service.settings, sets, locked[name]))


@get(
    "/health",
    operation_id="getHealth",
    opt=call(
        Scope.AUDIT,
        answers={
            200: Answer("The service accepts tasks. `status` is ok or degraded.", HealthAnswer),
            503: Answer("The service does not accept tasks. `reasons` says why.", HealthAnswer),
        },
    ),
)
async def get_health(request: ApiRequest) -> Response[bytes]:
    """Get the health of the service, of its dependencies and of each worker."""
    health = await request.app.state.parts.service.health()
    return answer_json(health_answer(health), status=200 if health.accepts else 503)


@get(
    "/health/live",
    operation_id="getLiveness",
    opt=call(
        PUBLIC,
        answers={
            200: Answer("The process answers, and goes on with all that it should do.", Liveness),
            503: Answer("A loop of the process is dead: it is better started anew.", Liveness),
        },
    ),
)
async def get_live(request: ApiRequest) -> Response[bytes]:
    """Say whether this process goes on. For the probes of containers. What is unreachable does not matter here."""
    dead = request.app.state.parts.service.loops.dead()
    return answer_json(Liveness(status="failing" if dead else "ok", dead=dead), status=503 if dead else 200)


@get(
    "/health/ready",
    operation_id="getReadiness",
    opt=call(
        PUBLIC,
        answers={
            200: Answer("The service accepts and runs tasks.", Ready),
            503: Answer("The service does not accept tasks, or no worker runs them. `reasons` says why.", Ready),
        },
    ),
)
async def get_ready(request: ApiRequest) -> Response[bytes]:
    """Say whether the service accepts tasks and at least one worker runs them. For load balancers."""
    health = await request.app.state.parts.service.health()
    return answer_json(ready_answer(health), status=200 if health.serves else 503)


@get(
    "/.well-known/unityai-receipt-keys",
    operation_id="getReceiptKeys",
    opt=call(PUBLIC, answers={200: Answer("The keys, as a JSON Web Key Set.", PublicKeys)}, problems=(404,)),
)
async def get_receipt_keys(request: ApiRequest) -> Response[bytes]:
    """Get the public keys that receipts are checked with. 404 where the service signs none."""
    service: Service = request.app.state.parts.service
    return answer_json(service.receipt_signer.public)


@get(
    "/metrics",
    operation_id="getMetrics",
    opt=call(Scope.METRICS, answers={200: Answer("The metrics, in Prometheus' text format.", media_type="text/plain")}),
)
async def get_metrics(request: ApiRequest) -> Response[bytes]:
    """Get the metrics of this process and of the queue, for Prometheus."""
    service: Service = request.app.state.parts.service
    await service.health()  # its gauges tell of now
    exposition = expose(service.metrics.registry, request.headers.get("accept", ""))
    return Response(exposition.text, headers={"Content-Type": exposition.media_type})


@get(
    "/metrics/targets",
    operation_id="getMetricsTargets",
    opt=call(Scope.METRICS, answers={200: Answer("The targets.", tuple[MetricsTargets, ...])}),
)
async def get_metrics_targets(request: ApiRequest) -> Response[bytes]:
    """List the addresses where the workers serve their metrics, for Prometheus' `http_sd_configs`."""
    health = await request.app.state.parts.service.health()
    return answer_json(targets_answer(health))


@get(
    "/openapi.json",
    operation_id="getOpenAPI",
    opt=call(ANY_KEY, answers={200: Answer("The document.", media_type="application/json")}),
)
async def get_openapi(request: ApiRequest) -> Response[bytes]:
    """Get this interface as an OpenAPI document."""
    return Response(request.app.state.parts.openapi, media_type=MediaType.JSON)


@get(
    "/docs",
    operation_id="getDocs",
    opt=call(ANY_KEY, answers={200: Answer("The page.", media_type="text/html")}),
)
async def get_docs(request: ApiRequest) -> Response[bytes]:
    """Read this interface as a page."""
    return Response(request.app.state.parts.docs, media_type=MediaType.HTML)


ROUTES = (
    *TASK_ROUTES,
    *EVENT_ROUTES,
    *SESSION_ROUTES,
    *TRAIL_ROUTES,
    upload_file,
    list_files,
    delete_file,
    list_scripts,
    list_libraries,
    list_policies,
    get_policy,
    get_health,
    get_live,
    get_ready,
    get_receipt_keys,
    get_metrics,
    get_metrics_targets,
    get_openapi,
    get_docs,
)


class Upload(NamedTuple):
    """A file that has arrived: on disk, unless it is small, so that slow clients hold no memory."""

    name: str
    media_type: str
    file: IO[bytes]
    """At its beginning."""


@contextlib.asynccontextmanager
async def _uploaded(request: ApiRequest) -> AsyncIterator[Upload]:
    """The file in a request."""
    media_type, _ = request.content_type
    if media_type == "multipart/form-data":
        async with _on_disk(), arriving():
            form = await request.form()  # which Litestar spools
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        if len(files) != 1:
            raise RequestError(400, f"The form must have exactly one file; it has {len(files)}.")
        (file,) = files
        file.file.seek(0)
        yield Upload(_file_name(file.filename or ""), file.content_type or _BYTES, file.file)
        return
    name = _file_name(request.query_params.get("name", ""))
    spooled = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  closed beside the loop
    try:
        async with _on_disk(), arriving():
            async for part in _large_parts(request.stream()):  # which ends with 413 beyond MAX_BODY_MIB
                await asyncio.to_thread(spooled.write, part)
        spooled.seek(0)
        yield Upload(name, media_type or _BYTES, cast(IO[bytes], spooled))
    finally:
        await asyncio.to_thread(spooled.close)  # to free 60 MiB of a disk takes 40 ms


@contextlib.asynccontextmanager
async def _on_disk() -> AsyncIterator[None]:
    """What arrives is written to a folder that may become full: in a container it is small, and many may upload."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        said = "The folder for files that are arriving is full. Nothing was kept: try again after Retry-After seconds."
        raise RequestError(503, said, headers={"Retry-After": str(_FULL_FOLDER_S)}) from None


async def _large_parts(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in few parts: each is written in a thread, for a full disk cache makes its writer wait."""
    gathered = bytearray()
    async for part in stream:
        gathered += part
        if len(gathered) >= SPOOL_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _file_name(given: str) -> str:
    """A name for people to know the file by. It never becomes a path."""
    if len(given) > _MAX_FILE_NAME or any(character < " " or character == "\x7f" for character in given):
        raise RequestError(400, f"at most {_MAX_FILE_NAME} characters, none of them a control character", path="name")
    return given or "file"
