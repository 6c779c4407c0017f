"""One PostgreSQL database: its connections, its named statements, and how long each may take."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg

from engine.model.callback import Callback
from engine.model.errors import StoreReadOnlyError, StoreUnavailableError
from engine.model.redact import redact
from engine.model.result import ArtifactFacts
from engine.model.task import Claim, ListedFile, ListedTask, LostTask, NewFile, NewTask, StoredTask
from engine.model.trail import AttemptFacts, AuditedTask, SubmittedTask, Submitter, TenantLoad
from engine.model.unreachable import ServerUnreachableError, ignore_unreachable, is_gone, named_if_unreachable
from engine.store.columns import Columns
from engine.store.connect import CONNECT_TIMEOUT_S, Connector
from engine.store.migrate import migrate
from engine.store.patience import renew_patience, spending
from engine.store.statements import Statement, load_statements

SQL_DIR = Path(__file__).resolve().parent / "sql"
ANSWER_S = 5.0
BULK_TIMEOUT_S = 60.0
OPEN_TIMEOUT_S = 300.0
BULK_BYTES = 1 << 20
READ_ONLY = "PostgreSQL is read-only: a replica, or default_transaction_read_only is on"
FATAL = ("FATAL", "PANIC")
"""Severities of errors after which the server ends the connection."""

NEW_TASK = Columns(NewTask)
CLAIM = Columns(Claim, without=("attempt", "queue_s", "age_s"))
LISTED_TASK = Columns(ListedTask)
STORED_TASK = Columns(StoredTask, without=("result", "callback", "queue_position", "estimated_wait_s"))
LOST_TASK = Columns(LostTask)
NEW_FILE = Columns(NewFile)
LISTED_FILE = Columns(ListedFile)
ARTIFACT = Columns(ArtifactFacts)
CALLBACK = Columns(Callback)
AUDITED_TASK = Columns(AuditedTask)
SUBMITTED_TASK = Columns(SubmittedTask)
SUBMITTER = Columns(Submitter)
ATTEMPT = Columns(AttemptFacts)
TENANT_LOAD = Columns(TenantLoad)
COLUMNS = (
    NEW_TASK, CLAIM, LISTED_TASK, STORED_TASK, LOST_TASK, NEW_FILE, LISTED_FILE, ARTIFACT, CALLBACK, AUDITED_TASK,
    SUBMITTED_TASK, SUBMITTER, ATTEMPT, TENANT_LOAD,
)  # fmt: skip


class Bulk(enum.Enum):
    """Whether a statement may move megabytes."""

    NO = enum.auto()
    WAITED_FOR = enum.auto()
    """A client waits for the answer, and must not wait long for a database that is unreachable."""
    UNHURRIED = enum.auto()
    """No client waits for it."""


BULKY = MappingProxyType(
    {
        "claim_task": Bulk.UNHURRIED,
        "take_callbacks": Bulk.UNHURRIED,
        "delete_old_tasks": Bulk.UNHURRIED,
        "delete_old_files": Bulk.UNHURRIED,
        "read_files": Bulk.WAITED_FOR,
        "get_request": Bulk.WAITED_FOR,
        "get_artifact_part": Bulk.WAITED_FOR,
    }
)
"""Statements that may move megabytes whatever their arguments are."""


class Database:
    """Connections to one database, and the statements that may be sent over them.

    Opened lazily: while the database is unreachable, calls fail and the constructor does not.
    """

    def __init__(self, dsn: str, *, connections: int, answer_s: float = ANSWER_S) -> None:
        """
        Args:
            dsn: PostgreSQL's URL.
            connections: most connections that are open at the same time.
            answer_s: how long a call waits in all, for its turn, a connection and the answer, before the database
                counts as unreachable; within ``one_patience`` all calls together. Megabytes may take longer, on a
                database that has just answered in this time.
        """
        self._connector = Connector(dsn)
        self.answer_s = answer_s
        self.opened = asyncio.Event()
        """Set once `open` has succeeded. The database may have become unreachable since."""
        self._statements = load_statements(SQL_DIR / "queries.sql", COLUMNS)
        self._schema = [(path.name, path.read_text()) for path in sorted(SQL_DIR.glob("[0-9]*.sql"))]
        self._idle: list[Any] = []
        self._turns = asyncio.Semaphore(connections)

    async def open(self) -> None:
        """Bring the schema up to date and be ready for calls.

        Raises:
            StoreUnavailableError: the database is unreachable.
            SchemaError: its schema is newer than this engine, or was changed by hand.
            OldServerError: it is older than this engine can use.
        """
        if self.opened.is_set():
            return
        with unreachable_is_unavailable():
            connection = await self._connector.first()
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await migrate(connection, self._schema)
            finally:
                await connection.close(timeout=CONNECT_TIMEOUT_S)
            self.opened.set()

    @property
    def is_pooled(self) -> bool:
        """Whether a connection pooler, such as PgBouncer, is before the database, once ``open`` has succeeded."""
        return self._connector.is_pooled

    async def close(self) -> None:
        """Close every connection."""
        self.opened.clear()
        while self._idle:
            with ignore_unreachable():
                await self._idle.pop().close(timeout=CONNECT_TIMEOUT_S)

    async def ping(self) -> None:
        """Check that the database answers, and takes writes.

        Raises:
            StoreReadOnlyError: it takes none.
            StoreUnavailableError: it does not answer.
        """
        async with self.connection() as connection:
            if await connection.fetchval("SHOW transaction_read_only") == "on":
                raise StoreReadOnlyError(READ_ONLY)

    def statement(self, name: str) -> Statement:
        """The statement of this name, for use on a connection of one's own."""
        return self._statements[name]

    async def rows(self, name: str, /, **arguments: Any) -> list[asyncpg.Record]:
        """The rows that a statement returns.

        Raises:
            StoreUnavailableError: the database is unreachable. The statement may have been carried out all the same.
        """
        statement = self._statements[name]
        async with self.connection(bulk_of(name, arguments.values())) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement.sql, *statement.bind(arguments))
            return rows

    async def value(self, name: str, /, **arguments: Any) -> Any:
        """The first column of the first row; ``None`` where there is no row. Raises as ``rows``."""
        rows = await self.rows(name, **arguments)
        return rows[0][0] if rows else None

    async def execute_until_done(self, name: str, **arguments: object) -> int:
        """Repeat a statement that changes a few rows at a time until it changes none; returns how many it has changed.

        It rests between two times for as long as the one before took: half of what PostgreSQL does is others' then.

        Raises:
            StoreUnavailableError: as of ``execute``; what was changed by then stays so.
        """
        clock = asyncio.get_running_loop().time
        changed, began_s = 0, clock()
        while count := await self.execute(name, **arguments):
            changed += count
            await asyncio.sleep(clock() - began_s)
            began_s = clock()
        return changed

    async def execute(self, name: str, /, **arguments: Any) -> int:
        """How many rows a statement without an answer changed. Raises as ``rows``."""
        statement = self._statements[name]
        async with self.connection(bulk_of(name, arguments.values())) as connection:
            done: str = await connection.execute(statement.sql, *statement.bind(arguments))
            return int(done.rpartition(" ")[2])

    @contextlib.asynccontextmanager
    async def connection(self, bulk: Bulk = Bulk.NO) -> AsyncIterator[Any]:
        """A connection for one statement or one transaction.

        asyncpg's own pool resets a connection after each use, which takes longer than most of our statements. Ours
        leave nothing to reset.

        Raises:
            StoreUnavailableError: the database is unreachable, or did not answer in time.
        """
        with unreachable_is_unavailable(), spending(self.answer_s) as allowed_s:
            if not self.opened.is_set():
                raise StoreUnavailableError("the database has not been reached yet")
            # Whoever holds a turn holds at most one connection, so the turns limit the connections. The deadline
            # covers the wait for the turn too: under overload a call fails in time, and does not queue for ever.
            async with asyncio.timeout(allowed_s) as deadline, self._turns:
                connection = await self._take_connection()
                try:
                    if bulk is not Bulk.NO:
                        await self._allow_bulk(connection, deadline, bulk)
                    yield connection
                except BaseException as error:
                    self._give_up_or_keep(connection, error)
                    raise
                self._idle.append(connection)
                if bulk is not Bulk.NO:
                    renew_patience()

    def _give_up_or_keep(self, connection: Any, error: BaseException) -> None:
        """Keep a connection over which the server has answered with an error: nothing is under way on it."""
        is_fatal = getattr(error, "severity_en", None) in FATAL
        is_read_only = isinstance(error, asyncpg.ReadOnlySQLTransactionError | StoreReadOnlyError)
        is_useless = is_fatal or is_read_only or connection.is_closed()
        if isinstance(error, asyncpg.PostgresError) and not is_useless:
            self._idle.append(connection)
            return
        connection.terminate()  # the server may still be at work on it: its answer would be the next one's
        # After a failover the next connection leads to the new primary. And a session keeps the default it began with.
        if (
            is_fatal
            or is_read_only
            or isinstance(error, asyncpg.InternalClientError | asyncpg.InterfaceError)
            or is_gone(error)
        ):
            while self._idle:  # a server that has ended one has most likely ended all: no other call shall find out
                self._idle.pop().terminate()

    async def _allow_bulk(self, connection: Any, deadline: asyncio.Timeout, bulk: Bulk) -> None:
        """Give megabytes the time that they take on a healthy database too, once it has shown that it is healthy."""
        if bulk is Bulk.WAITED_FOR:
            await connection.fetchval("SELECT 1")
        deadline.reschedule(asyncio.get_running_loop().time() + BULK_TIMEOUT_S)

    async def _take_connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()  # the one used last: the others may close while the load is low
            if not connection.is_closed():
                return connection
        return await self._connector.connect()


