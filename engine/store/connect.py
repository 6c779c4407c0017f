"""Connections to PostgreSQL, made as what stands before it allows: PostgreSQL itself, or a pooler such as PgBouncer.

A pooler in transaction mode gives each transaction any of its sessions. So over a pooler asyncpg keeps no prepared
statements, which belong to a session: it parses each statement again, as one without a name, in the message that runs
it. And poolers refuse parameters of a start that they do not know: PgBouncer refuses ``jit``.

A pooler shows itself: the process id that it hands to a client, for cancelling, is not that of the process of
PostgreSQL that answers ``pg_backend_pid()``. (PostgreSQL's documentation, 55.2, BackendKeyData; PgBouncer makes eight
random bytes.) Nothing else here needs a session: locks are of transactions, there is no LISTEN, and no SET.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from engine.model.errors import OldServerError, StoreUnavailableError
from engine.model.redact import redact
from engine.model.unreachable import is_unreachable

CONNECT_TIMEOUT_S = 3.0
LEAST_VERSION = 14
LEAST_VERSION_NUM = LEAST_VERSION * 10_000
"""As the server's parameter ``server_version_num`` says it."""
NAME = {"application_name": "unityai-engine"}
NOTICES_ITS_CLIENT = {"client_connection_check_interval": "2s"}
"""A session that waits for a lock learns that its client has gone, and waits no longer.

Otherwise sessions of calls that were given up gather before a locked table, until no place is left for any other.
"""
IDLE_MOST = {"idle_in_transaction_session_timeout": "75s"}
"""A session whose client cannot be reached any more keeps its locks no longer than any transaction of ours may last."""
LOOK = (
    "SELECT pg_backend_pid() AS pid, current_setting('server_version_num')::integer AS number, "
    "current_setting('server_version') AS version"
)

OUR_TYPES = ("task_status", "exit_reason", "attempt_end", "task_priority", "callback_state")
"""The types of our schema, which asyncpg does not know."""


class Connector:
    """Makes connections to one database."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._options: dict[str, Any] = {}
        self.is_pooled = False
        """Whether a pooler is before the database, after ``first``."""

    async def first(self) -> asyncpg.Connection:
        """A connection that works over any pooler; afterwards ``connect`` knows whether there is one.

        Raises:
            OldServerError: PostgreSQL is older than this engine can use.
            StoreUnavailableError: the connection is refused.
        """
        pooled = {"statement_cache_size": 0, "server_settings": NAME}
        connection = await self._connect(pooled)
        try:
            row = await connection.fetchrow(LOOK)
            check_version(row["number"], row["version"])
            is_own = row["pid"] == connection.get_server_pid()
            noticing = NOTICES_ITS_CLIENT if is_own and await _takes(connection, NOTICES_ITS_CLIENT) else {}
        except BaseException:
            connection.terminate()
            raise
        if is_own:
            self._options = {"server_settings": NAME | IDLE_MOST | {"jit": "off"} | noticing}
            return connection
        self._options, self.is_pooled = pooled, True
        return connection

    async def connect(self) -> asyncpg.Connection:
        """Another connection, after ``first`` and after the schema is there. Raises as ``first`` does."""
        connection = await self._connect(self._options)
        if self.is_pooled:
            try:
                await _learn_types(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _connect(self, options: dict[str, Any]) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_S, **options)
        except TimeoutError:
            raise TimeoutError(f"no connection within {CONNECT_TIMEOUT_S:.0f} s") from None
        except asyncpg.PostgresError as error:
            if is_unreachable(error):
                raise
            reason = redact(str(error))  # such as a parameter of DATABASE_URL that the server does not know
            raise StoreUnavailableError(f"PostgreSQL refuses the connection: {reason}") from error


async def _takes(connection: asyncpg.Connection, settings: Mapping[str, str]) -> bool:
    """Whether a server knows these settings: on some systems PostgreSQL cannot look for its clients."""
    try:
        for name, value in settings.items():
            await connection.execute(f"SET {name} = '{value}'")
    except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError, asyncpg.FeatureNotSupportedError):
        return False
    return True


async def _learn_types(connection: asyncpg.Connection) -> None:
    """Let asyncpg look our types up where compilation is off.

    Its statement for that is one that PostgreSQL compiles for a second. asyncpg turns that off for the session, which
    over a pooler may be another session than that of the statement.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL jit = off")
        await connection.fetch("SELECT " + ", ".join(f"NULL::{name}, NULL::{name}[]" for name in OUR_TYPES))


def check_version(number: int, version: str) -> None:
    """Check a server's version.

    Args:
        number: its ``server_version_num``.
        version: the same as people write it.

    Raises:
        OldServerError: it is too old.
    """
    if number < LEAST_VERSION_NUM:
        raise OldServerError(f"PostgreSQL {version} is too old: this service needs version {LEAST_VERSION} or later")
