"""Loops that nothing ends, and what is known of those that fail."""

from __future__ import annotations

import asyncio
from collections import Counter

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.model.unreachable import is_unreachable
from engine.telemetry.loops import Loops

AT_ONCE = (0.0, 0.0)


def test_loop_that_raises_is_begun_again_and_counted() -> None:
    """Whatever it raises; the loop beside it does not notice."""

    async def run() -> tuple[Counter[str], tuple[str, ...]]:
        counts, began, often = Counter[str](), Counter[str](), asyncio.Event()

        async def fail() -> None:
            began["bad"] += 1
            if counts["bad"] == 3:
                often.set()
            raise RuntimeError("no loop is as strange as this")

        async def go_on() -> None:
            began["good"] += 1
            await asyncio.Event().wait()

        loops = Loops(lambda name: counts.update([name]), backoff_s=AT_ONCE)
        async with loops.running({"bad": fail, "good": go_on}):
            await often.wait()
            return began, loops.dead()

    began, dead = asyncio.run(run())
    assert (True, 1, ()) == (began["bad"] >= 3, began["good"], dead)


def test_loop_that_fails_for_long_is_dead() -> None:
    """For as long as ``dead_s`` says, here no time at all; the others are not."""

    async def run() -> tuple[str, ...]:
        failed = asyncio.Event()

        async def fail() -> None:
            raise ValueError

        loops = Loops(lambda _: failed.set(), dead_s=0.0, backoff_s=AT_ONCE)
        async with loops.running({"bad": fail, "good": asyncio.Event().wait}):  # type: ignore[dict-item]
            await failed.wait()
            return loops.dead()

    assert ("bad",) == asyncio.run(run())


def test_event_loop_that_stands_still_is_dead() -> None:
    """It has not come round for longer than it may."""

    async def run() -> tuple[tuple[str, ...], tuple[str, ...]]:
        loops = Loops(lambda _: None)
        async with loops.running({}):
            await asyncio.sleep(0)
            return loops.dead(stall_s=-1.0), loops.dead(stall_s=3600.0)

    assert (("event loop",), ()) == asyncio.run(run())


UVLOOP = "unable to perform operation on <TCPTransport closed=True reading=False 0x55d0c0>; the handler is closed"
UNREACHABLE = {
    "uvloop's closed transport": RuntimeError(UVLOOP),
    "asyncpg's goodbye": asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    "asyncpg's closed connection": asyncpg.InterfaceError("connection is closed"),
    "PostgreSQL shuts down": asyncpg.AdminShutdownError("terminating connection"),
    "PostgreSQL starts": asyncpg.CannotConnectNowError("the database system is starting up"),
    "Redis hangs up": RedisConnectionError("Connection closed by server."),
    "an answer breaks off": asyncio.IncompleteReadError(b"", 3),
    "no route": OSError(113, "No route to host"),
    "no time": TimeoutError(),
}
REACHABLE = {
    "a wrong argument": asyncpg.DataError("invalid input for query argument $1"),
    "a missing table": asyncpg.UndefinedTableError("relation does not exist"),
    "our own RuntimeError": RuntimeError("dictionary changed size during iteration"),
    "our own fault": KeyError("task"),
}


@pytest.mark.parametrize("error", UNREACHABLE.values(), ids=UNREACHABLE)
def test_connection_that_is_gone_is_unreachable(error: Exception) -> None:
    """By its type, or by what uvloop says of it."""
    assert is_unreachable(error)


@pytest.mark.parametrize("error", REACHABLE.values(), ids=REACHABLE)
def test_fault_of_ours_is_not_unreachable(error: Exception) -> None:
    """It is answered with 500, and logged with its traceback."""
    assert not is_unreachable(error)
