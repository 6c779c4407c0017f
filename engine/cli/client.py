"""The client of a running service, as the commands of this package use it: what goes wrong becomes a sentence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from engine.client import Client, ClientError, RequestRefusedError, TaskEvent
from engine.model.errors import EngineError

KEY_ENV = "ENGINE_KEY"


class ServiceError(EngineError):
    """A request that was not answered, or refused; the message is for people."""


class ServiceClient:
    """Asks a service once, without trying again: a person sees at once what is wrong."""

    def __init__(self, url: str, key: str | None) -> None:
        """
        Args:
            url: of the service.
            key: an API key; ``None`` where there are none.

        Raises:
            ServiceError: the URL or the key is none.
        """
        with _sentences():
            self.client = Client(url, key, patience_s=0)

    def close(self) -> None:
        """Close every connection."""
        self.client.close()

    def get(self, path: str, params: Any = None) -> Any:
        """The answer to a GET.

        Raises:
            ServiceError: none, or a refusal.
        """
        with _sentences():
            return self.client.ask("GET", path, query=params)

    def post(self, path: str, content: bytes, params: Any = None) -> Any:
        """The answer to a POST of JSON.

        Raises:
            ServiceError: none, or a refusal.
        """
        with _sentences():
            return self.client.ask("POST", path, query=params, content=content)

    def delete(self, path: str, params: Any = None) -> Any:
        """The answer to a DELETE.

        Raises:
            ServiceError: none, or a refusal.
        """
        with _sentences():
            return self.client.ask("DELETE", path, query=params)

    def health(self) -> Any:
        """The health of the service, also when it is ill.

        Raises:
            ServiceError: no answer, or a refusal.
        """
        with _sentences():
            return self.client.ask("GET", "/health", also=(503,))

    def follow(self, task_id: str) -> Iterator[TaskEvent]:
        """Iterate over a task's events to its end. It connects again where the stream breaks off.

        Raises:
            ServiceError: no answer, a refusal, or the service says that there will be no more.
        """
        with _sentences():
            yield from self.client.follow(task_id)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except RequestRefusedError as error:
        after = f" Try again in {error.retry_after_s:g} s." if error.retry_after_s else ""
        hints = {401: f" Set {KEY_ENV}.", 429: after}
        raise ServiceError(f"{error.detail}{hints.get(error.status, '')}") from error
    except ClientError as error:
        raise ServiceError(str(error)) from error
