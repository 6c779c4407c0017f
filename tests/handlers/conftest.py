"""The process that answers the requests of these tests, and the types that each answer of a handler is held against."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from handlers import jsonable
from handlers.parameters.registry import Request
from tests.support.entry_process import Entry
from tests.support.openapi import result_checks

HANDLERS = {
    "data_processing": "handlers.data.data_processing",
    "document_processing": "handlers.documents.document_processing",
    "image_processing": "handlers.images.image_processing",
    "ml_inference": "handlers.ml_inference",
    "web_scraping": "handlers.web_scraping",
}
"""Task type → the module whose ``run`` does it."""


@pytest.fixture(scope="session")
def entry() -> Iterator[Entry]:
    server = Entry()
    yield server
    server.close()


@pytest.fixture(scope="session", autouse=True)
def typed_answers() -> Iterator[None]:
    """Hold each answer of a handler against the type that the OpenAPI document has for it."""
    with pytest.MonkeyPatch.context() as patch:
        for task_type, name in HANDLERS.items():
            module = importlib.import_module(name)
            patch.setattr(module, "run", _checked(module.run, result_checks()[task_type]))
        yield


def _checked(run: Callable[[Request], Any], check: Callable[[Any], None]) -> Callable[[Request], Any]:
    def checked(request: Request) -> Any:
        answer = run(request)
        check(json.loads(bytes(jsonable.encode(answer))))
        return answer

    return checked
