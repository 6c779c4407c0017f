"""A client that cancels waits for no server after another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from engine.model.principal import ANYONE
from engine.model.status import Status
from engine.model.task import Cancellation
from engine.service.service import Service
from engine.service.waiting import Waiters


class Servers:
    """Redis and PostgreSQL that answer once each of them has been asked, and not before."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._asked = {"redis": asyncio.Event(), "postgres": asyncio.Event()}
        self.told: list[str] = []

    async def _answer(self, server: str) -> None:
        self._asked[server].set()
        for asked in self._asked.values():
            await asked.wait()

    async def cancel(self, *_: Any) -> Cancellation:
        return Cancellation(self._status, "custom_script", "custom_script")

    async def get(self, *_: Any) -> str:
        await self._answer("postgres")
        return "the task"

    async def drop(self, _: UUID) -> None:
        await self._answer("redis")
        self.told.append("the queue")

    async def announce(self, _: UUID) -> None:
        self.told.append("those who wait")

    async def ask_to_cancel(self, _: UUID) -> None:
        await self._answer("redis")
        self.told.append("the workers")


@pytest.mark.parametrize(
    ("status", "told"),
    [(Status.CANCELLED, ["the queue", "those who wait"]), (Status.RUNNING, ["the workers"])],
)
def test_redis_and_postgresql_are_asked_side_by_side(status: Status, told: list[str]) -> None:
    """One that hangs holds up no question to the other: else a 503 would come later than within two seconds."""

    async def run() -> tuple[Any, list[str]]:
        servers = Servers(status)
        service = cast(Any, object.__new__(Service))
        service.waiters, service._store, service._queue = Waiters(), SimpleNamespace(tasks=servers), servers
        service.metrics = SimpleNamespace(finished=lambda *_: None)
        async with asyncio.timeout(20):
            return await service.cancel(ANYONE, uuid4()), servers.told

    assert ("the task", told) == asyncio.run(run())
