"""A new field of a request is few edits: in a copy of the project it is added, and reaches the worker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import ROOT

MOST_EDITS = 3
FIELD = "    nice: Annotated[int, Meta(ge=0, le=19, description='How gently it runs.')] = 0\n"
COLUMN = "ALTER TABLE tasks ADD COLUMN nice integer NOT NULL DEFAULT 0;\n"
USE = "    print('the worker has', claim.request.nice)\n"
EDITS = {
    "the field": ("engine/model/request.py", "    labels: Annotated[", f"{FIELD}    labels: Annotated["),
    "the column": ("engine/store/sql/0999_nice.sql", "", COLUMN),
    "its use": ("engine/worker/request.py", "    return b", f"{USE}    return b"),
}
"""What is edited → file, the text that is replaced (empty: the file is new), and the new text. No more than these."""
PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from types import SimpleNamespace as Some
from uuid import uuid4
import engine
from engine.api.body.check import check, check_batch
from engine.api.docs.openapi import build_openapi
from engine.api.routes.system import ROUTES
from engine.api.routes.trail import get_task_request
from engine.config.load import load_settings
from engine.model.principal import ANYONE
from engine.policies.policies import Policies
from engine.service.accept import accept
from engine.service.auditor import Auditor
from engine.store.store import Store
from engine.worker.request import build_request

BODY = b'{"task_type":"custom_script","parameters":{"script":"x = 1"},"nice":7}'

async def submit_and_claim():
    settings = load_settings({})
    policies, store = Policies.load(settings), Store(os.environ["DSN"], connections=2)
    await store.open()
    one, two = (
        accept(settings, policies, request, task_id=uuid4(), principal=ANYONE)
        for request in (check(BODY), *check_batch(b"[" + BODY + b"]"))
    )
    await store.tasks.insert(one)
    await store.tasks.insert_many([two])
    for task in (one, two):
        claim = await store.claims.claim(task.task_id, uuid4(), 10)
        build_request(claim, None)
        parts = Some(service=Some(auditor=Auditor(store.trail, policies, ())))
        asked = Some(app=Some(state=Some(parts=parts)), scope={"principal": ANYONE})
        answer = await get_task_request.fn(asked, str(task.task_id))
        assert 7 == json.loads(answer.content)["nice"]
    await store.close()

assert Path(engine.__file__).is_relative_to(Path.cwd()), engine.__file__
asyncio.run(submit_and_claim())
schemas = build_openapi(ROUTES, ["custom_script"], "1")["components"]["schemas"]
for name in ("ExecuteCustomScript", "ExecuteItemCustomScript", "SubmittedRequest"):
    assert 19 == schemas[name]["properties"]["nice"]["maximum"]
print("documented")
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code that the service is made of, without its tests and documents."""
    for name in ("engine", "sandbox", "handlers", "policies", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def submit(folder: Path, dsn: str) -> subprocess.CompletedProcess[str]:
    """Submit a task that has the field, alone and in a batch, and claim it as a worker does."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env={"DSN": dsn}, capture_output=True, text=True, check=False
    )


def apply(folder: Path, edit: str) -> None:
    name, old, new = EDITS[edit]
    path = folder / name
    text = path.read_text() if old else ""
    assert not old or 1 == text.count(old), f"{name}: {old!r}"
    path.write_text(text.replace(old, new) if old else new)


def test_new_field_is_at_most_three_edits(copy: Path, dsn: str) -> None:
    """It is checked, documented, stored by both ways in, read by the worker and shown again; each edit is one place."""
    assert len(EDITS) <= MOST_EDITS
    for edit in EDITS:
        apply(copy, edit)
    done = submit(copy, dsn)
    assert (0, ["the worker has 7"] * 2 + ["documented"]) == (done.returncode, done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize("left_out", ["the field", "the column"])
def test_edit_that_is_left_out_is_missed(copy: Path, dsn: str, left_out: str) -> None:
    """So that the count above is of edits that are needed, and a forgotten one cannot go unseen."""
    for edit in EDITS.keys() - {left_out, "its use"}:
        apply(copy, edit)
    done = submit(copy, dsn)
    assert 0 != done.returncode
    assert "nice" in done.stderr
