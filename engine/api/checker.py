"""Checks bodies without stopping the event loop: small ones at once, big ones in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import cast

import msgspec

from engine.api.checks import LENGTH, Checked, Fault, InvalidRequestError, check
from engine.settings import PROJECT_DIR

INLINE_BYTES = 128 * 1024
"""About two milliseconds of work."""
READ_BYTES = 1 << 20


class CheckError(Exception):
    """The checking process ended before it answered: our own fault, or no memory left."""


class Checker:
    """Owns the checking process; it is started for the first big body and kept."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def check(self, body: bytes) -> Checked:
        """Check a body.

        Raises:
            InvalidRequestError: what is wrong with it, and where.
            CheckError: it could not be checked.
        """
        if len(body) <= INLINE_BYTES:
            return check(body)
        async with self._turn:
            try:
                answer = await self._ask(body)
            except BaseException:
                await self._end()  # it may be in the middle of an answer to nobody
                raise
        if isinstance(answer, Fault):
            raise InvalidRequestError(answer)
        return answer

    async def close(self) -> None:
        """End the checking process."""
        async with self._turn:
            await self._end()

    async def _ask(self, body: bytes) -> Checked | Fault:
        process = await self._started()
        requests, answers = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
        try:
            requests.write(LENGTH.pack(len(body)))
            requests.write(body)
            await requests.drain()
            head = await answers.readexactly(LENGTH.size)
            text = await answers.readexactly(LENGTH.unpack(head)[0])
        except (OSError, asyncio.IncompleteReadError) as error:
            raise CheckError("the process that checks big bodies ended") from error
        if "message" in msgspec.json.decode(text, type=dict[str, msgspec.Raw]):
            return msgspec.json.decode(text, type=Fault)
        return msgspec.json.decode(text, type=Checked)

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "engine.api.checks",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=READ_BYTES, cwd=PROJECT_DIR,
                env={"PATH": os.defpath}, start_new_session=True,
            )  # fmt: skip
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