@contextlib.asynccontextmanager
async def transaction(connection: Any) -> AsyncIterator[None]:
    """A transaction on a connection that ``Database.connection`` has handed out.

    asyncpg's own sends a ROLLBACK whatever happened, and waits for its answer without an end: also when the time for
    the answer before was over. Here that is sent only where the server has answered, with an error. In every other case
    the connection is given up, which ends the transaction.
    """
    begun = connection.transaction()
    await begun.start()
    try:
        yield
    except asyncpg.PostgresError:
        if not connection.is_closed():
            await begun.rollback()
        raise
    await begun.commit()


def bulk_of(name: str, arguments: Iterable[Any]) -> Bulk:
    """Whether a statement may move megabytes, by its name and by the size of its arguments."""
    values = chain.from_iterable(value if isinstance(value, list) else (value,) for value in arguments)
    if sum(len(value) for value in values if isinstance(value, bytes | memoryview)) > BULK_BYTES:
        return Bulk.WAITED_FOR
    return BULKY.get(name, Bulk.NO)


@contextlib.contextmanager
def unreachable_is_unavailable() -> Iterator[None]:
    """Turn what shows that the database is unreachable into ``StoreUnavailableError``."""
    try:
        with named_if_unreachable():
            yield
    except ServerUnreachableError as error:
        if isinstance(error.__cause__, asyncpg.ReadOnlySQLTransactionError):
            raise StoreReadOnlyError(READ_ONLY) from error
        raise StoreUnavailableError(f"PostgreSQL is unreachable: {redact(str(error))}") from error
