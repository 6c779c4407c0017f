"""The client for plain programs."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import EventSource

from . import steps
from .errors import ClientError, RequestRefusedError
from .following import Following
from .requests import TaskRequest
from .saving import save
from .steps import HttpAnswer, NoAnswer, Send, Steps, Taken, Value
from .tasks import ListedTaskInfo, TaskEvent, TaskInfo, UploadedFile

PATIENCE_S = 60.0
CONNECT_S = 10.0


class Client:
    """Asks a service. Threads may share one. ``with`` closes its connections.

    Every method raises ``RequestRefusedError`` where the service refuses, and ``ServiceUnreachableError`` where it does
    not answer; both only after the client tried again for ``patience_s``, if that may help.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """
        Args:
            url: of the service, such as ``http://localhost:8001``.
            key: an API key; ``None`` where there are none.
            patience_s: for how long a request is tried again while the service is unreachable or asks to come later.
            transport: of httpx, for a proxy or certificates of one's own.
        """
        self._url, self._patience_s = url, patience_s
        self._http = httpx.Client(base_url=base_url(url), headers=key_header(key), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    # ---- tasks

    def submit(self, request: TaskRequest) -> TaskInfo:
        """Submit a task, and return it as it was accepted."""
        return self._take_all(steps.submit(request, self._patience_s))

    def run(self, request: TaskRequest, *, wait_s: float | None = None) -> Any:
        """Submit a task, wait for its end, and return its result.

        Args:
            request: the task.
            wait_s: how long to wait; ``None`` for as long as it takes.

        Raises:
            TaskFailedError: it ended without a result.
            TaskNotEndedError: the time is over; the task goes on.
        """
        return self._take_all(steps.run(request, self._patience_s, wait_s))

    def submit_batch(self, requests: Sequence[TaskRequest]) -> list[TaskInfo | RequestRefusedError]:
        """Submit up to 1,000 tasks at once; for each, in their order, the task or why it was refused."""
        return self._take_all(steps.submit_batch(requests, self._patience_s))

    def get(self, task_id: str) -> TaskInfo:
        """A task as it stands."""
        return self._take_all(steps.get(task_id, self._patience_s))

    def wait(self, task: TaskInfo | str, *, wait_s: float | None = None) -> TaskInfo:
        """The task as it ended, whether it succeeded or not.

        Raises:
            TaskNotEndedError: the time is over; the task goes on.
        """
        return self._take_all(steps.wait(task, self._patience_s, wait_s))

    def cancel(self, task_id: str, *, wait_s: float = 20.0) -> TaskInfo:
        """Cancel a task and wait for its end; one that has ended stays as it is."""
        return self._take_all(steps.cancel(task_id, self._patience_s, wait_s=wait_s))

    def tasks(self, **filters: Any) -> Iterator[ListedTaskInfo]:
        """Iterate over the tenant's tasks, the newest first, through as many pages as it takes.

        Args:
            filters: as ``GET /tasks`` has them: ``status``, ``task_type``, ``exit_reason``, ``label`` (``NAME:VALUE``),
                ``created_after``, ``created_before``; lists for several. ``limit`` is the size of a page.
        """
        query = {"limit": steps.PAGE_SIZE} | {name: value for name, value in filters.items() if value is not None}
        cursor: str | None = None
        while True:
            found, cursor = self._take_all(steps.page(query, cursor, self._patience_s))
            yield from found
            if cursor is None:
                return

    def follow(self, task_id: str, *, last_event_id: str | None = None) -> Iterator[TaskEvent]:
        """Iterate over a task's events to its end, each once. Where the connection breaks, the stream is resumed."""
        following = Following(task_id, self._patience_s, last_event_id)
        while not following.is_over:
            time.sleep(following.pause_s)
            yield from self._events(following)

    # ---- files

    def upload(self, content: bytes | Path, *, name: str | None = None, media_type: str | None = None) -> UploadedFile:
        """Upload a file for tasks to read; ``{"file_id": file.file_id}`` names it in a task."""
        return self._take_all(steps.upload(*read_upload(content, name, media_type), self._patience_s))

    def files(self) -> list[UploadedFile]:
        """The tenant's uploaded files, the newest first; at most 500."""
        return self._take_all(steps.files(self._patience_s))

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file."""
        self._take_all(steps.delete_file(file_id, self._patience_s))

    def artifact(self, task_id: str, name: str) -> bytes:
        """The bytes of a file that a task wrote to ``artifacts/``."""
        return self._take_all(steps.artifact(task_id, name, self._patience_s))

    def save_artifacts(self, task: TaskInfo, folder: Path) -> list[Path]:
        """Write all artifacts of a task to a folder, each under its name; returns their paths.

        Raises:
            ClientError: a name leads out of the folder.
            OSError: a file cannot be written.
        """
        return [save(self.artifact(task.task_id, one["name"]), one, folder) for one in task.artifacts]

    # ---- anything else

    def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, also: Sequence[int] = (), **body: Any
    ) -> Any:
        """The JSON that any other call is answered with, such as ``ask("GET", "/policies")``; ``None`` for none (204).

        Args:
            method: of HTTP.
            path: of the call.
            query: its parameters.
            also: statuses that are no refusal, beside 200 to 299.
            body: ``json=VALUE`` sends a value as JSON; ``content=BYTES`` sends JSON as it is.
        """
        send = Send(method=method, path=path, query=query or {}, **json_body(**body))
        return self._take_all(steps.ask_json(send, self._patience_s, also=also))

    # ---- input and output

    def _take_all(self, all_steps: Steps[Value]) -> Value:
        taken: Taken = None
        while True:
            try:
                step = all_steps.send(taken)
            except StopIteration as end:
                value: Value = end.value
                return value
            if isinstance(step, Send):
                taken = self._send(step)
            else:
                time.sleep(step.seconds)
                taken = None

    def _send(self, send: Send) -> HttpAnswer | NoAnswer:
        try:
            return http_answer(self._http.send(http_request(self._http, send)), time.monotonic())
        except httpx.RequestError as error:
            return no_answer(self._url, error)

    def _events(self, following: Following) -> Iterator[TaskEvent]:
        """The events of one connection."""
        try:
            answer = self._http.send(http_request(self._http, following.connect()), stream=True)
            try:
                if answer.status_code != 200:
                    answer.read()
                    following.answered(http_answer(answer, time.monotonic()))
                    return
                for event in EventSource(answer).iter_sse():
                    if (given := following.take(event)) is not None:
                        yield given
                    if following.is_over:
                        return
                following.ended()
            finally:
                answer.close()
        except httpx.RequestError as error:
            following.broke(no_answer(self._url, error))


def base_url(url: str) -> httpx.URL:
    """The URL of a service.

    Raises:
        ClientError: it is none.
    """
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ClientError(f"{url!r} is no URL: {error}") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise ClientError(f"{url!r} is no URL of a service: give one such as http://localhost:8001")
    return found


def key_header(key: str | None) -> dict[str, str]:
    """The header that names a key.

    Raises:
        ClientError: a header cannot have it.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key):
        raise ClientError("the API key has a character that no key has; it begins with uak_")
    return {} if key is None else {"authorization": f"Bearer {key}"}


