"""A task that was accepted and is about to be stored, for tests that talk to the store themselves."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec

from engine.model.request import SubmitRequest
from engine.model.task import Claim, ClaimRefused, NewTask


def new_task(**changes: Any) -> NewTask:
    """A task of tenant ``acme``; ``changes`` are fields of it or of its request, by name."""
    parameters = changes.pop("parameters", b'{"script":"x"}')
    asked: dict[str, Any] = {"task_type": "custom_script", "parameters": msgspec.Raw(parameters)}
    made: dict[str, Any] = {"task_id": uuid4(), "tenant": "acme", "policy": "custom_script", "max_attempts": 2}
    for name, value in changes.items():
        (made if name in NewTask.__struct_fields__ else asked)[name] = value
    return NewTask(request=SubmitRequest(**asked), **made)


def as_claim(found: Claim | ClaimRefused | None) -> Claim:
    """The claim that ``claim`` returned; fails if there was none."""
    assert isinstance(found, Claim), found
    return found
