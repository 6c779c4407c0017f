"""The one place that says which exceptions mean that PostgreSQL or Redis is unreachable.

The drivers, asyncpg and redis-py, wrap most of what a broken connection raises, and not all of it: uvloop refuses to
write on a transport that it has closed with a plain ``RuntimeError``, and asyncpg refuses to send over a connection
on which the server has said goodbye with ``InternalClientError``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import asyncpg

from engine.model.errors import EngineError


class ServerUnreachableError(EngineError):
    """PostgreSQL, Redis or another server is unreachable, or too busy to answer; its text says why."""


_BY_TYPE = (
    ServerUnreachableError,
    OSError,
    EOFError,  # asyncio.IncompleteReadError: the connection ended within an answer
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server has said goodbye on an idle connection, whose end has yet to arrive
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,  # its own disk fails
    asyncpg.TransactionRollbackError,  # another statement had the same rows first, and one of the two had to give way
    asyncpg.ReadOnlySQLTransactionError,
)
_OURS = (asyncpg.DataError,)
"""Subclasses of the above that say that our argument is wrong."""
_GONE = (
    "unable to perform operation on <",  # uvloop: "… TCPTransport closed=True …>; the handler is closed"
    "the handler is closed",
    "Cannot write to closing transport",
    "readuntil() called while another coroutine",
    "read() called while another coroutine",
)
"""What uvloop's and asyncio's ``RuntimeError`` says of a transport that is closed, or is being closed."""


def is_unreachable(error: BaseException) -> bool:
    """Whether an exception shows that a server is unreachable or too busy, rather than that we asked wrongly."""
    if isinstance(error, _OURS):
        return False
    return isinstance(error, _BY_TYPE) or _is_of_redis(error) or is_gone(error)


def _is_of_redis(error: BaseException) -> bool:
    """Whether it is one of redis-py's, of which there is none in a process that has not imported it.

    Importing it here would cost a keeper, which talks to PostgreSQL alone, a third of its start.
    """
    module = sys.modules.get("redis.exceptions")
    return module is not None and isinstance(error, module.RedisError)


def is_gone(error: BaseException) -> bool:
    """Whether a ``RuntimeError`` says that the connection has been closed."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _GONE)


def reason_of(error: BaseException) -> str:
    """The reason in words; the name of the exception where it has none."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return str(error).strip() or type(error).__name__


@contextlib.contextmanager
def named_if_unreachable() -> Iterator[None]:
    """Give what shows that a server is unreachable one name, whatever the driver calls it; it stays the cause.

    Raises:
        ServerUnreachableError: a server is unreachable.
    """
    try:
        yield
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise ServerUnreachableError(reason_of(error)) from error


@contextlib.contextmanager
def ignore_unreachable() -> Iterator[None]:
    """Go on where a server is unreachable: what is done here is worth no more than the try."""
    with contextlib.suppress(ServerUnreachableError), named_if_unreachable():
        yield
