"""The function that the sandbox calls in a locked child: one request in, one answer out."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from handlers import ending, jsonable
from handlers.failures import Refusal, describe
from handlers.parameters.decode import decode_json
from handlers.parameters.registry import Request
from handlers.progress import Reporter, use

HANDLERS: Mapping[str, str] = MappingProxyType(
    {
        "custom_script": "handlers.custom_script",
        "data_processing": "handlers.data.data_processing",
        "document_processing": "handlers.documents.document_processing",
        "image_processing": "handlers.images.image_processing",
        "ml_inference": "handlers.ml_inference",
        "web_scraping": "handlers.web_scraping",
    }
)
"""Task type → module whose ``run(request)`` does it. Imported when asked for: a policy preloads only its own."""


def main(request: bytes, report: Callable[[bytes], None] | None = None) -> tuple[str, bytes]:
    """Do one task.

    Args:
        request: JSON of ``handlers.parameters.registry.Request``.
        report: is given reports of progress, each the JSON of ``{"fraction", "message"}``; never after the answer.
    Returns:
        ``("result", JSON)``, ``("error", JSON)`` with type, message, traceback and code, or ``("invalid", JSON)`` of
        the same form when the result has no JSON form.
    Raises:
        SystemExit: a script left without a result; what it means is the sandbox's to say.
    """
    streams = (sys.stdout, sys.stderr)
    reporter = Reporter(report)
    use(reporter)
    end = ending.ScriptEnd(reporter)
    ending.use(end)
    try:
        return "result", jsonable.encode(_work(request))
    except SystemExit:
        raise
    except jsonable.NoJsonForm as problem:
        return "invalid", problem.describe()
    except BaseException as failure:
        return "error", describe(failure)
    finally:
        end.finish()
        reporter.close()
        _flush((*streams, sys.stdout, sys.stderr))


def _work(request_bytes: bytes) -> object:
    try:
        request = decode_json(request_bytes, Request)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_request", f"The request is not what the sandbox sends: {error}") from None
    if request.task_type not in HANDLERS:
        known = ", ".join(sorted(HANDLERS))
        raise Refusal("unknown_task_type", f"No handler for the task type {request.task_type!r}; there are: {known}")
    try:
        return importlib.import_module(HANDLERS[request.task_type]).run(request)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_parameters", f"The parameters are not what the task type takes: {error}") from None


def _flush(streams: tuple[object, ...]) -> None:
    for stream in streams:
        # a script may have closed or replaced it: its own loss
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[attr-defined]


def find_hook(name: str, task_type: str) -> Callable[[], None] | None:
    """What a task type's handler has for the sandbox to call before there is a task; neither leaves a thread behind.

    Args:
        name: ``prepare``: opens what each task needs, and a locked child can open no more. ``rehearse``: does a small
            task of our own, so that the first real one finds everything loaded.
        task_type: whose handler.

    Raises:
        AttributeError: the handler has no rehearsal.
    """
    if task_type not in HANDLERS:
        return None
    handler: Any = importlib.import_module(HANDLERS[task_type])
    return handler.rehearse if name == "rehearse" else getattr(handler, name, None)
