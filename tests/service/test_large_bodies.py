"""Large bodies that come at once: the memory that they take, and the folder in which files arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.api.body.check import HEAD
from engine.config.machine import CHECK_COPIES, CHECK_REST_MIB, MOST_CHECK_MIB, check_memory_mib
from tests.growth.memory import AT_ONCE, beyond, send_at_once
from tests.support.stack import ROOT, Stack, answers, free_port, until

BODY_MIB = 8
LONG_MIB = 32
"""So long that what a checking process has at rest makes no difference."""
CHECK_MIB = 160
"""Too little for 8 MiB of small objects, and ample for a text."""


@pytest.mark.slow("stores 200 MiB")
def test_eight_large_bodies_at_once_keep_to_the_stated_memory(tmp_path: Path) -> None:
    """By the kernel's own marks: of the API, and of the process that checks bodies; `make growth-test` sends 64 MiB."""
    stack = Stack(tmp_path, MAX_BODY_MIB=str(BODY_MIB), CHECK_MEMORY_MIB=str(CHECK_MIB))
    try:
        peaks = send_at_once(stack, BODY_MIB)
    finally:
        stack.close()
    assert [] == beyond(peaks, BODY_MIB, CHECK_MIB)
    assert [{202: AT_ONCE}, {400: AT_ONCE}, {200: AT_ONCE}, {201: AT_ONCE}] == [peak.answers for peak in peaks]


def test_body_whose_check_takes_too_much_memory_is_told_so(tmp_path: Path) -> None:
    """By the least memory that may be set; the next body is checked."""
    stack = Stack(tmp_path, CHECK_MEMORY_MIB="64")
    objects = b'{"task_type":"custom_script","parameters":{"script":"1","args":[' + b"{}," * (1 << 20) + b"1]}}"
    try:
        headers = {"content-type": "application/json"}
        refused = stack.client.post("/execute", content=objects, headers=headers)
        assert (400, True) == (refused.status_code, "too much memory to be checked" in refused.text)
        assert "task_id" in stack.submit(f"result = 1 # {'x' * (1 << 19)}")
    finally:
        stack.close()


@pytest.mark.parametrize("character", ["x", "\u20ac", "\U0001f600"])
def test_a_long_text_fits_whatever_the_machine_has(character: str) -> None:
    """With the least memory that a check is given, whatever characters the text has; and no more than is asked for."""
    text = f'{{"task_type":"custom_script","parameters":{{"script":"1","args":"{character}{"x" * (LONG_MIB << 20)}"}}}}'
    least_mib = CHECK_REST_MIB + CHECK_COPIES * LONG_MIB
    command = [sys.executable, "-m", "engine.api.body.check", "60", str(least_mib)]
    body = text.encode()
    checked = subprocess.run(command, input=HEAD.pack(False, False, len(body)) + body, capture_output=True, check=True)
    assert b'"faults":[]' in checked.stdout
    assert check_memory_mib(None, 1024) >= CHECK_REST_MIB + CHECK_COPIES * 1024
    assert 160 == check_memory_mib(160, 64)
    assert check_memory_mib(None, 1) <= MOST_CHECK_MIB


@pytest.fixture
def cramped(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """The URL of an API whose folder for files that arrive has room for 4 MiB, in a mount namespace of its own."""
    folder, port = tmp_path / "small", free_port()
    folder.mkdir()
    script = 'mount -t tmpfs -o size=4m small "$0" && exec "$@"'
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*unshare, "sh", "-c", script, str(folder), sys.executable, "-m", "engine", "api"]
    environ = os.environ | stack.environ | {"PORT": str(port), "TMPDIR": str(folder)}
    with (tmp_path / "cramped.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            until(lambda: answers(client, "/health/live"), f"the API is up; see {log.name}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.parametrize("is_form", [False, True])
def test_a_file_for_which_there_is_no_room_on_arrival_is_503(cramped: str, is_form: bool) -> None:
    """With Retry-After, because others may have it just now; one that fits is kept before and after."""

    def upload(size: int) -> httpx.Response:
        content = b"x" * size
        if is_form:
            return httpx.post(f"{cramped}/files", files={"file": content}, timeout=60)
        return httpx.post(f"{cramped}/files", content=content, timeout=60)

    until(lambda: upload(2 << 20).status_code == 201, "the API reaches PostgreSQL")
    refused = upload(6 << 20)
    assert (503, "10") == (refused.status_code, refused.headers.get("retry-after")), refused.text
    assert "is full" in refused.json()["detail"]
    until(lambda: upload(2 << 20).status_code == 201, "there is room again")
