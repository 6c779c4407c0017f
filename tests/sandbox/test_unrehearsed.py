"""Every task type in a child that has not rehearsed: the rehearsal is an optimisation, on which nothing may rest."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

import sandbox
from engine.api.docs.examples import EXAMPLES
from tests.conftest import ROOT
from tests.support.remote_worker import worker
from tests.support.synchronous import Sandbox

REQUESTS = {name: parameters for name, parameters in EXAMPLES.items() if name != "web_scraping"}
REQUESTS["custom_script"] = {"script": "result = sum(range(10))"}
"""Task type → parameters as they reach a sandbox. web_scraping's handler needs a host to ask."""


def load(task_type: str) -> sandbox.Policy:
    """The delivered policy of a task type."""
    return sandbox.load_policies(ROOT / "policies")[task_type]


@pytest.mark.parametrize("task_type", sorted(REQUESTS))
def test_task_runs_unrehearsed_with_namespaces(make_box: Callable[..., Sandbox], task_type: str) -> None:
    """No child is ready: each is made for its request, and nobody has rehearsed in it."""
    box = make_box(load(task_type), ready=0)
    request = json.dumps({"task_type": task_type, "parameters": REQUESTS[task_type]}).encode()
    result = box.do(box.pool.run(request))
    assert "ok" == result.exit_reason, msgspec.to_builtins(result.error)


@pytest.mark.parametrize("task_type", sorted(REQUESTS))
def test_task_runs_unrehearsed_without_namespaces(task_type: str) -> None:
    """Each run has a folder of its own there, so that nothing which is cached by folder is at hand."""
    with worker(refused="namespaces", isolation="auto") as remote:
        assert "started" == remote.start(ready=0, policy=task_type)
        reason, value, _ = remote.ask(task_type=task_type, parameters=REQUESTS[task_type])
    assert ("ok", True) == (reason, value is not None)
