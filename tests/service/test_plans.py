"""How much of a table a statement reads depends on its answer, and not on how many tasks there are.

PostgreSQL's own count of the pages that it touched decides, ``EXPLAIN (ANALYZE, BUFFERS)``: under statistics that are
true, under those of a service that had hardly any task when they were taken, and under the plan for any arguments
that PostgreSQL turns to after five executions (``plan_cache_mode``).
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from engine.dev.embedded import Embedded
from engine.model.status import TASK_TYPES, Status
from engine.model.task import TaskFilter
from engine.store.database import COLUMNS, SQL_DIR
from engine.store.statements import load_statements
from engine.store.store import Store
from engine.store.tasks import NEWEST
from sandbox import ExitReason

STATEMENTS = load_statements(SQL_DIR / "queries.sql", COLUMNS)
FINAL = QUEUED = 20_000
HARDLY_ANY = 10
SINGLE_PAGES = 75
"""Touched at most for one task: its row, each of its indexes from the root, its triggers, and the foreign keys."""
LISTED_PAGES = 600
"""Touched at most for a page of ten: fourteen reasons and two states of six types, each from the root of its index."""
LABELLED_PAGES = LISTED_PAGES + NEWEST
"""The newest tasks are looked through for labels, too."""
WHOLE_PAGES = 450
"""Touched at least by a walk over the queued tasks, as they lie one behind the other; the control shows that."""

FILL = """
INSERT INTO tasks (task_id, task_type, status, policy, parameters, max_attempts, tenant, created_at, due_at, labels,
    concurrent_limit, started_at, finished_at, exit_reason, outcome, key_id, source_sha256)
SELECT gen_random_uuid(), ($1::text[])[1 + n % 6], $2::task_status, 'custom_script', '{}', 3, 'acme',
    now() - make_interval(secs => n), now() - make_interval(secs => n),
    jsonb_build_object('n', (n % 5000)::text, 'all', 'x'), CASE WHEN n = 7 THEN 5 END,
    CASE WHEN $3::text IS NOT NULL THEN now() END, CASE WHEN $3::text IS NOT NULL THEN now() END,
    $3::text::exit_reason, CASE WHEN $3::text IS NOT NULL THEN '{}'::bytea END,
    lpad(to_hex(n % 5000), 12, '0'), lpad(to_hex(n), 64, '0')
FROM generate_series(1, $4::int) AS n
"""


class Filled:
    """A database with as many final tasks as queued ones."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def do(self, what: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            connection = await asyncpg.connect(self.dsn)
            try:
                return await what(connection)
            finally:
                await connection.close()

        return asyncio.run(run())

    def fill(self, *, stale: bool) -> None:
        """Store the tasks; the statistics show them, or are those of a service before its first flood."""

        async def fill(connection: asyncpg.Connection) -> None:
            await connection.execute("TRUNCATE tasks CASCADE")
            await connection.execute(FILL, list(TASK_TYPES), "succeeded", "ok", HARDLY_ANY if stale else FINAL)
            if stale:
                await connection.execute("ANALYZE tasks")
            await connection.execute(FILL, list(TASK_TYPES), "queued", None, QUEUED)
            if not stale:
                await connection.execute("ANALYZE tasks")
            await connection.execute("SELECT gin_clean_pending_list('tasks_labels')")

        self.do(fill)

    def a_task(self, condition: str) -> UUID:
        return UUID(str(self.do(lambda c: c.fetchval(f"SELECT task_id FROM tasks WHERE {condition} LIMIT 1"))))

    def pages(self, name: str, plans: str, /, **arguments: Any) -> int:
        """How many pages a statement touches when catalogues have been read; its changes are taken back."""

        async def explain(connection: asyncpg.Connection) -> int:
            statement = STATEMENTS[name]
            values = [await literal(connection, value) for value in statement.bind(arguments)]
            await connection.execute(f"SET plan_cache_mode = {plans}")
            await connection.execute(f"PREPARE asked AS {statement.sql}")
            given = f"({', '.join(values)})" if values else ""
            return [await count_pages(connection, f"EXECUTE asked{given}") for _ in range(2)][1]

        return int(self.do(explain))


async def count_pages(connection: asyncpg.Connection, sql: str) -> int:
    """How many pages a statement touches, with all that its functions and triggers touch."""
    transaction = connection.transaction()
    await transaction.start()
    text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}")
    await transaction.rollback()
    top = json.loads(text)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


