"""The system calls of the ``threads`` profile are those that ordinary work needs: a new one fails here, by its name."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from sandbox import ExitReason, Host, Policy, Template
from tests.support.synchronous import Sandbox
from tests.support.workload import PARTS

EXPECTED_DENIALS = {
    "onnxruntime and tokenizers": {"arch_prctl"},  # it asks for AMX where the processor has it, and does without
}
"""Calls that a library tries and can do without; they may stay denied."""


OF_HANDLERS = ("python-docx", "pypdfium2", "parsel", "the document handler")
"""Parts whose libraries only the handlers' set has."""


@pytest.fixture(scope="module")
def workbox(policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """A pool for heavy scripts."""
    box = Sandbox(policy, host, template, ready=1)
    yield box
    box.close()


@pytest.fixture(scope="module")
def handlers_workbox(light_policy: Policy, host: Host, template: Template) -> Iterator[Sandbox]:
    """The same grant over the libraries of the handlers."""
    box = Sandbox(msgspec.structs.replace(light_policy, libraries="handlers"), host, template, ready=1)
    yield box
    box.close()


@pytest.mark.parametrize("library", PARTS)
def test_ordinary_work_meets_no_denied_call(workbox: Sandbox, handlers_workbox: Sandbox, library: str) -> None:
    """A library update that needs another system call fails the build with the call's name, not a user's task."""
    result = (handlers_workbox if library in OF_HANDLERS else workbox).run(PARTS[library])

    assert (ExitReason.OK, "done") == (result.exit_reason, result.message)
    assert EXPECTED_DENIALS.get(library, set()) >= {violation.syscall for violation in result.violations}
