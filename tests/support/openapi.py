"""The OpenAPI document without a service, and validators of its schemas by jsonschema-rs."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs

from engine.api.docs.openapi import build_openapi
from engine.api.docs.results import RESULTS
from engine.api.routes.system import ROUTES
from handlers.parameters.registry import PARAMETERS


@functools.cache
def document() -> dict[str, Any]:
    """With every task type."""
    return build_openapi(ROUTES, list(PARAMETERS), "0")


@functools.cache
def _components(*, closed: bool) -> dict[str, Any]:
    components: dict[str, Any] = copy.deepcopy(document()["components"])
    for one in components["schemas"].values():
        if closed and "properties" in one:
            one.setdefault("additionalProperties", False)
    return components


@functools.cache
def _validator(schema: str, *, closed: bool) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": _components(closed=closed)}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def validator(schema: dict[str, Any], *, closed: bool = False) -> jsonschema_rs.Draft202012Validator:
    """Checks values by a schema of the document.

    Args:
        schema: may refer to the document's components.
        closed: refuse fields that an object of the document does not name.
    """
    return _validator(json.dumps(schema), closed=closed)


@functools.cache
def result_checks() -> dict[str, Callable[[Any], None]]:
    """Task type → a function that raises ``jsonschema_rs.ValidationError`` where a value is no result of it."""
    found: dict[str, Callable[[Any], None]] = {}
    for task_type in RESULTS:
        name = "".join(word.capitalize() for word in task_type.split("_"))
        found[task_type] = validator({"$ref": f"#/components/schemas/{name}Result"}, closed=True).validate
    return found
