"""Hostile documents and images end in a typed refusal or at a limit, reach nothing, and harm no other task."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandbox import ExitReason, Host, Result, Template, load_policies
from tests.attacks.field import Field, Secrets
from tests.attacks.rows_hostile_files import ROWS, HostileFile
from tests.attacks.table import CATALOGUE, ELSEWHERE
from tests.support import sample_files as files
from tests.support.synchronous import Sandbox

POLICIES = load_policies(Path(__file__).resolve().parents[2] / "policies")


@pytest.fixture(scope="module")
def boxes(planted: Secrets, host: Host, template: Template) -> Iterator[dict[str, Sandbox]]:
    """A pool for each of the two task types, under its own policy, started beside the secrets."""
    made = {}
    try:
        for task_type in ("document_processing", "image_processing"):
            made[task_type] = Sandbox(POLICIES[task_type], host, template, ready=1)
        yield made
    finally:
        for box in made.values():
            box.close()


@pytest.fixture
def aimed(field: Field, boxes: dict[str, Sandbox]) -> Iterator[Callable[[str], Field]]:
    """The field, around the pool of a task type for the time of one test."""
    own = field.box

    def aim(task_type: str) -> Field:
        field.box = boxes[task_type]
        return field

    yield aim
    field.box = own


def ask(field: Field, request: bytes, **limits: Any) -> Result:
    """One task under the policy's limits, or lower ones."""
    in_force = msgspec.structs.replace(field.box.policy.limits, **limits)
    result: Result = field.box.do(field.box.pool.run(request, limits=in_force))
    return result


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_hostile_file_does_no_harm(row: HostileFile, aimed: Callable[[str], Field]) -> None:
    """It ends in an expected way, brings no secret out, reaches nothing, and the next task is served."""
    field = aimed(row.task_type)
    with field.unharmed():
        result = ask(field, row.request(field), **row.limits)
        field.assert_secret(result)
        assert result.exit_reason in row.reasons, result
        if result.exit_reason is ExitReason.ERROR:
            assert result.error is not None
            assert result.error.code in row.codes, result.error
        assert result.usage.memory_peak_mib <= field.box.policy.limits.memory_mib * 1.1
        assert () == result.violations
        if row.check is not None:
            row.check(result)


MUTATED = {
    "pdf": ("document_processing", files.pdf(1)),
    "docx": ("document_processing", files.word()),
    "png": ("image_processing", files.image("PNG")),
    "jpeg": ("image_processing", files.photo()),
    "webp": ("image_processing", files.image("WEBP")),
    "gif": ("image_processing", files.frames("GIF", 3)),
    "tiff": ("image_processing", files.image("TIFF", compression="tiff_lzw")),
}
ENDS = {ExitReason.OK, ExitReason.ERROR, ExitReason.SIGNALED, ExitReason.MEMORY_LIMIT, ExitReason.CPU_LIMIT}
MUTATIONS = 40


@pytest.mark.parametrize("kind", MUTATED)
def test_a_damaged_file_ends_one_run_only(kind: str, aimed: Callable[[str], Field]) -> None:
    """Forty damages of each sort: a refusal, a result, even a crash of the decoder, but never an error of ours."""
    task_type, content = MUTATED[kind]
    field, chance = aimed(task_type), random.Random(kind)
    with field.unharmed():
        for _ in range(MUTATIONS):
            result = ask(field, _request(kind, _damaged(content, chance)), cpu_s=5.0)
            assert result.exit_reason in ENDS, result
            if result.exit_reason is ExitReason.ERROR:
                assert result.error is not None
                assert (result.error.type, True) == ("Refusal", result.error.code is not None), result.error


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, a piece doubled or left out."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 5, 50))):
        damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    start, end = sorted(chance.sample(range(len(damaged)), 2))
    piece = damaged[start : min(end, start + 200)]
    cut = chance.choice((0, 0, 1, 2))
    if cut == 1:
        damaged[start:start] = piece
    elif cut == 2:
        del damaged[start : start + len(piece)]
    return bytes(damaged)


def _request(kind: str, content: bytes) -> bytes:
    encoded = {"base64": files.base64_of(content)}
    if kind in ("pdf", "docx"):
        parameters: dict[str, Any] = {"document_type": kind, "content": encoded, "operation": "analyze"}
    else:
        parameters = {"image_path": encoded, "operation": "resize", "options": {"width": 10}}
    return json.dumps({"task_type": MUTATED[kind][0], "parameters": parameters}).encode()


def test_no_case_of_files_is_passed_over() -> None:
    """Each case that the table leaves to this module has a row here."""
    place = "attacks/test_hostile_files.py::test_a_hostile_file_does_no_harm"
    here = {f"{category}-{number}" for category in ("DOC", "IMG") for number in CATALOGUE[category].split()}
    assert {row.id for row in ROWS} == {case for case in here if ELSEWHERE[case] == place}


def test_every_row_has_a_name_of_its_own() -> None:
    """Two rows with one name would hide each other in a report."""
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)
