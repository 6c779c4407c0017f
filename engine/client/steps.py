"""What the client does, without doing it: each call is a generator of steps, which a ``Client`` takes in its own way.

A step is a ``Send``, which an ``HttpAnswer`` or a ``NoAnswer`` answers, or a ``Pause``. So the rules (what is tried
again, for how long, under which key) stand once for both kinds of client, and need no network to be read or tested.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from .errors import RequestRefusedError, ServiceUnreachableError, TaskFailedError, TaskNotEndedError
from .requests import TaskRequest
from .tasks import ListedTaskInfo, TaskInfo, UploadedFile, read_file, read_listed, read_task

ONE_WAIT_S = 30.0
"""How long one request waits for the end of a task: proxies between cut off what is silent for a minute."""
PAGE_SIZE = 500
LATER = (429, 503)
"""Statuses that ask to come again: nothing was done."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
_ANSWERED_S = 30.0
_FOREIGN = "what answers is not this service; is the URL right?"

Json = Any
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Send:
    """A request to make."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    timeout_s: float = _ANSWERED_S


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A time to wait."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """The answer to a ``Send``."""

    status: int
    headers: Mapping[str, str]
    """With names in small letters."""
    content: bytes
    at_s: float
    """When it came, by a clock that only goes forward."""


@dataclass(frozen=True, kw_only=True)
class NoAnswer:
    """A ``Send`` that was not answered."""

    reason: str
    at_s: float


Step = Send | Pause
Taken = HttpAnswer | NoAnswer | None
Steps = Generator[Step, Taken, Value]
Page = tuple[list[ListedTaskInfo], str | None]
"""Tasks, and the cursor of the page after them."""


@dataclass(kw_only=True)
class RetryTime:
    """For how long the client tries again: counted from the first time without an answer, or with one of ``LATER``."""

    total_s: float
    _since_s: float | None = None
    _tries: int = 0

    def pause(self, taken: HttpAnswer | NoAnswer) -> float | None:
        """How many seconds to wait before the next try; ``None`` when the patience is over."""
        self._since_s = taken.at_s if self._since_s is None else self._since_s
        asked = retry_after_s(taken) if isinstance(taken, HttpAnswer) else None
        wait_s = min(FIRST_PAUSE_S * 2**self._tries, LONGEST_PAUSE_S) if asked is None else asked
        self._tries += 1
        return wait_s if taken.at_s + wait_s - self._since_s <= self.total_s else None


def ask(send: Send, patience_s: float, *, also: Sequence[int] = ()) -> Steps[HttpAnswer]:
    """The answer to a request; it is tried again while that may help.

    Raises:
        RequestRefusedError: the answer is a refusal.
        ServiceUnreachableError: there is none.
    """
    patience = RetryTime(total_s=patience_s)
    while True:
        taken = yield send
        assert taken is not None  # noqa: S101  of a Send
        if isinstance(taken, HttpAnswer) and (200 <= taken.status < 300 or taken.status in also):
            return taken
        may_help = isinstance(taken, NoAnswer) or taken.status in LATER
        if not may_help or (wait_s := patience.pause(taken)) is None:
            raise refusal(taken)
        yield Pause(seconds=wait_s)


def ask_json(send: Send, patience_s: float, *, also: Sequence[int] = ()) -> Steps[Json]:
    """The JSON that a request is answered with; ``None`` where the answer has no content (204).

    Raises:
        RequestRefusedError: the answer is a refusal.
        ServiceUnreachableError: there is none, or it is no JSON.
    """
    answer = yield from ask(send, patience_s, also=also)
    return None if answer.status == 204 else decode(answer.content)


# ---- tasks -----------------------------------------------------------------------------------------------------------


def submit(request: TaskRequest, patience_s: float, *, wait_s: float = 0) -> Steps[TaskInfo]:
    """Submit a task under an idempotency key, so that trying again makes no second one.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    key = request.idempotency_key or str(uuid.uuid4())
    headers = {"content-type": "application/json", "idempotency-key": key}
    send = Send(
        method="POST",
        path="/execute",
        query=_wait(wait_s),
        headers=headers,
        content=encode(request.body()),
        timeout_s=_ANSWERED_S + wait_s,
    )
    return _task((yield from ask_json(send, patience_s)))


def wait(task: TaskInfo | str, patience_s: float, longest_s: float | None) -> Steps[TaskInfo]:
    """The task as it ended.

    Args:
        task: or its id.
        patience_s: as ``RetryTime``, anew after each answer.
        longest_s: how long to wait; ``None`` for as long as it takes.

    Raises:
        TaskNotEndedError: the time is over.
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    found = task if isinstance(task, TaskInfo) else None
    task_id = task.task_id if isinstance(task, TaskInfo) else task
    left_s = longest_s
    while found is None or not found.is_final:
        if found is not None and left_s is not None and left_s <= 0:
            raise TaskNotEndedError(found)
        once_s = ONE_WAIT_S if left_s is None else max(0.0, min(ONE_WAIT_S, left_s))
        found = yield from get(task_id, patience_s, wait_s=once_s)
        left_s = None if left_s is None else left_s - once_s
    return found


def run(request: TaskRequest, patience_s: float, longest_s: float | None) -> Steps[Any]:
    """Submit a task and wait for its end; its result.

    Raises:
        TaskFailedError: it ended without one.
        TaskNotEndedError, RequestRefusedError, ServiceUnreachableError: as ``wait``.
    """
    once_s = ONE_WAIT_S if longest_s is None else min(ONE_WAIT_S, longest_s)
    task = yield from submit(request, patience_s, wait_s=once_s)
    left_s = None if longest_s is None else longest_s - once_s
    return result_of((yield from wait(task, patience_s, left_s)))


def result_of(task: TaskInfo) -> Any:
    """The result of a task that has ended.

    Raises:
        TaskFailedError: it ended without one.
    """
    if task.status != "succeeded":
        raise TaskFailedError(task)
    return task.result


def submit_batch(requests: Sequence[TaskRequest], patience_s: float) -> Steps[list[TaskInfo | RequestRefusedError]]:
    """Submit up to 1,000 tasks at once; for each, in their order, the task or why it was refused.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``; of the batch as a whole.
    """
    items = [one.body() | {"idempotency_key": one.idempotency_key or str(uuid.uuid4())} for one in requests]
    send = Send(
        method="POST",
        path="/execute/batch",
        headers={"content-type": "application/json"},
        content=encode(items),
        timeout_s=2 * _ANSWERED_S,
    )
    answer = yield from ask_json(send, patience_s)
    with _as_ours():
        return [_batch_item(item) for item in answer["tasks"]]


def get(task_id: str, patience_s: float, *, wait_s: float = 0) -> Steps[TaskInfo]:
    """A task as it stands, or as it ends within ``wait_s``.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    send = Send(method="GET", path=_of_task(task_id), query=_wait(wait_s), timeout_s=_ANSWERED_S + wait_s)
    return _task((yield from ask_json(send, patience_s)))