async def literal(connection: asyncpg.Connection, value: Any) -> str:
    """A value as SQL; PostgreSQL finds its type where it stands."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        value = "{" + ",".join(map(str, value)) + "}"
    elif isinstance(value, bytes):
        value = "\\x" + value.hex()
    return str(await connection.fetchval("SELECT quote_literal($1::text)", str(value)))


@pytest.fixture(scope="module")
def empty(servers: Embedded) -> str:
    """A database with the engine's tables, which nothing takes statistics of but a test."""
    name, url = f"plans_{uuid4().hex}", str(servers.urls.database)

    async def make() -> str:
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        dsn = url.replace("/postgres?", f"/{name}?")
        store = Store(dsn, connections=1)
        await store.open()
        await store.close()
        connection = await asyncpg.connect(dsn)
        await connection.execute("ALTER TABLE tasks SET (autovacuum_enabled = off)")
        await connection.close()
        return dsn

    return asyncio.run(make())


@pytest.fixture(scope="module", params=["stale", "true"])
def filled(request: pytest.FixtureRequest, empty: str) -> Filled:
    """Twenty thousand of each, under both kinds of statistics."""
    found = Filled(empty)
    found.fill(stale=request.param == "stale")
    return found


PLANS = pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
ONE_TASK: dict[str, dict[str, Any]] = {
    "claim_task": {"worker_id": uuid4(), "lease_s": 15.0},
    "claim_limited_task": {"worker_id": uuid4(), "lease_s": 15.0},
    "get_claim": {"worker_id": uuid4()},
    "get_task": {"tenant": "acme"},
    "get_submission": {"tenant": "acme"},
    "get_request": {"tenant": "acme"},
    "get_submitter": {"tenant": "acme"},
    "list_attempts": {"tenant": "acme"},
    "cancel_task": {"tenant": "acme", "outcome": b"{}"},
    "finish_task": {
        "attempt": 1, "worker_id": uuid4(), "status": "succeeded", "exit_reason": "ok", "outcome": b"{}", "names": [],
        "hashes": [], "contents": [], "script_sha256": None, "policy_digest": "sha256:0", "denied": "{}",
    },
    "give_back_task": {
        "attempt": 1, "worker_id": uuid4(), "delay_s": 0.0, "more_attempts": 0, "ended": "released", "message": "",
        "cancelled": b"{}",
    },
    "get_artifact": {"tenant": "acme", "name": "x"},
    "redeliver_callback": {"tenant": "acme"},
}  # fmt: skip


@PLANS
@pytest.mark.parametrize("name", ONE_TASK)
def test_statement_about_one_task_reads_that_task(filled: Filled, name: str, plans: str) -> None:
    """However many others have its status."""
    task_id = filled.a_task(f"status = 'queued' AND concurrent_limit IS {'NOT ' * ('limited' in name)}NULL")
    assert filled.pages(name, plans, task_id=task_id, **ONE_TASK[name]) <= SINGLE_PAGES


def page(**more: Any) -> dict[str, Any]:
    none = dict.fromkeys(("created_after", "created_before", "before_time", "before_id"))
    return {"tenant": "acme", "limit": 10, **none, **more}


STATES: dict[str, dict[str, list[str]]] = {
    "any": {"unfinished": ["queued", "running"], "exit_reasons": [reason.value for reason in ExitReason]},
    "queued": {"unfinished": ["queued"], "exit_reasons": []},
    "that nobody is in": {"unfinished": ["running"], "exit_reasons": []},
    "that nobody ended in": {"unfinished": [], "exit_reasons": ["cpu_limit", "worker_lost"]},
}
TYPES = {"one": ["ml_inference"], "each": list(TASK_TYPES)}
TIMES: dict[str, dict[str, Any]] = {
    "any": {},
    "none": {"created_before": datetime(2000, 1, 1, tzinfo=UTC)},
    "second page": {"before_time": datetime.now(UTC), "before_id": uuid4()},
}


@PLANS
@pytest.mark.parametrize("times", TIMES)
def test_page_of_newest_tasks_is_all_that_is_read(filled: Filled, times: str, plans: str) -> None:
    """Without any filter but times."""
    assert filled.pages("list_newest_tasks", plans, **page(**TIMES[times])) <= SINGLE_PAGES


@PLANS
@pytest.mark.parametrize(("states", "types", "times"), [*itertools.product(STATES, TYPES, TIMES)])
def test_filters_read_no_task_that_they_leave_out(
    filled: Filled, states: str, types: str, times: str, plans: str
) -> None:
    """Also those that leave out all."""
    arguments = page(task_types=TYPES[types], **STATES[states], **TIMES[times])
    assert filled.pages("list_chosen_tasks", plans, **arguments) <= LISTED_PAGES


