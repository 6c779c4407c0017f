"""A service that is upgraded from the first schema there was, with tasks in line and a worker of that time at work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest

from engine.store.database import SQL_DIR
from engine.store.migrate import migrate
from tests.support.stack import Stack, ask

SCRIPT = b'{"script":"result = 6 * 7"}'
INSERT = """
INSERT INTO tasks (task_id, task_type, policy, parameters, timeout_s, labels, script_name, max_attempts, due_at)
VALUES ($1, 'custom_script', 'custom_script', $2, NULL, '{"of": "old"}', NULL, 3, now() - interval '10 minutes')
"""
CLAIM = """
UPDATE tasks
SET status = 'running', attempts = attempts + 1, worker_id = $2, lease_until = now() + make_interval(secs => $3),
    started_at = now()
WHERE task_id = $1 AND status = 'queued'
RETURNING attempts, task_type, policy, parameters, timeout_s, script_name,
    extract(epoch FROM now() - greatest(created_at, due_at))::float8 AS queue_s
"""
RENEW = """
UPDATE tasks SET lease_until = now() + make_interval(secs => $3)
WHERE task_id = ANY($2::uuid[]) AND status = 'running' AND worker_id = $1
RETURNING task_id
"""
FINISH = """
WITH done AS (
    UPDATE tasks
    SET status = $4, exit_reason = $5, outcome = $6, finished_at = now(), worker_id = NULL, lease_until = NULL
    WHERE task_id = $1 AND attempts = $2 AND worker_id = $3 AND status = 'running'
    RETURNING task_id, started_at
)
INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, exit_reason)
SELECT task_id, $2, $3, started_at, 'finished', $5 FROM done
RETURNING task_id
"""
"""What a worker of that time says; each statement as it was."""
OUTCOME = (
    b'{"exit_reason":"ok","message":"done","result":41,"error":null,"exit_code":0,"signal":null,'
    b'"logs":{"stdout":"","stderr":"","truncated":false},"usage":{"wall_s":0.1,"cpu_s":0.1,"memory_peak_mib":10.0,'
    b'"output_kib":0.0,"workspace_mib":0.0,"workspace_files":0,"processes_peak":1,"queue_s":0.1},'
    b'"isolation":{"profile":"full","start":"warm","layers":{"seccomp":"notify"}},"violations":[],'
    b'"policy_digest":"sha256:0","limits":{"wall_s":60.0,"cpu_s":60.0,"memory_mib":512,"processes":0,"threads":32,'
    b'"open_files":128,"output_kib":1024,"result_kib":8192,"workspace_mib":64,"workspace_files":4096,"artifacts_mib":32},'
    b'"script":null}'
)
"""What it stored."""


class Then(NamedTuple):
    """The tasks of that time."""

    queued: tuple[UUID, ...]
    running: UUID
    """On a worker that goes on working."""
    lost: UUID
    """On a worker that died before the upgrade."""
    worker: UUID


async def begin(dsn: str) -> Then:
    """Make the first schema, and tasks in it."""
    connection = await asyncpg.connect(dsn)
    first = min(SQL_DIR.glob("[0-9]*.sql"))
    await migrate(connection, [(first.name, first.read_text(encoding="utf-8"))])
    running, lost, *queued = ids = [uuid4() for _ in range(6)]
    worker = uuid4()
    for one in ids:
        await connection.execute(INSERT, one, SCRIPT)
    await connection.fetchrow(CLAIM, running, worker, 600.0)
    await connection.fetchrow(CLAIM, lost, uuid4(), -1.0)
    await connection.close()
    return Then(tuple(queued), running, lost, worker)


class Upgraded(NamedTuple):
    """A service of today over that database."""

    stack: Stack
    then: Then


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Upgraded]:
    """Its API is up, and no worker of today is."""
    then: list[Then] = []

    def rewire(environ: dict[str, str]) -> dict[str, str]:
        then.append(asyncio.run(begin(environ["DATABASE_URL"])))
        return environ

    stack = Stack(tmp_path, rewire=rewire)
    yield Upgraded(stack, then[0])
    stack.close()


def test_old_worker_ends_its_tasks_and_a_new_one_the_rest(upgraded: Upgraded) -> None:
    """Each task ends once; a worker of that time renews its lease, claims, and finishes beside one of today."""
    stack, then = upgraded
    dsn = stack.environ["DATABASE_URL"]
    assert ["queued", "running"] == [stack.get(str(one))["status"] for one in (then.queued[0], then.running)]
    assert [then.running] == [row["task_id"] for row in ask(dsn, RENEW, then.worker, [then.running], 600.0)]
    claimed, *left = then.queued
    assert [(1, SCRIPT)] == [row[0:4:3] for row in ask(dsn, CLAIM, claimed, then.worker, 600.0)]
    worker = stack.worker()
    for one in (claimed, then.running):
        assert [one] == [row["task_id"] for row in ask(dsn, FINISH, one, 1, then.worker, "succeeded", "ok", OUTCOME)]
    ended = {one: stack.get(str(one), 60) for one in (claimed, then.running, then.lost, *left)}
    found = {one: (task["status"], task["result"], task["attempts"]) for one, task in ended.items()}
    expected = dict.fromkeys((claimed, then.running), ("succeeded", 41, 1))
    expected |= dict.fromkeys(left, ("succeeded", 42, 1)) | {then.lost: ("succeeded", 42, 2)}
    assert expected == found, worker.log.read_text()[-2000:]
    counted = ask(dsn, "SELECT task_id, count(*) FROM attempts WHERE ended = 'finished' GROUP BY task_id")
    assert dict.fromkeys(expected, 1) == dict(counted)
    listed = stack.client.get("/tasks", params={"label": "of:old"}).json()["tasks"]
    assert {str(one) for one in expected} == {task["task_id"] for task in listed}


def test_result_of_an_old_worker_that_lost_its_lease_is_not_wanted(upgraded: Upgraded) -> None:
    """Its task ran again on a worker of today, whose result stays."""
    stack, then = upgraded
    stack.worker()
    task = stack.get(str(then.lost), 60)
    assert (42, 2) == (task["result"], task["attempts"])
    late = ask(stack.environ["DATABASE_URL"], FINISH, then.lost, 1, then.worker, "succeeded", "ok", OUTCOME)
    assert [] == late
    assert 42 == stack.get(str(then.lost))["result"]