def http_request(http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    """A step as httpx has it."""
    timeout = httpx.Timeout(send.timeout_s, connect=CONNECT_S)
    return http.build_request(
        send.method,
        send.path,
        params=dict(send.query) or None,
        headers=dict(send.headers),
        content=send.content,
        timeout=timeout,
    )


def http_answer(answer: httpx.Response, at_s: float) -> HttpAnswer:
    """An answer, which was read, as the steps take it."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return HttpAnswer(status=answer.status_code, headers=headers, content=answer.content, at_s=at_s)


def no_answer(url: str, error: httpx.RequestError) -> NoAnswer:
    """Why there was no answer."""
    reason = f"{url} does not answer: {str(error) or type(error).__name__}. Is the service up, and the URL right?"
    return NoAnswer(reason=reason, at_s=time.monotonic())


def json_body(**body: Any) -> dict[str, Any]:
    """The content of a request, and its type, from ``json`` or ``content``; nothing from neither."""
    if not body:
        return {}
    content = steps.encode(body["json"]) if "json" in body else body["content"]
    return {"content": content, "headers": {"content-type": "application/json"}}


def read_upload(content: bytes | Path, name: str | None, media_type: str | None) -> tuple[bytes, str | None, str]:
    """A file to upload: its bytes, name and media type, which its name tells unless it is given.

    Raises:
        OSError: it cannot be read.
    """
    held = content.read_bytes() if isinstance(content, Path) else content
    named = name or (content.name if isinstance(content, Path) else None)
    guessed = mimetypes.guess_type(named)[0] if named else None
    return held, named, media_type or guessed or "application/octet-stream"
