"""Tasks end when they are to end, also where a library loses the first cancellation."""

from __future__ import annotations

import asyncio

import pytest

from engine.model import cancel
from engine.model.cancel import end_tasks
from engine.telemetry.loops import Loops


class Deaf:
    """Goes round for ever, and loses a number of cancellations, as ``asyncio.wait_for`` of Python 3.11 does."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.going = asyncio.Event()

    async def run(self) -> None:
        while True:
            self.going.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.losses:
                    raise
                self.losses -= 1


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "AGAIN_S", 0.01)


@pytest.mark.parametrize("losses", [0, 1, 3])
def test_task_that_loses_cancellations_ends(losses: int) -> None:
    """It is cancelled until it has ended."""

    async def run() -> tuple[bool, int]:
        deaf = Deaf(losses)
        task = asyncio.create_task(deaf.run())
        await deaf.going.wait()
        await end_tasks(task)
        return task.cancelled(), deaf.losses

    assert (True, 0) == asyncio.run(run())


def test_worker_loop_that_loses_a_cancellation_stops() -> None:
    """A worker that is told to stop waits for each loop: one that went on would keep it for ever."""

    async def run() -> int:
        deaf, loops = Deaf(1), Loops(lambda _: None)
        async with loops.running({"queue": deaf.run}):
            await deaf.going.wait()
            await loops.stop("queue")
        return deaf.losses

    assert 0 == asyncio.run(run())


def test_failure_of_an_ended_task_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever ends a task asks for no result of it; asyncio does not log that nobody did."""

    async def fail() -> None:
        raise OSError

    async def run() -> None:
        failed = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await end_tasks(failed)

    asyncio.run(run())
    assert [] == caplog.records
