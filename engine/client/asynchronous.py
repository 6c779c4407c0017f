"""The client for asyncio: the same methods as ``Client``, to be awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import EventSource

from . import steps
from .errors import RequestRefusedError
from .following import Following
from .requests import TaskRequest
from .saving import save
from .steps import HttpAnswer, NoAnswer, Send, Steps, Taken, Value
from .synchronous import PATIENCE_S, base_url, http_answer, http_request, json_body, key_header, no_answer, read_upload
from .tasks import ListedTaskInfo, TaskEvent, TaskInfo, UploadedFile


class AsyncClient:
    """Asks a service from an event loop. ``async with`` closes its connections. See ``Client`` for what each raises."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """
        Args:
            url: of the service, such as ``http://localhost:8001``.
            key: an API key; ``None`` where there are none.
            patience_s: for how long a request is tried again while the service is unreachable or asks to come later.
            transport: of httpx, for a proxy or certificates of one's own.
        """
        self._url, self._patience_s = url, patience_s
        self._http = httpx.AsyncClient(base_url=base_url(url), headers=key_header(key), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    # ---- tasks

    async def submit(self, request: TaskRequest) -> TaskInfo:
        """As ``Client.submit``."""
        return await self._take_all(steps.submit(request, self._patience_s))

    async def run(self, request: TaskRequest, *, wait_s: float | None = None) -> Any:
        """As ``Client.run``."""
        return await self._take_all(steps.run(request, self._patience_s, wait_s))

    async def submit_batch(self, requests: Sequence[TaskRequest]) -> list[TaskInfo | RequestRefusedError]:
        """As ``Client.submit_batch``."""
        return await self._take_all(steps.submit_batch(requests, self._patience_s))

    async def get(self, task_id: str) -> TaskInfo:
        """As ``Client.get``."""
        return await self._take_all(steps.get(task_id, self._patience_s))

    async def wait(self, task: TaskInfo | str, *, wait_s: float | None = None) -> TaskInfo:
        """As ``Client.wait``."""
        return await self._take_all(steps.wait(task, self._patience_s, wait_s))

    async def cancel(self, task_id: str, *, wait_s: float = 20.0) -> TaskInfo:
        """As ``Client.cancel``."""
        return await self._take_all(steps.cancel(task_id, self._patience_s, wait_s=wait_s))

    async def tasks(self, **filters: Any) -> AsyncIterator[ListedTaskInfo]:
        """As ``Client.tasks``."""
        query = {"limit": steps.PAGE_SIZE} | {name: value for name, value in filters.items() if value is not None}
        cursor: str | None = None
        while True:
            found, cursor = await self._take_all(steps.page(query, cursor, self._patience_s))
            for one in found:
                yield one
            if cursor is None:
                return

    async def follow(self, task_id: str, *, last_event_id: str | None = None) -> AsyncIterator[TaskEvent]:
        """As ``Client.follow``."""
        following = Following(task_id, self._patience_s, last_event_id)
        while not following.is_over:
            await asyncio.sleep(following.pause_s)
            async for event in self._events(following):
                yield event

    # ---- files

    async def upload(
        self, content: bytes | Path, *, name: str | None = None, media_type: str | None = None
    ) -> UploadedFile:
        """As ``Client.upload``."""
        file = await asyncio.to_thread(read_upload, content, name, media_type)
        return await self._take_all(steps.upload(*file, self._patience_s))

    async def files(self) -> list[UploadedFile]:
        """As ``Client.files``."""
        return await self._take_all(steps.files(self._patience_s))

    async def delete_file(self, file_id: str) -> None:
        """As ``Client.delete_file``."""
        await self._take_all(steps.delete_file(file_id, self._patience_s))

    async def artifact(self, task_id: str, name: str) -> bytes:
        """As ``Client.artifact``."""
        return await self._take_all(steps.artifact(task_id, name, self._patience_s))

    async def save_artifacts(self, task: TaskInfo, folder: Path) -> list[Path]:
        """As ``Client.save_artifacts``."""
        found = []
        for one in task.artifacts:
            content = await self.artifact(task.task_id, one["name"])
            found.append(await asyncio.to_thread(save, content, one, folder))
        return found

    # ---- anything else

    async def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, also: Sequence[int] = (), **body: Any
    ) -> Any:
        """As ``Client.ask``."""
        send = Send(method=method, path=path, query=query or {}, **json_body(**body))
        return await self._take_all(steps.ask_json(send, self._patience_s, also=also))

    # ---- input and output

    async def _take_all(self, all_steps: Steps[Value]) -> Value:
        taken: Taken = None
        while True:
            try:
                step = all_steps.send(taken)
            except StopIteration as end:
                value: Value = end.value
                return value
            if isinstance(step, Send):
                taken = await self._send(step)
            else:
                await asyncio.sleep(step.seconds)
                taken = None

    async def _send(self, send: Send) -> HttpAnswer | NoAnswer:
        try:
            return http_answer(await self._http.send(http_request(self._http, send)), time.monotonic())
        except httpx.RequestError as error:
            return no_answer(self._url, error)

    async def _events(self, following: Following) -> AsyncIterator[TaskEvent]:
        """The events of one connection."""
        try:
            answer = await self._http.send(http_request(self._http, following.connect()), stream=True)
            try:
                if answer.status_code != 200:
                    await answer.aread()
                    following.answered(http_answer(answer, time.monotonic()))
                    return
                async for event in EventSource(answer).aiter_sse():
                    if (given := following.take(event)) is not None:
                        yield given
                    if following.is_over:
                        return
                following.ended()
            finally:
                await answer.aclose()
        except httpx.RequestError as error:
            following.broke(no_answer(self._url, error))
