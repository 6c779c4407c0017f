"""The OpenAPI document, made from the very types that check requests and shape answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler

from engine.api.access import PUBLIC, SCOPES
from engine.api.answers import (
    CALLBACK_STATES,
    CallbacksAnswer,
    FileAnswer,
    HealthAnswer,
    Live,
    MetricsTargets,
    PoliciesAnswer,
    PolicyAnswer,
    Ready,
    ScriptsAnswer,
    TasksAnswer,
)
from engine.api.body.check import MAX_BATCH
from engine.api.problems import MEDIA_TYPE, Problem
from engine.api.routes.batch import BatchAnswer, BatchItem
from engine.api.routes.listing import MAX_LIMIT
from engine.model.answers import Task
from engine.model.callback import Callback
from engine.model.principal import Scope
from engine.model.request import ExecuteItem, ExecuteRequest
from engine.model.status import TASK_TYPES, Status
from handlers.parameters.image_options import OPTIONS
from handlers.parameters.registry import PARAMETERS, structs, tag_field
from sandbox import ExitReason

ANSWERS = (
    Callback, CallbacksAnswer, FileAnswer, HealthAnswer, Live, MetricsTargets, PoliciesAnswer,
    PolicyAnswer, Problem, Ready, ScriptsAnswer, TasksAnswer,
)  # fmt: skip
REF = "#/components/schemas/{name}"

EXAMPLES: dict[str, dict[str, Any]] = {
    "data_processing": {
        "operation": "statistics",
        "data": [
            {"value": 10, "category": "A"},
            {"value": 20, "category": "B"},
            {"value": 15, "category": "A"},
        ],
    },
    "document_processing": {
        "document_type": "txt",
        "operation": "summarize",
        "sentences": 1,
        "content": "Ada Lovelace translated an article about Babbage's engine. Her notes on the engine were longer "
        "than the article about the engine. They hold what many call the first program. It rained.",
    },
    "image_processing": {
        "image_path": {
            "base64": "iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAIAAADwyuo0AAAAEklEQVR42mOUm/CfAQaYGJAAACelAbFV"
            "ezxqAAAAAElFTkSuQmCC"
        },
        "operation": "resize",
        "options": {"width": 64, "height": 64, "mode": "fit"},
    },
    "web_scraping": {"url": "https://example.com", "selector": "h1, h2, p"},
    "ml_inference": {
        "model_type": "sentiment",
        "input_data": "This product is absolutely amazing!",
    },
    "custom_script": {
        "script": "data_analysis.py",
        "args": {"data": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], "operation": "correlation"},
    },
}

_WAIT = {
    "name": "wait",
    "in": "query",
    "required": False,
    "description": "Seconds to wait for the task to end; more than 300 counts as 300.",
    "schema": {"type": "number", "minimum": 0},
    "example": 10,
}
_FILE_NAME = {
    "name": "name",
    "in": "query",
    "description": "A name for people, when the body is the file itself.",
    "schema": {"type": "string", "maxLength": 255},
}
_FILE_BODY = {
    "description": "The file as it is, or a form with exactly one. Nothing at all is an empty file.",
    "required": False,
    "content": {
        "application/octet-stream": {},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
    },
}


def _in_path(name: str, description: str, **schema: str) -> dict[str, Any]:
    """A part of the path."""
    about = {"name": name, "in": "path", "required": True, "description": description}
    return about | {"schema": {"type": "string", **schema}}


_TASK_ID = _in_path("task_id", "The task's id, as it was given out.", format="uuid")
_ARTIFACT_NAME = _in_path("name", "Name of the artifact, as the task's answer lists it.")
_POLICY_NAME = _in_path("name", "Name of the policy.")
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Sent again with the same request it gives the same task, for as long as that is kept; with another "
    "request it is refused.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def _in_query(name: str, description: str, *, repeats: bool = False, **schema: Any) -> dict[str, Any]:
    """A part of the query."""
    schema = {"type": "array", "items": schema} if repeats else schema
    return {"name": name, "in": "query", "description": description, "schema": schema}


_LIST_PARAMETERS = [
    _in_query("status", "Only these.", repeats=True, type="string", enum=[status.value for status in Status]),
    _in_query("task_type", "Only this.", type="string", enum=list(TASK_TYPES)),
    _in_query("exit_reason", "Only these.", repeats=True, type="string", enum=[reason.value for reason in ExitReason]),
    _in_query("label", "Only tasks with all of these, as NAME:VALUE.", repeats=True, type="string", pattern="^[^:]+:"),
    _in_query("created_after", "Accepted then or later.", type="string", format="date-time"),
    _in_query("created_before", "Accepted before.", type="string", format="date-time"),
    _in_query("limit", "Tasks of a page.", type="integer", minimum=1, maximum=MAX_LIMIT, default=50),
    _in_query("cursor", "The page after: the last one's `next_cursor`.", type="string", pattern="^[A-Za-z0-9_-]+$"),
]
_CALLBACK_STATE = {
    "name": "state",
    "in": "query",
    "description": "Which callbacks; those that were given up unless another state is named.",
    "schema": {"type": "string", "enum": list(CALLBACK_STATES), "default": "dead"},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "Id of the last event that the client has: the stream goes on after it.",
    "schema": {"type": "string", "pattern": r"^(end|[0-9]{1,9}-[0-9]{1,9})?$"},
}
_EVENTS = (
    "Server-sent events, until the task has ended. `status` {status, attempt}; `log` {stream, text} as it is printed, "
    "`progress` {fraction, message} as it is reported; `gap` {missing}: so many of the two were lost. The last is "
    "`result`, the task as `GET /task/{task_id}` gives it, or `error`, a problem document: where it has a `retry`, "
    "come again with the id of the last event."
)
_KEY = "`uak_…`, as `python -m engine keys new` prints it. Development without keys needs none."
_PROBLEMS = {
    400: "Something in the request cannot be; `errors` names the part.",
    401: "No key, or none that holds.",
    403: "The key does not open this call, or not this policy.",
    404: "There is no task with this id.",
    405: "This path does not know this method.",
    409: "The idempotency key stands for another request.",
    408: "The body took too long.",
    413: "The body is too long.",
    415: "The body is not JSON in UTF-8.",
    429: "More than the tenant's quota, or too many of its requests open; try again after `Retry-After` seconds.",
    503: "PostgreSQL is away. Nothing is promised: try again after `Retry-After` seconds.",
}


def build_openapi(routes: Iterable[HTTPRouteHandler], task_types: Iterable[str], version: str) -> dict[str, Any]:
    """The document.

    Args:
        routes: the calls; path, method, id and summary come from them.
        task_types: those that are available here.
        version: of the service.
    """
    available = [task_type for task_type in task_types if task_type in PARAMETERS]
    parameters = [kind if tag_field(name) else _documented(kind) for name in available for kind in structs(name)]
    options = [_documented(kind, name=f"{kind.__name__}Options") for kind in OPTIONS.values()]
    task = _documented(Task)
    types = [task, _documented_batch(task), *ANSWERS, *parameters, *options]
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    if "ImageProcessing" in components:  # raw JSON to the decoder, which reads it by its operation
        refs = [{"$ref": REF.format(name=kind.__name__)} for kind in options]
        components["ImageProcessing"]["properties"]["options"]["anyOf"] = refs
    for name in available:
        if tag := tag_field(name):
            components |= _union_schemas(name, tag, components)
    requests = {f"Execute{_name(name)}": _request_schema(name) for name in available}
    paths: dict[str, Any] = {}
    for route in routes:
        path = next(iter(route.paths)).replace(":str", "")
        method = next(iter(route.http_methods)).lower()
        paths.setdefault(path, {})[method] = _behind_a_key(route, _operation(route, path, available))
    items = {name.replace("Execute", "ExecuteItem", 1): _as_item(schema) for name, schema in requests.items()}
    unions = {
        "ExecuteRequest": _any_request(requests, available),
        "ExecuteItem": _any_request(items, available),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "UnityAI Python worker",
            "version": version,
            "description": "Runs code that nobody has read, each task in a single-use sandbox.",
        },
        "paths": paths,
        "components": {
            "schemas": components | requests | items | unions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": _KEY}},
        },
    }


def _behind_a_key(route: HTTPRouteHandler, operation: dict[str, Any]) -> dict[str, Any]:
    """What a call says of the key that it needs; where there are no keys it needs none."""
    scope = SCOPES[str(route.operation_id)]
    if scope == PUBLIC:
        return operation
    refusals = _problems(401, 403, 429)
    opened = f"Needs a key with the scope `{scope}`." if isinstance(scope, Scope) else "Needs a key, of any scope."
    return operation | {
        "description": opened,
        "responses": operation["responses"] | refusals,
        "security": [{"key": []}, {}],
    }


def _operation(route: HTTPRouteHandler, path: str, available: list[str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": (route.fn.__doc__ or "").strip().splitlines()[0],
    }
    operation |= _OPERATIONS.get(str(route.operation_id), {})
    if route.operation_id == "executeBatch":
        operation["requestBody"] = _batch_body()
    if path == "/execute":
        operation["parameters"] = [_WAIT, _IDEMPOTENCY_KEY]
        operation["requestBody"] = _body(available)
        operation["responses"] = {
            "200": _answer("The task as it ended, within the time to wait.", "Task"),
            "202": _answer("The task is accepted and will be run.", "Task") | {"headers": _LOCATION},
            **_problems(400, 405, 408, 409, 413, 415, 503),
        }
    elif route.operation_id == "getTask":
        operation["parameters"] = [_TASK_ID, _WAIT]
        operation["responses"] = {"200": _answer("The task.", "Task"), **_problems(400, 404, 405, 503)}
    elif path == "/task/{task_id}/artifacts/{name}":
        operation["parameters"] = [_TASK_ID, _ARTIFACT_NAME]
        file = {"description": "Its bytes.", "content": {"application/octet-stream": {}}}
        same = {"description": "It is what `If-None-Match` names."}
        operation["responses"] = {"200": file, "304": same, **_problems(400, 404, 405, 503)}
    elif path == "/files":
        operation["parameters"] = [_FILE_NAME]
        operation["requestBody"] = _FILE_BODY
        operation["responses"] = {"201": _answer("It is kept.", "FileAnswer"), **_problems(400, 405, 408, 413, 503)}
    elif path.startswith(("/health", "/metrics")):
        operation["responses"] = _operators_responses(path)
    elif "responses" not in operation:
        media = "text/html" if path == "/docs" else "application/json"
        operation["responses"] = {"200": {"description": "The document.", "content": {media: {}}}}
    return operation


def _operators_responses(path: str) -> dict[str, Any]:
    """Of the calls for those who operate the service."""
    if path == "/metrics":
        return {"200": {"description": "The metrics.", "content": {"text/plain": {}}}}
    if path == "/metrics/targets":
        schema = {"type": "array", "items": {"$ref": REF.format(name="MetricsTargets")}}
        return {"200": {"description": "The targets.", "content": {"application/json": {"schema": schema}}}}
    if path == "/health/live":
        return {"200": _answer("It is alive.", "Live")}
    name = "Ready" if path == "/health/ready" else "HealthAnswer"
    return {"200": _answer("It is well.", name), "503": _answer("It is not, and why.", name)}


_LOCATION = {"Location": {"description": "Path of the task.", "schema": {"type": "string"}}}


def _body(available: list[str]) -> dict[str, Any]:
    examples = {
        name: {"value": {"task_type": name, "parameters": EXAMPLES[name]}} for name in available if name in EXAMPLES
    }
    schema = {"$ref": REF.format(name="ExecuteRequest")}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _batch_body() -> dict[str, Any]:
    schema = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": {"$ref": REF.format(name="ExecuteItem")}}
    first, second = EXAMPLES["custom_script"], EXAMPLES["ml_inference"]
    example = [
        {"task_type": "custom_script", "parameters": first, "idempotency_key": "order-4711"},
        {"task_type": "ml_inference", "parameters": second, "priority": "low"},
    ]
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _answer(description: str, name: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": REF.format(name=name)}}},
    }


def _problems(*statuses: int) -> dict[str, Any]:
    schema = {"$ref": REF.format(name="Problem")}
    return {
        str(status): {"description": _PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


_OPERATIONS: dict[str, dict[str, Any]] = {
    "followTask": {
        "parameters": [_TASK_ID, _LAST_EVENT_ID],
        "responses": {
            "200": {"description": _EVENTS, "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            "204": {"description": "The client has seen the end (`Last-Event-ID: end`)."},
            **_problems(400, 404, 405, 503),
        },
    },
    "executeBatch": {
        "responses": {
            "200": _answer("What became of each, in their order.", "BatchAnswer"),
            **_problems(400, 405, 408, 413, 415, 503),
        },
    },
    "listTasks": {
        "parameters": _LIST_PARAMETERS,
        "responses": {"200": _answer("A page of the list.", "TasksAnswer"), **_problems(400, 405, 503)},
    },
    "cancelTask": {
        "parameters": [_TASK_ID, _WAIT],
        "responses": {
            "200": _answer("The task as it ended, now or before.", "Task"),
            "202": _answer("It still runs; its worker is ending it.", "Task"),
            **_problems(400, 404, 405, 503),
        },
    },
    "listCallbacks": {
        "parameters": [_CALLBACK_STATE],
        "responses": {"200": _answer("The callbacks.", "CallbacksAnswer"), **_problems(400, 405, 503)},
    },
    "listScripts": {"responses": {"200": _answer("The scripts.", "ScriptsAnswer"), **_problems(405)}},
    "listPolicies": {"responses": {"200": _answer("The policies.", "PoliciesAnswer"), **_problems(405)}},
    "getPolicy": {
        "parameters": [_POLICY_NAME],
        "responses": {"200": _answer("The policy.", "PolicyAnswer"), **_problems(404, 405)},
    },
    "redeliverCallback": {
        "parameters": [_TASK_ID],
        "responses": {"202": _answer("It is owed once more.", "Callback"), **_problems(404, 405, 503)},
    },
}


def _request_schema(task_type: str) -> dict[str, Any]:
    """The schema of one task type's request: the common fields, with its own parameters."""
    _, components = msgspec.json.schema_components([ExecuteRequest], ref_template=REF)
    schema: dict[str, Any] = components["ExecuteRequest"]
    name = _name(task_type)
    summary = _summary(task_type)
    properties = dict(schema["properties"])
    properties["task_type"] = {"const": task_type, "type": "string"}
    properties["parameters"] = {"$ref": REF.format(name=name)}
    return schema | {"title": f"Execute{name}", "description": summary, "properties": properties}


