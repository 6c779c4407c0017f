"""The process that checks large bodies: what it hands over, and its own death."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import psutil
import pytest

from engine.api.body.check import check, check_batch
from engine.api.body.checker import INLINE_BYTES, Checker, CheckerEndedError
from engine.model.errors import InvalidRequestError

LARGE = json.dumps(
    {
        "task_type": "custom_script",
        "parameters": {"script": "result = 1", "args": "x" * (2 << 20)},
        "labels": {"a": "b"},
        "timeout_s": 3,
        "memory_mib": 64,
        "priority": "low",
    }
).encode()
"""More than any pipe or socket buffer holds."""


@contextlib.asynccontextmanager
async def open_checker() -> AsyncIterator[Checker]:
    checker = Checker()
    try:
        yield checker
    finally:
        await checker.close()


def test_process_hands_over_the_same_request() -> None:
    """A body means the same whether it is checked at once or in the process, byte for byte."""

    async def run() -> None:
        async with open_checker() as checker:
            assert len(LARGE) > INLINE_BYTES
            assert check(LARGE) == await checker.check(LARGE)
            batch = b"[" + b",".join([LARGE, b'{"task_type":"none","parameters":{}}', b"7", LARGE]) + b"]"
            expected = [str(item) if isinstance(item, InvalidRequestError) else item for item in check_batch(batch)]
            found = [
                str(item) if isinstance(item, InvalidRequestError) else item
                for item in await checker.check_batch(batch)
            ]
            assert expected == found

    asyncio.run(run())


def test_process_that_dies_with_a_body_in_hand_is_named_and_started_again() -> None:
    """Only the check fails: nothing blames PostgreSQL, and the next body is checked."""

    async def run() -> None:
        async with open_checker() as checker:
            await checker.check(LARGE)
            process = checker._process
            assert process is not None
            assert process.stdin is not None
            frozen = psutil.Process(process.pid)
            frozen.suspend()
            asked = asyncio.create_task(checker.check(LARGE))
            while not process.stdin.transport.get_write_buffer_size():  # noqa: ASYNC110  nothing signals it
                await asyncio.sleep(0.01)
            frozen.kill()
            with pytest.raises(CheckerEndedError, match="checks large bodies"):
                await asked
            assert check(LARGE) == await checker.check(LARGE)

    asyncio.run(run())
