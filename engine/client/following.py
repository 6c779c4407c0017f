"""Follows a task over as many connections as it takes, without doing the input and output itself."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from httpx_sse import ServerSentEvent

from .errors import RequestRefusedError
from .steps import LATER, HttpAnswer, NoAnswer, RetryTime, Send, decode, refusal
from .tasks import TaskEvent

SILENCE_S = 60.0
"""The service sends a sign of life well within it."""
RESUME_S = 60.0
"""For how long a stream that has begun is resumed, at least: the task goes on meanwhile."""


class Following:
    """Where the client is in the events of a task: what to ask next, and what an answer means."""

    def __init__(self, task_id: str, patience_s: float, last_event_id: str | None = None) -> None:
        """
        Args:
            task_id: of the task.
            patience_s: for how long the first connection is tried.
            last_event_id: of the last event that the caller has; events after it come.
        """
        self.is_over = False
        self._path = f"/task/{quote(task_id, safe='')}/events"
        self._last = last_event_id
        self._patience = RetryTime(total_s=patience_s)
        self._resume_s = max(patience_s, RESUME_S)
        self._pause_s = 0.0

    @property
    def pause_s(self) -> float:
        """Seconds before the next connection."""
        return self._pause_s

    def connect(self) -> Send:
        """The request for the events that are missing."""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last} if self._last else {})
        return Send(method="GET", path=self._path, headers=headers, timeout_s=SILENCE_S)

    def answered(self, answer: HttpAnswer) -> None:
        """Take an answer that is no stream: the end (204), or a refusal.

        Raises:
            RequestRefusedError: to come again does not help, or did not.
        """
        if answer.status == 204:
            self.is_over = True
        elif answer.status not in LATER:
            raise refusal(answer)
        else:
            self._wait_after(answer)

    def broke(self, none: NoAnswer) -> None:
        """Take a connection that was not made, or that ended before the task did.

        Raises:
            ServiceUnreachableError: the patience is over.
        """
        self._wait_after(none)

    def ended(self) -> None:
        """Take the end of a stream that did not say that it is one: whatever lies between cut it off.

        Raises:
            ServiceUnreachableError: the patience is over.
        """
        if not self.is_over and not self._pause_s:
            self._wait_after(NoAnswer(reason="the stream of events ended before the task", at_s=time.monotonic()))

    def take(self, event: ServerSentEvent) -> TaskEvent | None:
        """The event for the caller; ``None`` for one that is for the client only.

        Raises:
            RequestRefusedError: the service says that there will be no more.
            ServiceUnreachableError: the event is none of this service.
        """
        self._patience, self._pause_s = RetryTime(total_s=self._resume_s), 0.0
        self._last = event.id or self._last
        data: Any = decode(event.data.encode())
        if event.event == "error":
            if event.retry is None:
                raise RequestRefusedError(int(data.get("status", 500)), str(data.get("detail", "")), problem=data)
            self._pause_s = event.retry / 1000
            return None
        self.is_over = event.event == "result"
        return TaskEvent(name=event.event, data=data, event_id=event.id or None)

    def _wait_after(self, taken: HttpAnswer | NoAnswer) -> None:
        wait_s = self._patience.pause(taken)
        if wait_s is None:
            raise refusal(taken)
        self._pause_s = wait_s