def _name(task_type: str) -> str:
    """Name of the schema of a task type's parameters."""
    return task_type.title().replace("_", "")


def _summary(task_type: str) -> str:
    """What a task type is for: its Struct says it, or the base of its Structs."""
    kinds = structs(task_type)
    base = next(base for base in kinds[0].__mro__ if all(issubclass(kind, base) for kind in kinds))
    return (base.__doc__ or "").strip().splitlines()[0]


def _union_schemas(task_type: str, tag: str, components: dict[str, Any]) -> dict[str, Any]:
    """The schema of parameters that are one of several Structs, and those of the Structs, each with an example.

    The example has the required fields of the Struct, which come first, each as the first example of its own has it.
    """
    schemas, mapping = {}, {}
    for kind in structs(task_type):
        value, schema = str(kind.__struct_config__.tag), components[kind.__name__]
        fields = schema["properties"] | {tag: {"type": "string", "const": value, "examples": [value]}}
        example = {name: fields[name]["examples"][0] for name in schema["required"]}
        ordered = {name: fields[name] for name in example | fields}
        schemas[kind.__name__] = schema | {"properties": ordered, "examples": [example]}
        mapping[value] = REF.format(name=kind.__name__)
    schemas[_name(task_type)] = {
        "title": _name(task_type),
        "description": _summary(task_type),
        "oneOf": [{"$ref": ref} for ref in mapping.values()],
        "discriminator": {"propertyName": tag, "mapping": mapping},
    }
    return schemas


