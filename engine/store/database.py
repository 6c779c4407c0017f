"""One PostgreSQL database: connections, named statements, and how long each may take."""

from __future__ import annotations

import contextlib
import enum
import re
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg

from engine.model.errors import StoreUnavailableError
from engine.telemetry.logs import redact

SQL_DIR = Path(__file__).resolve().parent / "sql"


CONNECT_TIMEOUT_S = 3.0


ANSWER_S = 5.0


BULK_TIMEOUT_S = 60.0


OPEN_TIMEOUT_S = 300.0


BULK_BYTES = 1 << 20


# What says that the database is away or too busy, rather than that our statement is wrong.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,  # its own disk fails
    asyncpg.TransactionRollbackError,  # another statement had the same rows first, and one of the two had to give way
    asyncpg.ReadOnlySQLTransactionError,
)


class Bulk(enum.Enum):
    """Whether a statement may move megabytes."""

    NO = enum.auto()
    WAITED_FOR = enum.auto()
    """Somebody waits for the answer, and must not wait long on a database that is away."""
    UNHURRIED = enum.auto()
    """Nobody does."""


BULKY = MappingProxyType(
    {
        "claim_task": Bulk.UNHURRIED,
        "take_callbacks": Bulk.UNHURRIED,
        "delete_old_tasks": Bulk.UNHURRIED,
        "delete_old_files": Bulk.UNHURRIED,
        "read_files": Bulk.WAITED_FOR,
        "get_artifact_part": Bulk.WAITED_FOR,
    }
)
"""Statements that may move megabytes whatever they are sent."""


def load_queries(path: Path) -> dict[str, str]:
    """Name → statement of a file in which each statement follows ``-- name: NAME`` and a describing comment.

    Raises:
        ValueError: a statement without a description, or two of one name.
    """
    queries: dict[str, str] = {}
    for part in re.split(r"^-- name: ", path.read_text(), flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        if name in queries or not body.startswith("-- "):
            raise ValueError(f"{path}: {name}: given twice, or without a description")
        queries[name] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return queries


def _bulk(name: str, arguments: tuple[Any, ...]) -> Bulk:
    values = chain.from_iterable(value if isinstance(value, list) else (value,) for value in arguments)
    if sum(len(value) for value in values if isinstance(value, bytes | memoryview)) > BULK_BYTES:
        return Bulk.WAITED_FOR
    return BULKY.get(name, Bulk.NO)


@contextlib.contextmanager
def _away() -> Any:
    """Turn what says "the database is away" into ``StoreUnavailableError``."""
    try:
        yield
    except _AWAY as error:
        reason = redact(str(error)).strip() or type(error).__name__
        raise StoreUnavailableError(f"PostgreSQL cannot be asked: {reason}") from error
