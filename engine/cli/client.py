"""A client of a running service, for the commands of this package."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from engine.model.errors import EngineError

KEY_ENV, URL_ENV = "ENGINE_KEY", "ENGINE_URL"
DEFAULT_URL = "http://127.0.0.1:8001"
TIMEOUT_S = 30.0
SILENCE_S = 60.0
"""Of a followed task: the service sends a sign of life well within it."""


class ClientError(EngineError):
    """A request that was not answered, or refused; the message is for people."""


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: Any
    event_id: str | None


class Client:
    """Asks a service, and turns what goes wrong into sentences."""

    def __init__(self, url: str, key: str | None) -> None:
        """
        Args:
            url: of the service.
            key: an API key; ``None`` where there are none.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def get(self, path: str, params: Any = None) -> Any:
        """The answer to a GET.

        Raises:
            ClientError: none, or a refusal.
        """
        return self._ask("GET", path, params=params)

    def post(self, path: str, content: bytes, params: Any = None) -> Any:
        """The answer to a POST of JSON.

        Raises:
            ClientError: none, or a refusal.
        """
        headers = {"content-type": "application/json"}
        return self._ask("POST", path, content=content, params=params, headers=headers)

    def delete(self, path: str, params: Any = None) -> Any:
        """The answer to a DELETE.

        Raises:
            ClientError: none, or a refusal.
        """
        return self._ask("DELETE", path, params=params)

    def health(self) -> Any:
        """The health of the service, also when it is ill.

        Raises:
            ClientError: no answer, or a refusal.
        """
        return self._ask("GET", "/health", also=(503,))

    def follow(self, task_id: str) -> Iterator[Event]:
        """Iterate over a task's events to its end. It connects again where the stream breaks off.

        Raises:
            ClientError: no answer, a refusal, or the service says that there will be no more.
        """
        last: str | None = None
        while True:
            for event in self._stream(task_id, last):
                last = event.event_id or last
                if event.name == "error" and not event.data.get("retry"):
                    raise ClientError(str(event.data.get("detail", "the service broke the stream off")))
                if event.name != "error":
                    yield event
                if event.name == "result":
                    return

    def _stream(self, task_id: str, last: str | None) -> Iterator[Event]:
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        with (
            self._sentences(),
            self._http.stream("GET", f"/task/{task_id}/events", headers=headers, timeout=timeout) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            yield from _events(answer.iter_lines())

    def _ask(self, method: str, path: str, *, also: tuple[int, ...] = (), **more: Any) -> Any:
        with self._sentences():
            answer = self._http.request(method, path, **more)
        if not answer.is_success and answer.status_code not in also:
            raise _refusal(answer)
        return answer.json()

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise ClientError(f"{self._url} does not answer: {error}. Is the service up, and --url right?") from error
        except json.JSONDecodeError:
            raise ClientError(f"{self._url} does not answer as this service would. Is --url right?") from None


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Events of a stream, as the HTML standard reads them (section 9.2.6), as far as this service writes them."""
    name, data, event_id = "message", [], None
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value
        elif not line and data:
            yield Event(name, json.loads("\n".join(data)), event_id)
            name, data, event_id = "message", [], None


def _refusal(answer: httpx.Response) -> ClientError:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.reason_phrase
    after = answer.headers.get("retry-after")
    hints = {401: f" Set {KEY_ENV}.", 429: f" Try again in {after} s." if after else ""}
    return ClientError(f"{detail}{hints.get(answer.status_code, '')}")
