"""The process that checks large bodies: what it hands over, and its own death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import uvloop

from engine.api.body.check import HEAD, check, check_batch
from engine.api.body.checker import INLINE_BYTES, Checker, CheckerBusyError, CheckerEndedError, Process
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


DEAR = b'{"task_type":"data_processing","parameters":{"rows":[' + b",".join([b'{"a":1}'] * 400_000) + b"]}}"
"""Takes many times longer to check than ``LARGE``, in relation to its length."""


@contextlib.asynccontextmanager
async def open_checker(**options: Any) -> AsyncIterator[Checker]:
    checker = Checker(options.pop("memory_mib", 1024), **options)
    try:
        yield checker
    finally:
        await checker.close()


def test_first_large_body_finds_a_process_that_is_ready() -> None:
    """It is the one that was started beforehand, and no other is started."""

    async def run() -> None:
        async with open_checker() as checker:
            await checker.warm_up()
            [pid] = checker.pids
            await checker.check(LARGE)
            assert (pid,) == checker.pids

    asyncio.run(run())


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


def test_short_body_that_takes_long_is_checked_in_a_process() -> None:
    """ENG-05, ENG-07: slow numbers, and the faults of many tasks; ordinary short bodies are checked at once."""
    task = b'{"task_type":"custom_script","parameters":{"script":"x","args":%b}}'
    slow, faulty = task % (b"[" + b"1e308," * 101 + b"1]"), b"[" + b",".join([b'{"task":1}'] * 30) + b"]"

    async def run() -> None:
        async with open_checker() as checker:
            assert check(task % b"[1e10]") == await checker.check(task % b"[1e10]")
            await checker.check_batch(b"[" + b",".join([task % b"1"] * 5) + b"]")
            assert () == checker.pids
            assert 30 == len(await checker.check_batch(faulty))
            assert 1 == len(checker.pids)
            checked = checker.check(slow)
            assert check(slow) == await checked

    asyncio.run(run())


def test_process_that_dies_with_a_body_in_hand_is_named_and_started_again() -> None:
    """Only the check fails: nothing blames PostgreSQL, and the next body is checked."""

    async def run() -> None:
        async with open_checker() as checker:
            await checker.check(LARGE)
            [pid] = checker.pids
            frozen = psutil.Process(pid)
            frozen.suspend()
            asked = asyncio.create_task(checker.check(LARGE))
            await asyncio.sleep(0.1)  # the body fills the pipe
            frozen.kill()
            with pytest.raises(CheckerEndedError, match="checks large bodies"):
                await asked
            assert check(LARGE) == await checker.check(LARGE)

    asyncio.run(run())


def test_body_beyond_its_processor_time_is_refused_and_the_next_is_checked() -> None:
    """ENG-03: the kernel ends the check, so that no shape of JSON keeps a process; the fault is the body's own."""

    async def run() -> None:
        async with open_checker(cpu_s=0.01) as checker:
            for _ in range(3):  # each ends its process, and none keeps a place
                with pytest.raises(InvalidRequestError, match="processor time"):
                    await checker.check(DEAR)
        async with open_checker() as checker:
            with pytest.raises(InvalidRequestError) as caught:
                await checker.check(DEAR)
            assert "processor time" not in str(caught.value)

    asyncio.run(run())


def test_bodies_of_one_tenant_leave_a_process_to_others() -> None:
    """ENG-04: while every body of one tenant hangs in its process, another tenant's is checked."""

    async def run() -> None:
        async with open_checker(wait_s=30) as checker:
            assert await checker.check(LARGE, tenant="a")
            [pid] = checker.pids
            psutil.Process(pid).suspend()
            hanging = [asyncio.create_task(checker.check(LARGE, tenant="a")) for _ in range(5)]
            await asyncio.sleep(0)
            for _ in range(3):
                assert check(LARGE) == await checker.check(LARGE, tenant="b")
            assert not any(task.done() for task in hanging)
            psutil.Process(pid).resume()
            assert [check(LARGE)] * 5 == await asyncio.gather(*hanging)

    asyncio.run(run())


def test_body_that_waits_too_long_is_told_to_come_again() -> None:
    """The process hangs without taking processor time: 503 with a sentence, and the next body is checked by another."""

    async def run() -> None:
        async with open_checker(wait_s=1) as checker:
            while not checker.pids:  # the process starts, however long that takes here
                with contextlib.suppress(CheckerBusyError):
                    await checker.check(LARGE)
            [pid] = checker.pids
            psutil.Process(pid).suspend()
            with pytest.raises(CheckerBusyError, match="could not be checked within"):
                await checker.check(LARGE)
            assert not psutil.pid_exists(pid)

    asyncio.run(run())


def test_process_whose_api_has_been_killed_ends_without_a_word() -> None:
    """Nobody waits for its answer: it is no fault, and there is no traceback in the log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.api.body.check", "5", "1024"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(HEAD.pack(False, False, len(LARGE)) + LARGE, timeout=60)
    assert (1, b"") == (process.returncode, said)


def test_process_whose_pipe_is_closed_has_ended() -> None:
    """The API's own event loop refuses to write on such a pipe before it tells that the process has ended."""

    async def run() -> None:
        process = Process(5.0, 1024)
        started = await process._started()
        assert started.stdin is not None
        started.send_signal(signal.SIGSTOP)  # so that its end comes later
        started.stdin.transport.abort()
        for _ in range(10):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.2, started.send_signal, signal.SIGCONT)
        with pytest.raises(CheckerEndedError):
            await process.ask(HEAD.pack(False, False, len(LARGE)), LARGE)

    uvloop.run(run())
