"""What the kernel counts of a process, and what large bodies that come at once take of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import httpx
import psutil

from engine.config.machine import api_memory_mib
from tests.support.stack import Stack

AT_ONCE = 8
MIB = 1 << 20
KIB_OF_A_MIB = 1024


def status_kib(pid: int, field: str) -> int:
    """A size of proc_pid_status(5), KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (found,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1])


def below(pid: int, module: str) -> list[int]:
    """Process ids of the children of a process that are ``python -m MODULE``."""
    return [child.pid for child in psutil.Process(pid).children() if module in child.cmdline()]


def _task(size: int, args: bytes) -> bytes:
    """A task whose body is as long as that, because its script ends with spaces."""
    begun, ended = b'{"task_type":"custom_script","parameters":{"args":' + args + b',"script":"result = 1', b'"}}'
    return begun + b" " * max(0, size - len(begun) - len(ended)) + ended


def _text(size: int) -> bytes:
    return _task(size, b'"' + b"x" * (size - 100) + b'"')


def _objects(size: int) -> bytes:
    return _task(size, b"[" + b",".join([b'{"a":1}'] * ((size - 100) // 8)) + b"]")


def _batch(size: int) -> bytes:
    return b"[" + b",".join([_text(size // 8 - 2)] * 8) + b"]"


KINDS: MappingProxyType[str, tuple[str, Callable[[int], bytes]]] = MappingProxyType(
    {
        "tasks with one long text": ("/execute", _text),
        "tasks with small objects": ("/execute", _objects),
        "batches of eight tasks": ("/execute/batch", _batch),
        "files": ("/files", lambda size: b"x" * size),
    }
)
"""Kind of a body → the call that takes it, and the body of a given length."""


class Peak(NamedTuple):
    """The kernel's marks after bodies of one kind: the most that a process ever had (``VmHWM``), MiB."""

    kind: str
    answers: dict[int, int]
    """Status → how many bodies were answered with it."""
    api_mib: float
    check_mib: float
    """Of the process that checks bodies, the largest; 0 when there is none."""


def send_at_once(stack: Stack, body_mib: int, at_once: int = AT_ONCE) -> list[Peak]:
    """Send bodies of each kind, all at the same time, kind after kind.

    Args:
        stack: an API that has read no large body yet.
        body_mib: length of each.
        at_once: how many of a kind.
    """
    return [_send_kind(stack, kind, body_mib * MIB, at_once) for kind in KINDS]


def _send_kind(stack: Stack, kind: str, size: int, at_once: int) -> Peak:
    path, make = KINDS[kind]
    body, media_type = make(size), "application/octet-stream" if path == "/files" else "application/json"

    def send(_: int) -> int:
        url = f"http://127.0.0.1:{stack.port}{path}"
        return httpx.post(url, content=body, headers={"content-type": media_type}, timeout=600).status_code

    with ThreadPoolExecutor(at_once) as threads:
        answers = Counter(threads.map(send, range(at_once)))
    checkers = [status_kib(pid, "VmHWM") for pid in below(stack.api.pid, "engine.api.body.check")]
    api_mib = status_kib(stack.api.pid, "VmHWM") / KIB_OF_A_MIB
    return Peak(kind, dict(answers), api_mib, max(checkers, default=0) / KIB_OF_A_MIB)


def beyond(peaks: list[Peak], body_mib: int, check_mib: int) -> list[str]:
    """What the API or its checkers took beyond what the documentation states, in sentences."""
    most_mib = api_memory_mib(body_mib)
    found = []
    for peak in peaks:
        if peak.api_mib > most_mib:
            found.append(f"{peak.kind}: the API took {peak.api_mib:.0f} of {most_mib} MiB")
        if peak.check_mib > check_mib:
            found.append(f"{peak.kind}: a checking process took {peak.check_mib:.0f} of {check_mib} MiB")
    return found
