"""A client of the service, for Python programs: ``Client``, and ``AsyncClient`` for asyncio.

It needs httpx and httpx-sse, and nothing else of this project: a copy of this folder, under any name, works by itself.
"""

from .asynchronous import AsyncClient
from .callbacks import CallbackMessage, read_callback
from .errors import (
    CallbackError,
    ClientError,
    RequestRefusedError,
    ServiceUnreachableError,
    TaskFailedError,
    TaskNotEndedError,
)
from .requests import TaskRequest, script_request
from .synchronous import Client
from .tasks import ListedTaskInfo, TaskEvent, TaskInfo, UploadedFile

__all__ = [
    "AsyncClient",
    "CallbackError",
    "CallbackMessage",
    "Client",
    "ClientError",
    "ListedTaskInfo",
    "RequestRefusedError",
    "ServiceUnreachableError",
    "TaskEvent",
    "TaskFailedError",
    "TaskInfo",
    "TaskNotEndedError",
    "TaskRequest",
    "UploadedFile",
    "read_callback",
    "script_request",
]