def _as_item(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a request as one of several."""
    _, components = msgspec.json.schema_components([ExecuteItem], ref_template=REF)
    key = components["ExecuteItem"]["properties"]["idempotency_key"]
    title = schema["title"].replace("Execute", "ExecuteItem", 1)
    return schema | {"title": title, "properties": schema["properties"] | {"idempotency_key": key}}


def _documented(kind: type[msgspec.Struct], *, name: str = "") -> type[msgspec.Struct]:
    """The same Struct, untagged, with defaults that a JSON schema can show: a raw JSON text becomes its value.

    Args:
        kind: the Struct.
        name: what it is called in the document; its own name unless given.
    """
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.required:
            fields.append((field.name, field.type))
        elif isinstance(field.default, msgspec.Raw):
            fields.append((field.name, field.type, msgspec.json.decode(field.default)))
        elif field.default is not msgspec.NODEFAULT:
            fields.append((field.name, field.type, field.default))
        else:
            fields.append((field.name, field.type, msgspec.field(default_factory=field.default_factory)))
    return msgspec.defstruct(
        name or kind.__name__, fields, kw_only=True, forbid_unknown_fields=True, namespace={"__doc__": kind.__doc__}
    )


def _documented_batch(task: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """``BatchAnswer`` over the documented form of a task."""
    fields = [
        (field.name, task | None if field.name == "task" else field.type, field.default)
        for field in msgspec.structs.fields(BatchItem)
        if not field.required
    ]
    item = msgspec.defstruct(
        "BatchItem", [("status", int), *fields], kw_only=True, namespace={"__doc__": BatchItem.__doc__}
    )
    items: Any = tuple[item, ...]  # type: ignore[valid-type]  # a type that is made here
    return msgspec.defstruct("BatchAnswer", [("tasks", items)], namespace={"__doc__": BatchAnswer.__doc__})


def _any_request(requests: dict[str, Any], available: list[str]) -> dict[str, Any]:
    refs = [REF.format(name=name) for name in requests]
    return {
        "oneOf": [{"$ref": ref} for ref in refs],
        "discriminator": {"propertyName": "task_type", "mapping": dict(zip(available, refs, strict=True))},
    }