def cancel(task_id: str, patience_s: float, *, wait_s: float) -> Steps[TaskInfo]:
    """Cancel a task and wait for its end up to ``wait_s``; one that has ended stays as it is.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    send = Send(method="DELETE", path=_of_task(task_id), query=_wait(wait_s), timeout_s=_ANSWERED_S + wait_s)
    return _task((yield from ask_json(send, patience_s)))


def page(query: Mapping[str, Any], cursor: str | None, patience_s: float) -> Steps[Page]:
    """A page of the list of tasks, and where the next one begins.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    send = Send(method="GET", path="/tasks", query={**query, **({"cursor": cursor} if cursor else {})})
    answer = yield from ask_json(send, patience_s)
    with _as_ours():
        return [read_listed(one) for one in answer["tasks"]], answer["next_cursor"]


# ---- files -----------------------------------------------------------------------------------------------------------


def upload(content: bytes, name: str | None, media_type: str, patience_s: float) -> Steps[UploadedFile]:
    """Upload a file. When an answer is lost and the client tries again, the service has it twice until it expires.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    query = {} if name is None else {"name": name}
    headers = {"content-type": media_type}
    send = Send(method="POST", path="/files", query=query, headers=headers, content=content, timeout_s=4 * _ANSWERED_S)
    return _file((yield from ask_json(send, patience_s)))


def files(patience_s: float) -> Steps[list[UploadedFile]]:
    """The tenant's uploaded files, the newest first.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    answer = yield from ask_json(Send(method="GET", path="/files"), patience_s)
    with _as_ours():
        return [read_file(one) for one in answer["files"]]


def delete_file(file_id: str, patience_s: float) -> Steps[None]:
    """Delete an uploaded file; one that is not there is deleted already.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    send = Send(method="DELETE", path=f"/files/{quote(file_id, safe='')}")
    yield from ask(send, patience_s, also=(404,))


def artifact(task_id: str, name: str, patience_s: float) -> Steps[bytes]:
    """The bytes of a file that a task wrote to ``artifacts/``.

    Raises:
        RequestRefusedError, ServiceUnreachableError: as ``ask``.
    """
    send = Send(method="GET", path=f"{_of_task(task_id)}/artifacts/{quote(name)}", timeout_s=4 * _ANSWERED_S)
    answer = yield from ask(send, patience_s)
    return answer.content


# ---- answers ---------------------------------------------------------------------------------------------------------


def refusal(taken: HttpAnswer | NoAnswer) -> RequestRefusedError | ServiceUnreachableError:
    """The exception for an answer that is none of those that were wanted."""
    if isinstance(taken, NoAnswer):
        return ServiceUnreachableError(taken.reason)
    problem: Any = None
    try:
        problem = json.loads(taken.content)
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        problem, detail = None, _FOREIGN
    return RequestRefusedError(
        taken.status,
        detail,
        problem=problem,
        retry_after_s=retry_after_s(taken),
        request_id=taken.headers.get("x-request-id"),
    )


def retry_after_s(answer: HttpAnswer) -> float | None:
    """The seconds after which the service asks to come again; ``None`` where it does not say."""
    given = answer.headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdecimal() else None


def encode(value: Any) -> bytes:
    """JSON. What JSON has no word for is refused and never written as something else.

    Raises:
        ValueError, TypeError: the value has such a thing.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain).encode()


def decode(content: bytes) -> Any:
    """The value of a JSON answer.

    Raises:
        ServiceUnreachableError: it is none.
    """
    with _as_ours():
        return json.loads(content)


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    """Turn an answer that the service would not give into one sentence."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise ServiceUnreachableError(_FOREIGN) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON has no {type(value).__name__}; send numbers, texts, lists, objects, true, false or null")


def _task(answer: Json) -> TaskInfo:
    with _as_ours():
        return read_task(answer)


def _file(answer: Json) -> UploadedFile:
    with _as_ours():
        return read_file(answer)


def _batch_item(item: Mapping[str, Any]) -> TaskInfo | RequestRefusedError:
    if "task" in item:
        return read_task(item["task"])
    return RequestRefusedError(item["status"], item["problem"]["detail"], problem=item["problem"])


def _of_task(task_id: str) -> str:
    return f"/task/{quote(task_id, safe='')}"


def _wait(wait_s: float) -> dict[str, Any]:
    return {"wait": f"{wait_s:g}"} if wait_s > 0 else {}
