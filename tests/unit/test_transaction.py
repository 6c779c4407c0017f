"""A transaction waits for PostgreSQL only where it has answered: what was given up is not waited for again."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from engine.store.database import transaction


class Connection:
    """A connection, and its transaction, that keep what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def transaction(self) -> Connection:
        return self

    def is_closed(self) -> bool:
        return False

    async def start(self) -> None:
        self.asked.append("BEGIN")

    async def commit(self) -> None:
        self.asked.append("COMMIT")

    async def rollback(self) -> None:
        self.asked.append("ROLLBACK")


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (None, "COMMIT"),
        (asyncpg.UniqueViolationError("there already"), "ROLLBACK"),
        (asyncio.CancelledError(), "BEGIN"),
        (TimeoutError(), "BEGIN"),
        (ConnectionResetError(), "BEGIN"),
    ],
)
def test_rollback_is_sent_only_where_the_server_has_answered(error: BaseException | None, last: str) -> None:
    """When the time is over, or the connection broke, that is given up, and the transaction with it."""
    connection = Connection()

    async def do() -> None:
        async with transaction(connection):
            if error is not None:
                raise error

    if error is None:
        asyncio.run(do())
    else:
        with pytest.raises(type(error)):
            asyncio.run(do())
    assert last == connection.asked[-1]
