"""Bodies of requests as the OpenAPI document shows them. Every example succeeds when it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.api.body.check import MAX_BATCH

BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
"""The schema of any bytes: generators know them by this format."""
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


def execute_body(available: Sequence[str]) -> dict[str, Any]:
    """The body of ``POST /execute``.

    Args:
        available: the task types that tasks can have here.
    """
    examples = {
        name: {"value": {"task_type": name, "parameters": EXAMPLES[name]}} for name in available if name in EXAMPLES
    }
    schema = {"$ref": "#/components/schemas/ExecuteRequest"}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def batch_body(_: Sequence[str]) -> dict[str, Any]:
    """The body of ``POST /execute/batch``."""
    item = {"$ref": "#/components/schemas/ExecuteItem"}
    schema = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": item}
    first, second = EXAMPLES["custom_script"], EXAMPLES["ml_inference"]
    example = [
        {"task_type": "custom_script", "parameters": first, "idempotency_key": "order-4711"},
        {"task_type": "ml_inference", "parameters": second, "priority": "low"},
    ]
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def file_body(_: Sequence[str]) -> dict[str, Any]:
    """The body of ``POST /files``."""
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": BYTES},
    }
    return {
        "description": "The bytes of the file, or a form with exactly one file. An empty body is an empty file.",
        "required": False,
        "content": {"application/octet-stream": {"schema": BYTES}, "multipart/form-data": {"schema": form}},
    }
