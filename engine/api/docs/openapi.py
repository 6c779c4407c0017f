"""The OpenAPI document, made from the routes and from the very types that check requests and shape answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler

from engine.api.call import PUBLIC, Answer, Call, call_of
from engine.api.docs.answers import AnswerExamples, read_examples
from engine.api.docs.examples import BYTES
from engine.api.docs.results import OTHERS, RESULTS
from engine.api.problems import MEDIA_TYPE, Problem
from engine.model.answers import Task
from engine.model.principal import Scope
from engine.model.request import ExecuteItem, ExecuteRequest
from handlers.parameters.image_options import OPTIONS
from handlers.parameters.registry import PARAMETERS, structs, tag_field

_PLAIN: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "application/octet-stream": BYTES,
        "application/json": {"type": "object"},
        "text/event-stream": {"type": "string"},
        "text/html": {"type": "string"},
        "text/plain": {"type": "string"},
    }
)
"""Media type of an answer that is no Struct → its schema."""
REF = "#/components/schemas/{name}"

PROBLEMS = MappingProxyType(
    {
        400: "A part of the request is invalid; `errors` names it.",
        401: "Missing, invalid or expired API key.",
        403: "The key lacks the scope of this call, or may not use this policy.",
        404: "The tenant has nothing under this id or name.",
        405: "This path does not take this method.",
        408: "The body took too long to arrive.",
        409: "Another request used this idempotency key.",
        410: "The artifact has been deleted.",
        413: "The body is longer than MAX_BODY_MIB.",
        415: "The body is not JSON in UTF-8.",
        429: "The tenant's quota is used up, or it has too many open requests. Try again after `Retry-After` seconds.",
        503: "PostgreSQL is unreachable, or the service is at a limit. The request has no confirmed effect: try again "
        "after `Retry-After` seconds.",
        507: "The service's storage is almost full. It accepts no tasks and no files until there is room.",
    }
)
"""Status → what it means, whichever call is refused with it."""
BY_ANY_CALL = (405,)
BY_A_CALL_WITH_A_KEY = (401, 403, 429)
_KEY = "`uak_…`, as `python -m engine keys new` prints it. A service without API_KEYS_FILE (development) needs none."


def build_openapi(routes: Sequence[HTTPRouteHandler], task_types: Sequence[str], version: str) -> dict[str, Any]:
    """The document.

    Args:
        routes: the calls; each says what it takes and answers (``Call``).
        task_types: those that are available here.
        version: of the service.
    """
    available = [task_type for task_type in task_types if task_type in PARAMETERS]
    examples = read_examples()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = next(iter(route.paths)).replace(":str", "").replace(":path", "")
        method = next(iter(route.http_methods)).lower()
        paths.setdefault(path, {})[method] = _operation(route, _said(route), available, examples)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "UnityAI Python worker",
            "version": version,
            "description": "Runs code that nobody has read, each task in a single-use sandbox.",
        },
        "paths": paths,
        "components": {
            "schemas": _with_patterns_of_json_schema(
                _answer_schemas(routes)
                | _task_schemas(available)
                | _parameter_schemas(available)
                | _request_schemas(available)
            ),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": _KEY}},
        },
    }


# ---- calls -----------------------------------------------------------------------------------------------------------


def _said(route: HTTPRouteHandler) -> Call:
    if (said := call_of(route)) is None:
        raise ValueError(f"the route {route.operation_id} has no call() in its opt")
    return said


def _operation(route: HTTPRouteHandler, said: Call, available: list[str], examples: AnswerExamples) -> dict[str, Any]:
    summary, _, more = (route.fn.__doc__ or "").strip().partition("\n")
    text = [" ".join(more.split()), _opened_by(said)]
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": summary,
        "description": "\n\n".join(part for part in text if part),
        "responses": {
            str(status): _response(answer, examples.get(f"{route.operation_id} {status}", {}))
            for status, answer in said.answers.items()
        },
    }
    if said.parameters:
        operation["parameters"] = list(said.parameters)
    if said.body:
        operation["requestBody"] = said.body(available)
    refused = {*said.problems, *BY_ANY_CALL}
    if said.scope != PUBLIC:
        operation["security"] = [{"key": []}, {}]
        refused |= set(BY_A_CALL_WITH_A_KEY)
    operation["responses"] |= {
        str(status): _problem(status, examples) for status in sorted(refused - said.answers.keys())
    }
    return operation


def _opened_by(said: Call) -> str:
    if said.scope == PUBLIC:
        return "Needs no key."
    return f"Needs a key with the scope `{said.scope}`." if isinstance(said.scope, Scope) else "Needs a key."


def _response(answer: Answer, examples: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.type is not None:
        (schema,), _ = msgspec.json.schema_components([answer.type], ref_template=REF)
        response["content"] = {"application/json": {"schema": schema} | _shown(examples)}
    elif answer.media_type is not None:
        response["content"] = {answer.media_type: {"schema": answer.schema or _PLAIN[answer.media_type]}}
    return response | ({"headers": answer.headers} if answer.headers else {})


def _problem(status: int, examples: AnswerExamples) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=Problem.__name__)}
    shown = _shown(examples.get(f"problem {status}", {}))
    return {"description": PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": schema} | shown}}


def _shown(examples: dict[str, Any]) -> dict[str, Any]:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}


# ---- types -----------------------------------------------------------------------------------------------------------


def _answer_schemas(routes: Sequence[HTTPRouteHandler]) -> dict[str, Any]:
    types = [answer.type for route in routes for answer in _said(route).answers.values() if answer.type is not None]
    return _sent_schemas([*types, Problem])


def _sent_schemas(types: Sequence[Any]) -> dict[str, Any]:
    """The schemas of what the service sends: a field that it always sends is required, also where it has a default."""
    _, schemas = msgspec.json.schema_components(types, ref_template=REF)
    for kind in _structs_in(types):
        schema = schemas[kind.__name__]
        may_lack = {
            field.encode_name
            for field in msgspec.structs.fields(kind)
            if field.default is msgspec.UNSET or (kind.__struct_config__.omit_defaults and not field.required)
        }
        schema["required"] = [name for name in schema["properties"] if name not in may_lack]
    return schemas


def _with_patterns_of_json_schema(schema: Any) -> Any:
    """The same, with the ends of patterns as JSON Schema writes them, which has no ``\\A`` and ``\\Z`` of Python's."""
    if isinstance(schema, list):
        return [_with_patterns_of_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _with_patterns_of_json_schema(one) for name, one in schema.items()}
    if isinstance(pattern := schema.get("pattern"), str):
        found["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    return found


def _structs_in(types: Sequence[Any]) -> set[type[msgspec.Struct]]:
    """Every Struct that values of these types hold."""
    found: set[type[msgspec.Struct]] = set()

    def look(part: Any) -> None:
        if isinstance(part, msgspec.inspect.StructType):
            if part.cls not in found:
                found.add(part.cls)
                for field in part.fields:
                    look(field.type)
        elif isinstance(part, msgspec.Struct):
            for name in part.__struct_fields__:
                value = getattr(part, name)
                for one in value if isinstance(value, tuple) else (value,):
                    look(one)

    for one in msgspec.inspect.multi_type_info(types):
        look(one)
    return found


def _task_schemas(available: list[str]) -> dict[str, Any]:
    """For each task type the task with its own result, and their union."""
    kinds = [kind for name in available for kind in RESULTS.get(name, ())]
    schemas, names = _sent_schemas([*kinds, *OTHERS, Task]), {name: f"{_name(name)}Task" for name in available}
    task = schemas[Task.__name__]
    for task_type, name in names.items():
        own = {"task_type": {"const": task_type, "type": "string"}, "result": _result_schema(task_type, task)}
        schemas[name] = task | {"title": name, "properties": task["properties"] | own}
    for task_type in available:
        if len(found := RESULTS.get(task_type, ())) > 1:
            schemas[f"{_name(task_type)}Result"] = _result_union(found, schemas)
    mapping = {task_type: REF.format(name=name) for task_type, name in names.items()}
    schemas[Task.__name__] = {"title": Task.__name__, "description": task["description"]} | _union("task_type", mapping)
    return schemas


def _result_schema(task_type: str, task: dict[str, Any]) -> dict[str, Any]:
    """A script may answer with any JSON; of every other task type there is a type."""
    if task_type not in RESULTS:
        return dict(task["properties"]["result"])
    description = "The answer; null unless the task succeeded."
    return {
        "description": description, "anyOf": [{"$ref": REF.format(name=f"{_name(task_type)}Result")}, {"type": "null"}]
    }  # fmt: skip


def _result_union(kinds: Sequence[type[msgspec.Struct]], schemas: dict[str, Any]) -> dict[str, Any]:
    tag = str(kinds[0].__struct_config__.tag_field)
    for kind in kinds:
        value = {"const": kind.__struct_config__.tag, "type": "string"}
        schemas[kind.__name__]["properties"] |= {tag: value}
    return _union(tag, {str(kind.__struct_config__.tag): REF.format(name=kind.__name__) for kind in kinds})


def _parameter_schemas(available: list[str]) -> dict[str, Any]:
    options = [_untagged(kind, f"{kind.__name__}Options") for kind in OPTIONS.values()]
    kinds = [kind for name in available for kind in structs(name)]
    _, schemas = msgspec.json.schema_components([*kinds, *options], ref_template=REF)
    if "ImageProcessing" in schemas:  # raw JSON to the decoder, which reads it by its operation
        refs = [{"$ref": REF.format(name=kind.__name__)} for kind in options]
        schemas["ImageProcessing"]["properties"]["options"]["anyOf"] = refs
    for name in available:
        if tag := tag_field(name):
            schemas |= _union_schemas(name, tag, schemas)
    return schemas


def _request_schemas(available: list[str]) -> dict[str, Any]:
    """For each task type the request alone and the request of a batch; and the two unions of them."""
    _, components = msgspec.json.schema_components([ExecuteRequest], ref_template=REF)
    # by a name of its own: some generators make two types of one name from two that have none
    schemas: dict[str, Any] = {"Labels": components[ExecuteRequest.__name__]["properties"]["labels"]}
    for kind in (ExecuteRequest, ExecuteItem):
        prefix = kind.__name__.replace("Request", "")
        one = {task_type: f"{prefix}{_name(task_type)}" for task_type in available}
        schemas |= {name: _request_schema(kind, name, task_type) for task_type, name in one.items()}
        schemas[kind.__name__] = _union(
            "task_type", {task_type: REF.format(name=name) for task_type, name in one.items()}
        )
    return schemas


def _request_schema(kind: type[ExecuteRequest], name: str, task_type: str) -> dict[str, Any]:
    """The schema of one task type's request: the common fields, with its own parameters."""
    _, components = msgspec.json.schema_components([kind], ref_template=REF)
    schema: dict[str, Any] = components[kind.__name__]
    own = {
        "task_type": {"const": task_type, "type": "string"},
        "parameters": {"$ref": REF.format(name=_name(task_type))},
        "labels": {"$ref": REF.format(name="Labels")},
    }
    return schema | {"title": name, "description": _summary(task_type), "properties": schema["properties"] | own}


def _name(task_type: str) -> str:
    """Name of the schema of a task type's parameters."""
    return task_type.title().replace("_", "")


def _summary(task_type: str) -> str:
    """Describe a task type by the docstring of its Struct, or of the base of its Structs."""
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
    union = {"title": _name(task_type), "description": _summary(task_type)}
    schemas[_name(task_type)] = union | _union(tag, mapping)
    return schemas


def _union(tag: str, mapping: dict[str, str]) -> dict[str, Any]:
    refs = [{"$ref": ref} for ref in mapping.values()]
    return {"oneOf": refs, "discriminator": {"propertyName": tag, "mapping": mapping}}


def _untagged(kind: type[msgspec.Struct], name: str) -> type[msgspec.Struct]:
    """The same Struct without its tag: options that stand alone go without it."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        if field.required:
            fields.append((field.name, field.type))
        elif field.default is not msgspec.NODEFAULT:
            fields.append((field.name, field.type, field.default))
        else:
            fields.append((field.name, field.type, msgspec.field(default_factory=field.default_factory)))
    return msgspec.defstruct(
        name, fields, kw_only=True, forbid_unknown_fields=True, namespace={"__doc__": kind.__doc__}
    )
