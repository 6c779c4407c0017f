"""schemathesis over the OpenAPI document against the live service: what the document says is what happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.model.status import TASK_TYPES
from tests.support.stack import whole_service

ST = Path(sys.executable).parent / "st"
RUNS = {
    # follows a task to its end, and so takes as long as that; tests/service/test_events.py has it
    # positive_data_acceptance: which policies, scripts, files and places for callbacks there are, no schema can say
    "every call": ["--exclude-operation-id", "followTask", "--exclude-operation-id", "executeBatch",
                   "--max-examples", "2", "--exclude-checks", "positive_data_acceptance"],
    # negative_data_rejection: what is wrong with one task is said in its place, and the others are accepted
    # no coverage phase: its six thousand cases are those of a single task, which the other run has, put into an array
    "batches": ["--include-operation-id", "executeBatch", "--max-examples", "4", "--phases", "examples,fuzzing",
                "--exclude-checks", "positive_data_acceptance,negative_data_rejection"],
}  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[str]:
    """A service of its own, with a policy for each task type: what is thrown at it stands in nobody else's line."""
    with whole_service(only=TASK_TYPES) as (address, _):
        yield address


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", RUNS)
def test_the_service_does_what_its_document_says(fuzzed: str, run: str, tmp_path: Path) -> None:
    """Every check, in every phase: statuses, types, schemas, headers, refusals, and nothing after it has gone."""
    command = [str(ST), "run", f"{fuzzed}/openapi.json", "--checks", "all", "--seed", "7",
               "--request-timeout", "60", "--continue-on-failure", "--no-color", *RUNS[run]]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert 0 == done.returncode, done.stdout[-6000:] + done.stderr[-2000:]