@PLANS
@pytest.mark.parametrize("labels", ['{"n": "4711"}', '{"all": "x"}', '{"none": "x"}'])
def test_labels_read_the_newest_tasks_or_those_that_have_them(filled: Filled, labels: str, plans: str) -> None:
    """Frequent labels fill a page with the newest tasks; the index has the tasks that rare ones stand at."""
    arguments = page(labels=labels, task_types=TYPES["each"], **STATES["any"])
    assert filled.pages("list_labelled_tasks", plans, newest=NEWEST, **arguments) <= LABELLED_PAGES
    if "all" not in labels:
        assert filled.pages("list_rarely_labelled_tasks", plans, **arguments) <= SINGLE_PAGES


WALKS: dict[str, dict[str, Any]] = {
    "walk_tasks": {},
    "walk_tasks_of_key": {"key_id": "0123456789ab"},
    "walk_tasks_of_source": {"key_id": None, "sources": [f"{4711:064x}"]},
}
WALKED_PAGES = 5 * NEWEST
"""Touched at most when so many tasks are walked through: an entry and a row for each, and what they were denied."""


@PLANS
@pytest.mark.parametrize("name", WALKS)
def test_record_is_walked_through_for_a_part(filled: Filled, name: str, plans: str) -> None:
    """Also by a filter that lets nothing through: an auditor's page reads ``WALKED`` tasks at most."""
    for more in ({"only_denied": False, "policy": None}, {"only_denied": True, "policy": "no such"}):
        arguments = page(labels="{}", task_types=TYPES["each"], **STATES["any"], **WALKS[name], **more)
        arguments["tenants"] = [arguments.pop("tenant")]
        most = WALKED_PAGES if name == "walk_tasks" else SINGLE_PAGES
        assert filled.pages(name, plans, walked=NEWEST, **arguments) <= most


@PLANS
def test_sources_are_found_step_by_step(filled: Filled, plans: str) -> None:
    """However many tasks have one."""
    arguments = {"tenants": ["acme"], "lowest": f"{4711:064x}", "highest": f"{4712:064x}", "limit": 10}
    assert filled.pages("find_sources", plans, **arguments) <= SINGLE_PAGES


@PLANS
def test_history_reads_the_tasks_that_ended_then(filled: Filled, plans: str) -> None:
    """Not those that ended before."""
    assert filled.pages("count_ended", plans, since=datetime.now(UTC), until=datetime.now(UTC)) <= SINGLE_PAGES


@pytest.mark.parametrize("chosen", ["status = 'running'", "task_type = 'no such'", "exit_reason = 'cpu_limit'"])
def test_walk_over_all_tasks_would_be_seen(filled: Filled, chosen: str) -> None:
    """The control: a list that has one statement for all filters reads every task that it does not show."""
    sql = (
        f"SELECT task_id FROM tasks WHERE tenant = 'acme' AND (now() IS NULL OR {chosen}) ORDER BY created_at LIMIT 10"
    )
    assert filled.do(lambda connection: count_pages(connection, sql)) > WHOLE_PAGES


def test_every_filter_has_the_tasks_that_it_means(dsn: str) -> None:
    """Each combination of filters shows what PostgreSQL finds by the plainest condition for them."""
    choices: dict[str, list[Any]] = {
        "statuses": [(), (Status.QUEUED,), (Status.FAILED, Status.RUNNING), (Status.SUCCEEDED,)],
        "task_type": [None, "ml_inference"],
        "exit_reasons": [(), (ExitReason.OK,), (ExitReason.ERROR, ExitReason.OK)],
        "labels": [{}, {"n": "4"}, {"n": "4", "all": "x"}, {"all": "x"}],
        "limit": [3, 500],
    }

    async def compare() -> None:
        store = Store(dsn, connections=1)
        await store.open()
        connection = await asyncpg.connect(dsn)
        kinds = (
            ("queued", None),
            ("succeeded", "ok"),
            ("failed", "error"),
            ("failed", "cpu_limit"),
            ("cancelled", "cancelled"),
        )
        for status, reason in kinds:
            await connection.execute(FILL, list(TASK_TYPES), status, reason, 12)
        for values in itertools.product(*choices.values()):
            wanted = TaskFilter(**dict(zip(choices, values, strict=True)))
            found = [task.task_id for task in await store.tasks.find("acme", wanted)]
            rows = await connection.fetch(
                "SELECT task_id FROM tasks WHERE labels @> $1 AND ($2::text IS NULL OR task_type = $2)"
                " AND ($3 = '{}'::text[] OR status::text = ANY($3))"
                " AND ($4 = '{}'::text[] OR exit_reason::text = ANY($4))"
                " ORDER BY created_at DESC, task_id DESC LIMIT $5",
                json.dumps(wanted.labels), wanted.task_type, list(wanted.statuses), list(wanted.exit_reasons),
                wanted.limit,
            )  # fmt: skip
            assert [UUID(str(row["task_id"])) for row in rows] == found, wanted
        await connection.close()
        await store.close()

    asyncio.run(compare())
