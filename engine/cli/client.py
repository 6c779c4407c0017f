"""The client of a running service, as the commands of this package use it: what goes wrong becomes a sentence."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.client import Client, ClientError, RequestRefusedError, TaskEvent, UploadedFile
from engine.model.errors import EngineError

KEY_ENV = "ENGINE_KEY"
WHOLE_ID = 36
"""Characters of a task's id."""
WHOLE_FILE_ID = 37
"""Of a file's id."""
FEWEST = 4
"""Characters of an id's beginning."""
_BEGINNING = re.compile("[0-9a-fA-F]{4}[0-9a-fA-F-]*")


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

    def whole_id(self, task_id: str) -> str:
        """The id of the one task whose id begins so; what is no beginning of an id is left as it is.

        Raises:
            ServiceError: no task's id does, or those of several do.
        """
        if len(task_id) == WHOLE_ID or not _BEGINNING.fullmatch(task_id):
            if len(task_id) < FEWEST:
                raise ServiceError(f"{task_id} is too little of a task's id: give {FEWEST} characters or more")
            return task_id
        found = self.get("/tasks", {"task_id": task_id, "limit": 3})["tasks"]
        if len(found) != 1:
            ids = ", ".join(one["task_id"] for one in found[:2])
            why = f"several do, such as {ids}: give more of it" if found else "`tasks list` shows those that there are"
            raise ServiceError(f"there is no one task whose id begins with {task_id}; {why}")
        return str(found[0]["task_id"])

    def whole_file_id(self, file_id: str) -> str:
        """The id of the one uploaded file whose id begins so, with or without ``file_``.

        Raises:
            ServiceError: none does, or several do.
        """
        if len(file_id) == WHOLE_FILE_ID:
            return file_id
        beginning = f"file_{file_id.removeprefix('file_')}"
        found = [one["file_id"] for one in self.get("/files")["files"] if one["file_id"].startswith(beginning)]
        if len(found) != 1:
            why = "several do: give more of it" if found else "`files list` shows those that there are"
            raise ServiceError(f"there is no one file whose id begins with {file_id}; {why}")
        return str(found[0])

    def save_artifacts(self, task_id: str, folder: Path) -> list[Path]:
        """Write a task's artifacts to a folder.

        Raises:
            ServiceError: no answer, a refusal, or a name that leads out of the folder.
            OSError: a file cannot be written.
        """
        with _sentences():
            return self.client.save_artifacts(self.client.get(task_id), folder)

    def upload(self, path: Path) -> UploadedFile:
        """Upload a file.

        Raises:
            ServiceError: no answer, or a refusal.
            OSError: it cannot be read.
        """
        with _sentences():
            return self.client.upload(path)

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file.

        Raises:
            ServiceError: no answer, or a refusal, also where there is no such file.
        """
        with _sentences():
            self.client.ask("DELETE", f"/files/{quote(file_id, safe='')}")

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
        hints = {401: _about_key(), 429: after}
        raise ServiceError(f"{_detail(error)}{hints.get(error.status, '')}") from error
    except ClientError as error:
        hint = "; a service without TLS has a URL with http://" if "WRONG_VERSION_NUMBER" in str(error) else ""
        raise ServiceError(f"{error}{hint}") from error


def _about_key() -> str:
    return f" What {KEY_ENV} holds is no key of this service." if os.environ.get(KEY_ENV) else f" Set {KEY_ENV}."


def _detail(error: RequestRefusedError) -> str:
    """What was refused; of a parameter, which a command has as an option, its name first."""
    options = [one for one in error.errors if not one["path"].startswith("$") and one["message"] == error.detail]
    return f"{options[0]['path']}: {error.detail}" if options else error.detail
